//! An embedding as it is published: int8, with a scale for each block of 64 values.
//!
//! A real CLIP's embedding has one component many times as large as all others, so that one scale for the whole vector
//! spends most of the 255 steps on it: on real RemoteCLIP vectors the mean cosine after int8 is 0.9993 (RN50) and 0.9995
//! (ViT-B-32) with one scale, 0.9999 with one for each block of 64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Values that share a scale.
const BLOCK: usize = 64;
/// Largest quantised value; -128 is not used.
const LARGEST: f32 = 127.0;

/// The embedding of one classified frame, schema `remoteclip.embedding/1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmbeddingPayload {
    /// Names form and version of the payload.
    pub schema: String,
    /// The `id` of the frame's result.
    pub result_id: String,
    /// When the frame was taken, RFC 3339.
    pub captured_at: Timestamp,
    /// What the camera calls the frame.
    pub frame: String,
    /// First digits of the bundle's id: embeddings of two models can't be compared.
    pub model: String,
    /// The vector.
    #[serde(flatten)]
    pub vector: Int8Vector,
}

/// A vector in int8 with a scale for each block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Int8Vector {
    /// How many values share a scale.
    pub block: usize,
    /// A scale a block: value `i` is `values[i] * scales[i / block]`.
    pub scales: Vec<f32>,
    /// The values as int8, base64 (RFC 4648, with padding).
    pub values: String,
}

impl Int8Vector {
    /// Quantises a finite vector.
    pub fn of(vector: &[f32]) -> Self {
        let largest = |block: &[f32]| block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        // A block of zeros takes any scale.
        let scale = |block: &[f32]| if largest(block) > 0.0 { largest(block) / LARGEST } else { 1.0 };
        let scales: Vec<f32> = vector.chunks(BLOCK).map(scale).collect();
        let quantised = vector.chunks(BLOCK).zip(&scales).flat_map(|(block, scale)| {
            block.iter().map(move |value| ((value / scale).round().clamp(-LARGEST, LARGEST) as i8).cast_unsigned())
        });
        Self { block: BLOCK, values: STANDARD.encode(quantised.collect::<Vec<u8>>()), scales }
    }

    /// The vector again, not normalised; none when the fields do not belong together.
    pub fn values(&self) -> Option<Vec<f32>> {
        let values = STANDARD.decode(&self.values).ok()?;
        if self.block == 0 || values.len().div_ceil(self.block) != self.scales.len() {
            return None;
        }
        let scaled = values
            .chunks(self.block)
            .zip(&self.scales)
            .flat_map(|(block, scale)| block.iter().map(move |value| f32::from(value.cast_signed()) * scale));
        Some(scaled.collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_large_component_does_not_spoil_the_others() {
        let mut vector: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 - 50.0) / 2000.0).collect();
        vector[133] = 0.77;
        let read = Int8Vector::of(&vector).values().unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&vector, &read) / (dot(&vector, &vector) * dot(&read, &read)).sqrt();
        assert!(cosine > 0.9998, "{cosine}");
    }

    #[test]
    fn fields_that_do_not_belong_together_are_no_vector() {
        let good = Int8Vector::of(&[0.5; 100]);
        assert_eq!((good.scales.len(), good.values().unwrap().len()), (2, 100));
        assert_eq!(Int8Vector { block: 0, ..good.clone() }.values(), None);
        assert_eq!(Int8Vector { scales: vec![1.0], ..good.clone() }.values(), None);
        assert_eq!(Int8Vector { values: "?".to_owned(), ..good }.values(), None);
    }

    proptest! {
        #[test]
        fn no_value_is_off_by_more_than_half_a_step(vector in proptest::collection::vec(-2.0f32..2.0, 1..300)) {
            let quantised = Int8Vector::of(&vector);
            let read = quantised.values().unwrap();
            prop_assert_eq!(read.len(), vector.len());
            for (i, (value, read)) in vector.iter().zip(&read).enumerate() {
                prop_assert!((value - read).abs() <= quantised.scales[i / quantised.block] * 0.501);
            }
        }
    }
}

//! Frame → embedding: decode, resize, crop, encode, normalise.
//!
//! Promise: an embedding that comes out is finite and of unit length; a picture that cannot become one is a
//! [`VisionError`] that names the cause, within bounds on bytes, pixels and memory that hold before anything is decoded.

mod decode;
mod encoder;
pub mod golden;
pub mod int8;
mod preprocess;

use std::time::{Duration, Instant};

use crate::bundle::{Bundle, BundleError, IMAGE_ONNX};
use crate::camera::Picture;

pub use decode::{DecodeError, Decoded, Limits, decode, decode_for, pixels};
pub use encoder::{Encoder, EncoderError, EncoderOptions, InputSpec};
pub use preprocess::{PreprocessError, Preprocessor};

/// The image side of a bundle, ready for frames.
pub struct Vision {
    limits: Limits,
    preprocessor: Preprocessor,
    encoder: Encoder,
}

/// An embedded frame.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The unit vector, of the bundle's `embed_dim`.
    pub vector: Vec<f32>,
    /// How long each stage took.
    pub timings: Timings,
}

/// Time spent on one frame, by stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Bytes to upright pixels; next to nothing for a frame that came as such.
    pub decode: Duration,
    /// Pixels to the model's square.
    pub resize: Duration,
    /// The square to the unit vector.
    pub encode: Duration,
}

impl Vision {
    /// Loads the verified image tower of a bundle.
    ///
    /// # Errors
    /// [`VisionError`] naming the file.
    pub fn load(bundle: &Bundle, limits: Limits, options: &EncoderOptions) -> Result<Self, VisionError> {
        let image = &bundle.manifest().image;
        let path = bundle.verified(IMAGE_ONNX)?;
        let input = InputSpec { size: image.size as usize, mean: image.mean, std: image.std };
        let encoder = Encoder::load(&path, &input, options)?;
        if encoder.embed_dim() != bundle.manifest().model.embed_dim {
            return Err(VisionError::Width { found: encoder.embed_dim(), stated: bundle.manifest().model.embed_dim });
        }
        Ok(Self { limits, preprocessor: Preprocessor::new(image.size, image.resize), encoder })
    }

    /// Embeds one picture; for a tower loaded with a batch of one.
    ///
    /// # Errors
    /// [`VisionError::Decode`] for a picture that is broken or beyond the limits; the rest means a damaged model.
    pub fn embed(&mut self, picture: &Picture) -> Result<Embedded, VisionError> {
        let (vectors, timings) = self.embed_batch(std::slice::from_ref(picture))?;
        Ok(Embedded { vector: vectors.into_iter().next().ok_or(VisionError::NotFinite)?, timings })
    }

    /// Embeds as many pictures as [`EncoderOptions::batch`] says in one pass of the tower; the timings are the batch's.
    ///
    /// # Errors
    /// As [`Vision::embed`]; one broken picture fails its batch.
    pub fn embed_batch(&mut self, pictures: &[Picture]) -> Result<(Vec<Vec<f32>>, Timings), VisionError> {
        let mut timings = Timings::default();
        let mut squares = Vec::new();
        for picture in pictures {
            let started = Instant::now();
            let decoded = pixels(picture, &self.limits, Some(self.preprocessor.size()))?;
            let decoded_at = Instant::now();
            squares.extend_from_slice(self.preprocessor.square(&decoded)?.as_raw());
            timings.decode += decoded_at - started;
            timings.resize += decoded_at.elapsed();
        }
        let started = Instant::now();
        let embeddings = self.encoder.encode(&squares)?;
        let rows = embeddings.chunks_exact(self.encoder.embed_dim());
        let vectors = rows.map(|row| unit(row.to_vec())).collect::<Result<_, _>>()?;
        timings.encode = started.elapsed();
        Ok((vectors, timings))
    }

    /// The image tower itself.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

fn unit(mut vector: Vec<f32>) -> Result<Vec<f32>, VisionError> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if !norm.is_normal() {
        return Err(VisionError::NotFinite);
    }
    vector.iter_mut().for_each(|value| *value /= norm);
    Ok(vector)
}

/// Why a frame has no embedding.
#[derive(Debug, thiserror::Error)]
pub enum VisionError {
    /// The bundle's image tower is missing or altered.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The picture cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The picture cannot be brought to the model's size.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The image tower cannot be loaded or run.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The tower's output is not as wide as the manifest says.
    #[error("image.onnx gives {found} values, its manifest says embed_dim = {stated}; re-export the bundle")]
    Width {
        /// Values found.
        found: usize,
        /// Values stated.
        stated: usize,
    },
    /// NaN, infinity or nothing came out.
    #[error("the image tower's output is not finite; the bundle is damaged (remoteclipd check)")]
    NotFinite,
}

//! Where the loss comes from: one stage of the way from file to embedding exchanged at a time, each compared with the
//! full-precision reference.
//!
//! | stage | decoder | resize | weights | arithmetic |
//! |---|---|---|---|---|
//! | `weights` | Pillow | Pillow | int8 | f32, onnxruntime |
//! | `decode` | ours | Pillow | int8 | f32, onnxruntime |
//! | `resize` | ours | ours | int8 | f32, onnxruntime |
//! | `tract` | ours | ours | int8 | f32, tract |
//! | `onnxruntime` | ours | ours | int8 | int8, onnxruntime's dynamic quantisation |
//! | `int8` | ours | ours | int8 | int8, tract with our operators: what flies |
//! | `aarch64` | ours | ours | int8 | the same in an aarch64 program, emulated or over ssh |
//!
//! Promise: every stage is in the table. One that could not be run has its reason there instead of figures.

mod emulated;
mod python;
mod table;

use std::path::PathBuf;

pub use emulated::Emulated;
pub use table::table;

use super::HarnessError;
use super::dataset::DataSet;
use super::progress::Progress;
use crate::bundle::{Bundle, IMAGE_ONNX};
use crate::vision::{Encoder, EncoderOptions, InputSpec, Limits, Preprocessor, decode_for};
use python::Python;

/// How the stages are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Python that has `models/tools/requirements-light.txt`.
    pub python: PathBuf,
    /// `models/tools/stages.py`.
    pub tool: PathBuf,
    /// An aarch64 program of ours, and what runs it.
    pub aarch64: Option<Emulated>,
    /// Whether to tell how far it is.
    pub progress: bool,
}

/// One stage with the vectors it gave, a row a picture in the order asked for, or why it gave none.
#[derive(Debug)]
pub struct Stage {
    /// Its name; see the table above.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Unit vectors, one a picture.
    pub vectors: Result<Vec<Vec<f32>>, String>,
}

/// The stages and what each is, in the order of the table.
const STAGES: [(&str, &str); 7] = [
    ("weights", "Pillow's pixels, int8 weights, f32 in onnxruntime"),
    ("decode", "our JPEG decoder, Pillow's resize, f32 in onnxruntime"),
    ("resize", "our decoder and resize, f32 in onnxruntime"),
    ("tract", "our pixels, int8 weights, f32 in tract"),
    ("onnxruntime", "our pixels, int8 in onnxruntime (dynamic)"),
    ("int8", "our pixels, int8 in tract: what flies"),
    ("aarch64", "the same in an aarch64 program"),
];

/// `count` of `total` pictures, spread evenly.
pub fn sample(total: usize, count: usize) -> Vec<usize> {
    let count = count.min(total);
    (0..count).map(|at| at * total / count).collect()
}

/// Runs every stage on `pictures` of the data set.
///
/// # Errors
/// [`HarnessError`] when one of our own stages fails; those of other programs only leave their reason.
pub fn run(bundle: &Bundle, data: &DataSet, pictures: &[usize], options: &Options) -> Result<Vec<Stage>, HarnessError> {
    let mut ours = Ours::load(bundle)?;
    let mut python = Python::start(options, bundle);
    let mut progress = Progress::new(pictures.len(), options.progress);
    let (mut plain, mut int8) = (Vec::new(), Vec::new());
    for picture in pictures {
        let path = data.path(*picture);
        let bytes = std::fs::read(&path).map_err(|source| HarnessError::Read { path: path.clone(), source })?;
        let broken = |reason: String| HarnessError::File { path: path.clone(), reason };
        let size = Some(ours.preprocessor.size());
        let decoded = decode_for(&bytes, &Limits::default(), size).map_err(|error| broken(error.to_string()))?;
        let square = ours.preprocessor.square(&decoded).map_err(|error| broken(error.to_string()))?;
        plain.push(unit(ours.plain.encode(&square).map_err(|error| broken(error.to_string()))?));
        int8.push(unit(ours.int8.encode(&square).map_err(|error| broken(error.to_string()))?));
        python.picture(&path, &decoded.image, &square);
        progress.step(false);
    }
    progress.end();
    let mut python = python.finish();
    let mut found = |name: &str| match name {
        "tract" => Ok(std::mem::take(&mut plain)),
        "int8" => Ok(std::mem::take(&mut int8)),
        "aarch64" => match &options.aarch64 {
            Some(emulated) => emulated.run(bundle, data, pictures),
            None => Err("no aarch64 program given (--stages-aarch64)".to_owned()),
        },
        other => python.remove(other).unwrap_or_else(|| Err("stages.py does not know it".to_owned())),
    };
    Ok(STAGES.iter().map(|(name, what)| Stage { name, what, vectors: found(name) }).collect())
}

/// Our own side: the square, and the tower with and without int8 arithmetic.
struct Ours {
    preprocessor: Preprocessor,
    plain: Encoder,
    int8: Encoder,
}

impl Ours {
    fn load(bundle: &Bundle) -> Result<Self, HarnessError> {
        let path = bundle.verified(IMAGE_ONNX)?;
        let image = &bundle.manifest().image;
        let input = InputSpec { size: image.size as usize, mean: image.mean, std: image.std };
        let failed = |error: crate::vision::EncoderError| HarnessError::Form(error.to_string());
        Ok(Self {
            preprocessor: Preprocessor::new(image.size, image.resize),
            plain: Encoder::load_f32(&path, &input).map_err(failed)?,
            int8: Encoder::load(&path, &input, &EncoderOptions::default()).map_err(failed)?,
        })
    }
}

/// To unit length; a vector of nothing stays what it is and shows as a cosine of 0.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm.is_normal() {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_and_never_larger_than_the_whole() {
        assert_eq!(sample(10, 5), [0, 2, 4, 6, 8]);
        assert_eq!(sample(3, 100), [0, 1, 2]);
        assert!(sample(0, 5).is_empty());
    }
}

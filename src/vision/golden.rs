//! Golden frames: a bundle's self-test, the same on every machine.
//!
//! The simulated camera draws the same pixels everywhere, so a bundle need not carry pictures: `golden.json` beside the
//! manifest names a few of its frames, the SHA-256 of their pixels, and the embeddings that the image tower gave on the
//! machine that wrote the file. Promise: [`Golden::compare`] succeeds only where this machine draws those very pixels and
//! its kernel gives those embeddings up to [`LEAST_COSINE`], which rounding reaches and a wrong kernel or file does not.
//!
//! The file is not in the manifest: it states which `image.onnx` it is of, and a damaged one can only fail.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Vision, VisionError};
use crate::bundle::Bundle;
use crate::camera::{Camera, Next, Picture, Simulated, SimulatedOptions};

/// The file's name in a bundle's folder.
pub const GOLDEN: &str = "golden.json";

/// The least cosine between an embedding and its golden one. Kernels agree in every sum of products, and those that fuse multiply and add in
/// the floating-point work between too, but for a quotient's last bit now and then: to 1.000000 with every bundle that was tried. The portable
/// kernel does not fuse them: there an activation moves to the next level here and there, which grows with every layer.
pub const LEAST_COSINE: f64 = 0.9999;

/// One flight's first frame each; neighbouring seeds begin over different scenes.
const SEEDS: [u64; 4] = [1, 2, 3, 4];
/// Larger than any model's square, so that resizing and cropping are tested too.
const SIZE: (u32, u32) = (640, 480);

/// The contents of `golden.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// SHA-256 of the `image.onnx` that gave the embeddings.
    image_sha256: String,
    /// The int8 kernel that gave them.
    kernel: String,
    frames: Vec<GoldenFrame>,
}

/// One frame and what it must give.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenFrame {
    /// Seed of the simulated flight whose first frame it is.
    seed: u64,
    /// SHA-256 of its RGB bytes.
    pixels_sha256: String,
    /// The unit vector, to six decimals.
    embedding: Vec<f32>,
}

impl Golden {
    /// The golden frames as this machine sees them.
    ///
    /// # Errors
    /// [`GoldenError::Vision`] when the tower fails.
    pub fn make(bundle: &Bundle, vision: &mut Vision) -> Result<Self, GoldenError> {
        let mut frames = Vec::new();
        for seed in SEEDS {
            let (picture, pixels_sha256) = draw(seed)?;
            let vector = vision.embed(&picture)?.vector;
            let embedding = vector.iter().map(|value| (value * 1e6).round() / 1e6).collect();
            frames.push(GoldenFrame { seed, pixels_sha256, embedding });
        }
        Ok(Self {
            image_sha256: bundle.image_sha256().to_owned(),
            kernel: vision.encoder().kernel().to_owned(),
            frames,
        })
    }

    /// Reads a bundle's golden frames.
    ///
    /// # Errors
    /// [`GoldenError::Read`], [`GoldenError::Parse`], and [`GoldenError::OtherModel`] when they are of another
    /// `image.onnx`.
    pub fn read(bundle: &Bundle) -> Result<Self, GoldenError> {
        let path = bundle.folder().join(GOLDEN);
        let text = std::fs::read(&path).map_err(|source| GoldenError::Read { path: path.clone(), source })?;
        let golden: Self =
            serde_json::from_slice(&text).map_err(|source| GoldenError::Parse { path: path.clone(), source })?;
        if golden.image_sha256 != bundle.image_sha256() {
            return Err(GoldenError::OtherModel { path });
        }
        Ok(golden)
    }

    /// Writes them beside the bundle's manifest; the file's path.
    ///
    /// # Errors
    /// [`GoldenError::Write`].
    pub fn write(&self, bundle: &Bundle) -> Result<PathBuf, GoldenError> {
        let path = bundle.folder().join(GOLDEN);
        let text = serde_json::to_vec(self).map_err(|source| GoldenError::Parse { path: path.clone(), source })?;
        std::fs::write(&path, text).map_err(|source| GoldenError::Write { path: path.clone(), source })?;
        Ok(path)
    }

    /// Embeds every frame here and compares; the least cosine.
    ///
    /// # Errors
    /// [`GoldenError::Pixels`] when a frame is drawn otherwise here, [`GoldenError::Differs`] when an embedding is too far
    /// from its golden one, [`GoldenError::Vision`] when there is none.
    pub fn compare(&self, vision: &mut Vision) -> Result<f64, GoldenError> {
        let mut least = f64::INFINITY;
        for frame in &self.frames {
            let (picture, pixels_sha256) = draw(frame.seed)?;
            if pixels_sha256 != frame.pixels_sha256 {
                return Err(GoldenError::Pixels { seed: frame.seed });
            }
            let cosine = cosine(&vision.embed(&picture)?.vector, &frame.embedding);
            // Not `<`: a file with NaN or nothing in it must fail.
            if cosine.is_nan() || cosine < LEAST_COSINE {
                let kernel = vision.encoder().kernel();
                return Err(GoldenError::Differs { seed: frame.seed, cosine, kernel, made_by: self.kernel.clone() });
            }
            least = least.min(cosine);
        }
        if least.is_finite() { Ok(least) } else { Err(GoldenError::Empty) }
    }
}

/// The first frame of a flight and the SHA-256 of its pixels.
fn draw(seed: u64) -> Result<(Picture, String), GoldenError> {
    let (width, height) = SIZE;
    let options =
        SimulatedOptions { seed, width, height, frames_per_second: f64::INFINITY, ..SimulatedOptions::default() };
    match Simulated::new(options).next(Duration::ZERO) {
        Ok(Next::Frame(frame)) => match frame.picture {
            Picture::Rgb(image) => {
                let sha256 = hex::encode(Sha256::digest(image.as_raw()));
                Ok((Picture::Rgb(image), sha256))
            }
            Picture::Encoded(_) | Picture::Raw(_) => Err(GoldenError::Pixels { seed }),
        },
        _ => Err(GoldenError::Pixels { seed }),
    }
}

/// NaN where the lengths differ or one has no length.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Why a bundle's self-test does not pass.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// There is no file, or it cannot be read.
    #[error("cannot read {path}: {source}; `remoteclipd bundle golden` writes it, on the host that made the bundle")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not such a file.
    #[error("{path}: {source}; write it again with `remoteclipd bundle golden`")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        source: serde_json::Error,
    },
    /// It was written for another image tower.
    #[error("{path} was written for another image.onnx; write it again with `remoteclipd bundle golden`")]
    OtherModel {
        /// The file.
        path: PathBuf,
    },
    /// It lists no frame.
    #[error("golden.json lists no frame; write it again with `remoteclipd bundle golden`")]
    Empty,
    /// The camera is not the one that drew them.
    #[error(
        "the simulated frame of seed {seed} is drawn otherwise here: golden.json is of another release; write it again"
    )]
    Pixels {
        /// Seed of the flight.
        seed: u64,
    },
    /// The tower computes something else here.
    #[error(
        "frame of seed {seed}: cosine {cosine:.6} between kernel {kernel} here and {made_by} where golden.json was written, at least {LEAST_COSINE} expected; do not fly this bundle on this machine, or, if an earlier release wrote the file, write it anew on the host (remoteclipd bundle golden)"
    )]
    Differs {
        /// Seed of the flight.
        seed: u64,
        /// What was found.
        cosine: f64,
        /// The kernel here.
        kernel: &'static str,
        /// The kernel that wrote the file.
        made_by: String,
    },
    /// The tower gives nothing.
    #[error(transparent)]
    Vision(#[from] VisionError),
}

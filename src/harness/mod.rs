//! The proof: the daemon's own `vision` and `decide` over a data set, against the full-precision reference.
//!
//! Promise: nothing is re-implemented for measuring. Pictures become embeddings through `vision`, embeddings become
//! scores through `decide`, prompts become embeddings through the bundle's text tower. A comparison that would compare
//! nothing, or things that do not belong together, is an error and never a pass.

pub mod bootstrap;
mod cache;
pub mod calibrate;
pub mod dataset;
pub mod device;
pub mod embed;
pub mod embeddings;
pub mod evaluate;
pub mod gates;
pub mod metrics;
mod parity;
mod progress;
pub mod reference;
pub mod report;
pub mod stages;
pub mod subject;
mod tables;
pub mod tensors;

use std::path::PathBuf;

use crate::bundle::BundleError;
use crate::decide::DecideError;
use crate::prompts::pack::PackError;
use crate::prompts::text::TextError;
use crate::vision::VisionError;

/// Why an evaluation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read but is not of its form.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Field and cure.
        reason: String,
    },
    /// What was asked for does not fit together.
    #[error("{0}")]
    Form(String),
    /// Our own bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The image tower cannot be loaded or run.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The text tower cannot be loaded or run.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Prompts cannot be used.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Embeddings and prompts are of different width.
    #[error(transparent)]
    Decide(#[from] DecideError),
}

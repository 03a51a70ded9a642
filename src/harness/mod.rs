//! The proof: the daemon's own `vision` and `decide` over a data set, against the full-precision reference.
//!
//! Promise: nothing is re-implemented for measuring. Pictures become embeddings through `vision`, embeddings become
//! scores through `decide`, prompts become embeddings through the bundle's text tower. A comparison that would compare
//! nothing, or things that do not belong together, is an error and never a pass.

pub mod report;

use std::path::PathBuf;

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
}

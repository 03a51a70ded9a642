//! The broker's password: read when it is needed, from a file or the environment, and shown nowhere.

use std::path::{Path, PathBuf};

use crate::config::PASSWORD_VARIABLE;

/// Reads the password: the first line of `file`, else the environment, else none.
pub(super) fn password(file: Option<&Path>) -> Result<Option<String>, PasswordError> {
    let Some(path) = file else {
        return Ok(std::env::var(PASSWORD_VARIABLE).ok());
    };
    let text = std::fs::read_to_string(path).map_err(|source| PasswordError::Read { path: path.to_owned(), source })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(line.to_owned())),
        _ => Err(PasswordError::Empty { path: path.to_owned() }),
    }
}

/// Why there is no password. Never carries it.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file could not be read.
    #[error("cannot read mqtt.password_file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has no first line.
    #[error("mqtt.password_file {path} is empty; its first line is the password")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

//! `[spool]`: where events wait for the broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::raw::{Positive, RawSpool};

/// A spool holds two kinds of messages in files of at least 64 KiB.
const SMALLEST_SPOOL: u64 = 256 << 10;

/// Where events wait for the broker, and how much may.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// The folder; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// Bytes on disk.
    pub max_bytes: u64,
    /// How long a message is worth sending.
    pub max_age: Duration,
    /// Whether results go through the spool as well.
    pub results: bool,
}

impl SpoolConfig {
    /// In memory only: what a command-line tool needs.
    pub fn memory() -> Self {
        Self { path: None, max_bytes: 1 << 20, max_age: Duration::from_secs(3600), results: false }
    }
}

pub(super) fn spool(raw: &RawSpool, state: &Path) -> Result<SpoolConfig, String> {
    if raw.max_bytes < SMALLEST_SPOOL {
        return Err(format!("spool.max_bytes = {} must be at least {SMALLEST_SPOOL}", raw.max_bytes));
    }
    Ok(SpoolConfig {
        path: raw.enabled.then(|| state.join("spool")),
        max_bytes: raw.max_bytes,
        max_age: Duration::from_secs(raw.max_age_s.positive("spool.max_age_s")?),
        results: raw.results,
    })
}

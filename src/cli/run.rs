//! `remoteclipd run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, DEFAULT_PATH};
use crate::daemon;

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    daemon::run(Config::read(&args.config)?, Some(&args.config))?;
    Ok(ExitCode::SUCCESS)
}

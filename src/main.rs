//! The `remoteclipd` binary: parse arguments, hand over, exit code.

use std::process::ExitCode;

use clap::Parser;
use remoteclipd::cli::{Cli, sentence};

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(cli.default_log())).init();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("remoteclipd: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

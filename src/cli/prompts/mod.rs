//! `remoteclipd prompts`: what a prompt pack holds; on the ground, packs for vehicles in flight.

#[cfg(feature = "host")]
mod compile;
mod show;

use std::process::ExitCode;

/// Subcommands of `prompts`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print labels, texts and thresholds
    Show(super::model::PackArgs),
    /// Embed a prompt set, and sign it for vehicles in flight
    #[cfg(feature = "host")]
    Compile(compile::Args),
    /// Make a key pair that signs prompt packs
    #[cfg(feature = "host")]
    Keygen(compile::KeygenArgs),
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show(args) => show::run(args),
        #[cfg(feature = "host")]
        Command::Compile(args) => compile::run(args),
        #[cfg(feature = "host")]
        Command::Keygen(args) => compile::keygen(args),
    }
}

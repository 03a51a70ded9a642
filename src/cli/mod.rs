//! The command line: one file a subcommand, each with its `Args` and its `run`.

mod bench;
mod bundle;
#[cfg(feature = "host")]
mod calibrate;
mod check;
mod classify;
#[cfg(feature = "demo")]
mod demo;
#[cfg(feature = "host")]
mod eval;
mod explain;
mod model;
mod prompts;
mod run;
#[cfg(feature = "host")]
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tags overhead camera frames on board with an int8 RemoteCLIP and publishes over MQTT.
#[derive(Debug, Parser)]
#[command(name = "remoteclipd", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Classify the camera's frames and publish, until told to stop
    Run(run::Args),
    /// Classify image files and print the result
    Classify(classify::Args),
    /// Tell why a picture is tagged, or is not, and draw where in it a label is seen
    Explain(explain::Args),
    /// Find thresholds from one's own pictures, for a wanted precision or rate of false alarms
    #[cfg(feature = "host")]
    Calibrate(calibrate::Args),
    /// Check config, bundle, prompts and camera without publishing anything
    Check(check::Args),
    /// Test model bundles on this machine
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Look at prompt packs
    #[command(subcommand)]
    Prompts(prompts::Command),
    /// Fly the simulated camera against a broker of its own and print what a subscriber receives
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Measure a bundle on a data set against its full-precision reference
    #[cfg(feature = "host")]
    Eval(Box<eval::Args>),
    /// Watch vehicles from the ground: state, tags, link quality, gaps
    #[cfg(feature = "host")]
    Watch(watch::Args),
    /// Measure each stage on this machine
    Bench(bench::Args),
}

impl Cli {
    /// Log level when `RUST_LOG` says nothing: a daemon tells what it does, a tool only what goes wrong.
    pub fn default_log(&self) -> &'static str {
        // tract warns about graph details that are no concern of a user.
        match self.command {
            Command::Run(_) => "info,tract_core=error,tract_onnx=error",
            // The demo's broker logs every connection as an error.
            _ => "warn,tract_core=error,tract_onnx=error,rumqttd=off",
        }
    }

    /// Runs the subcommand.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => run::run(&args),
            Command::Classify(args) => classify::run(&args),
            Command::Explain(args) => explain::run(&args),
            #[cfg(feature = "host")]
            Command::Calibrate(args) => calibrate::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Bundle(command) => bundle::run(&command),
            Command::Prompts(command) => prompts::run(&command),
            #[cfg(feature = "demo")]
            Command::Demo(args) => demo::run(&args),
            #[cfg(feature = "host")]
            Command::Eval(args) => Ok(eval::run(&args)),
            #[cfg(feature = "host")]
            Command::Watch(args) => watch::run(&args),
            Command::Bench(args) => bench::run(&args),
        }
    }
}

/// An error and its causes as one sentence; a cause that the error already tells is not told twice.
pub fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        match told.as_str() {
            "" => cause,
            _ if told.contains(&cause) => told,
            _ => format!("{told}: {cause}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_cause_is_told_once() {
        let error = Config::read("/nowhere.toml".as_ref()).context("starting").unwrap_err();
        assert_eq!(sentence(&error).matches("No such file").count(), 1);
        assert!(sentence(&error).starts_with("starting: cannot read config /nowhere.toml"));
    }
}

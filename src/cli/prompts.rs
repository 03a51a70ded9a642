//! `remoteclipd prompts`: what a prompt pack holds.

use std::process::ExitCode;

use super::model::PackArgs;

/// Subcommands of `prompts`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print labels, texts and thresholds
    Show(PackArgs),
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Show(args) = command;
    let pack = args.read()?;
    let header = pack.header();
    println!("prompt set  {}  (pack {})", header.set, pack.id());
    println!("made for    {}  (text side {})", header.bundle, header.text_id);
    println!("templates   {}", header.templates.join(" | "));
    println!("\n{:<26} {:>5} {:>5}  texts", "label", "enter", "exit");
    for label in &header.labels {
        println!("{:<26} {:>5.2} {:>5.2}  {}", label.name, label.enter, label.exit, label.texts.join(" | "));
    }
    println!("\nbackground  {}", header.background.join(" | "));
    Ok(ExitCode::SUCCESS)
}

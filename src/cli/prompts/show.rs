//! `remoteclipd prompts show`: labels, texts and thresholds of a pack.

use std::process::ExitCode;

use crate::cli::model::PackArgs;

pub(super) fn run(args: &PackArgs) -> anyhow::Result<ExitCode> {
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

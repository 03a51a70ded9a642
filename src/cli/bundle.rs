//! `remoteclipd bundle`: looks after model bundles.

use std::path::PathBuf;
use std::process::ExitCode;

use super::model::BundleArgs;
use crate::bundle::Bundle;
use crate::bundle::slots::Slots;
use crate::prompts;
use crate::vision::golden::{GOLDEN, Golden};
use crate::vision::{EncoderOptions, Limits, Vision};

/// Where the packaged daemon keeps its slots.
const SLOTS: &str = "/var/lib/remoteclipd/bundles";

/// Subcommands of `bundle`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Embed the bundle's golden frames on this machine and compare them with its golden.json
    Test(BundleArgs),
    /// Write golden.json, from what this machine computes
    Golden(BundleArgs),
    /// Write the weights beside image.onnx as this machine's int8 kernel reads them, for a quicker start and less memory
    Pack(BundleArgs),
    /// Copy a bundle into the idle one of two slots, test it there, and let it fly from the next start or reload on
    Install {
        /// Folder of the new bundle
        #[arg(value_name = "DIR")]
        from: PathBuf,
        #[command(flatten)]
        slots: SlotArgs,
    },
    /// Let the bundle before fly again from the next start or reload on
    Rollback(SlotArgs),
}

/// Where the two slots are.
#[derive(Debug, clap::Args)]
pub(super) struct SlotArgs {
    /// Folder of the slots; `vision.bundle` names `current` in it
    #[arg(long, value_name = "DIR", default_value = SLOTS)]
    slots: PathBuf,
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Test(args) => println!("{}", test(&args.open()?)?),
        Command::Golden(args) => {
            let bundle = args.open()?;
            let mut vision = load(&bundle)?;
            let path = Golden::make(&bundle, &mut vision)?.write(&bundle)?;
            println!("{} (kernel {})", path.display(), vision.encoder().kernel());
        }
        Command::Pack(args) => println!("{}", pack(&args.open()?)?.display()),
        Command::Install { from, slots } => {
            let slots = Slots::new(&slots.slots);
            let bundle = slots.fill(&Bundle::open(from)?, &[GOLDEN])?;
            prompts::built_in()?.fits(&bundle.manifest().name, &bundle.text_id())?;
            // Before the test, which then is of what will fly.
            pack(&bundle)?;
            println!("{}", test(&bundle)?);
            switch(&slots)?;
        }
        Command::Rollback(args) => switch(&Slots::new(&args.slots))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn pack(bundle: &Bundle) -> anyhow::Result<PathBuf> {
    Ok(Vision::pack(bundle, &EncoderOptions::default())?)
}

fn load(bundle: &Bundle) -> anyhow::Result<Vision> {
    Ok(Vision::load(bundle, Limits::default(), &EncoderOptions::default())?)
}

fn test(bundle: &Bundle) -> anyhow::Result<String> {
    let mut vision = load(bundle)?;
    let cosine = Golden::read(bundle)?.compare(&mut vision)?;
    let (name, kernel) = (&bundle.manifest().name, vision.encoder().kernel());
    Ok(format!("{name}: golden frames agree on {kernel}, cosine {cosine:.6}"))
}

fn switch(slots: &Slots) -> anyhow::Result<()> {
    let slot = slots.switch()?;
    println!("{} -> {}; `systemctl reload remoteclipd` takes it up", slots.current().display(), slot.display());
    Ok(())
}

//! The options that choose model and prompts, shared by the subcommands that need them without a config file.

use std::path::PathBuf;

use crate::bundle::Bundle;
use crate::prompts;
use crate::prompts::pack::Pack;

/// Which bundle.
#[derive(Debug, clap::Args)]
pub(super) struct BundleArgs {
    /// Folder of the model bundle
    #[arg(long, value_name = "DIR", default_value = "models/default", env = "REMOTECLIPD_BUNDLE")]
    pub bundle: PathBuf,
}

/// Which prompt pack.
#[derive(Debug, clap::Args)]
pub(super) struct PackArgs {
    /// Prompt pack to use instead of the built-in one
    #[arg(long, value_name = "FILE")]
    pub pack: Option<PathBuf>,
}

/// Which prompts, for a bundle that is at hand.
#[derive(Debug, clap::Args)]
pub(super) struct PromptArgs {
    #[command(flatten)]
    pack: PackArgs,
    /// Prompt set (TOML) to compile and use, so that a change can be tried without a build
    #[cfg(feature = "host")]
    #[arg(long, value_name = "SET", conflicts_with = "pack")]
    prompts: Option<PathBuf>,
}

impl PromptArgs {
    /// The pack, made for `bundle`.
    pub fn read(&self, bundle: &Bundle) -> anyhow::Result<Pack> {
        #[cfg(feature = "host")]
        if let Some(path) = &self.prompts {
            return compile(path, bundle);
        }
        let pack = self.pack.read()?;
        pack.fits(&bundle.manifest().name, &bundle.text_id())?;
        Ok(pack)
    }
}

/// Embeds a prompt set with the bundle's text tower, as the build script does.
#[cfg(feature = "host")]
pub(super) fn compile(path: &std::path::Path, bundle: &Bundle) -> anyhow::Result<Pack> {
    let set = prompts::set::PromptSet::read(path)?;
    let tower = prompts::text::TextTower::load(bundle)?;
    for word in tower.unknown_words(&set) {
        log::warn!(
            "{}: the model never saw the word \"{word}\"; a prompt that rests on it means nothing",
            path.display()
        );
    }
    Ok(tower.compile(&set)?)
}

impl BundleArgs {
    pub fn open(&self) -> anyhow::Result<Bundle> {
        Ok(Bundle::open(&self.bundle)?)
    }
}

impl PackArgs {
    pub fn read(&self) -> anyhow::Result<Pack> {
        Ok(match &self.pack {
            Some(path) => Pack::read(path)?,
            None => prompts::built_in()?,
        })
    }
}

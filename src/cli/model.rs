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

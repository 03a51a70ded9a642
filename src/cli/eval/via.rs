//! `eval --via`: the pictures through a running remoteclipd.

use std::path::PathBuf;
use std::time::Duration;

use crate::bundle::Bundle;
use crate::harness::dataset::DataSet;
use crate::harness::device::{self, Address, Options};
use crate::harness::embeddings::EmbeddingSet;
use crate::harness::report::Device;
use crate::harness::subject::with_pictures;

/// Options of the device.
#[derive(Debug, clap::Args)]
pub(super) struct ViaArgs {
    /// Measure a running remoteclipd: mqtt://[user[:password]@]host[:port][/root]/[vehicle]
    #[arg(long, value_name = "URL", requires_all = ["via_folder", "data"], conflicts_with_all = ["stages", "train_split"])]
    pub via: Option<String>,
    /// The folder that it watches, as it is reached from here
    #[arg(long, value_name = "DIR", requires = "via")]
    via_folder: Option<PathBuf>,
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, requires = "via")]
    via_patience: f64,
}

impl ViaArgs {
    /// What can be wrong before anything is sent.
    pub fn options(&self) -> anyhow::Result<Option<Options>> {
        let (Some(via), Some(folder)) = (&self.via, &self.via_folder) else { return Ok(None) };
        anyhow::ensure!(
            (0.001..=3600.0).contains(&self.via_patience),
            "--via-patience {} must be between 0.001 and 3600 seconds",
            self.via_patience
        );
        device::check_folder(folder)?;
        Ok(Some(Options {
            address: Address::parse(via).map_err(anyhow::Error::msg)?,
            folder: folder.clone(),
            patience: Duration::from_secs_f64(self.via_patience),
            progress: true,
        }))
    }
}

/// Sends the pictures and puts the answers in the place of our own embeddings.
pub(super) fn measure(
    bundle: &Bundle,
    data: &DataSet,
    words: &EmbeddingSet,
    options: &Options,
) -> anyhow::Result<(EmbeddingSet, Device)> {
    let answers = device::embed(bundle.id(), data, options)?;
    let mut set = with_pictures(words.select(&answers.answered), answers.embedded);
    set.metadata.insert("device".to_owned(), answers.engine.clone());
    // The nearest rank, of at least one.
    let latency = |share: f64| {
        let last = answers.latency_ms.len().saturating_sub(1);
        answers.latency_ms.get((last as f64 * share).ceil() as usize).copied().unwrap_or(0.0)
    };
    let device = Device {
        engine: answers.engine,
        sent: data.files.len(),
        answered: answers.answered.len(),
        missing: answers.missing,
        late: answers.late,
        latency_ms: [latency(0.5), latency(0.99), latency(1.0)],
    };
    Ok((set, device))
}

//! `eval --stages`: where the loss comes from.

use std::path::PathBuf;

use crate::bundle::Bundle;
use crate::harness::dataset::DataSet;
use crate::harness::embeddings::EmbeddingSet;
use crate::harness::evaluate::Plan;
use crate::harness::report::Stages;
use crate::harness::stages::{self, Emulated, Options};

/// Options of the stages.
#[derive(Debug, clap::Args)]
pub(super) struct StageArgs {
    /// Also tell where the loss comes from: decoder, resize, weights, arithmetic, each exchanged by itself
    #[arg(long, requires_all = ["reference", "data"])]
    pub stages: bool,
    /// Pictures that the stages run on, spread evenly
    #[arg(long, value_name = "N", default_value_t = 200, requires = "stages")]
    stages_images: usize,
    /// Python with models/tools/requirements-light.txt, for the stages in Pillow and onnxruntime
    #[arg(long, value_name = "PYTHON", default_value = "python3", env = "REMOTECLIPD_PYTHON")]
    stages_python: PathBuf,
    /// Another build of this program, such as one for aarch64
    #[arg(long, value_name = "PROGRAM", requires = "stages")]
    stages_aarch64: Option<PathBuf>,
    /// What starts it: "qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu cortex-a72", "ssh BOARD"
    #[arg(long, value_name = "COMMAND", default_value = "", requires = "stages_aarch64")]
    stages_runner: String,
}

impl StageArgs {
    /// Runs the stages on some of `data` and makes the report's table. `ours` and `reference` are of all of it.
    pub fn run(
        &self,
        bundle: &Bundle,
        data: &DataSet,
        plan: &Plan,
        ours: &EmbeddingSet,
        reference: &EmbeddingSet,
    ) -> anyhow::Result<Stages> {
        anyhow::ensure!(self.stages_images > 0, "--stages-images must be at least 1");
        let options = Options {
            python: self.stages_python.clone(),
            tool: PathBuf::from("models/tools/stages.py"),
            aarch64: self
                .stages_aarch64
                .clone()
                .map(|program| Emulated { program, runner: self.stages_runner.clone() }),
            progress: true,
        };
        let pictures = stages::sample(data.files.len(), self.stages_images);
        let found = stages::run(bundle, data, &pictures, &options)?;
        Ok(stages::table(found, plan, &ours.select(&pictures), &reference.select(&pictures))?)
    }
}

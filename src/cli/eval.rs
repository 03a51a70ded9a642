//! `remoteclipd eval`: measure a bundle on a data set, against its full-precision reference, and judge it.

mod stages;
mod subject;
mod table;
mod via;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::model::BundleArgs;
use crate::harness::bootstrap::Bootstrap;
use crate::harness::embeddings::EmbeddingSet;
use crate::harness::evaluate::{self, Plan, Side, TaskKind};
use crate::harness::gates::Gates;
use crate::harness::reference::{self, Aligned};
use crate::harness::report::Report;

/// Exit code when a gate failed.
const FAILED: u8 = 1;
/// Exit code when there is no verdict.
const NO_VERDICT: u8 = 2;

/// Options of `eval`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 every gate passed (or none applied), 1 a gate failed, 2 could not run.")]
pub(super) struct Args {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Folder with a folder a class, or a list (.csv, .jsonl); with --captions the folder its names start from
    #[arg(long, value_name = "PATH", required_unless_present = "only_embeddings")]
    data: Option<PathBuf>,
    /// Captions in Karpathy's form (RSICD, RSITMD, UCM), gzipped or not
    #[arg(long, value_name = "FILE", requires = "data")]
    captions: Option<PathBuf>,
    /// Split to measure: of the captions (default test), of the list, or of a folder (train: the first 80 % of each
    /// class by name, test: the rest)
    #[arg(long, value_name = "NAME", requires = "data")]
    split: Option<String>,
    /// Measure the embeddings in a safetensors file instead of embedding pictures
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "prompts"])]
    only_embeddings: Option<PathBuf>,
    /// JSON, folder name to words for the templates (default: the reference's, or the folder names)
    #[arg(long, value_name = "FILE", requires = "data")]
    classes: Option<PathBuf>,
    /// Sentence with {} for the words; may be given several times (default: the reference's, or "a satellite photo of {}.")
    #[arg(long = "template", value_name = "TEXT")]
    templates: Vec<String>,
    /// Measure the labels of this prompt set instead of the folder names
    #[arg(long, value_name = "FILE", conflicts_with_all = ["classes", "templates"])]
    prompts: Option<PathBuf>,
    /// Prompt pack whose decisions are compared (default: the prompt set measured, or the built-in one)
    #[arg(long, value_name = "FILE")]
    pack: Option<PathBuf>,
    /// Full-precision embeddings to compare with (models/tools/reference.py)
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Tasks (default: zero-shot classification where there are classes, retrieval where there are captions)
    #[arg(long = "task", value_name = "NAME", value_enum, value_delimiter = ',')]
    tasks: Vec<TaskKind>,
    /// Pictures a class of few_shot
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 4, 16])]
    shots: Vec<usize>,
    /// Split that the probes learn from (default: parts of the measured pictures)
    #[arg(long, value_name = "NAME", requires = "data")]
    train_split: Option<String>,
    /// The reference's embeddings of that split; without them the probes are not compared
    #[arg(long, value_name = "FILE", requires_all = ["train_split", "reference"])]
    train_reference: Option<PathBuf>,
    /// Gates (default: the built-in ones, config/parity.toml)
    #[arg(long, value_name = "FILE")]
    gates: Option<PathBuf>,
    /// Measure and judge nothing
    #[arg(long, conflicts_with_all = ["gates", "tier"])]
    no_gates: bool,
    /// Share of the reference that each metric must reach, instead of the gates' own
    #[arg(long, value_name = "SHARE")]
    tier: Option<f64>,
    /// Write report.json, report.md and report.html
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the embeddings in the reference's form
    #[arg(long, value_name = "FILE", requires = "data")]
    embeddings_out: Option<PathBuf>,
    /// Where embeddings are kept from run to run (default: $XDG_CACHE_HOME/remoteclipd)
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Keep no embeddings
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
    /// Pictures at a time (default: as many as cores)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Name of the data set in the report and for its floors (default: from the path)
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Seed of the bootstrap and of the probes' draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Resamples of the bootstrap; 0 for no intervals
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().resamples)]
    resamples: usize,
    #[command(flatten)]
    stages: stages::StageArgs,
    #[command(flatten)]
    via: via::ViaArgs,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match evaluated(args) {
        Ok(report) if report.passed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("remoteclipd: {}", super::sentence(&error));
            ExitCode::from(NO_VERDICT)
        }
    }
}

fn evaluated(args: &Args) -> anyhow::Result<Report> {
    // What can be wrong without looking at a picture is told before looking at ten thousand.
    let gates = match (&args.gates, args.no_gates) {
        (_, true) => None,
        (Some(path), _) => Some(Gates::read(path)?),
        (None, _) => Some(Gates::built_in()?),
    };
    let tier =
        args.tier.map(|tier| (0.0..=1.0).contains(&tier).then_some(tier).context("--tier is a share, such as 0.999"));
    let gates = gates.map(|gates| Ok::<_, anyhow::Error>(gates.with_tier(tier.transpose()?))).transpose()?;
    let reference = args.reference.as_deref().map(EmbeddingSet::read).transpose()?;
    let train_reference = args.train_reference.as_deref().map(EmbeddingSet::read).transpose()?;
    let mut subject = match &args.only_embeddings {
        Some(path) => subject::from_file(args, path)?,
        None => subject::from_bundle(args, reference.as_ref())?,
    };
    let mut align = |ours: &EmbeddingSet, reference| -> anyhow::Result<EmbeddingSet> {
        let Aligned { set, warnings } = reference::align(ours, reference)?;
        subject.warnings.extend(warnings);
        Ok(set)
    };
    let reference = reference.map(|reference| align(&subject.set, reference)).transpose()?;
    let train_reference = train_reference.zip(subject.train.as_ref()).map(|(r, ours)| align(ours, r)).transpose()?;
    let plan = Plan {
        dataset: args.dataset.clone().unwrap_or(subject.dataset),
        split: subject.split,
        root: subject.root,
        tasks: args.tasks.clone(),
        shots: args.shots.clone(),
        bootstrap: Bootstrap { resamples: args.resamples, seed: args.seed, ..Bootstrap::default() },
        decider: subject.decider.as_ref(),
        logit_scale: subject.logit_scale,
    };
    let ours = Side { test: &subject.set, train: subject.train.as_ref() };
    let reference = reference.as_ref().map(|test| Side { test, train: train_reference.as_ref() });
    let mut report = evaluate::evaluate(&plan, ours, reference)?;
    report.warnings = subject.warnings;
    report.device = subject.device;
    if let (true, Some((bundle, data)), Some(reference)) = (args.stages.stages, &subject.pictures, &reference) {
        report.stages = Some(args.stages.run(bundle, data, &plan, &subject.set, reference.test)?);
    }
    report.gates = gates.map(|gates| gates.judge(&report)).transpose()?.flatten();
    if let (Some(gates), Some(device)) = (&mut report.gates, &report.device) {
        gates.passed &= device.answered_all();
        gates.verdicts.extend(device.verdicts());
    }
    anyhow::ensure!(
        report.gates.is_some() || (args.gates.is_none() && args.tier.is_none()),
        "the gates compare nothing: give --reference, or a [[floor]] for data set \"{}\"",
        report.dataset
    );
    if let Some(folder) = &args.report {
        report.write(folder)?;
    }
    match args.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => table::print(&report),
    }
    table::tell(&report);
    Ok(report)
}

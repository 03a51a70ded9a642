//! `remoteclipd eval`: measure a bundle on a data set, against its full-precision reference, and judge it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::model::BundleArgs;
use crate::bundle::Bundle;
use crate::decide::Decider;
use crate::harness::bootstrap::Bootstrap;
use crate::harness::dataset::{DataSet, Source};
use crate::harness::embed;
use crate::harness::embeddings::EmbeddingSet;
use crate::harness::evaluate::{self, Plan, Side, TaskKind};
use crate::harness::gates::Gates;
use crate::harness::metrics::counting;
use crate::harness::reference::{self, Aligned};
use crate::harness::report::{Report, Verdict};
use crate::harness::subject::{self, TEMPLATE, Wording};
use crate::prompts;
use crate::prompts::pack::Pack;
use crate::prompts::set::PromptSet;
use crate::prompts::text::TextTower;

/// Exit code when a gate failed.
const FAILED: u8 = 1;
/// Exit code when there is no verdict.
const NO_VERDICT: u8 = 2;
/// CLIP's logit scale, for embeddings of a model that does not state its own.
const CLIP_SCALE: f32 = 100.0;

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
}

pub(super) fn run(args: &Args) -> ExitCode {
    match evaluated(args) {
        Ok(report) if report.gates.as_ref().is_none_or(|gates| gates.passed) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("remoteclipd: {}", super::sentence(&error));
            ExitCode::from(NO_VERDICT)
        }
    }
}

/// What is measured, however it came to be.
struct Subject {
    set: EmbeddingSet,
    train: Option<EmbeddingSet>,
    dataset: String,
    split: Option<String>,
    root: Option<PathBuf>,
    logit_scale: f32,
    decider: Option<Decider>,
    warnings: Vec<String>,
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
        Some(path) => embeddings_subject(args, path)?,
        None => bundle_subject(args, reference.as_ref())?,
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
    report.gates = gates.map(|gates| gates.judge(&report)).transpose()?.flatten();
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
        false => print(&report),
    }
    tell(&report);
    Ok(report)
}

/// Embeddings from a file.
fn embeddings_subject(args: &Args, path: &std::path::Path) -> anyhow::Result<Subject> {
    let mut set = EmbeddingSet::read(path)?;
    if !args.templates.is_empty() {
        set.keep_template(&args.templates)?;
    }
    let fact = |key: &str| set.metadata.get(key).cloned();
    let stem = || path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let scale = fact("logit_scale").and_then(|scale| scale.parse().ok()).unwrap_or(CLIP_SCALE);
    let decider = args.pack.as_deref().map(|path| Ok::<_, anyhow::Error>(Decider::new(Pack::read(path)?, scale)));
    Ok(Subject {
        dataset: fact("dataset").unwrap_or_else(stem),
        split: fact("split"),
        decider: decider.transpose()?,
        set,
        train: None,
        root: None,
        logit_scale: scale,
        warnings: Vec::new(),
    })
}

/// A bundle's towers over pictures.
fn bundle_subject(args: &Args, reference: Option<&EmbeddingSet>) -> anyhow::Result<Subject> {
    let bundle = args.bundle.open()?;
    let source = |split: &Option<String>| Source {
        data: args.data.clone().unwrap_or_default(),
        captions: args.captions.clone(),
        split: split.clone(),
    };
    let data = DataSet::read(&source(&args.split))?;
    let mut warnings = Vec::new();
    let (wording, decider) = prompts_of(args, &bundle, &data, reference, &mut warnings)?;
    let options = embed::Options {
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        cache: if args.no_cache { None } else { args.cache.clone().or_else(embed::default_cache) },
        progress: true,
    };
    let set = subject::measure(&bundle, &data, &wording, &options)?;
    let train = match &args.train_split {
        None => None,
        Some(_) => {
            let train = train_data(DataSet::read(&source(&args.train_split))?, &data)?;
            Some(subject::measure(&bundle, &train, &wording, &options)?)
        }
    };
    if let Some(path) = &args.embeddings_out {
        set.write(path)?;
    }
    Ok(Subject {
        set,
        train,
        dataset: data.name,
        split: data.split,
        root: Some(data.root),
        logit_scale: bundle.manifest().model.logit_scale,
        decider,
        warnings,
    })
}

/// The split that probes learn from, its classes numbered as those of the measured one.
fn train_data(train: DataSet, data: &DataSet) -> anyhow::Result<DataSet> {
    let place = |class: &String| {
        let place = data.classes.iter().position(|own| own == class);
        place.with_context(|| format!("--train-split has the class {class}, the measured split has not"))
    };
    let places = train.classes.iter().map(place).collect::<anyhow::Result<Vec<_>>>()?;
    let labels = train.labels.iter().map(|label| places[*label]).collect();
    Ok(DataSet { labels, classes: data.classes.clone(), captions: Vec::new(), ..train })
}

/// The words that classes are looked for with, and what decides which tags are entered.
fn prompts_of(
    args: &Args,
    bundle: &Bundle,
    data: &DataSet,
    reference: Option<&EmbeddingSet>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<(Wording, Option<Decider>)> {
    let manifest = bundle.manifest();
    let decider = |pack: Pack| Decider::new(pack, manifest.model.logit_scale);
    let given = args.pack.as_deref().map(Pack::read).transpose()?;
    if let Some(pack) = &given {
        pack.fits(&manifest.name, &bundle.text_id())?;
    }
    if let Some(path) = &args.prompts {
        let set = PromptSet::read(path)?;
        let pack = TextTower::load(bundle)?.compile(&set)?;
        let label_of = label_of(data, &set)?;
        return Ok((Wording::Pack { pack: Box::new(pack.clone()), label_of }, Some(decider(given.unwrap_or(pack)))));
    }
    let fallback = || prompts::built_in().ok().filter(|pack| pack.fits(&manifest.name, &bundle.text_id()).is_ok());
    let pack = given.or_else(fallback);
    if pack.is_none() && reference.is_some() {
        warnings.push(
            "the built-in prompts are for another model: decisions are compared on the class prompts at a threshold of \
             0.5; give --pack for those that fly"
                .to_owned(),
        );
    }
    Ok((templates(args, data, reference)?, pack.map(decider)))
}

/// Words and templates: as given, else the reference's, else the folder names.
fn templates(args: &Args, data: &DataSet, reference: Option<&EmbeddingSet>) -> anyhow::Result<Wording> {
    let counting = args.tasks.contains(&TaskKind::Counting);
    let known: BTreeMap<String, String> = match (&args.classes, reference) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{}: a JSON object, folder name to words, is taken", path.display()))?
        }
        (None, Some(set)) => set.classes.iter().cloned().zip(set.class_words.iter().cloned()).collect(),
        (None, None) if counting => {
            let words = |name: &String| Some((name.clone(), counting::in_words(name.parse().ok()?)));
            data.classes.iter().filter_map(words).collect()
        }
        (None, None) => data.classes.iter().map(|name| (name.clone(), name.clone())).collect(),
    };
    let words = |class: &String| match (known.get(class), &args.classes) {
        (Some(words), _) => Ok(words.clone()),
        (None, Some(path)) => anyhow::bail!("{}: has no words for the folder {class}", path.display()),
        // Refused later, by name, with what the reference has.
        (None, None) => Ok(class.clone()),
    };
    let templates = match (args.templates.is_empty(), reference) {
        (false, _) => args.templates.clone(),
        (true, Some(set)) if !set.templates.is_empty() => set.templates.clone(),
        _ => vec![TEMPLATE.to_owned()],
    };
    anyhow::ensure!(
        !counting || !args.templates.is_empty() || reference.is_some(),
        "--task counting needs --template \"a photo of {{}} airplanes\", with what is counted in it"
    );
    if let Some(bad) = templates.iter().find(|template| template.matches("{}").count() != 1) {
        anyhow::bail!("--template \"{bad}\" must contain {{}} exactly once");
    }
    Ok(Wording::Templates { words: data.classes.iter().map(words).collect::<anyhow::Result<_>>()?, templates })
}

/// The label of each class: the one of the same letters and digits (`parkinglot` is "parking lot").
fn label_of(data: &DataSet, set: &PromptSet) -> anyhow::Result<Vec<usize>> {
    let plain = |name: &str| name.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "");
    let place = |class: &String| set.labels.iter().position(|label| plain(&label.name) == plain(class));
    let places: Vec<_> = data.classes.iter().map(place).collect();
    let unnamed: Vec<&str> = data
        .classes
        .iter()
        .zip(&places)
        .filter(|(_, place)| place.is_none())
        .map(|(class, _)| class.as_str())
        .collect();
    anyhow::ensure!(
        unnamed.is_empty(),
        "prompt set \"{}\" has no label for {}; name labels as the folders are named",
        set.name,
        unnamed.join(", ")
    );
    Ok(places.into_iter().flatten().collect())
}

/// The report in a screenful.
fn print(report: &Report) {
    let split = report.split.as_ref().map_or(String::new(), |split| format!(" {split}"));
    let engine = report.subject.engine.as_ref().map_or(String::new(), |engine| format!(", {engine}"));
    println!("{}{split}: {} pictures, {} captions", report.dataset, report.images, report.captions);
    println!("model {}{engine}\n", report.pretrained);
    println!("{:<28} {:>9} {:>10} {:>8}  difference, 95 %", "", "ours", "reference", "ratio");
    for task in &report.tasks {
        let setting = task.setting.as_ref().map_or(String::new(), |setting| format!(" ({setting})"));
        println!("{}{setting}", task.task);
        for metric in &task.metrics {
            let (scale, unit) = if metric.name == "count_mae" { (1.0, " ") } else { (100.0, "%") };
            let figure = |value: f64| format!("{:.2} {unit}", value * scale);
            let reference = metric.reference.map_or(String::new(), figure);
            let ratio = metric.ratio.map_or(String::new(), |ratio| format!("{ratio:.4}"));
            let interval = metric
                .difference_interval
                .map_or(String::new(), |[low, high]| format!("{:+.2} … {:+.2}", low * scale, high * scale));
            println!("  {:<26} {:>9} {reference:>10} {ratio:>8}  {interval}", metric.name, figure(metric.value));
        }
    }
    let Some(parity) = &report.parity else { return };
    let cosine = &parity.cosine;
    println!("\ncosine     mean {:.5}, p1 {:.5}, least {:.5}", cosine.mean, cosine.p1, cosine.min);
    let agreement = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.2} %", share * 100.0));
    println!(
        "agreement  top-1 {}, decisions {}",
        agreement(parity.top1_agreement),
        agreement(parity.decision_agreement)
    );
    for image in parity.worst.iter().take(3) {
        println!("worst      {} {:.5}", image.file, image.cosine);
    }
}

/// Warnings and verdict, on standard error, so that `--json` stays JSON.
fn tell(report: &Report) {
    for warning in &report.warnings {
        eprintln!("remoteclipd: {warning}");
    }
    let Some(gates) = &report.gates else { return };
    let failed: Vec<&Verdict> = gates.verdicts.iter().filter(|verdict| !verdict.passed).collect();
    let reached = gates.reached.map_or(String::new(), |tier| format!("; reached {} %", tier * 100.0));
    if failed.is_empty() {
        eprintln!("gates passed: {} at {} % of the reference{reached}", gates.verdicts.len(), gates.tier * 100.0);
    } else {
        eprintln!("gates FAILED: {} of {} ({})", failed.len(), gates.verdicts.len(), gates.file);
        failed.iter().for_each(|verdict| eprintln!("  {}", verdict.sentence()));
    }
}

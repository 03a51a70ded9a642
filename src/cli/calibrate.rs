//! `remoteclipd calibrate`: thresholds from one's own pictures.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::model::{BundleArgs, compile};
use crate::decide::{Decider, Scores};
use crate::harness::calibrate::{Calibrated, Goal, calibrate, labels_of, rewritten, sorted};
use crate::harness::dataset::{DataSet, Source};
use crate::harness::embed::{self, Options, embed};
use crate::prompts::set::PromptSet;

/// Options of `calibrate`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("goal").required(true)))]
pub(super) struct Args {
    /// Pictures: a folder for each label, or one folder of pictures that are not labelled
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    bundle: BundleArgs,
    /// Prompt set whose thresholds are sought
    #[arg(long, value_name = "SET", default_value = "config/prompts/default.toml", env = "REMOTECLIPD_PROMPTS")]
    prompts: PathBuf,
    /// At least this share of the tagged pictures shall show the label (labelled pictures only)
    #[arg(long, value_name = "P", group = "goal")]
    precision: Option<f64>,
    /// At most this share of the pictures without the label shall be tagged
    #[arg(long, value_name = "RATE", group = "goal")]
    false_alarms: Option<f64>,
    /// What a folder means when its name says it to no one: FOLDER=LABEL, or FOLDER= for none of the labels
    #[arg(long = "class", value_name = "FOLDER=LABEL")]
    classes: Vec<String>,
    /// Write the prompt set with the suggested thresholds; all else in it stays as it is
    #[arg(long, value_name = "SET")]
    out: Option<PathBuf>,
    /// Keep embeddings here from one run to the next
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    folder: &'a Path,
    images: usize,
    labelled: bool,
    goal: Goal,
    prompt_set: &'a Path,
    model: &'a str,
    labels: &'a [Calibrated],
    out: Option<&'a Path>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let goal = goal(args)?;
    let bundle = args.bundle.open()?;
    let text = std::fs::read_to_string(&args.prompts)
        .with_context(|| format!("cannot read prompt set {}; name yours with --prompts", args.prompts.display()))?;
    let decider = Decider::new(compile(&args.prompts, &bundle)?, bundle.manifest().model.logit_scale);
    let labels = &decider.pack().header().labels;
    let data = DataSet::read(&Source { data: args.folder.clone(), ..Source::default() })?;
    let labelled = !data.labels.is_empty();
    anyhow::ensure!(
        labelled || args.precision.is_none(),
        "--precision needs labelled pictures: {} holds pictures, but no folder for each label. Sort them, or use --false-alarms",
        args.folder.display()
    );
    let shown = if labelled { shown(&data, &decider, &args.classes)? } else { Vec::new() };
    let options = Options {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        cache: args.cache.clone().or_else(embed::default_cache),
        progress: !args.json,
    };
    let embedded = embed(&bundle, &data, &options)?;
    let scores: Vec<Scores> = embedded.images.rows().map(|row| decider.score(row)).collect::<Result<_, _>>()?;
    let sides = sorted(labels.len(), &scores, &shown);
    let found: Vec<_> = labels.iter().zip(&sides).map(|(label, side)| calibrate(label, side, goal, labelled)).collect();
    if let Some(out) = &args.out {
        write(out, &text, &found)?;
    }
    let report = Report {
        folder: &args.folder,
        images: data.files.len(),
        labelled,
        goal,
        prompt_set: &args.prompts,
        model: bundle.id(),
        labels: &found,
        out: args.out.as_deref(),
    };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn goal(args: &Args) -> anyhow::Result<Goal> {
    let within = |name: &str, share: f64| {
        anyhow::ensure!(share > 0.0 && share <= 1.0, "--{name} {share} must be above 0 and at most 1 (0.95 is 95 %)");
        Ok(share)
    };
    match (args.precision, args.false_alarms) {
        (Some(wanted), _) => Ok(Goal::Precision(within("precision", wanted)?)),
        (None, Some(rate)) => Ok(Goal::FalseAlarms(within("false-alarms", rate)?)),
        (None, None) => anyhow::bail!("say what is wanted: --precision P or --false-alarms RATE"),
    }
}

/// The label that each picture shows.
fn shown(data: &DataSet, decider: &Decider, said: &[String]) -> anyhow::Result<Vec<Option<usize>>> {
    let pair = |word: &String| {
        let (folder, label) = word
            .split_once('=')
            .with_context(|| format!("--class {word}: write FOLDER=LABEL, or FOLDER= for none of the labels"))?;
        anyhow::Ok((folder.to_owned(), label.to_owned()))
    };
    let said = said.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    let meant = labels_of(data, &decider.pack().header().labels, &said)?;
    Ok(data.labels.iter().map(|class| meant[*class]).collect())
}

/// Writes the set with the new thresholds, whole or not at all, and only if it can be read again.
fn write(out: &Path, text: &str, found: &[Calibrated]) -> anyhow::Result<()> {
    let thresholds: Vec<_> = found.iter().filter_map(|label| Some((label.label.clone(), label.suggested?))).collect();
    let written = rewritten(text, &thresholds).with_context(|| format!("--out {}", out.display()))?;
    PromptSet::parse(&written).map_err(|reason| anyhow::anyhow!("the calibrated set would not be valid: {reason}"))?;
    let beside = out.with_extension("toml.new");
    std::fs::write(&beside, written)
        .and_then(|()| std::fs::rename(&beside, out))
        .with_context(|| format!("--out: cannot write {}", out.display()))
}

impl Report<'_> {
    fn print(&self) -> std::io::Result<()> {
        let mut to = std::io::stdout().lock();
        let wanted = match self.goal {
            Goal::Precision(share) => format!("precision {share}"),
            Goal::FalseAlarms(rate) => format!("false alarms {rate}"),
        };
        writeln!(to, "{} pictures of {}, for {wanted}", self.images, self.folder.display())?;
        if !self.labelled {
            writeln!(
                to,
                "The pictures are not labelled: a rate below is the share of these pictures that a threshold tags. It is a\n\
                 rate of false alarms only as far as they do not show the label."
            )?;
        }
        writeln!(
            to,
            "\n{:<24} {:>5} {:>7}  {:>9} {:>6} {:>9}  {:<20}  {:<20}",
            "label", "now", "then", "precision", "recall", "false al.", "scores with it 0…1", "scores without it"
        )?;
        for label in self.labels {
            let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
            let counts = label.then.unwrap_or(label.now);
            let bars = |spread: &Option<crate::harness::calibrate::Spread>| {
                spread.as_ref().map_or_else(String::new, crate::harness::calibrate::Spread::bars)
            };
            writeln!(
                to,
                "{:<24} {:>5.2} {:>7}  {:>9} {:>6} {:>9}  {:<20}  {:<20}",
                label.label,
                label.threshold,
                label.suggested.map_or("kept".to_owned(), |threshold| format!("{threshold:.4}")),
                percent(counts.precision),
                percent(counts.recall),
                percent(counts.false_alarm_rate),
                bars(&label.positives),
                bars(&label.negatives),
            )?;
            label.remark.iter().try_for_each(|remark| writeln!(to, "{:24} {remark}", ""))?;
        }
        writeln!(to, "\nFigures are those of these pictures: check them on others, of another day and place.")?;
        match self.out {
            Some(out) => writeln!(to, "written: {}", out.display()),
            None => writeln!(to, "nothing is written without --out"),
        }
    }
}

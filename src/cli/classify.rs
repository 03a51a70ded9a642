//! `remoteclipd classify`: image files → labels, on the terminal or as JSON lines.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::model::{BundleArgs, PromptArgs};
use crate::bundle::Bundle;
use crate::camera::Picture;
use crate::decide::{Decider, LabelScore, Scores};
use crate::publish::ScorePayload;
use crate::vision::{Embedded, EncoderOptions, Limits, Timings, Vision};

/// Options of `classify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JPEG, PNG or TIFF files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Print one JSON object an image
    #[arg(long)]
    json: bool,
    /// How many scores to print
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// With --json: also the embedding, a unit vector
    #[arg(long, requires = "json")]
    embedding: bool,
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    prompts: PromptArgs,
}

/// One image as JSON.
#[derive(Serialize)]
struct Line<'a> {
    image: &'a Path,
    label: Option<&'a str>,
    scores: Vec<ScorePayload>,
    background: f32,
    margin: f32,
    latency_ms: Latency,
    model: &'a str,
    prompts: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
}

#[derive(Serialize)]
struct Latency {
    decode: f64,
    resize: f64,
    encode: f64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let bundle = args.bundle.open()?;
    let pack = args.prompts.read(&bundle)?;
    let mut vision = Vision::load(&bundle, Limits::default(), &EncoderOptions::default())?;
    let decider = Decider::new(pack, bundle.manifest().model.logit_scale);
    let mut code = ExitCode::SUCCESS;
    let mut out = std::io::stdout().lock();
    for image in &args.images {
        match classify(image, &mut vision, &decider) {
            Ok((scores, Embedded { vector, timings })) if args.json => {
                let embedding = args.embedding.then_some(&vector[..]);
                let line = Line { embedding, ..line(image, &scores, timings, args.top, &bundle, &decider) };
                writeln!(out, "{}", serde_json::to_string(&line)?)?;
            }
            Ok((scores, embedded)) => print(&mut out, image, &scores, embedded.timings, args.top, &decider)?,
            // One bad file must not cost the others their answer.
            Err(error) => {
                eprintln!("remoteclipd: {}: {}", image.display(), super::sentence(&error));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn classify(path: &Path, vision: &mut Vision, decider: &Decider) -> anyhow::Result<(Scores, Embedded)> {
    let bytes = std::fs::read(path).context("cannot read the file; check its path and who may read it")?;
    let embedded = vision.embed(&Picture::Encoded(bytes))?;
    Ok((decider.score(&embedded.vector)?, embedded))
}

fn name<'a>(decider: &'a Decider, score: &LabelScore) -> &'a str {
    &decider.pack().header().labels[score.label].name
}

fn line<'a>(
    image: &'a Path,
    scores: &Scores,
    timings: Timings,
    top: usize,
    bundle: &'a Bundle,
    decider: &'a Decider,
) -> Line<'a> {
    let payload = |score: &LabelScore| ScorePayload { label: name(decider, score).to_owned(), score: score.score };
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    Line {
        image,
        label: scores.top().map(|top| name(decider, &top)),
        scores: scores.ranked().iter().take(top).map(payload).collect(),
        background: scores.background,
        margin: scores.margin(),
        latency_ms: Latency { decode: ms(timings.decode), resize: ms(timings.resize), encode: ms(timings.encode) },
        model: bundle.id(),
        prompts: decider.pack().id(),
        embedding: None,
    }
}

fn print(
    out: &mut impl Write,
    image: &Path,
    scores: &Scores,
    timings: Timings,
    top: usize,
    decider: &Decider,
) -> std::io::Result<()> {
    let label = scores.top().map_or("nothing we look for", |top| name(decider, &top));
    let total = (timings.decode + timings.resize + timings.encode).as_secs_f64() * 1e3;
    writeln!(out, "{}: {label} ({total:.1} ms)", image.display())?;
    for score in scores.ranked().iter().take(top) {
        writeln!(out, "  {:>5.3} {:<20} {}", score.score, bar(score.score), name(decider, score))?;
    }
    writeln!(out, "  {:>5.3} {:<20} (background)", scores.background, bar(scores.background))
}

/// A score as a bar of at most twenty characters.
pub(super) fn bar(score: f32) -> String {
    "█".repeat((score.clamp(0.0, 1.0) * 20.0).round() as usize)
}

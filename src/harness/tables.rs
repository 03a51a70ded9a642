//! What tasks found → the report's tables: metrics of both sides, recalls, confusion, reliability.

use super::bootstrap::Bootstrap;
use super::embeddings::EmbeddingSet;
use super::metrics::{Estimate, Guesses};
use super::report::{ClassRecall, Confusion, Metric, Reliability, ReliabilityBin, Task};

/// Pictures named beside a figure.
const MOST_LOST: usize = 10;
/// Bins of the reliability diagram.
const BINS: usize = 10;

/// What a task found on one side.
pub struct Outcome {
    /// Its metrics.
    pub estimates: Vec<Estimate>,
    /// Picture by picture, for tasks that classify.
    pub guesses: Option<Guesses>,
    /// How it was done, in one line.
    pub setting: Option<String>,
}

/// One task of the report, of one side or of two.
pub fn task(
    kind: &str,
    set: &EmbeddingSet,
    ours: &Outcome,
    reference: Option<&Outcome>,
    bootstrap: &Bootstrap,
) -> Task {
    let name = |at: usize| set.name(ours.guesses.as_ref().map_or(at, |guesses| guesses.images[at]));
    let intervals = reference.and_then(|theirs| bootstrap.intervals(&ours.estimates, &theirs.estimates));
    let metric = |at: usize, own: &Estimate| {
        let theirs = reference.map(|reference| &reference.estimates[at]);
        let (value, other) = (own.value(), theirs.map(Estimate::value));
        let interval = intervals.as_ref().map(|intervals| intervals[at]);
        Metric {
            name: own.name.clone(),
            value,
            reference: other,
            difference: other.map(|other| value - other),
            ratio: other.filter(|other| *other != 0.0).map(|other| value / other),
            difference_interval: interval.map(|interval| interval.difference),
            ratio_interval: interval.and_then(|interval| interval.ratio),
            higher_is_better: own.higher_is_better,
            lost: theirs.map_or_else(Vec::new, |theirs| lost(own, theirs, name)),
        }
    };
    let guesses = ours.guesses.as_ref();
    let theirs = reference.and_then(|reference| reference.guesses.as_ref());
    Task {
        task: kind.to_owned(),
        setting: ours.setting.clone(),
        metrics: ours.estimates.iter().enumerate().map(|(at, own)| metric(at, own)).collect(),
        classes: guesses.map_or_else(Vec::new, |guesses| class_recalls(set, guesses, theirs)),
        confusion: guesses.filter(|_| !set.classes.is_empty()).map(|guesses| Confusion {
            classes: set.classes.clone(),
            counts: guesses.confusion(set.classes.len()),
            reference: theirs.map(|theirs| theirs.confusion(set.classes.len())),
        }),
        reliability: guesses.and_then(|guesses| reliability(guesses, theirs)),
    }
}

/// Pictures that add less to ours than to the reference, the worst first.
fn lost(ours: &Estimate, reference: &Estimate, name: impl Fn(usize) -> String) -> Vec<String> {
    let sign = if ours.higher_is_better { 1.0 } else { -1.0 };
    let loss = |at: &usize| sign * (reference.hits(*at) - ours.hits(*at));
    let mut lost: Vec<usize> = (0..ours.len()).filter(|at| loss(at) > 0.0).collect();
    lost.sort_by(|a, b| loss(b).total_cmp(&loss(a)));
    lost.into_iter().take(MOST_LOST).map(name).collect()
}

fn class_recalls(set: &EmbeddingSet, ours: &Guesses, reference: Option<&Guesses>) -> Vec<ClassRecall> {
    let recall = |guesses: &Guesses, class: usize| {
        let (mut hits, mut images) = (0usize, 0usize);
        for at in (0..guesses.truth.len()).filter(|at| guesses.truth[*at] == class) {
            hits += usize::from(guesses.hit(at, 1));
            images += 1;
        }
        (images, hits as f64 / images.max(1) as f64)
    };
    let lost = |class: usize| {
        let reference = reference?;
        let lost = |at: &usize| ours.truth[*at] == class && reference.hit(*at, 1) && !ours.hit(*at, 1);
        Some((0..ours.truth.len()).filter(lost).take(MOST_LOST).map(|at| set.name(ours.images[at])).collect())
    };
    let row = |(class, name): (usize, &String)| {
        let (images, own) = recall(ours, class);
        let reference = reference.map(|guesses| recall(guesses, class).1);
        ClassRecall { name: name.clone(), images, recall: own, reference, lost: lost(class).unwrap_or_default() }
    };
    set.classes.iter().enumerate().map(row).collect()
}

fn reliability(ours: &Guesses, reference: Option<&Guesses>) -> Option<Reliability> {
    let (bins, ece) = bins(ours)?;
    let (reference_bins, reference_ece) = reference.and_then(self::bins).unzip();
    Some(Reliability { bins, ece, reference_bins, reference_ece })
}

fn bins(guesses: &Guesses) -> Option<(Vec<ReliabilityBin>, f64)> {
    if guesses.probability.is_empty() {
        return None;
    }
    let mut sums = [(0usize, 0.0f64, 0.0f64); BINS];
    for (at, probability) in guesses.probability.iter().enumerate() {
        let bin = &mut sums[((probability * BINS as f32) as usize).min(BINS - 1)];
        bin.0 += 1;
        bin.1 += f64::from(*probability);
        bin.2 += f64::from(u8::from(guesses.hit(at, 1)));
    }
    let mean = |sum: f64, images: usize| if images > 0 { sum / images as f64 } else { 0.0 };
    let bin = |(at, (images, confidence, right)): (usize, &(usize, f64, f64))| ReliabilityBin {
        low: at as f64 / BINS as f64,
        high: (at + 1) as f64 / BINS as f64,
        images: *images,
        confidence: mean(*confidence, *images),
        accuracy: mean(*right, *images),
    };
    let ece = sums.iter().map(|(_, confidence, right)| (confidence - right).abs()).sum::<f64>();
    Some((sums.iter().enumerate().map(bin).collect(), ece / guesses.truth.len() as f64))
}

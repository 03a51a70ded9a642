//! Thresholds from one's own pictures: score distributions per label, and the lowest threshold that keeps a wanted
//! precision or false-alarm rate.
//!
//! Promise: a figure that is given for a threshold was counted at that very threshold, as it is written to the file, on
//! these very pictures; where they are too few to say anything, no threshold is suggested and the reason is.
//!
//! What it cannot know: pictures taken one after the other are alike and count for less than their number, and what was
//! calibrated on says nothing about pictures of another place or season.

mod classes;
mod counts;
mod spread;
mod write;

pub use classes::labels_of;
pub use counts::Counts;
pub use spread::Spread;
pub use write::{WriteError, rewritten};

use serde::Serialize;

use crate::decide::Scores;
use crate::prompts::pack::PackLabel;

/// With fewer pictures of a label, or of anything else, precision means nothing.
pub const LEAST_PICTURES: usize = 10;
/// Sorts the pictures' scores by label. `shown` says for each picture which label it shows, none for none of them; it is
/// empty when the pictures are not labelled.
pub fn sorted(labels: usize, scores: &[Scores], shown: &[Option<usize>]) -> Vec<LabelScores> {
    let mut sorted = vec![LabelScores::default(); labels];
    for (picture, scores) in scores.iter().enumerate() {
        for (label, score) in scores.labels.iter().enumerate() {
            let positive = shown.get(picture).is_some_and(|shown| *shown == Some(label));
            let side = &mut sorted[label];
            if positive { &mut side.positives } else { &mut side.negatives }.push(*score);
        }
    }
    sorted
}

/// What is wanted of the thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// At least this share of the pictures that are tagged shall show the label.
    Precision(f64),
    /// At most this share of the pictures that do not show the label shall be tagged.
    FalseAlarms(f64),
}

/// The scores of one label over the pictures.
#[derive(Debug, Clone, Default)]
pub struct LabelScores {
    /// On pictures that show it.
    pub positives: Vec<f32>,
    /// On pictures that do not. Without labels: on all pictures.
    pub negatives: Vec<f32>,
}

/// What came out for one label.
#[derive(Debug, Clone, Serialize)]
pub struct Calibrated {
    /// Its name.
    pub label: String,
    /// The threshold in use.
    pub threshold: f32,
    /// The threshold suggested, or none.
    pub suggested: Option<f32>,
    /// Why there is none, or what to bear in mind.
    pub remark: Option<String>,
    /// At the threshold in use.
    pub now: Counts,
    /// At the suggested threshold.
    pub then: Option<Counts>,
    /// Scores on pictures that show it; none without labelled pictures.
    pub positives: Option<Spread>,
    /// Scores on pictures that do not show it; without labels: on all.
    pub negatives: Option<Spread>,
}

/// Calibrates one label. `labelled` says whether the pictures are; without labels every score counts as a negative.
pub fn calibrate(label: &PackLabel, scores: &LabelScores, goal: Goal, labelled: bool) -> Calibrated {
    let outcome = match too_few(scores, goal, labelled) {
        Some(reason) => Err(reason),
        None => suggest(scores, goal, labelled),
    };
    let now = Counts::at(scores, label.enter);
    let then = outcome.as_ref().ok().map(|threshold| Counts::at(scores, *threshold));
    let remark = match (&outcome, &then) {
        (Err(reason), _) => Some(reason.clone()),
        (Ok(_), Some(then)) => caution(then, goal, labelled, now),
        _ => None,
    };
    Calibrated {
        label: label.name.clone(),
        threshold: label.enter,
        suggested: outcome.ok(),
        remark,
        now,
        then,
        positives: Spread::of(&scores.positives),
        negatives: Spread::of(&scores.negatives),
    }
}

/// Why the pictures cannot answer, if they can't.
fn too_few(scores: &LabelScores, goal: Goal, labelled: bool) -> Option<String> {
    let (positives, negatives) = (scores.positives.len(), scores.negatives.len());
    let few = |what: &str, found: usize, least: usize| {
        (found < least).then(|| format!("too few examples: {found} pictures {what}, at least {least} are needed"))
    };
    match goal {
        Goal::Precision(_) => {
            few("of it", positives, LEAST_PICTURES).or_else(|| few("of anything else", negatives, LEAST_PICTURES))
        }
        // A rate of one in n can't be told from none with fewer than n pictures.
        Goal::FalseAlarms(rate) => few(
            if labelled { "of anything else" } else { "in all" },
            negatives,
            ((1.0 / rate).ceil() as usize).max(LEAST_PICTURES),
        ),
    }
}

/// The lowest threshold that keeps the goal.
fn suggest(scores: &LabelScores, goal: Goal, labelled: bool) -> Result<f32, String> {
    let candidates = candidates(scores);
    let kept = candidates.iter().copied().rfind(|threshold| {
        let counts = Counts::at(scores, *threshold);
        match goal {
            Goal::Precision(wanted) => counts.hits > 0 && counts.precision.is_some_and(|found| found >= wanted),
            Goal::FalseAlarms(rate) => counts.false_alarm_rate.is_some_and(|found| found <= rate),
        }
    });
    match (kept, goal) {
        (Some(threshold), Goal::FalseAlarms(_)) if !labelled && threshold > 0.99 => Err(format!(
            "no threshold up to 0.99 keeps the rate: {} of {} pictures score over 0.9, so the label is probably in them",
            scores.negatives.iter().filter(|score| **score > 0.9).count(),
            scores.negatives.len()
        )),
        (Some(threshold), _) => Ok(threshold),
        (None, Goal::Precision(wanted)) => Err(format!(
            "no threshold keeps a precision of {wanted}: other pictures score as high as those of it; better texts, or a \
             background text for what it is mistaken for"
        )),
        (None, Goal::FalseAlarms(rate)) => Err(format!("no threshold keeps a false-alarm rate of {rate}")),
    }
}

/// Thresholds that tell the scores apart, falling: halfway between two neighbours, in ten-thousandths, so that what is
/// tried is what a file can hold.
fn candidates(scores: &LabelScores) -> Vec<f32> {
    let mut all: Vec<f32> = scores.positives.iter().chain(&scores.negatives).copied().collect();
    all.sort_by(|a, b| b.total_cmp(a));
    all.dedup();
    let above = all.first().map(|top| f32::midpoint(*top, 1.0));
    let between = all.windows(2).map(|pair| f32::midpoint(pair[0], pair[1]));
    let below = all.last().map(|least| least / 2.0);
    let mut thresholds: Vec<f32> = above.into_iter().chain(between).chain(below).map(in_steps).collect();
    thresholds.dedup();
    thresholds
}

/// In ten-thousandths, within what a threshold may be.
fn in_steps(threshold: f32) -> f32 {
    const STEPS: f32 = 10_000.0;
    (threshold * STEPS).round().clamp(1.0, STEPS) / STEPS
}

/// What a reader of the figures must know.
fn caution(then: &Counts, goal: Goal, labelled: bool, now: Counts) -> Option<String> {
    let low = |interval: Option<[f64; 2]>| interval.map_or(0.0, |[low, _]| low);
    let high = |interval: Option<[f64; 2]>| interval.map_or(1.0, |[_, high]| high);
    match goal {
        Goal::Precision(wanted) if low(then.precision_interval) < wanted => Some(format!(
            "on {} tagged pictures; the true precision may be as low as {:.2}",
            then.hits + then.false_alarms,
            low(then.precision_interval)
        )),
        Goal::FalseAlarms(_) if !labelled && now.false_alarms * 5 > now.negatives => Some(format!(
            "{} of {} pictures reach the present threshold: if they do show it, these are no false alarms, and the suggestion is too high",
            now.false_alarms, now.negatives
        )),
        Goal::FalseAlarms(rate) if high(then.false_alarm_interval) > rate * 2.0 => Some(format!(
            "on {} pictures the true rate may be as high as {:.4}",
            then.negatives,
            high(then.false_alarm_interval)
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompts::pack::tests::axes;

    fn label() -> PackLabel {
        axes(&["forest"], &[]).header().labels[0].clone() // enter 0.5
    }

    /// Positives from 0.51 to 0.7, negatives from 0.31 to 0.6: ten of the positives stand alone above.
    fn overlapping() -> LabelScores {
        LabelScores {
            positives: (51..=70).map(|score| score as f32 / 100.0).collect(),
            negatives: (31..=60).map(|score| score as f32 / 100.0).collect(),
        }
    }

    #[test]
    fn a_wanted_precision_gives_the_lowest_threshold_that_keeps_it() {
        let found = calibrate(&label(), &overlapping(), Goal::Precision(1.0), true);
        let suggested = found.suggested.unwrap();
        assert!(suggested > 0.6 && suggested < 0.61, "{suggested}");
        let then = found.then.unwrap();
        assert_eq!((then.hits, then.false_alarms, then.recall), (10, 0, Some(0.5)));
        assert!(found.remark.unwrap().contains("as low as 0.72"), "ten of ten");
        let found = calibrate(&label(), &overlapping(), Goal::Precision(0.6), true);
        assert!(found.then.unwrap().recall.unwrap() > 0.9, "a lower goal finds more");
        assert_eq!(found.now, Counts::of(20, 20, 11, 30), "0.50 itself counts as tagged");
    }

    #[test]
    fn a_false_alarm_rate_is_counted_on_the_other_pictures_alone() {
        let found = calibrate(&label(), &overlapping(), Goal::FalseAlarms(0.1), true);
        let then = found.then.unwrap();
        assert_eq!((then.false_alarms, then.negatives), (3, 30));
        assert_eq!(then.hits, 13);
    }

    #[test]
    fn too_few_pictures_give_no_threshold_and_say_so() {
        let few = LabelScores { positives: vec![0.9; 9], negatives: vec![0.1; 90] };
        let found = calibrate(&label(), &few, Goal::Precision(0.9), true);
        assert_eq!(found.suggested, None);
        assert!(found.remark.unwrap().contains("9 pictures of it, at least 10"));
        let found = calibrate(&label(), &few, Goal::FalseAlarms(0.001), true);
        assert!(found.remark.unwrap().contains("90 pictures of anything else, at least 1000"));
        assert!(calibrate(&label(), &few, Goal::FalseAlarms(0.02), true).suggested.is_some());
    }

    #[test]
    fn what_cannot_be_told_apart_gets_no_threshold() {
        let mixed = LabelScores { positives: vec![0.5; 20], negatives: vec![0.5; 60] };
        let found = calibrate(&label(), &mixed, Goal::Precision(0.9), true);
        assert!(found.suggested.is_none() && found.remark.unwrap().contains("no threshold keeps"));
    }

    #[test]
    fn without_labels_a_label_that_is_everywhere_is_not_called_a_false_alarm() {
        let scores = LabelScores { positives: Vec::new(), negatives: vec![0.999; 200] };
        let found = calibrate(&label(), &scores, Goal::FalseAlarms(0.01), false);
        assert!(found.suggested.is_none() && found.remark.unwrap().contains("probably in them"));
        let some = (0..200).map(|i| if i % 3 == 0 { 0.8 } else { 0.1 }).collect();
        let found = calibrate(
            &label(),
            &LabelScores { positives: Vec::new(), negatives: some },
            Goal::FalseAlarms(0.01),
            false,
        );
        assert!(found.remark.unwrap().contains("no false alarms"));
    }

    proptest! {
        #[test]
        fn a_suggestion_keeps_the_goal_on_its_own_pictures_and_is_a_valid_threshold(
            positives in proptest::collection::vec(0.0f32..=1.0, 10..60),
            negatives in proptest::collection::vec(0.0f32..=1.0, 10..60),
            wanted in 0.05f64..1.0,
        ) {
            let scores = LabelScores { positives, negatives };
            for goal in [Goal::Precision(wanted), Goal::FalseAlarms(wanted)] {
                let found = calibrate(&label(), &scores, goal, true);
                let Some(threshold) = found.suggested else { continue };
                prop_assert!(threshold > 0.0 && threshold <= 1.0);
                let then = found.then.unwrap();
                match goal {
                    Goal::Precision(wanted) => prop_assert!(then.precision.unwrap() >= wanted),
                    Goal::FalseAlarms(rate) => prop_assert!(then.false_alarm_rate.unwrap() <= rate),
                }
            }
        }
    }
}

//! Why a picture was tagged, or was not: each prompt's cosine and share, what the thresholds did with them, and what the
//! score would have been without the background or the nearest rival.
//!
//! Promise: every figure comes from [`Scores`], as the daemon decides on them; nothing is computed by another way.
//! `occlusion` asks the same vision where in the picture a label is seen.

mod map;
mod occlusion;

pub use map::draw;
pub use occlusion::{Occlusion, OcclusionError, occlude};

use serde::Serialize;

use crate::decide::Scores;
use crate::prompts::pack::{Header, PackLabel};

/// What the thresholds make of one label's score on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// At or over the threshold: the tag is entered.
    Tagged,
    /// Between threshold less hysteresis and threshold: a tag that is active stays, one that is not does not begin.
    Held,
    /// Below: no tag, and an active one is left.
    Below,
}

impl Verdict {
    /// As `decide::Tags` does it.
    pub fn of(label: &PackLabel, score: f32) -> Self {
        match score {
            score if score >= label.enter => Self::Tagged,
            score if score >= label.exit => Self::Held,
            _ => Self::Below,
        }
    }
}

/// One label on one frame.
#[derive(Debug, Clone, Serialize)]
pub struct LabelView {
    /// Its name.
    pub label: String,
    /// Cosine between picture and prompts.
    pub cosine: f32,
    /// Its share of the softmax, which is its score.
    pub probability: f32,
    /// Score at which the tag is entered.
    pub enter: f32,
    /// Score below which it is left.
    pub exit: f32,
    /// What that means.
    pub verdict: Verdict,
}

/// One background text on one frame.
#[derive(Debug, Clone, Serialize)]
pub struct BackgroundView {
    /// The text.
    pub text: String,
    /// Cosine between picture and text.
    pub cosine: f32,
    /// Its share of the softmax.
    pub probability: f32,
}

/// A whole explanation.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The best label, or null when the background outweighs it: what a result's `label` says.
    pub label: Option<String>,
    /// Best score less the next best, background included.
    pub margin: f32,
    /// The share of all background texts together.
    pub background: f32,
    /// Every label, by falling score.
    pub labels: Vec<LabelView>,
    /// Every background text, by falling share.
    pub background_texts: Vec<BackgroundView>,
    /// The same in sentences.
    pub why: Vec<String>,
}

/// Explains the scores of one frame.
pub fn explain(scores: &Scores, header: &Header) -> Explanation {
    let labels: Vec<LabelView> = scores
        .ranked()
        .iter()
        .map(|ranked| {
            let label = &header.labels[ranked.label];
            LabelView {
                label: label.name.clone(),
                cosine: scores.cosines[ranked.label],
                probability: ranked.score,
                enter: label.enter,
                exit: label.exit,
                verdict: Verdict::of(label, ranked.score),
            }
        })
        .collect();
    let shares = scores.background_shares.iter().zip(&scores.background_cosines);
    let mut background_texts: Vec<BackgroundView> = (header.background.iter().zip(shares))
        .map(|(text, (share, cosine))| BackgroundView { text: text.clone(), cosine: *cosine, probability: *share })
        .collect();
    background_texts.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let label = scores.top().map(|top| header.labels[top.label].name.clone());
    let why = why(&labels, &background_texts, scores.background);
    Explanation { label, margin: scores.margin(), background: scores.background, labels, background_texts, why }
}

/// The sentences: what was decided on the best label, then each thing that took its share.
fn why(labels: &[LabelView], background_texts: &[BackgroundView], background: f32) -> Vec<String> {
    let Some(best) = labels.first() else { return Vec::new() };
    let mut told = vec![decided(best)];
    told.extend(labels[1..].iter().filter(|label| label.verdict == Verdict::Tagged).map(decided));
    if best.verdict != Verdict::Tagged {
        told.extend(background_texts.first().map(|text| background_took(best, text, background)));
        told.extend(labels.get(1).and_then(|rival| rival_took(best, rival)));
        told.push(format!(
            "a threshold of {:.2} or less for {} would tag this picture, and every other that scores as high",
            (best.probability * 100.0).floor().max(1.0) / 100.0,
            best.label
        ));
    }
    if background > best.probability {
        told.push(format!(
            "the background as a whole ({background:.3}) outweighs the best label, so the result's `label` is null"
        ));
    }
    told
}

fn decided(view: &LabelView) -> String {
    let LabelView { label, probability: score, enter, exit, verdict, .. } = view;
    match verdict {
        Verdict::Tagged => format!("{label} is tagged: it scores {score:.3}, its threshold is {enter:.2}"),
        Verdict::Held => format!(
            "nothing is tagged: {label}, the best label, scores {score:.3}, {:.3} short of its threshold {enter:.2}; \
             if the tag was active already it stays, since it is left only below {exit:.2}",
            enter - score
        ),
        Verdict::Below => format!(
            "nothing is tagged: {label}, the best label, scores {score:.3}, {:.3} short of its threshold {enter:.2}",
            enter - score
        ),
    }
}

/// What the softmax gives `view` when a share of `taken` is taken out of it: the others grow in proportion.
fn without(view: &LabelView, taken: f32) -> f32 {
    (view.probability / (1.0 - taken).max(f32::EPSILON)).min(1.0)
}

fn background_took(best: &LabelView, text: &BackgroundView, background: f32) -> String {
    let alone = without(best, background);
    format!(
        "the background takes {background:.3}, most of it \"{}\" ({:.3}, cosine {:.3} against {:.3}); without background \
         texts {} would score {alone:.3}, which {}",
        text.text,
        text.probability,
        text.cosine,
        best.cosine,
        best.label,
        enough(best, alone)
    )
}

/// The nearest other label, when its share is large enough to matter.
fn rival_took(best: &LabelView, rival: &LabelView) -> Option<String> {
    let alone = without(best, rival.probability);
    (rival.probability >= 0.05).then(|| {
        format!(
            "{} takes {:.3} (cosine {:.3} against {:.3}); without that label {} would score {alone:.3}, which {}. If both \
             are right for this picture, make them one label with the texts of both",
            rival.label,
            rival.probability,
            rival.cosine,
            best.cosine,
            best.label,
            enough(best, alone)
        )
    })
}

fn enough(view: &LabelView, score: f32) -> &'static str {
    if score >= view.enter { "is enough" } else { "is not enough either" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decide::{Change, Decider, Rules, Tags, Transition};
    use crate::prompts::pack::tests::axes;

    fn explained(labels: &[&str], background: &[&str], embedding: &[f32], scale: f32) -> Explanation {
        let decider = Decider::new(axes(labels, background), scale);
        explain(&decider.score(embedding).unwrap(), decider.pack().header())
    }

    #[test]
    fn a_tag_is_explained_by_its_threshold() {
        let told = explained(&["forest", "river"], &["sky"], &[0.8, 0.6, 0.0], 100.0);
        assert_eq!(told.labels[0].verdict, Verdict::Tagged);
        assert_eq!(told.why.len(), 1);
        assert!(told.why[0].starts_with("forest is tagged: it scores 1.000, its threshold is 0.50"), "{:?}", told.why);
    }

    #[test]
    fn the_background_that_won_is_named_with_what_the_score_would_be_without_it() {
        // exp(1.4), exp(0), exp(1.6): 0.405, 0.100, 0.495 of the whole; without the sky forest has 0.802.
        let told = explained(&["forest", "river"], &["sky"], &[0.7, 0.0, 0.8], 2.0);
        assert_eq!((told.label, told.labels[0].verdict), (None, Verdict::Held));
        assert!(told.why[0].contains("if the tag was active already it stays"), "{:?}", told.why);
        assert!(told.why[1].contains("\"sky\"") && told.why[1].contains("0.802, which is enough"), "{:?}", told.why);
        assert!(told.why.last().unwrap().contains("`label` is null"), "{:?}", told.why);
    }

    #[test]
    fn a_rival_that_split_the_score_is_named() {
        let told = explained(&["river", "water"], &[], &[0.7, 0.7], 1.0);
        assert_eq!(told.labels[0].verdict, Verdict::Tagged, "both have 0.5, the threshold");
        let told = explained(&["river", "water", "road"], &[], &[0.7, 0.7, 0.0], 100.0);
        assert!(told.labels[0].probability < 0.51);
        let told = explained(&["river", "water", "road"], &[], &[0.7, 0.69, 0.0], 1.0);
        assert!(told.why[1].contains("water takes 0.3"), "{:?}", told.why);
    }

    #[test]
    fn verdicts_are_those_of_the_tags() {
        let pack = axes(&["forest"], &[]);
        let label = &pack.header().labels[0];
        for score in [0.0, 0.1, 0.39, 0.4, 0.45, 0.499, 0.5, 0.6, 1.0] {
            let frame = |score: f32| Scores {
                labels: vec![score],
                cosines: vec![0.0],
                background: 0.0,
                background_shares: vec![],
                background_cosines: vec![],
            };
            let mut tags = Tags::new(&pack.header().labels, Rules::at_once());
            let enters = tags.update(Duration::ZERO, &frame(score));
            let entered = matches!(enters[..], [Change { transition: Transition::Enter, .. }]);
            let mut active = Tags::new(&pack.header().labels, Rules::at_once());
            active.update(Duration::ZERO, &frame(1.0));
            let leaves = !active.update(Duration::ZERO, &frame(score)).is_empty();
            let verdict = match (entered, leaves) {
                (true, _) => Verdict::Tagged,
                (false, false) => Verdict::Held,
                (false, true) => Verdict::Below,
            };
            assert_eq!(Verdict::of(label, score), verdict, "at {score}");
        }
    }
}

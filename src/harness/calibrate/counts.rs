//! What a threshold does, counted, with intervals that say how far a count can be believed.

use serde::Serialize;

use super::LabelScores;

/// Standard normal quantile of a two-sided 95 % interval.
const Z95: f64 = 1.959_964;

/// What a threshold does on the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Counts {
    /// Pictures that show the label and are tagged.
    pub hits: usize,
    /// Pictures that show it.
    pub positives: usize,
    /// Pictures that do not show it and are tagged.
    pub false_alarms: usize,
    /// Pictures that do not show it.
    pub negatives: usize,
    /// `hits / (hits + false_alarms)`; none when nothing is tagged.
    pub precision: Option<f64>,
    /// Its 95 % interval (Wilson 1927).
    pub precision_interval: Option<[f64; 2]>,
    /// `hits / positives`; none without any.
    pub recall: Option<f64>,
    /// `false_alarms / negatives`; none without any.
    pub false_alarm_rate: Option<f64>,
    /// Its 95 % interval.
    pub false_alarm_interval: Option<[f64; 2]>,
}

impl Counts {
    /// Counts what reaches `threshold`, as `decide` does.
    pub fn at(scores: &LabelScores, threshold: f32) -> Self {
        let reach = |scores: &[f32]| scores.iter().filter(|score| **score >= threshold).count();
        Self::of(reach(&scores.positives), scores.positives.len(), reach(&scores.negatives), scores.negatives.len())
    }

    pub(super) fn of(hits: usize, positives: usize, false_alarms: usize, negatives: usize) -> Self {
        let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        Self {
            hits,
            positives,
            false_alarms,
            negatives,
            precision: share(hits, hits + false_alarms),
            precision_interval: wilson(hits, hits + false_alarms),
            recall: share(hits, positives),
            false_alarm_rate: share(false_alarms, negatives),
            false_alarm_interval: wilson(false_alarms, negatives),
        }
    }
}

/// 95 % score interval of a share (Wilson 1927, "Probable inference, the law of succession, and statistical inference").
fn wilson(part: usize, whole: usize) -> Option<[f64; 2]> {
    if whole == 0 {
        return None;
    }
    let (n, share) = (whole as f64, part as f64 / whole as f64);
    let square = Z95 * Z95 / n;
    let middle = (share + square / 2.0) / (1.0 + square);
    let half = Z95 / (1.0 + square) * (share * (1.0 - share) / n + square / (4.0 * n)).sqrt();
    Some([(middle - half).max(0.0), (middle + half).min(1.0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_is_as_in_the_textbook() {
        // Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
        let [low, high] = wilson(81, 263).unwrap();
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0, 0), None);
    }
}

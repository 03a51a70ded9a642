//! A distribution of scores in a few figures.

use serde::Serialize;

/// Bins of the histogram, each a twentieth of the scores' range from 0 to 1.
const BINS: usize = 20;

/// Quantiles and histogram of scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// Least.
    pub min: f32,
    /// 5 % are at or below.
    pub p5: f32,
    /// Half are at or below.
    pub median: f32,
    /// 95 % are at or below.
    pub p95: f32,
    /// 99 % are at or below.
    pub p99: f32,
    /// Largest.
    pub max: f32,
    /// Scores in each twentieth from 0 to 1.
    pub histogram: [usize; BINS],
}

impl Spread {
    /// Of scores from 0 to 1; none of none.
    pub fn of(scores: &[f32]) -> Option<Self> {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f32::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        // The nearest rank: a quantile is a score that was found.
        let at = |share: f64| sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1];
        let mut histogram = [0; BINS];
        for score in &sorted {
            histogram[((score * BINS as f32) as usize).min(BINS - 1)] += 1;
        }
        let (p5, median, p95, p99) = (at(0.05), at(0.5), at(0.95), at(0.99));
        Some(Self { count: sorted.len(), min, p5, median, p95, p99, max, histogram })
    }

    /// The histogram as twenty characters, each as high as its bin is full beside the fullest.
    pub fn bars(&self) -> String {
        const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let fullest = self.histogram.iter().copied().max().unwrap_or(0).max(1);
        // A bin that holds anything at all is seen.
        self.histogram.iter().map(|count| BARS[(count * 8).div_ceil(fullest)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_scores_that_were_found() {
        let scores: Vec<f32> = (1..=100).rev().map(|score| score as f32 / 100.0).collect();
        let spread = Spread::of(&scores).unwrap();
        assert_eq!((spread.p5, spread.median, spread.p99, spread.max), (0.05, 0.5, 0.99, 1.0));
        assert_eq!(spread.histogram.iter().sum::<usize>(), 100);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[0.3]).unwrap().p5, 0.3);
    }

    #[test]
    fn a_single_score_is_seen_beside_a_thousand() {
        let mut scores = vec![0.01; 1000];
        scores.push(0.99);
        let bars = Spread::of(&scores).unwrap().bars();
        assert!(bars.starts_with('█') && bars.ends_with('▁') && bars.chars().count() == 20, "{bars}");
    }
}

//! How sure a difference is: the paired bootstrap (Efron & Tibshirani 1993, chapter 16) over pictures.
//!
//! A resample draws as many pictures as there are, with replacement, the same ones for both sides; a picture takes its
//! captions along. The interval is that of the percentiles.

use super::metrics::{Estimate, parallel};

/// How it is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Bootstrap {
    /// Resamples.
    pub resamples: usize,
    /// The same seed draws the same pictures.
    pub seed: u64,
    /// The share of resamples inside an interval.
    pub confidence: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2000, seed: 0, confidence: 0.95 }
    }
}

/// Where a difference and a ratio lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    /// Of ours minus the reference's.
    pub difference: [f64; 2],
    /// Of ours over the reference's; none when a resample has a reference of 0.
    pub ratio: Option<[f64; 2]>,
}

impl Bootstrap {
    /// For each pair of estimates over the same pictures; none without resamples or pictures.
    pub fn intervals(&self, ours: &[Estimate], reference: &[Estimate]) -> Option<Vec<Intervals>> {
        let pictures = ours.first().map_or(0, Estimate::len);
        if self.resamples == 0 || pictures == 0 {
            return None;
        }
        let draws = parallel(self.resamples, |at| {
            let mut random =
                fastrand::Rng::with_seed(self.seed.wrapping_add((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let mut times = vec![0.0; pictures];
            (0..pictures).for_each(|_| times[random.usize(..pictures)] += 1.0);
            let pairs = ours.iter().zip(reference);
            pairs.map(|(a, b)| (a.weighted(|i| times[i]), b.weighted(|i| times[i]))).collect::<Vec<_>>()
        });
        let of = |metric: usize| {
            let difference = self.middle(draws.iter().map(|draw| draw[metric].0 - draw[metric].1).collect());
            let ratios: Vec<f64> = draws.iter().map(|draw| draw[metric].0 / draw[metric].1).collect();
            let ratio = ratios.iter().all(|ratio| ratio.is_finite()).then(|| self.middle(ratios));
            Intervals { difference, ratio }
        };
        Some((0..ours.len()).map(of).collect())
    }

    /// The edges of the middle part.
    fn middle(&self, mut values: Vec<f64>) -> [f64; 2] {
        values.sort_by(f64::total_cmp);
        let last = (values.len() - 1) as f64;
        let tail = (1.0 - self.confidence) / 2.0;
        [tail, 1.0 - tail].map(|share| values[(last * share).round() as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(every: usize) -> Estimate {
        Estimate::mean("x", (0..400).map(|i| if i % every == 0 { 0.0 } else { 1.0 }).collect())
    }

    #[test]
    fn equal_sides_differ_by_nothing() {
        let found = Bootstrap::default().intervals(&[hits(3)], &[hits(3)]).unwrap();
        assert_eq!(found, [Intervals { difference: [0.0, 0.0], ratio: Some([1.0, 1.0]) }]);
    }

    #[test]
    fn an_interval_is_about_as_wide_as_theory_says_and_the_same_every_time() {
        // Against a side that is always right, the difference is a binomial's: 1.96 · √(0.25 · 0.75 / 400) = 0.0424.
        let sure = Estimate::mean("x", vec![1.0; 400]);
        let bootstrap = Bootstrap::default();
        let found = bootstrap.intervals(&[hits(4)], std::slice::from_ref(&sure)).unwrap()[0];
        assert!((found.difference[0] + 0.25 + 0.0424).abs() < 0.005, "{found:?}");
        assert!((found.difference[1] + 0.25 - 0.0424).abs() < 0.005, "{found:?}");
        assert_eq!(found, bootstrap.intervals(&[hits(4)], std::slice::from_ref(&sure)).unwrap()[0]);
        let other =
            |seed| Bootstrap { seed, resamples: 50, ..bootstrap }.intervals(&[hits(4)], std::slice::from_ref(&sure));
        assert!((1..9).any(|seed| other(seed) != other(0)));
    }
}

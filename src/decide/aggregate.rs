//! The scores of a frame's parts → the scores of the frame, and which parts carry a label.

use super::Scores;

/// A part whose score is below this share of the best part's does not carry the label.
const CARRIES: f32 = 0.5;
/// Most parts named for one label.
const MOST_NAMED: usize = 4;

/// How the scores of a frame's parts become the frame's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// The best part decides: finds what is in one tile only.
    Max,
    /// The mean of all parts: what most of the frame shows.
    Mean,
    /// The mean of the best so many parts: one odd tile is not enough.
    TopK(usize),
}

impl Aggregate {
    /// The frame's scores from those of its parts, each value by itself. The background counts the other way round, by its
    /// lowest shares: a frame is of nothing we look for only as far as all of its parts are.
    ///
    /// One part alone is the frame. Labels' scores may sum to more than one.
    pub fn combine(self, parts: &[Scores]) -> Scores {
        let high = |of: fn(&Scores) -> &[f32]| self.each(parts, of, false);
        let low = |of: fn(&Scores) -> &[f32]| self.each(parts, of, true);
        Scores {
            labels: high(|part| &part.labels),
            cosines: high(|part| &part.cosines),
            background: self.one(parts.iter().map(|part| part.background).collect(), true),
            background_shares: low(|part| &part.background_shares),
            background_cosines: low(|part| &part.background_cosines),
        }
    }

    fn each(self, parts: &[Scores], of: fn(&Scores) -> &[f32], lowest: bool) -> Vec<f32> {
        let width = parts.first().map_or(0, |part| of(part).len());
        (0..width).map(|at| self.one(parts.iter().map(|part| of(part)[at]).collect(), lowest)).collect()
    }

    fn one(self, mut values: Vec<f32>, lowest: bool) -> f32 {
        values.sort_by(|a, b| if lowest { a.total_cmp(b) } else { b.total_cmp(a) });
        values.truncate(match self {
            Self::Max => 1,
            Self::Mean => usize::MAX,
            Self::TopK(count) => count,
        });
        values.iter().sum::<f32>() / values.len().max(1) as f32
    }
}

/// The parts that carry a label: the one with its best score and those with at least half of that, best first, at most
/// four.
pub fn carriers(parts: &[Scores], label: usize) -> Vec<usize> {
    let score = |part: &usize| parts[*part].labels[label];
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let least = order.first().map_or(0.0, |best| score(best) * CARRIES);
    order.retain(|part| score(part) >= least);
    order.truncate(MOST_NAMED);
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(labels: &[f32], background: f32) -> Scores {
        Scores {
            labels: labels.to_vec(),
            cosines: labels.to_vec(),
            background,
            background_shares: vec![background],
            background_cosines: vec![0.1],
        }
    }

    #[test]
    fn each_way_of_aggregating() {
        let parts = [part(&[0.1, 0.2], 0.7), part(&[0.9, 0.0], 0.1), part(&[0.2, 0.4], 0.4)];
        let labels =
            |how: Aggregate| how.combine(&parts).labels.iter().map(|s| (s * 100.0).round()).collect::<Vec<_>>();
        assert_eq!(labels(Aggregate::Max), [90.0, 40.0]);
        assert_eq!(labels(Aggregate::Mean), [40.0, 20.0]);
        assert_eq!(labels(Aggregate::TopK(2)), [55.0, 30.0]);
    }

    #[test]
    fn a_small_thing_outweighs_the_background_of_the_rest() {
        let parts = [part(&[0.02], 0.98), part(&[0.9], 0.1), part(&[0.01], 0.99)];
        let frame = Aggregate::Max.combine(&parts);
        assert!(frame.top().is_some() && frame.margin() > 0.7);
        assert!(Aggregate::Mean.combine(&parts).top().is_none());
    }

    #[test]
    fn the_best_parts_carry_a_label() {
        let parts = [0.1, 0.9, 0.5, 0.4, 0.0].map(|score| part(&[score], 0.0));
        assert_eq!(carriers(&parts, 0), [1, 2]);
        let alike = [0.5; 9].map(|score| part(&[score], 0.0));
        assert_eq!(carriers(&alike, 0), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn one_part_alone_is_the_frame_and_a_share_stays_a_share(
            scores in prop::collection::vec((0.0f32..1.0, 0.0f32..1.0), 1..12), count in 1usize..12,
        ) {
            let parts: Vec<_> = scores.iter().map(|(label, background)| part(&[*label], *background)).collect();
            for how in [Aggregate::Max, Aggregate::Mean, Aggregate::TopK(count)] {
                let alone = how.combine(&parts[..1]);
                prop_assert_eq!((alone.labels[0], alone.background), scores[0]);
                let all = how.combine(&parts);
                prop_assert!((0.0..=1.0).contains(&all.labels[0]) && (0.0..=1.0).contains(&all.background));
                prop_assert!((-1.0..=1.0).contains(&all.margin()));
            }
        }
    }
}

//! Embedding + prompt pack → scores.
//!
//! A score is CLIP's zero-shot probability: the softmax, over all labels and all background texts, of the cosine times
//! the model's logit scale (Radford et al. 2021, section 3.1.2). Background texts compete and are summed into one
//! `background` share, so that a picture of nothing we look for scores low on every label.

use crate::prompts::pack::Pack;

/// Scores embeddings against one prompt pack.
#[derive(Debug, Clone)]
pub struct Decider {
    pack: Pack,
    logit_scale: f32,
}

/// The scores of one frame.
#[derive(Debug, Clone)]
pub struct Scores {
    /// One probability a label, in the pack's order.
    pub labels: Vec<f32>,
    /// The cosine a label, in the pack's order.
    pub cosines: Vec<f32>,
    /// The share of all background texts together.
    pub background: f32,
    /// The share of each background text, in the pack's order.
    pub background_shares: Vec<f32>,
    /// The cosine a background text, in the pack's order.
    pub background_cosines: Vec<f32>,
}

/// A label's place in the pack and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelScore {
    /// Index into the pack's labels.
    pub label: usize,
    /// Probability, 0..1.
    pub score: f32,
}

impl Decider {
    /// For a pack and the logit scale of the model whose embeddings will come.
    pub fn new(pack: Pack, logit_scale: f32) -> Self {
        Self { pack, logit_scale }
    }

    /// The pack in use.
    pub fn pack(&self) -> &Pack {
        &self.pack
    }

    /// Scores a unit vector.
    ///
    /// # Errors
    /// [`DecideError::Width`] when the vector is not as wide as the pack's.
    pub fn score(&self, embedding: &[f32]) -> Result<Scores, DecideError> {
        let width = self.pack.header().embed_dim;
        if embedding.len() != width {
            return Err(DecideError::Width { embedding: embedding.len(), pack: width });
        }
        let dot = |row: &[f32]| row.iter().zip(embedding).map(|(a, b)| a * b).sum::<f32>();
        let mut cosines: Vec<f32> = self.pack.rows().map(dot).collect();
        // The largest is taken off first: exp never overflows, and the result is the same.
        let largest = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut labels: Vec<f32> = cosines.iter().map(|cosine| ((cosine - largest) * self.logit_scale).exp()).collect();
        let total: f32 = labels.iter().sum();
        labels.iter_mut().for_each(|value| *value /= total);
        let count = self.pack.header().labels.len();
        let background_shares = labels.split_off(count);
        let background_cosines = cosines.split_off(count);
        Ok(Scores {
            background: background_shares.iter().sum(),
            labels,
            cosines,
            background_shares,
            background_cosines,
        })
    }
}

impl Scores {
    /// Labels by falling score; equal scores keep the pack's order.
    pub fn ranked(&self) -> Vec<LabelScore> {
        let mut ranked: Vec<_> =
            self.labels.iter().enumerate().map(|(label, score)| LabelScore { label, score: *score }).collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        ranked
    }

    /// The best label, unless the background's share is larger.
    pub fn top(&self) -> Option<LabelScore> {
        self.ranked().first().copied().filter(|best| best.score >= self.background)
    }

    /// How far the best score stands above the next best, background included; negative when the background wins.
    pub fn margin(&self) -> f32 {
        let ranked = self.ranked();
        let best = ranked.first().map_or(0.0, |best| best.score);
        let next = ranked.get(1).map_or(0.0, |next| next.score);
        best - next.max(self.background)
    }
}

/// Why an embedding was not scored.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The widths differ.
    #[error("the embedding has {embedding} values, the prompt pack {pack}; compile the prompts with this bundle")]
    Width {
        /// Of the embedding.
        embedding: usize,
        /// Of the pack.
        pack: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompts::pack::tests::axes;

    #[test]
    fn scores_are_the_softmax_over_labels_and_background() {
        let decider = Decider::new(axes(&["forest", "river"], &["sky", "fog"]), 2.0);
        let scores = decider.score(&[0.6, 0.0, 0.8, 0.0]).unwrap();
        // exp(1.2), exp(0), exp(1.6), exp(0) = 3.3201, 1, 4.9530, 1; total 10.2731.
        for (found, expected) in scores.labels.iter().zip([0.32318, 0.09734]) {
            assert!((found - expected).abs() < 1e-4, "{found}");
        }
        assert!((scores.background - 0.57947).abs() < 1e-4);
        assert_eq!(scores.top(), None, "the background wins");
        assert!((scores.margin() - (0.32318 - 0.57947)).abs() < 1e-4);
    }

    #[test]
    fn the_best_label_is_on_top_with_its_margin() {
        let decider = Decider::new(axes(&["forest", "river", "road"], &[]), 100.0);
        let scores = decider.score(&[0.0, 0.8, 0.6]).unwrap();
        assert_eq!(scores.top().map(|top| top.label), Some(1));
        assert_eq!(scores.ranked().iter().map(|score| score.label).collect::<Vec<_>>(), [1, 2, 0]);
        assert!(scores.margin() > 0.99);
    }

    #[test]
    fn a_wrong_width_is_refused() {
        let decider = Decider::new(axes(&["forest"], &[]), 100.0);
        assert!(decider.score(&[1.0, 0.0]).is_err());
    }

    proptest! {
        #[test]
        fn shares_add_up_to_one(raw in proptest::collection::vec(-1.0f32..1.0, 4), scale in 0.1f32..200.0) {
            let scores = Decider::new(axes(&["a", "b", "c"], &["d"]), scale).score(&raw).unwrap();
            let total: f32 = scores.labels.iter().sum::<f32>() + scores.background;
            prop_assert!((total - 1.0).abs() < 1e-4);
            prop_assert!(scores.labels.iter().all(|score| (0.0..=1.0).contains(score)));
        }
    }
}

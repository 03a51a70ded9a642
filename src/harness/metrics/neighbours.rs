//! k-nearest-neighbour classification on the picture embeddings: the vote of the k nearest, each weighing
//! exp(cosine / T), with k = 20 and T = 0.07 as DINO's and RemoteCLIP's evaluations have them.

use super::{Guesses, dot, parallel, top};
use crate::harness::tensors::Matrix;

/// Voters.
pub const NEIGHBOURS: usize = 20;
const TEMPERATURE: f32 = 0.07;
const KEPT: usize = 5;

/// Pictures whose classes are known.
#[derive(Debug, Clone, Copy)]
pub struct Gallery<'a> {
    /// A row a picture.
    pub images: &'a Matrix,
    /// Their classes.
    pub labels: &'a [usize],
}

/// What the neighbours in `gallery` say of each picture; in the pictures themselves, each left out of its own vote, when
/// there is no gallery.
pub fn guesses(images: &Matrix, labels: &[usize], gallery: Option<Gallery>, classes: usize) -> Guesses {
    let voters = gallery.unwrap_or(Gallery { images, labels });
    let ranked = parallel(images.len(), |row| {
        let mut scores: Vec<f32> = voters.images.rows().map(|other| dot(images.row(row), other) as f32).collect();
        if gallery.is_none() {
            scores[row] = f32::NEG_INFINITY;
        }
        let mut votes = vec![0.0; classes];
        for near in top(&scores, NEIGHBOURS) {
            // 1 is the largest cosine: taking it off keeps exp small and changes no ranking.
            votes[voters.labels[near]] += ((scores[near] - 1.0) / TEMPERATURE).exp();
        }
        top(&votes, KEPT)
    });
    Guesses { images: (0..images.len()).collect(), truth: labels.to_vec(), ranked, probability: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_does_not_vote_for_itself() {
        let images = Matrix::new(2, vec![1.0, 0.0, 0.0, 1.0, 0.1, 1.0]).normalised().unwrap();
        let guesses = guesses(&images, &[0, 1, 1], None, 2);
        assert_eq!((0..3).map(|i| guesses.winner(i)).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn near_voices_outweigh_many_far_ones() {
        let gallery = Matrix::new(2, vec![1.0, 0.0, 0.0, 1.0, 0.0, 1.0]);
        let gallery = Gallery { images: &gallery, labels: &[0, 1, 1] };
        let images = Matrix::new(2, vec![0.8, 0.6]);
        assert_eq!(guesses(&images, &[0], Some(gallery), 2).winner(0), 0);
    }
}

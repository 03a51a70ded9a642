//! Zero-shot classification: the class whose prompts are nearest, through the daemon's `decide`.

use super::{Guesses, parallel, top};
use crate::decide::{DecideError, Decider};
use crate::harness::tensors::Matrix;

/// Kept of each picture's ranking.
const KEPT: usize = 5;

/// What the decider says of each picture; its pack's labels are the classes.
///
/// # Errors
/// [`DecideError`] when pictures and prompts are of different width.
pub fn guesses(images: &Matrix, labels: &[usize], decider: &Decider) -> Result<Guesses, DecideError> {
    let rows = parallel(images.len(), |row| {
        let scores = decider.score(images.row(row))?;
        // By cosine, which the score rises with: far from the winner many scores are 0 in f32, their cosines differ.
        let ranked = top(&scores.cosines, KEPT);
        let probability = ranked.first().map_or(0.0, |winner| scores.labels[*winner]);
        Ok::<_, DecideError>((ranked, probability))
    });
    let (ranked, probability) = rows.into_iter().collect::<Result<Vec<_>, DecideError>>()?.into_iter().unzip();
    Ok(Guesses { images: (0..images.len()).collect(), truth: labels.to_vec(), ranked, probability })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::pack::tests::axes;

    #[test]
    fn classes_far_from_the_winner_keep_their_order() {
        let images = Matrix::new(6, vec![0.9, 0.3, 0.2, 0.22, 0.1, 0.0]).normalised().unwrap();
        let decider = Decider::new(axes(&["a", "b", "c", "d", "e", "f"], &[]), 1000.0);
        let guesses = guesses(&images, &[4], &decider).unwrap();
        assert_eq!(guesses.ranked, [[0, 1, 3, 2, 4]]);
        assert!(!guesses.hit(0, 4) && guesses.hit(0, 5));
    }
}

//! Linear probe and few-shot classification: a ridge classifier on frozen embeddings.
//!
//! Least squares onto one-hot classes, in f64 and in closed form (Cholesky), so the same embeddings give the same answer
//! on every machine and there is no learning rate to choose. The pictures' mean is taken off; the ridge is the mean
//! eigenvalue of their scatter.

use super::{Guesses, parallel, top};
use crate::harness::tensors::Matrix;

const KEPT: usize = 5;

/// A fitted classifier.
pub struct Probe {
    mean: Vec<f64>,
    /// A row a class.
    weights: Vec<Vec<f64>>,
    bias: Vec<f64>,
}

impl Probe {
    /// Fits on these rows of `images`.
    pub fn fit(images: &Matrix, labels: &[usize], rows: &[usize], classes: usize) -> Self {
        let width = images.width();
        let count = rows.len().max(1) as f64;
        let mut mean = vec![0.0; width];
        let mut bias = vec![0.0; classes];
        for row in rows {
            mean.iter_mut().zip(images.row(*row)).for_each(|(mean, value)| *mean += f64::from(*value) / count);
            bias[labels[*row]] += 1.0 / count;
        }
        let centred: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| images.row(*row).iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect())
            .collect();
        let mut scatter = parallel(width, |i| {
            (0..=i).map(|j| centred.iter().map(|row| row[i] * row[j]).sum::<f64>()).collect::<Vec<f64>>()
        });
        let trace: f64 = (0..width).map(|i| scatter[i][i]).sum();
        // A scatter of nothing (one picture, or equal ones) must still be solvable.
        let ridge = (trace / width as f64).max(1e-12);
        (0..width).for_each(|i| scatter[i][i] += ridge);
        cholesky(&mut scatter);
        let weights = parallel(classes, |class| {
            let mut towards = vec![0.0; width];
            for (row, values) in rows.iter().zip(&centred) {
                let target = f64::from(u8::from(labels[*row] == class)) - bias[class];
                towards.iter_mut().zip(values).for_each(|(sum, value)| *sum += target * value);
            }
            solve(&scatter, towards)
        });
        Self { mean, weights, bias }
    }

    /// What it says of these rows of `images`.
    pub fn guesses(&self, images: &Matrix, labels: &[usize], rows: &[usize]) -> Guesses {
        let ranked = parallel(rows.len(), |at| {
            let row = images.row(rows[at]);
            let score = |(weights, bias): (&Vec<f64>, &f64)| {
                let values = row.iter().zip(&self.mean).zip(weights);
                (bias + values.map(|((value, mean), weight)| (f64::from(*value) - mean) * weight).sum::<f64>()) as f32
            };
            top(&self.weights.iter().zip(&self.bias).map(score).collect::<Vec<_>>(), KEPT)
        });
        let truth = rows.iter().map(|row| labels[*row]).collect();
        Guesses { images: rows.to_vec(), truth, ranked, probability: Vec::new() }
    }
}

/// The lower triangle of a positive definite matrix becomes its Cholesky factor.
fn cholesky(rows: &mut [Vec<f64>]) {
    for i in 0..rows.len() {
        let (done, rest) = rows.split_at_mut(i);
        let row = &mut rest[0];
        for j in 0..=i {
            let other = if j == i { None } else { Some(&done[j]) };
            let sum: f64 = match other {
                Some(other) => row[..j].iter().zip(&other[..j]).map(|(a, b)| a * b).sum(),
                None => row[..j].iter().map(|a| a * a).sum(),
            };
            row[j] = match other {
                Some(other) => (row[j] - sum) / other[j],
                None => (row[j] - sum).max(f64::MIN_POSITIVE).sqrt(),
            };
        }
    }
}

/// Solves `L Lᵀ x = b`.
fn solve(factor: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    for i in 0..b.len() {
        let sum: f64 = factor[i][..i].iter().zip(&b).map(|(a, b)| a * b).sum();
        b[i] = (b[i] - sum) / factor[i][i];
    }
    for i in (0..b.len()).rev() {
        b[i] /= factor[i][i];
        let value = b[i];
        b[..i].iter_mut().zip(&factor[i]).for_each(|(b, a)| *b -= a * value);
    }
    b
}

/// `shots` rows of each class, drawn by `seed`; the rest is the second part. Every class gives one row less than it has
/// at most, so that something is left to ask.
pub fn draw(labels: &[usize], classes: usize, seed: u64, shots: impl Fn(usize) -> usize) -> (Vec<usize>, Vec<usize>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut drawn, mut rest) = (Vec::new(), Vec::new());
    for class in 0..classes {
        let mut rows: Vec<usize> = (0..labels.len()).filter(|row| labels[*row] == class).collect();
        random.shuffle(&mut rows);
        let count = shots(rows.len()).min(rows.len().saturating_sub(1));
        rest.extend_from_slice(&rows[count..]);
        rows.truncate(count);
        drawn.append(&mut rows);
    }
    drawn.sort_unstable();
    rest.sort_unstable();
    (drawn, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_solution_solves(values in proptest::collection::vec(-1.0f64..1.0, 16), b in proptest::collection::vec(-1.0f64..1.0, 4)) {
            let product = |i: usize, j: usize| -> f64 { (0..4).map(|k| values[i * 4 + k] * values[j * 4 + k]).sum() };
            let full = |i, j| product(i, j) + if i == j { 0.5 } else { 0.0 };
            let mut rows: Vec<Vec<f64>> = (0..4).map(|i| (0..=i).map(|j| full(i, j)).collect()).collect();
            cholesky(&mut rows);
            let x = solve(&rows, b.clone());
            for (i, b) in b.iter().enumerate() {
                let found: f64 = (0..4).map(|j| full(i, j) * x[j]).sum();
                prop_assert!((found - b).abs() < 1e-9);
            }
        }

        #[test]
        fn a_draw_parts_the_rows(labels in proptest::collection::vec(0usize..4, 0..60), shots in 0usize..9, seed in 0u64..9) {
            let (drawn, rest) = draw(&labels, 4, seed, |_| shots);
            let mut all = [drawn.clone(), rest].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
            for class in 0..4 {
                let has = labels.iter().filter(|label| **label == class).count();
                let took = drawn.iter().filter(|row| labels[**row] == class).count();
                prop_assert_eq!(took, shots.min(has.saturating_sub(1)));
            }
            prop_assert_eq!(drawn, draw(&labels, 4, seed, |_| shots).0);
        }
    }

    #[test]
    fn separable_classes_are_separated() {
        let images = Matrix::of_rows(3, (0..30).map(|i| [(i % 3) as f32 - 1.0, 0.3, (i as f32 * 0.7).sin() * 0.4]));
        let labels: Vec<usize> = (0..30).map(|i| i % 3).collect();
        let rows: Vec<usize> = (0..15).collect();
        let guesses = Probe::fit(&images, &labels, &rows, 3).guesses(&images, &labels, &(15..30).collect::<Vec<_>>());
        // The middle class of three on a line is beyond a linear classifier by least squares; the outer ones are not.
        assert!((0..15).all(|i| guesses.truth[i] == 1 || guesses.hit(i, 1)));
    }
}

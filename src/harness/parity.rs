//! How near the embeddings, the names and the decisions of two aligned sides are.

use std::time::Duration;

use super::HarnessError;
use super::embeddings::EmbeddingSet;
use super::metrics::{Guesses, dot, parallel};
use super::report::{Cosines, DecidedBy, Histogram, Misplaced, Named, WorstImage};
use super::tensors::Matrix;
use crate::decide::{Decider, Rules, Tags};

/// Pictures named in a list.
const MOST_IMAGES: usize = 20;
/// Bars of the histogram.
const BARS: usize = 20;
/// Below this a row is suspected to be another picture's. Int8 costs a hundredth of it.
const SUSPECT: f64 = 0.97;
/// Suspects looked at, the worst first: a file of nothing but misplaced rows needs no more proof.
const MOST_SUSPECTS: usize = 500;

/// The cosine of each pair of rows.
pub fn cosines(a: &Matrix, b: &Matrix) -> Vec<f64> {
    let cosine = |at| {
        let (a, b) = (a.row(at), b.row(at));
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    parallel(a.len().min(b.len()), cosine)
}

/// A distribution in four figures; none of nothing.
pub fn summary(cosines: &[f64]) -> Option<Cosines> {
    let mut sorted = cosines.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted.get((sorted.len().saturating_sub(1) as f64 * share).floor() as usize).copied();
    let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
    Some(Cosines { mean, p1: at(0.01)?, median: at(0.5)?, min: at(0.0)? })
}

/// Bars from a round figure at or below the least cosine up to 1.
pub fn histogram(cosines: &[f64]) -> Histogram {
    let span = cosines.iter().map(|cosine| 1.0 - cosine).fold(1e-6, f64::max);
    let power = 10f64.powf(span.log10().floor());
    let span = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|round| *round >= span).unwrap_or(span);
    let edges: Vec<f64> = (0..=BARS).map(|at| 1.0 - span + span * at as f64 / BARS as f64).collect();
    let mut counts = vec![0; BARS];
    for cosine in cosines {
        let at = (cosine - edges[0]) / span * BARS as f64;
        counts[(at.max(0.0) as usize).min(BARS - 1)] += 1;
    }
    Histogram { edges, counts }
}

/// Reference rows that fit another of our pictures better than their own.
pub fn misplaced(ours: &EmbeddingSet, reference: &EmbeddingSet, cosines: &[f64]) -> Vec<Misplaced> {
    let mut suspects: Vec<usize> = (0..cosines.len()).filter(|at| cosines[*at] < SUSPECT).collect();
    suspects.sort_by(|a, b| cosines[*a].total_cmp(&cosines[*b]));
    suspects.truncate(MOST_SUSPECTS);
    let found = parallel(suspects.len(), |at| {
        let picture = suspects[at];
        let scores = reference.images.rows().map(|row| dot(ours.images.row(picture), row)).enumerate();
        let (row, score) = scores.max_by(|a, b| a.1.total_cmp(&b.1))?;
        (row != picture && score > cosines[picture].max(SUSPECT)).then(|| Misplaced {
            file: ours.name(picture),
            cosine: cosines[picture],
            fits: ours.name(row),
            fits_cosine: score,
        })
    });
    found.into_iter().flatten().collect()
}

/// What both sides say of the pictures, for telling about single ones.
pub struct Told<'a> {
    /// Ours.
    pub ours: &'a EmbeddingSet,
    /// Of each picture.
    pub cosines: &'a [f64],
    /// Both sides' zero-shot answers, where there are any.
    pub guesses: Option<(&'a Guesses, &'a Guesses)>,
    /// Where the pictures lie.
    pub root: Option<&'a std::path::Path>,
}

impl Told<'_> {
    fn image(&self, at: usize) -> WorstImage {
        let named = |guesses: &Guesses| Named {
            class: self.ours.classes[guesses.winner(at)].clone(),
            probability: f64::from(guesses.probability[at]),
        };
        WorstImage {
            file: self.ours.name(at),
            path: self.root.filter(|_| !self.ours.files.is_empty()).map(|root| root.join(&self.ours.files[at])),
            cosine: self.cosines[at],
            label: self.ours.labels.get(at).map(|label| self.ours.classes[*label].clone()),
            ours: self.guesses.map(|(ours, _)| named(ours)),
            reference: self.guesses.map(|(_, reference)| named(reference)),
        }
    }

    /// The pictures of the least cosine.
    pub fn worst(&self) -> Vec<WorstImage> {
        let mut order: Vec<usize> = (0..self.cosines.len()).collect();
        order.sort_by(|a, b| self.cosines[*a].total_cmp(&self.cosines[*b]).then(a.cmp(b)));
        order.into_iter().take(MOST_IMAGES).map(|at| self.image(at)).collect()
    }

    /// The share of pictures given one name, and the others, the surest first.
    pub fn agreement(&self) -> Option<(f64, Vec<WorstImage>)> {
        let (ours, reference) = self.guesses?;
        let mut differ: Vec<usize> =
            (0..ours.truth.len()).filter(|at| ours.winner(*at) != reference.winner(*at)).collect();
        let share = 1.0 - differ.len() as f64 / ours.truth.len() as f64;
        let sure = |at: &usize| ours.probability[*at].min(reference.probability[*at]);
        differ.sort_by(|a, b| sure(b).total_cmp(&sure(a)));
        Some((share, differ.into_iter().take(MOST_IMAGES).map(|at| self.image(at)).collect()))
    }
}

/// The share of pictures on which every label is decided alike, each picture taken as the first of a flight.
///
/// # Errors
/// [`HarnessError::Decide`] for a pack of another width.
pub fn decisions(decider: &Decider, ours: &Matrix, reference: &Matrix) -> Result<(f64, DecidedBy), HarnessError> {
    let labels = &decider.pack().header().labels;
    let entered = |row: &[f32]| {
        let scores = decider.score(row)?;
        let changes = Tags::new(labels, Rules::at_once()).update(Duration::ZERO, &scores);
        Ok::<_, HarnessError>(changes.into_iter().map(|change| change.label).collect::<Vec<_>>())
    };
    let both = parallel(ours.len(), |at| Ok::<_, HarnessError>((entered(ours.row(at))?, entered(reference.row(at))?)));
    let both = both.into_iter().collect::<Result<Vec<_>, _>>()?;
    let alike = both.iter().filter(|(a, b)| a == b).count();
    let decided = DecidedBy {
        set: decider.pack().header().set.clone(),
        pack: decider.pack().id().to_owned(),
        labels: labels.len(),
        active: both.iter().map(|(a, _)| a.len()).sum(),
        reference_active: both.iter().map(|(_, b)| b.len()).sum(),
    };
    Ok((alike as f64 / both.len() as f64, decided))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_everything_once_and_ends_at_one() {
        let cosines = [0.9613, 0.97, 0.999, 1.0, 1.0 + 1e-12];
        let histogram = histogram(&cosines);
        assert_eq!(histogram.counts.iter().sum::<usize>(), 5);
        assert!((histogram.edges[0] - 0.95).abs() < 1e-9 && (histogram.edges[BARS] - 1.0).abs() < 1e-9);
        assert_eq!(histogram.counts[BARS - 1], 3);
    }

    #[test]
    fn swapped_rows_are_named_with_the_picture_they_fit() {
        let files = ["a", "b", "c"].map(str::to_owned).to_vec();
        let images = Matrix::new(2, vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8]);
        let ours = EmbeddingSet { files, images, ..EmbeddingSet::default() };
        let reference = EmbeddingSet { images: ours.images.select(&[1, 0, 2]), ..ours.clone() };
        let found = misplaced(&ours, &reference, &cosines(&ours.images, &reference.images));
        let pairs: Vec<_> = found.iter().map(|row| (row.file.as_str(), row.fits.as_str())).collect();
        assert_eq!(pairs, [("a", "b"), ("b", "a")]);
    }

    #[test]
    fn four_figures_are_those_of_the_sorted_values() {
        let cosines: Vec<f64> = (0..=100).map(|i| f64::from(i) / 100.0).collect();
        let found = summary(&cosines).unwrap();
        assert_eq!((found.min, found.p1, found.median), (0.0, 0.01, 0.5));
        assert!(summary(&[]).is_none());
    }
}

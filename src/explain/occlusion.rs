//! Where in the picture a label is seen: cover one patch after another and see how much of the label's score goes with it
//! (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2).
//!
//! The patches cover the square that the model sees, in the model's mean colour, and overlap by half. What is measured is
//! the fall of the score's log-odds, `ln(p / (1 - p))`: unlike the score it does not stand still near 0 and 1.

use image::{Rgb, RgbImage};

use crate::camera::Picture;
use crate::decide::{DecideError, Decider};
use crate::vision::{Vision, VisionError};

/// How much each cell of the square carries a label.
#[derive(Debug, Clone)]
pub struct Occlusion {
    /// Cells along one side.
    pub cells: usize,
    /// Fall of the label's log-odds while the cell is covered, row by row from the top left; negative where the cell
    /// speaks against the label.
    pub fall: Vec<f32>,
    /// The label's score while the patch with the largest fall is covered.
    pub least_score: f32,
}

/// A patch: two cells wide and high, from its top left cell.
#[derive(Clone, Copy)]
struct Patch {
    column: usize,
    row: usize,
}

/// Covers the model's `square` patch by patch and scores it each time. `vision` must take `batch` pictures at once;
/// `mean` is the model's, of values in 0..1.
///
/// # Errors
/// [`OcclusionError`] when fewer than 2 or more cells than pixels are asked for, or the model fails.
pub fn occlude(
    square: &RgbImage,
    cells: usize,
    label: usize,
    mean: [f32; 3],
    vision: &mut Vision,
    batch: usize,
    decider: &Decider,
) -> Result<Occlusion, OcclusionError> {
    if !(2..=square.width() as usize).contains(&cells) {
        return Err(OcclusionError::Cells { cells, most: square.width() });
    }
    let colour = Rgb(mean.map(|value| (value * 255.0).round() as u8));
    let patches: Vec<Patch> =
        (0..cells - 1).flat_map(|row| (0..cells - 1).map(move |column| Patch { column, row })).collect();
    let mut scores = Vec::new();
    // The picture itself stands first, so that it is compared with itself through the same batched tower.
    let pictures =
        std::iter::once(square.clone()).chain(patches.iter().map(|patch| cover(square, cells, *patch, colour)));
    let pictures: Vec<Picture> = pictures.map(Picture::Rgb).collect();
    for pictures in pictures.chunks(batch) {
        for vector in vision.embed_batch(pictures)?.0 {
            scores.push(decider.score(&vector)?.labels[label]);
        }
    }
    let (whole, covered) = scores.split_first().map_or((0.0, &[][..]), |(whole, covered)| (*whole, covered));
    let falls: Vec<f32> = covered.iter().map(|score| log_odds(whole) - log_odds(*score)).collect();
    let least_score = covered.iter().copied().fold(whole, f32::min);
    Ok(Occlusion { cells, fall: spread(cells, &patches, &falls), least_score })
}

fn cover(square: &RgbImage, cells: usize, patch: Patch, colour: Rgb<u8>) -> RgbImage {
    let at = |cell: usize| (cell * square.width() as usize / cells) as u32;
    let mut covered = square.clone();
    for y in at(patch.row)..at(patch.row + 2) {
        for x in at(patch.column)..at(patch.column + 2) {
            covered.put_pixel(x, y, colour);
        }
    }
    covered
}

/// Each cell's mean over the patches that covered it.
fn spread(cells: usize, patches: &[Patch], falls: &[f32]) -> Vec<f32> {
    let mut sums = vec![(0.0, 0.0); cells * cells];
    for (patch, fall) in patches.iter().zip(falls) {
        for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (sum, count) = &mut sums[(patch.row + row) * cells + patch.column + column];
            *sum += fall;
            *count += 1.0;
        }
    }
    sums.into_iter().map(|(sum, count)| sum / count).collect()
}

/// Bounded, since a score of exactly 1 has no finite log-odds.
fn log_odds(score: f32) -> f32 {
    const LEAST: f32 = 1e-6;
    let score = score.clamp(LEAST, 1.0 - LEAST);
    (score / (1.0 - score)).ln()
}

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
pub enum OcclusionError {
    /// The grid does not fit the model's square.
    #[error("an occlusion map has 2 to {most} cells along a side, not {cells}")]
    Cells {
        /// Asked for.
        cells: usize,
        /// The model's size in pixels.
        most: u32,
    },
    /// The picture was not embedded.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The embedding was not scored.
    #[error(transparent)]
    Decide(#[from] DecideError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_mean_of_the_patches_over_it() {
        let patches: Vec<Patch> = (0..2).flat_map(|row| (0..2).map(move |column| Patch { column, row })).collect();
        let cells = spread(3, &patches, &[1.0, 2.0, 3.0, 6.0]);
        assert_eq!(cells, [1.0, 1.5, 2.0, 2.0, 3.0, 4.0, 3.0, 4.5, 6.0]);
    }

    #[test]
    fn a_patch_covers_two_cells_each_way_and_nothing_else() {
        let square = RgbImage::from_pixel(10, 10, Rgb([9; 3]));
        let covered = cover(&square, 5, Patch { column: 1, row: 3 }, Rgb([0; 3]));
        let dark: Vec<_> =
            covered.enumerate_pixels().filter(|(.., pixel)| pixel[0] == 0).map(|(x, y, _)| (x, y)).collect();
        assert_eq!(dark.len(), 16);
        assert!(dark.iter().all(|(x, y)| (2..6).contains(x) && (6..10).contains(y)), "{dark:?}");
    }

    #[test]
    fn log_odds_are_finite_at_the_ends() {
        assert!(log_odds(0.5).abs() < 1e-6);
        assert!(log_odds(1.0).is_finite() && log_odds(0.0).is_finite() && log_odds(1.0) > 13.0);
    }
}

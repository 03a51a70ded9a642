//! Whether a frame shows what the last one did, found out before the image tower has to run: a drone that hovers shows one
//! field a thousand times.
//!
//! Promise: a frame is called similar only to one that went through the tower, so slow drift adds up and is noticed; and
//! only for a while, so that tags never rest on an old frame for long.

use std::time::Duration;

use super::View;

/// Cells along one side of a square: coarse enough for noise and a swaying leaf to vanish in.
const CELLS: usize = 16;

/// When a frame is similar enough to the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimilarOptions {
    /// Largest mean difference of brightness between the two, in levels of 0 to 255; with tiles in the part that differs most.
    pub threshold: f64,
    /// The tower runs at least this often.
    pub at_most: Duration,
}

/// Remembers the last frame that went through the tower.
#[derive(Debug, Clone)]
pub struct Similar {
    options: SimilarOptions,
    last: Option<(Duration, Vec<f64>)>,
}

impl Similar {
    /// Nothing seen yet.
    pub fn new(options: SimilarOptions) -> Self {
        Self { options, last: None }
    }

    /// Whether a frame, seen at `at` on a clock that never steps back, may be skipped. If not, it is the one that the next are
    /// compared with.
    pub fn skips(&mut self, at: Duration, view: &View) -> bool {
        let seen = view.brightness(CELLS);
        if let Some((since, last)) = &self.last {
            let recent = at.saturating_sub(*since) < self.options.at_most;
            if recent && difference(last, &seen).is_some_and(|difference| difference <= self.options.threshold) {
                return true;
            }
        }
        self.last = Some((at, seen));
        false
    }

    /// The next frame is not skipped, whatever it shows.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

/// The largest mean difference of two squares in the same place; `None` for other numbers of squares.
fn difference(before: &[f64], after: &[f64]) -> Option<f64> {
    let squares = || before.chunks(CELLS * CELLS).zip(after.chunks(CELLS * CELLS));
    let mean = |(a, b): (&[f64], &[f64])| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64;
    (before.len() == after.len()).then(|| squares().map(mean).fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use image::RgbImage;

    use super::*;
    use crate::bundle::Resize;
    use crate::camera::{Camera, Next, Picture, Scene, Simulated, SimulatedOptions};
    use crate::vision::{Area, Decoded, Preprocessor, Timings};

    fn view(image: &RgbImage) -> View {
        let square = Preprocessor::new(128, Resize::Bicubic).square(&Decoded::whole(Cow::Borrowed(image))).unwrap();
        View {
            squares: square.into_raw(),
            areas: vec![Area::centre((640, 480))],
            frame: (640, 480),
            size: 128,
            timings: Timings::default(),
        }
    }

    fn flight(scene: Option<Scene>, count: usize) -> Vec<RgbImage> {
        let options = SimulatedOptions { scene, frames_per_second: f64::INFINITY, ..SimulatedOptions::default() };
        let mut camera = Simulated::new(options);
        let mut next = || match camera.next(Duration::from_secs(1)).unwrap() {
            Next::Frame(frame) => frame.picture,
            other => panic!("{other:?}"),
        };
        let pixels = |picture| match picture {
            Picture::Rgb(image) => image,
            other => panic!("{other:?}"),
        };
        (0..count).map(|_| pixels(next())).collect()
    }

    /// The same ground with another noise of the sensor, brighter or darker by a few levels.
    fn again(image: &RgbImage, by: u8) -> RgbImage {
        let mut seed = u32::from(by) + 1;
        RgbImage::from_fn(image.width(), image.height(), |x, y| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (seed >> 29) as u8;
            image::Rgb(image.get_pixel(x, y).0.map(|value| value.saturating_add(noise).saturating_sub(by)))
        })
    }

    fn similar(threshold: f64) -> Similar {
        Similar::new(SimilarOptions { threshold, at_most: Duration::from_secs(5) })
    }

    #[test]
    fn noise_makes_no_other_frame_but_flying_on_does() {
        let frames = flight(None, 24);
        let mut gate = similar(2.0);
        assert!(!gate.skips(Duration::ZERO, &view(&frames[0])));
        assert!((2..6).all(|by| gate.skips(Duration::from_secs(1), &view(&again(&frames[0], by)))));
        let skipped = frames[1..].iter().filter(|frame| gate.skips(Duration::from_secs(1), &view(frame))).count();
        assert_eq!(skipped, 0, "of a flight over textured ground");
    }

    #[test]
    fn what_was_skipped_is_not_compared_with() {
        // Each frame is a level darker than the one before: the third is too far from the first.
        let frame = &flight(Some(Scene::Beach), 1)[0];
        let darker = |by: u8| {
            let mut image = frame.clone();
            image.iter_mut().for_each(|value| *value = value.saturating_sub(by));
            view(&image)
        };
        let mut gate = similar(2.5);
        let skipped: Vec<bool> = (0..6).map(|by| gate.skips(Duration::ZERO, &darker(by))).collect();
        assert_eq!(skipped, [false, true, true, false, true, true]);
    }

    #[test]
    fn now_and_then_a_frame_goes_through_in_any_case() {
        let view = view(&flight(Some(Scene::Beach), 1)[0]);
        let mut gate = similar(2.0);
        let skipped: Vec<bool> = (0..12).map(|second| gate.skips(Duration::from_secs(second), &view)).collect();
        assert_eq!(skipped.iter().filter(|skipped| !**skipped).count(), 3, "{skipped:?}"); // at 0, 5 and 10 s
        gate.forget();
        assert!(!gate.skips(Duration::from_secs(12), &view));
    }
}

//! An [`Occlusion`] over its picture: red where the label is seen, blue where the picture speaks against it, dark where
//! the model does not look at all.

use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};

use super::Occlusion;

/// Longer side of the drawing, in pixels.
const SIDE: u32 = 768;
/// How much of a picture the strongest cell hides.
const STRONGEST: f32 = 0.7;
/// How bright the part is that the model does not see.
const UNSEEN: f32 = 0.3;
const FOR: [f32; 3] = [235.0, 30.0, 20.0];
const AGAINST: [f32; 3] = [20.0, 90.0, 235.0];

/// Draws the map over the upright picture, which may have any size. The picture is grey in it, so that every colour is
/// the map's.
pub fn draw(picture: &RgbImage, occlusion: &Occlusion) -> RgbImage {
    let scale = f64::from(SIDE) / f64::from(picture.width().max(picture.height()));
    let scaled = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let mut drawing = resize(picture, scaled(picture.width()), scaled(picture.height()), FilterType::Triangle);
    let (width, height) = drawing.dimensions();
    let side = width.min(height);
    let (left, top) = ((width - side) / 2, (height - side) / 2);
    let largest = occlusion.fall.iter().fold(f32::EPSILON, |largest, fall| largest.max(fall.abs()));
    for (x, y, pixel) in drawing.enumerate_pixels_mut() {
        let grey = 0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]);
        let inside = (left..left + side).contains(&x) && (top..top + side).contains(&y);
        *pixel = if inside {
            let place = |at: u32| (at as f32 + 0.5) / side as f32;
            blend(grey, occlusion.at(place(x - left), place(y - top)) / largest)
        } else {
            Rgb([(grey * UNSEEN) as u8; 3])
        };
    }
    drawing
}

/// A grey under the map's colour; `strength` from -1 to 1.
fn blend(grey: f32, strength: f32) -> Rgb<u8> {
    let colour = if strength > 0.0 { FOR } else { AGAINST };
    let hidden = strength.abs() * STRONGEST;
    Rgb(colour.map(|colour| (grey * (1.0 - hidden) + colour * hidden).round() as u8))
}

impl Occlusion {
    /// The map at a place of the square, both from 0 to 1: between the cells' middles linear, beyond them constant.
    fn at(&self, x: f32, y: f32) -> f32 {
        let place = |at: f32| (at * self.cells as f32 - 0.5).clamp(0.0, (self.cells - 1) as f32);
        let (x, y) = (place(x), place(y));
        let (column, row) = (x as usize, y as usize);
        let cell =
            |column: usize, row: usize| self.fall[row.min(self.cells - 1) * self.cells + column.min(self.cells - 1)];
        let between = |a: f32, b: f32, share: f32| a + (b - a) * share;
        let upper = between(cell(column, row), cell(column + 1, row), x.fract());
        let lower = between(cell(column, row + 1), cell(column + 1, row + 1), x.fract());
        between(upper, lower, y.fract())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corners() -> Occlusion {
        Occlusion { cells: 2, fall: vec![2.0, 0.0, 0.0, -1.0], least_score: 0.1 }
    }

    #[test]
    fn the_map_is_the_cells_at_their_middles_and_linear_between() {
        let map = corners();
        assert_eq!((map.at(0.25, 0.25), map.at(0.75, 0.75), map.at(0.0, 0.0)), (2.0, -1.0, 2.0));
        assert!((map.at(0.5, 0.25) - 1.0).abs() < 1e-6 && (map.at(0.5, 0.5) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn red_is_for_blue_against_and_the_unseen_is_dark() {
        let drawing = draw(&RgbImage::from_pixel(40, 20, Rgb([100; 3])), &corners());
        assert_eq!(drawing.dimensions(), (768, 384));
        let [red, _, blue] = drawing.get_pixel(200, 8).0;
        assert!(red > 180 && blue < 60, "top left of the square");
        let [red, _, blue] = drawing.get_pixel(760 - 192, 376).0;
        assert!(blue > red, "bottom right of the square");
        assert_eq!(drawing.get_pixel(10, 10), &Rgb([30; 3]), "left of the square");
    }
}

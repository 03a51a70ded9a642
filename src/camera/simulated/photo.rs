//! A photograph of the ground from which frames are cut.

use super::canvas::SIDE;
use super::geometry::Point;

/// A photograph of the ground.
#[derive(Debug)]
pub(super) struct Photo {
    // Red, green and blue, sixteen bits apart: one multiplication weighs all three.
    pixels: Vec<u64>,
}

impl Photo {
    /// A photograph whose pixels a function gives, row by row.
    pub(super) fn new(pixel: impl Fn(u32, u32) -> [u8; 3]) -> Self {
        let mut pixels = Vec::with_capacity((SIDE * SIDE) as usize);
        for y in 0..SIDE {
            pixels.extend((0..SIDE).map(|x| {
                let [red, green, blue] = pixel(x, y).map(u64::from);
                red | green << 16 | blue << 32
            }));
        }
        Self { pixels }
    }

    /// The colour at a point, interpolated between the four nearest pixels.
    #[inline]
    pub(super) fn at(&self, point: Point) -> [u8; 3] {
        let ((left, across), (top, down)) = (place(point.x), place(point.y));
        let first = top * SIDE as usize + left;
        let row = |start: usize| weigh(self.pixels[start], self.pixels[start + 1], across);
        let colour = weigh(row(first), row(first + SIDE as usize), down);
        [colour as u8, (colour >> 16) as u8, (colour >> 32) as u8]
    }
}

// The pixel before a coordinate and how far it is to the next in 1/256. What lies outside the ground, which only frames
// nearly twice as long as high reach, is its mirror image.
#[inline]
fn place(coordinate: f32) -> (usize, u64) {
    const LAST: i32 = (SIDE as i32 - 1) * 256;
    let fixed = (coordinate * 256.0).clamp(-1e9, 1e9) as i32 + LAST / 2;
    let folded = (LAST - (LAST - fixed.abs()).abs()).clamp(0, LAST - 1);
    ((folded >> 8) as usize, (folded & 255) as u64)
}

#[inline]
fn weigh(from: u64, to: u64, share: u64) -> u64 {
    ((from * (256 - share) + to * share) >> 8) & 0x00ff_00ff_00ff
}

#[cfg(test)]
mod tests {
    use super::super::geometry::at;
    use super::*;

    const HALF: f32 = (SIDE - 1) as f32 * 0.5;

    fn ramp() -> Photo {
        Photo::new(|x, y| [(x / 4) as u8, (y / 4) as u8, 255])
    }

    #[test]
    fn a_point_between_pixels_is_between_their_colours() {
        let photo = Photo::new(|x, _| if x == 0 { [0, 100, 255] } else { [200, 100, 255] });
        assert_eq!(photo.at(at(-HALF, 0.0)), [0, 100, 255]);
        assert_eq!(photo.at(at(-HALF + 0.5, 0.0)), [100, 100, 255]);
        assert_eq!(photo.at(at(-HALF + 1.0, 0.0)), [200, 100, 255]);
    }

    #[test]
    fn ground_beyond_the_edge_is_mirrored() {
        let photo = ramp();
        for beyond in [1.0, 40.0, 300.0] {
            assert_eq!(photo.at(at(-HALF - beyond, HALF + beyond)), photo.at(at(-HALF + beyond, HALF - beyond)));
        }
        assert_eq!(photo.at(at(-1e9, 1e9))[2], 255);
    }
}

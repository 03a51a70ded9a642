//! The ground as a picture: anti-aliased shapes painted over each other, then developed like a photograph.

use super::geometry::{Point, Shape, at};
use super::noise::{Noise, hash};
use super::photo::Photo;

/// Width and height of a painted ground in pixels, a quarter of a metre each.
pub(super) const SIDE: u32 = 640;

/// Red, green, blue in 0..255.
pub(super) type Colour = [f32; 3];

/// `share` of the way from one colour to the other.
#[inline]
pub(super) fn mix(from: Colour, to: Colour, share: f32) -> Colour {
    let channel = |i: usize| from[i] + (to[i] - from[i]) * share;
    [channel(0), channel(1), channel(2)]
}

/// The colour in more or less light.
#[inline]
pub(super) fn lit([red, green, blue]: Colour, light: f32) -> Colour {
    [red * light, green * light, blue * light]
}

/// A ground being painted; its origin is its centre.
#[derive(Debug)]
pub(super) struct Canvas {
    pixels: Vec<Colour>,
}

impl Canvas {
    /// Ground covered all over.
    pub(super) fn new(paint: impl Fn(Point) -> Colour) -> Self {
        let mut pixels = Vec::with_capacity((SIDE * SIDE) as usize);
        for y in 0..SIDE {
            pixels.extend((0..SIDE).map(|x| paint(centre_of(x, y))));
        }
        Self { pixels }
    }

    /// Repaints the inside of a shape from what is there, its edge fading over `softness` pixels.
    pub(super) fn blend(&mut self, shape: &impl Shape, softness: f32, paint: impl Fn(Point, Colour) -> Colour) {
        let (low, high) = shape.bounds();
        let reach = softness * 0.5;
        let (left, right) = span(low.x - reach, high.x + reach);
        let (top, bottom) = span(low.y - reach, high.y + reach);
        for y in top..bottom {
            for x in left..right {
                let point = centre_of(x, y);
                let cover = (0.5 - shape.distance(point) / softness).clamp(0.0, 1.0);
                if cover > 0.0 {
                    let pixel = &mut self.pixels[(y * SIDE + x) as usize];
                    *pixel = mix(*pixel, paint(point, *pixel), cover);
                }
            }
        }
    }

    /// Paints a shape with a texture.
    pub(super) fn fill(&mut self, shape: &impl Shape, paint: impl Fn(Point) -> Colour) {
        self.blend(shape, 1.0, |point, _| paint(point));
    }

    /// Paints a shape in one colour.
    pub(super) fn flat(&mut self, shape: &impl Shape, colour: Colour) {
        self.blend(shape, 1.0, |_, _| colour);
    }

    /// Lets a shadow fall. Blue loses least, as the sky still lights what the sun does not.
    pub(super) fn shade(&mut self, shape: &impl Shape, softness: f32) {
        self.blend(shape, softness, |_, [red, green, blue]| [red * 0.42, green * 0.45, blue * 0.52]);
    }

    /// The finished photograph: uneven light, a colour cast and grain.
    pub(super) fn develop(&self, seed: u32, cast: Colour) -> Photo {
        let clouds = Noise::new(seed);
        Photo::new(|x, y| {
            let light = 1.0 + 0.06 * clouds.at(centre_of(x, y), 240.0);
            let grain = (hash(seed, x as i32, y as i32) & 15) as f32 - 7.5;
            let pixel = self.pixels[(y * SIDE + x) as usize];
            let exposed = |channel: usize| (pixel[channel] * light * cast[channel] + grain) as u8;
            [exposed(0), exposed(1), exposed(2)]
        })
    }
}

fn centre_of(x: u32, y: u32) -> Point {
    const HALF: f32 = SIDE as f32 * 0.5 - 0.5;
    at(x as f32 - HALF, y as f32 - HALF)
}

// The pixels whose centres can lie between two coordinates.
fn span(low: f32, high: f32) -> (u32, u32) {
    const HALF: f32 = SIDE as f32 * 0.5;
    let pixel = |coordinate: f32| (coordinate + HALF).clamp(0.0, SIDE as f32) as u32;
    (pixel(low), (pixel(high) + 1).min(SIDE))
}

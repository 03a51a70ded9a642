//! Points and shapes of the painted ground, in pixels from its centre, y downwards.

use std::ops::{Add, Mul, Sub};

use super::noise::Noise;

/// A place or a direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// The point at (x, y).
pub(super) const fn at(x: f32, y: f32) -> Point {
    Point { x, y }
}

impl Point {
    #[inline]
    pub(super) fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y
    }

    pub(super) fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// A quarter turn clockwise as seen on screen.
    pub(super) fn across(self) -> Self {
        at(-self.y, self.x)
    }
}

impl Add for Point {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        at(self.x + other.x, self.y + other.y)
    }
}

impl Sub for Point {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        at(self.x - other.x, self.y - other.y)
    }
}

impl Mul<f32> for Point {
    type Output = Self;
    #[inline]
    fn mul(self, factor: f32) -> Self {
        at(self.x * factor, self.y * factor)
    }
}

/// The unit vector `turns` full turns clockwise of "right".
///
/// Two parabolas stand in for sine and cosine, whose last bits differ between platforms; the angle is good to a tenth of a
/// degree and the length is one.
pub(super) fn heading(turns: f32) -> Point {
    fn wave(turns: f32) -> f32 {
        let phase = turns - (turns + 0.5).floor();
        let arch = 8.0 * phase * (1.0 - 2.0 * phase.abs());
        0.775 * arch + 0.225 * arch * arch.abs()
    }
    let direction = at(wave(turns + 0.25), wave(turns));
    direction * (1.0 / direction.length())
}

/// Something with an inside.
pub(super) trait Shape {
    /// The corners of a box around it.
    fn bounds(&self) -> (Point, Point);
    /// How far the point is outside its edge; negative inside.
    fn distance(&self, point: Point) -> f32;
}

/// A disc.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disc {
    pub(super) centre: Point,
    pub(super) radius: f32,
}

impl Shape for Disc {
    fn bounds(&self) -> (Point, Point) {
        let reach = at(self.radius, self.radius);
        (self.centre - reach, self.centre + reach)
    }

    fn distance(&self, point: Point) -> f32 {
        (point - self.centre).length() - self.radius
    }
}

/// A disc whose edge wanders in and out by `unevenness` of its radius.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blob {
    pub(super) disc: Disc,
    pub(super) unevenness: f32,
    pub(super) noise: Noise,
}

impl Shape for Blob {
    fn bounds(&self) -> (Point, Point) {
        let Disc { centre, radius } = self.disc;
        Disc { centre, radius: radius * (1.0 + self.unevenness) }.bounds()
    }

    fn distance(&self, point: Point) -> f32 {
        let slack = self.disc.radius * self.unevenness;
        let even = self.disc.distance(point);
        // Far from the edge the noise decides nothing.
        if even.abs() > slack + 4.0 { even } else { even - slack * self.noise.at(point, self.disc.radius * 0.6) }
    }
}

/// A convex polygon, its corners in clockwise order on screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hull<const N: usize> {
    corners: [Point; N],
    outward: [Point; N],
}

impl<const N: usize> Hull<N> {
    pub(super) fn new(corners: [Point; N]) -> Self {
        let outward = std::array::from_fn(|i| {
            let edge = corners[(i + 1) % N] - corners[i];
            edge.across() * (-1.0 / edge.length())
        });
        Self { corners, outward }
    }

    pub(super) fn moved(&self, by: Point) -> Self {
        Self { corners: self.corners.map(|corner| corner + by), outward: self.outward }
    }
}

impl<const N: usize> Shape for Hull<N> {
    fn bounds(&self) -> (Point, Point) {
        self.corners.iter().fold((self.corners[0], self.corners[0]), |(low, high), corner| {
            (at(low.x.min(corner.x), low.y.min(corner.y)), at(high.x.max(corner.x), high.y.max(corner.y)))
        })
    }

    fn distance(&self, point: Point) -> f32 {
        let sides = self.corners.iter().zip(&self.outward);
        sides.map(|(corner, outward)| (point - *corner).dot(*outward)).fold(f32::MIN, f32::max)
    }
}

/// A rectangle `2 * half_length` along the unit vector `axis` and `2 * half_width` across it.
pub(super) fn slab(centre: Point, axis: Point, half_length: f32, half_width: f32) -> Hull<4> {
    let (along, across) = (axis * half_length, axis.across() * half_width);
    Hull::new([centre - along - across, centre + along - across, centre + along + across, centre - along + across])
}

/// An upright rectangle between two opposite corners.
pub(super) fn block(left: f32, top: f32, right: f32, bottom: f32) -> Hull<4> {
    Hull::new([at(left, top), at(right, top), at(right, bottom), at(left, bottom)])
}

/// A shape's outline, `width` wide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outline<S> {
    pub(super) shape: S,
    pub(super) width: f32,
}

impl<S: Shape> Shape for Outline<S> {
    fn bounds(&self) -> (Point, Point) {
        let (low, high) = self.shape.bounds();
        let reach = at(self.width, self.width);
        (low - reach, high + reach)
    }

    fn distance(&self, point: Point) -> f32 {
        self.shape.distance(point).abs() - self.width * 0.5
    }
}

/// A part of the whole plane, given by its distance function.
pub(super) struct Region<F>(pub(super) F);

impl<F: Fn(Point) -> f32> Shape for Region<F> {
    fn bounds(&self) -> (Point, Point) {
        (at(f32::MIN, f32::MIN), at(f32::MAX, f32::MAX))
    }

    fn distance(&self, point: Point) -> f32 {
        self.0(point)
    }
}

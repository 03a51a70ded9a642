//! A piece of ground under work, with the textures and the furniture that several scenes share.

use super::super::canvas::{Canvas, Colour, lit, mix};
use super::super::geometry::{Blob, Disc, Hull, Point, Shape, at, heading, slab};
use super::super::noise::{Dice, Noise};
use super::super::photo::Photo;

/// Beyond the edge of the ground in every direction.
pub(super) const EDGE: f32 = 330.0;

pub(super) const RIGHT: Point = at(1.0, 0.0);
pub(super) const DOWN: Point = at(0.0, 1.0);

pub(super) const WHITE: Colour = [235.0, 235.0, 230.0];
pub(super) const YELLOW: Colour = [206.0, 170.0, 80.0];
const LEAVES: [Colour; 4] = [[58.0, 76.0, 50.0], [48.0, 66.0, 48.0], [70.0, 86.0, 54.0], [54.0, 78.0, 58.0]];

/// A piece of ground under work.
pub(super) struct Site {
    pub(super) canvas: Canvas,
    pub(super) dice: Dice,
    pub(super) noise: Noise,
    /// Where shadows fall, one pixel long.
    pub(super) shadow: Point,
}

impl Site {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let noise = Noise::new(dice.bits() as u32);
        let shadow = heading(dice.between(0.0, 1.0));
        Self { canvas: Canvas::new(|_| [0.0; 3]), dice, noise, shadow }
    }

    /// Covers all of the ground.
    pub(super) fn cover(&mut self, texture: impl Fn(Noise, Point) -> Colour) {
        let noise = self.noise;
        self.canvas = Canvas::new(|point| texture(noise, point));
    }

    /// The finished photograph.
    pub(super) fn develop(mut self) -> Photo {
        let cast = std::array::from_fn(|_| self.dice.between(0.97, 1.03));
        self.canvas.develop(self.dice.bits() as u32, cast)
    }

    /// The shadow of something `height` pixels tall that stands on `shape`.
    pub(super) fn cast<const N: usize>(&mut self, shape: Hull<N>, height: f32) {
        self.canvas.shade(&Swept { shape, by: self.shadow * height }, 1.5);
    }

    /// One of the common colours of leaves.
    pub(super) fn leaf(&mut self) -> Colour {
        let light = self.dice.between(0.85, 1.2);
        lit(self.dice.pick(LEAVES), light)
    }

    /// A tree from above: a lumpy crown, brighter towards the sun, with its shadow.
    pub(super) fn tree(&mut self, centre: Point, radius: f32, leaf: Colour) {
        let (noise, shadow) = (self.noise, self.shadow);
        self.canvas.shade(&Disc { centre: centre + shadow * (radius * 0.75), radius: radius * 0.9 }, 3.0);
        let crown = Blob { disc: Disc { centre, radius }, unevenness: 0.28, noise };
        self.canvas.blend(&crown, 2.0, |point, _| {
            let slope = (point - centre).dot(shadow) / radius;
            lit(leaf, 1.0 - 0.42 * slope + 0.35 * noise.at(point, 3.2))
        });
    }

    /// Trees strewn over the whole ground wherever `here` allows, `spacing` pixels apart.
    pub(super) fn woods(&mut self, spacing: f32, radius: (f32, f32), here: impl Fn(Noise, Point) -> bool) {
        for place in self.strewn(spacing) {
            if here(self.noise, place) {
                let (radius, leaf) = (self.dice.between(radius.0, radius.1), self.leaf());
                self.tree(place, radius, leaf);
            }
        }
    }

    /// Places all over the ground, one in each square of `spacing` pixels, row by row.
    pub(super) fn strewn(&mut self, spacing: f32) -> Vec<Point> {
        let count = (2.0 * EDGE / spacing) as i32;
        let squares = (0..count).flat_map(|row| (0..count).map(move |column| (row as f32, column as f32)));
        squares
            .map(|(row, column)| {
                let (x, y) = (column + self.dice.between(0.0, 1.0), row + self.dice.between(0.0, 1.0));
                at(x * spacing - EDGE, y * spacing - EDGE)
            })
            .collect()
    }

    /// A car of 4.5 m whose nose points along `axis`.
    pub(super) fn car(&mut self, centre: Point, axis: Point) {
        const PAINTS: [Colour; 10] = [
            [226.0, 226.0, 224.0],
            [214.0, 216.0, 218.0],
            [180.0, 182.0, 184.0],
            [150.0, 152.0, 156.0],
            [52.0, 54.0, 58.0],
            [40.0, 42.0, 46.0],
            [96.0, 98.0, 104.0],
            [146.0, 44.0, 40.0],
            [52.0, 72.0, 116.0],
            [172.0, 158.0, 132.0],
        ];
        let paint = self.dice.pick(PAINTS);
        let body = slab(centre, axis, 9.0, 3.8);
        self.cast(body, 4.0);
        self.canvas.flat(&body, paint);
        self.canvas.flat(&slab(centre + axis * 2.6, axis, 1.4, 3.1), [38.0, 42.0, 48.0]);
        self.canvas.flat(&slab(centre - axis * 5.8, axis, 0.9, 3.0), [46.0, 50.0, 56.0]);
    }

    /// A house with a hip roof, its ridge along `axis`.
    pub(super) fn house(&mut self, centre: Point, axis: Point, half: (f32, f32), roof: Colour) {
        let (length, width) = half;
        let across = axis.across();
        self.cast(slab(centre, axis, length, width), 11.0);
        let corner = |along: f32, aside: f32| centre + axis * (along * length) + across * (aside * width);
        let ridge = |along: f32| centre + axis * (along * (length - width * 0.8).max(1.0));
        let noise = self.noise;
        // Which way each side faces decides its light; the ridge is shared.
        self.roof(Hull::new([corner(-1.0, -1.0), corner(1.0, -1.0), ridge(1.0), ridge(-1.0)]), across * -1.0, roof);
        self.roof(Hull::new([ridge(-1.0), ridge(1.0), corner(1.0, 1.0), corner(-1.0, 1.0)]), across, roof);
        self.roof(Hull::new([corner(1.0, -1.0), corner(1.0, 1.0), ridge(1.0)]), axis, roof);
        self.roof(Hull::new([corner(-1.0, 1.0), corner(-1.0, -1.0), ridge(-1.0)]), axis * -1.0, roof);
        self.canvas.blend(&slab(centre, axis, length, width), 1.0, |point, under| {
            lit(under, 1.0 + 0.1 * noise.at(point, 3.0))
        });
    }

    fn roof<const N: usize>(&mut self, side: Hull<N>, faces: Point, colour: Colour) {
        let light = 1.0 - 0.38 * faces.dot(self.shadow);
        self.canvas.flat(&side, lit(colour, light));
    }

    /// A flat-roofed block with a parapet and the boxes that stand on such roofs.
    pub(super) fn flat_roof(&mut self, centre: Point, axis: Point, half: (f32, f32), roof: Colour, height: f32) {
        let noise = self.noise;
        let walls = slab(centre, axis, half.0, half.1);
        self.cast(walls, height);
        self.canvas.flat(&walls, lit(roof, 1.18));
        self.canvas.fill(&slab(centre, axis, half.0 - 2.0, half.1 - 2.0), |point| {
            lit(roof, 1.0 + 0.08 * noise.rough(point, 30.0))
        });
        for _ in 0..(half.0 * half.1 / 260.0) as u32 {
            let along = axis * self.dice.between(-half.0 * 0.75, half.0 * 0.75);
            let aside = axis.across() * self.dice.between(-half.1 * 0.7, half.1 * 0.7);
            let size = self.dice.between(2.0, 5.0);
            let unit = slab(centre + along + aside, axis, size, size * 0.8);
            self.cast(unit, 4.0);
            self.canvas.flat(&unit, lit(WHITE, self.dice.between(0.7, 1.0)));
        }
    }

    /// A line of paint from `start`, broken into dashes.
    pub(super) fn dashes(&mut self, start: Point, axis: Point, length: f32, dash: Dash) {
        let pace = dash.length + dash.gap;
        for number in 0..(length / pace) as u32 {
            let middle = start + axis * (number as f32 * pace + dash.length * 0.5);
            self.canvas.flat(&slab(middle, axis, dash.length * 0.5, dash.width * 0.5), WHITE);
        }
    }
}

/// The dashes of a painted line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dash {
    pub(super) length: f32,
    pub(super) gap: f32,
    pub(super) width: f32,
}

// What a shape passes over when it is moved.
struct Swept<const N: usize> {
    shape: Hull<N>,
    by: Point,
}

impl<const N: usize> Shape for Swept<N> {
    fn bounds(&self) -> (Point, Point) {
        let (low, high) = self.shape.bounds();
        let (from, to) = (at(self.by.x.min(0.0), self.by.y.min(0.0)), at(self.by.x.max(0.0), self.by.y.max(0.0)));
        (low + from, high + to)
    }

    fn distance(&self, point: Point) -> f32 {
        let steps = [0.2, 0.4, 0.6, 0.8, 1.0];
        steps.map(|share| self.shape.distance(point - self.by * share)).into_iter().fold(f32::MAX, f32::min)
    }
}

pub(super) fn grass(noise: Noise, point: Point) -> Colour {
    let dry = 0.5 + 0.5 * noise.rough(point, 90.0);
    lit(mix([92.0, 108.0, 70.0], [132.0, 132.0, 96.0], dry), 1.0 + 0.12 * noise.at(point, 3.5))
}

pub(super) fn lawn(noise: Noise, point: Point) -> Colour {
    let dry = 0.5 + 0.5 * noise.rough(point, 70.0);
    lit(mix([82.0, 122.0, 78.0], [112.0, 142.0, 94.0], dry), 1.0 + 0.05 * noise.at(point, 3.5))
}

pub(super) fn asphalt(noise: Noise, point: Point) -> Colour {
    lit([112.0, 112.0, 110.0], 1.0 + 0.12 * noise.rough(point, 60.0) + 0.05 * noise.at(point, 2.5))
}

pub(super) fn concrete(noise: Noise, point: Point) -> Colour {
    lit([172.0, 166.0, 154.0], 1.0 + 0.1 * noise.rough(point, 50.0) + 0.03 * noise.at(point, 2.5))
}

pub(super) fn sand(noise: Noise, point: Point) -> Colour {
    lit([206.0, 186.0, 152.0], 1.0 + 0.08 * noise.rough(point, 40.0) + 0.04 * noise.at(point, 3.0))
}

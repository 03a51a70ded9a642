//! Chance and texture from integers.
//!
//! Promise: the same seed gives the same numbers on every machine. Everything comes from wrapping integer arithmetic and
//! from those operations on `f32` that IEEE 754 rounds alike everywhere. That rule holds for all of the simulated camera:
//! no sine, power or other function whose last bits a platform chooses.

use super::geometry::Point;

/// Mixes a seed and a place into 32 even bits.
#[inline]
pub(super) const fn hash(seed: u32, x: i32, y: i32) -> u32 {
    let mut bits = seed ^ (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77).rotate_left(15);
    bits = (bits ^ (bits >> 16)).wrapping_mul(0x7FEB_352D);
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x846C_A68B);
    bits ^ (bits >> 16)
}

/// Smooth noise over the plane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    seed: u32,
}

impl Noise {
    pub(super) fn new(seed: u32) -> Self {
        Self { seed }
    }

    /// Noise in -1..1 that varies over `size` pixels, and repeats only after 256 times that.
    #[inline]
    pub(super) fn at(self, point: Point, size: f32) -> f32 {
        let scaled = point * (1.0 / size);
        let ((column, across), (row, down)) = (cell(scaled.x), cell(scaled.y));
        let (column, row) = (column.wrapping_add(self.seed), row.wrapping_add(self.seed >> 8));
        let upper = lerp(lattice(column, row), lattice(column.wrapping_add(1), row), across);
        let below = row.wrapping_add(1);
        let lower = lerp(lattice(column, below), lattice(column.wrapping_add(1), below), across);
        lerp(upper, lower, down)
    }

    /// [`Noise::at`] with a finer layer upon it, in -1..1.
    #[inline]
    pub(super) fn rough(self, point: Point, size: f32) -> f32 {
        let finer = Self::new(self.seed ^ 0x5bd1_e995);
        0.65 * self.at(point, size) + 0.35 * finer.at(point, size * 0.36)
    }
}

// The lattice cell of a coordinate and the eased way through it. `floor` would be a call into libm on plain x86-64.
#[inline]
fn cell(coordinate: f32) -> (u32, f32) {
    let towards_zero = coordinate as i32;
    let before = towards_zero - i32::from(coordinate < towards_zero as f32);
    (before as u32, ease(coordinate - before as f32))
}

// A value for each lattice point from one row of values, shifted differently in every row: three times as fast as hashing.
#[inline]
fn lattice(column: u32, row: u32) -> f32 {
    static VALUES: [f32; 256] = {
        let mut values = [0.0; 256];
        let mut i = 0;
        while i < 256 {
            values[i] = (hash(1, i as i32, 0) >> 8) as f32 * (2.0 / 16_777_216.0) - 1.0;
            i += 1;
        }
        values
    };
    static SHIFTS: [u8; 256] = {
        let mut shifts = [0; 256];
        let mut i = 0;
        while i < 256 {
            shifts[i] = hash(2, i as i32, 0) as u8;
            i += 1;
        }
        shifts
    };
    let shift = SHIFTS[(row & 255) as usize];
    VALUES[(column.wrapping_add(u32::from(shift)) & 255) as usize]
}

#[inline]
fn ease(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

#[inline]
fn lerp(from: f32, to: f32, t: f32) -> f32 {
    from + (to - from) * t
}

/// A stream of random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Dice {
    state: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Between `low` and `high`.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / 16_777_216.0;
        low + (high - low) * unit
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.between(0.0, 1.0) < probability
    }

    /// One of the choices, each as likely as the other.
    pub(super) fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[(self.bits() % N as u64) as usize]
    }
}

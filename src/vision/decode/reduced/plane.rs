//! One colour component on its way from coefficients to reduced pixels.

use std::f32::consts::PI;

use super::header::Component;
use super::huffman::{Bits, ENDED};

/// T.81 figure A.6: position in the scan → row × 8 + column.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// A line of MCUs of one component at the reduced size, and how its blocks get there.
pub(super) struct Plane {
    width: usize,
    pixels: Vec<u8>,
    /// Pixels of a block, across and down.
    block: (usize, usize),
    /// Blocks across, with what fills up the last [`LANES`].
    blocks: usize,
    /// Lines of blocks in a line of MCUs.
    lines: usize,
    /// Place in the scan → where it begins in `coefficients`, and what it is multiplied by.
    kept: [(usize, i32); 2 * ENDED],
    /// The last place that is kept.
    last: usize,
    /// All of one frequency, then all of the next, the corner of low ones row by row; 0 before a line is read. Behind them what
    /// was dropped.
    coefficients: Vec<i32>,
    /// Inverse DCT of `block.0` and `block.1` points, `[frequency][point]`.
    across: [[f32; 8]; 8],
    down: [[f32; 8]; 8],
}

/// Blocks that are transformed at a time.
const LANES: usize = 8;

impl Plane {
    /// Of a line of `mcus` MCUs, `mcu` blocks each across and down, whose blocks become `side` pixels.
    pub(super) fn new(component: &Component, mcu: (usize, usize), side: usize, mcus: usize) -> Self {
        // Components with fewer samples are reduced less, so that all planes come out alike.
        let block = (side * mcu.0 / component.sampling.0, side * mcu.1 / component.sampling.1);
        let lines = component.sampling.1;
        let blocks = (mcus * component.sampling.0).next_multiple_of(LANES);
        let (width, height) = (blocks * block.0, lines * block.1);
        // A block's end is where no coefficient is, and is dropped, too.
        let dropped = block.0 * block.1 * blocks * lines;
        let mut kept = [(dropped, 0); 2 * ENDED];
        let mut last = 0;
        for (place, (at, quantisation)) in ZIGZAG.iter().zip(component.quantisation).enumerate() {
            let (v, u) = (usize::from(at / 8), usize::from(at % 8));
            if u < block.0 && v < block.1 {
                kept[place] = ((v * block.0 + u) * blocks * lines, i32::from(quantisation));
                last = place;
            }
        }
        let coefficients = vec![0; dropped + blocks * lines];
        let (across, down) = (inverse_dct(block.0), inverse_dct(block.1));
        Self { width, pixels: vec![0; width * height], block, blocks, lines, kept, last, coefficients, across, down }
    }

    /// Reads the block at (`x`, `y`) of a line of MCUs, whose DC level counts from `before`.
    #[inline(always)]
    pub(super) fn block(
        &mut self,
        component: &Component,
        bits: &mut Bits,
        before: &mut i32,
        (x, y): (usize, usize),
    ) -> Option<()> {
        let ac = &component.ac;
        component.level(bits, before)?;
        let place = y * self.blocks + x;
        self.coefficients[place] = before.wrapping_mul(self.kept[0].1);
        let mut next = 1;
        while next <= self.last {
            let (value, run) = bits.coefficient(ac)?;
            let (at, factor) = self.kept[(next + run) % (2 * ENDED)];
            self.coefficients[at + place] = value * factor;
            next += run + 1;
        }
        bits.step_over(ac, next)
    }

    /// One line of pixels, padding included.
    pub(super) fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.width..][..self.width]
    }

    /// The pixels of the line of MCUs that was read, by the transform of its blocks' shape.
    pub(super) fn make_pixels(&mut self) {
        match self.block {
            (2, 2) => self.transform::<2, 2>(),
            (4, 2) => self.transform::<4, 2>(),
            (4, 4) => self.transform::<4, 4>(),
            (1, 1) => self.transform::<1, 1>(),
            (1, 2) => self.transform::<1, 2>(),
            (2, 1) => self.transform::<2, 1>(),
            (2, 4) => self.transform::<2, 4>(),
            (4, 8) => self.transform::<4, 8>(),
            (8, 4) => self.transform::<8, 4>(),
            _ => self.transform::<8, 8>(),
        }
        self.coefficients.fill(0);
    }

    /// The inverse transform of `A` by `D` coefficients, compiled for each shape: its loops are too short to be loops.
    fn transform<const A: usize, const D: usize>(&mut self) {
        let frequency = self.blocks * self.lines;
        for line in 0..self.lines {
            for first in (0..self.blocks).step_by(LANES) {
                let mut coefficients = [[[0.0; LANES]; A]; D];
                for (at, lanes) in coefficients.as_flattened_mut().iter_mut().enumerate() {
                    let from = &self.coefficients[at * frequency + line * self.blocks + first..][..LANES];
                    lanes.iter_mut().zip(from).for_each(|(lane, value)| *lane = *value as f32);
                }
                for row in 0..D {
                    let y = line * D + row;
                    let sums = self.sums(&coefficients, row);
                    let pixels = &mut self.pixels[y * self.width + first * A..][..LANES * A];
                    for (lane, pixels) in pixels.as_chunks_mut::<A>().0.iter_mut().enumerate() {
                        *pixels = sums.map(|lanes| pixel(lanes[lane]));
                    }
                }
            }
        }
    }

    /// The levels of one row of [`LANES`] blocks' pixels.
    #[inline(always)]
    fn sums<const A: usize, const D: usize>(
        &self,
        coefficients: &[[[f32; LANES]; A]; D],
        row: usize,
    ) -> [[f32; LANES]; A] {
        let mut frequencies = [[0.0f32; LANES]; A];
        for (coefficients, down) in coefficients.iter().zip(&self.down) {
            for (frequency, coefficient) in frequencies.iter_mut().zip(coefficients) {
                add(frequency, coefficient, down[row]);
            }
        }
        let mut sums = [[128.0 + TIES_UP; LANES]; A];
        for (frequency, across) in frequencies.iter().zip(&self.across) {
            for (sum, across) in sums.iter_mut().zip(across) {
                add(sum, frequency, *across);
            }
        }
        sums
    }
}

/// Adds `factor` times `values` to `sums`.
#[inline(always)]
fn add(sums: &mut [f32; LANES], values: &[f32; LANES], factor: f32) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

/// Of `points` points from as many of an 8-point DCT's lowest frequencies, keeping levels.
fn inverse_dct(points: usize) -> [[f32; 8]; 8] {
    let mut matrix = [[0.0; 8]; 8];
    for (frequency, row) in matrix.iter_mut().enumerate().take(points) {
        for (point, value) in row.iter_mut().enumerate().take(points) {
            let norm = if frequency == 0 { 1.0f32 } else { 2.0 } / 8.0;
            let angle = (2 * point + 1) as f32 * frequency as f32 * PI / (2 * points) as f32;
            *value = norm.sqrt() * angle.cos();
        }
    }
    matrix
}

/// What takes halves to the level above, as libjpeg does; other values are an eighth from them, or it does not matter.
const TIES_UP: f32 = 1.0 / 1024.0;

/// The nearest of `0..=255`.
#[inline(always)]
fn pixel(value: f32) -> u8 {
    // From 2²³ on, a float's last bit counts ones: an addition instead of a conversion, which would be made one by one.
    const ONES: f32 = 8_388_608.0;
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    (value + ONES).to_bits() as u8
}

//! One colour component on its way from coefficients to reduced pixels.

use std::f32::consts::PI;

use super::header::Component;
use super::huffman::Bits;

/// T.81 figure A.6: position in the scan → row × 8 + column.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// One component at the reduced size, and how its blocks get there.
pub(super) struct Plane {
    width: usize,
    pixels: Vec<u8>,
    /// Pixels of a block, across and down.
    block: (usize, usize),
    /// Place in the scan → coefficient in the block's corner of low frequencies, or none.
    kept: [Option<u8>; 64],
    /// The last place that is kept.
    last: usize,
    /// Inverse DCT of `block.0` and `block.1` points, `[point][frequency]`.
    across: [[f32; 8]; 8],
    down: [[f32; 8]; 8],
}

impl Plane {
    /// Of a picture with `mcus` MCUs across and down, `mcu` blocks each, whose blocks become `side` pixels.
    pub(super) fn new(component: &Component, mcu: (usize, usize), side: usize, mcus: (usize, usize)) -> Self {
        // Components with fewer samples are reduced less, so that all planes come out alike.
        let block = (side * mcu.0 / component.sampling.0, side * mcu.1 / component.sampling.1);
        let width = mcus.0 * component.sampling.0 * block.0;
        let height = mcus.1 * component.sampling.1 * block.1;
        let mut kept = [None; 64];
        let mut last = 0;
        for (place, at) in ZIGZAG.iter().enumerate() {
            let (v, u) = (usize::from(at / 8), usize::from(at % 8));
            if u < block.0 && v < block.1 {
                kept[place] = Some(*at);
                last = place;
            }
        }
        let (across, down) = (inverse_dct(block.0), inverse_dct(block.1));
        Self { width, pixels: vec![0; width * height], block, kept, last, across, down }
    }

    /// Reads the block at (`x`, `y`), whose DC level counts from `before`.
    #[inline(always)]
    pub(super) fn block(
        &mut self,
        component: &Component,
        bits: &mut Bits,
        before: &mut i32,
        (x, y): (usize, usize),
    ) -> Option<()> {
        let Component { dc, ac, .. } = component;
        bits.fill();
        let size = bits.symbol(dc)?;
        if size > 15 {
            return None;
        }
        *before = before.wrapping_add(bits.value(size));
        let level = before.wrapping_mul(i32::from(component.quantisation[0])) as f32;
        let mut coefficients = [0.0f32; 64];
        coefficients[0] = level;
        let mut flat = true;
        let mut place = 1;
        while place <= self.last {
            bits.fill();
            let symbol = bits.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), symbol & 15);
            if size == 0 {
                if run != 15 {
                    place = 64;
                    break;
                }
                place += 16;
                continue;
            }
            place += run;
            let value = bits.value(size) * i32::from(*component.quantisation.get(place)?);
            if let Some(at) = self.kept[place] {
                coefficients[usize::from(at)] = value as f32;
                flat = false;
            }
            place += 1;
        }
        bits.step_over(ac, place)?;
        match (flat, self.block) {
            (true, _) => self.fill(level, x, y),
            (false, (2, 2)) => self.two_by_two(&coefficients, x, y),
            _ => self.transform(&coefficients, x, y),
        }
        Some(())
    }

    /// One line of pixels, padding included.
    pub(super) fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.width..][..self.width]
    }

    fn fill(&mut self, level: f32, x: usize, y: usize) {
        let (across, down) = self.block;
        for row in 0..down {
            self.pixels[(y * down + row) * self.width + x * across..][..across].fill(pixel(level / 8.0));
        }
    }

    /// [`Plane::transform`] of four coefficients, written out: it is the usual one.
    fn two_by_two(&mut self, coefficients: &[f32; 64], x: usize, y: usize) {
        let [a, b, c, d] = [0, 1, 8, 9].map(|at| coefficients[at] / 8.0);
        let start = 2 * y * self.width + 2 * x;
        self.pixels[start..][..2].copy_from_slice(&[pixel(a + b + c + d), pixel(a - b + c - d)]);
        self.pixels[start + self.width..][..2].copy_from_slice(&[pixel(a + b - c - d), pixel(a - b - c + d)]);
    }

    fn transform(&mut self, coefficients: &[f32; 64], x: usize, y: usize) {
        let (across, down) = self.block;
        for row in 0..down {
            let mut frequencies = [0.0f32; 8];
            for (u, frequency) in frequencies[..across].iter_mut().enumerate() {
                *frequency = (0..down).map(|v| self.down[row][v] * coefficients[v * 8 + u]).sum();
            }
            let start = (y * down + row) * self.width + x * across;
            for (column, target) in self.pixels[start..][..across].iter_mut().enumerate() {
                let sum: f32 = (0..across).map(|u| self.across[column][u] * frequencies[u]).sum();
                *target = pixel(sum);
            }
        }
    }
}

/// Of `points` points from as many of an 8-point DCT's lowest frequencies, keeping levels.
fn inverse_dct(points: usize) -> [[f32; 8]; 8] {
    let mut matrix = [[0.0; 8]; 8];
    for (point, row) in matrix.iter_mut().enumerate().take(points) {
        for (frequency, value) in row.iter_mut().enumerate().take(points) {
            let norm = if frequency == 0 { 1.0f32 } else { 2.0 } / 8.0;
            let angle = (2 * point + 1) as f32 * frequency as f32 * PI / (2 * points) as f32;
            *value = norm.sqrt() * angle.cos();
        }
    }
    matrix
}

#[inline(always)]
fn pixel(value: f32) -> u8 {
    (value + 128.5) as u8 // a float saturates as it becomes an integer
}

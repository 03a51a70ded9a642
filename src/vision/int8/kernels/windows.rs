//! The inner loops of a depthwise convolution: one line of its output.
//!
//! Taps stay in registers, and four windows share the pixels that they have in common. A line is checked as a whole: checked
//! one by one, its pixels, which lie a pixel's channels apart, would cost more instructions than the sums.
#![allow(unsafe_code, reason = "reads pixels and taps through pointers that were checked for the whole line at once")]

use super::unrolled;
use super::vector::Vector;

/// What the windows of one line read.
#[derive(Debug, Clone, Copy)]
pub struct Windows<'a, const N: usize> {
    /// The image lines under the rows of the kernel, and whether each is one: where a row is above or below the image, any other
    /// line stands here and counts nothing.
    pub lines: [(&'a [f32], bool); N],
    /// Pixels of a line.
    pub width: usize,
    /// `[kernel row][kernel column][channel]`.
    pub taps: &'a [f32],
    /// One a channel.
    pub bias: &'a [f32],
    /// Limits of a sum.
    pub clamp: (f32, f32),
    /// Zeros before the first pixel, at most one.
    pub before: usize,
}

impl<const N: usize> Windows<'_, N> {
    /// Whether `columns` windows, `stride` pixels apart, can be computed here: none reaches over an edge by more than a pixel.
    pub fn reach(&self, columns: usize, stride: usize) -> bool {
        let inside = N <= self.width && self.before <= 1;
        inside && columns > 0 && (columns - 1) * stride + N <= self.before + self.width + 1
    }

    /// Writes the sums of windows `S` pixels apart to the pixels of `out`.
    ///
    /// # Panics
    /// When a window reaches too far, or what belongs to channels is not of as many.
    #[inline(always)]
    pub fn run<V: Vector, const S: usize>(&self, out: &mut [f32]) {
        let channels = self.bias.len();
        let columns = out.len() / channels;
        assert!(self.reach(columns, S), "windows beyond the line");
        assert!(self.lines.iter().all(|(line, _)| line.len() == self.width * channels), "a line of another length");
        assert!(
            self.taps.len() == N * N * channels && out.len() == columns * channels,
            "taps or sums of other channels"
        );
        let whole = channels / V::LANES * V::LANES;
        // SAFETY: the asserts are what is asked for, and from each of these channels on there is a register full of them, or
        // one for those behind the last register.
        unsafe {
            for c in (0..whole).step_by(V::LANES) {
                self.channels::<V, S>(c, columns, out);
            }
            for c in whole..channels {
                self.channels::<f32, S>(c, columns, out);
            }
        }
    }

    /// The channels of one register, from `c` on.
    ///
    /// # Safety
    /// `reach(columns, S)`; lines have `width` pixels, `out` has `columns` and `taps` has N·N, each of as many channels as `bias`, and
    /// from `c` on there are at least as many as a register has lanes.
    #[inline(always)]
    #[allow(
        clippy::out_of_bounds_indexing,
        reason = "`unrolled!` counts further than there are sums, in branches never taken"
    )]
    unsafe fn channels<V: Vector, const S: usize>(&self, c: usize, columns: usize, out: &mut [f32]) {
        let channels = self.bias.len();
        // A macro, for a closure is not sure to be inlined.
        macro_rules! load {
            ($from:expr) => {
                // SAFETY: by the contract.
                V::load(unsafe { std::slice::from_raw_parts($from, V::LANES) })
            };
        }
        let mut taps = [[V::splat(0.0); N]; N];
        let mut tap = self.taps.as_ptr().wrapping_add(c);
        for (taps, (_, is_one)) in taps.iter_mut().zip(&self.lines) {
            for value in taps {
                if *is_one {
                    *value = load!(tap);
                }
                tap = tap.wrapping_add(channels);
            }
        }
        let bias = load!(self.bias.as_ptr().wrapping_add(c));
        let mut at = self.lines.map(|(line, _)| line.as_ptr().wrapping_add(c));
        let mut to = out.as_mut_ptr().wrapping_add(c);
        let inside = ((self.before + self.width - N) / S + 1).min(columns);
        // The sums of `$count` windows, from column `$column` of the kernel on, of `$pixels` pixels.
        macro_rules! windows {
            ($count:expr, $column:expr, $pixels:expr) => {{
                let mut sums = [bias; $count];
                for (line, taps) in at.iter().zip(&taps) {
                    unrolled!($pixels, PIXEL => {
                        let value = load!(line.wrapping_add(PIXEL * channels));
                        unrolled!($count, WINDOW => {
                            if PIXEL + $column >= WINDOW * S && PIXEL + $column - WINDOW * S < N {
                                sums[WINDOW] = value.fma(taps[PIXEL + $column - WINDOW * S], sums[WINDOW]);
                            }
                        });
                    });
                }
                for sum in sums {
                    // SAFETY: by the contract.
                    let out = unsafe { std::slice::from_raw_parts_mut(to, V::LANES) };
                    sum.max(V::splat(self.clamp.0)).min(V::splat(self.clamp.1)).store(out);
                    to = to.wrapping_add(channels);
                }
            }};
        }
        const { assert!(3 * S + N <= 14, "`unrolled!` counts no further") };
        let mut left = inside;
        if self.before == 1 {
            // Windows at an edge are computed with the three beside them, where there are as many.
            let count = if left >= 4 { 4 } else { 1 };
            if count == 4 {
                windows!(4, 1, 3 * S + N - 1)
            } else {
                windows!(1, 1, N - 1)
            }
            at = at.map(|at| at.wrapping_add((count * S - 1) * channels));
            left -= count;
        }
        while left >= 4 {
            windows!(4, 0, 3 * S + N);
            at = at.map(|at| at.wrapping_add(4 * S * channels));
            left -= 4;
        }
        if inside < columns && left == 3 {
            windows!(4, 0, 3 * S + N - 1);
            return;
        }
        for _ in 0..left {
            windows!(1, 0, N);
            at = at.map(|at| at.wrapping_add(S * channels));
        }
        if inside < columns {
            windows!(1, 0, N - 1);
        }
    }
}

//! The inner loop of a depthwise convolution: windows of one line on one register's worth of channels.
//!
//! Taps stay in registers, and four windows share the pixels that they have in common. Pixels of a channel lie a pixel's
//! channels apart; checked one by one, they would cost more instructions than the sums.
#![allow(unsafe_code, reason = "reads pixels through pointers that were checked for the whole line at once")]

use super::unrolled;
use super::vector::Vector;

/// What the windows read.
#[derive(Debug, Clone, Copy)]
pub struct Windows<'a, V, const N: usize> {
    /// The image lines under the windows' rows.
    pub lines: [&'a [f32]; N],
    /// The kernel.
    pub taps: [[V; N]; N],
    /// Added.
    pub bias: V,
    /// Limits of a sum.
    pub clamp: (V, V),
    /// Values from one pixel to the next.
    pub channels: usize,
}

impl<V: Vector, const N: usize> Windows<'_, V, N> {
    /// `count` windows, `S` pixels apart, the first of which begins at value `from` of every line; their sums go to the
    /// pixels of `out`.
    ///
    /// # Panics
    /// When a window reaches beyond a line or a sum beyond `out`.
    #[inline(always)]
    pub fn run<const S: usize>(&self, count: usize, from: usize, out: &mut [f32]) {
        if count == 0 {
            return;
        }
        let end = from + ((count - 1) * S + N - 1) * self.channels + V::LANES;
        assert!(self.lines.iter().all(|line| end <= line.len()), "windows beyond the line");
        assert!((count - 1) * self.channels + V::LANES <= out.len(), "sums beyond the output");
        let mut at = self.lines.map(|line| line.as_ptr().wrapping_add(from));
        let mut to = out.as_mut_ptr();
        let mut left = count;
        while left >= 4 {
            // SAFETY: four of the `count` windows are left, and the asserts have bounded them all.
            unsafe { self.sums::<4, S>(at, to) };
            at = at.map(|at| at.wrapping_add(4 * S * self.channels));
            to = to.wrapping_add(4 * self.channels);
            left -= 4;
        }
        while left > 0 {
            // SAFETY: as above, of one.
            unsafe { self.sums::<1, S>(at, to) };
            at = at.map(|at| at.wrapping_add(S * self.channels));
            to = to.wrapping_add(self.channels);
            left -= 1;
        }
    }

    /// # Safety
    /// `at` must be to the first values of `P` windows, `S` pixels apart, in each line, and `to` to those of `P` pixels of
    /// the output.
    #[inline(always)]
    unsafe fn sums<const P: usize, const S: usize>(&self, at: [*const f32; N], to: *mut f32) {
        const { assert!((P - 1) * S + N <= 14, "`unrolled!` counts no further") };
        let mut sums = [self.bias; P];
        for (line, taps) in at.iter().zip(&self.taps) {
            unrolled!((P - 1) * S + N, PIXEL => {
                // SAFETY: by the contract.
                let value = V::load(unsafe { std::slice::from_raw_parts(line.wrapping_add(PIXEL * self.channels), V::LANES) });
                unrolled!(P, WINDOW => {
                    if PIXEL >= WINDOW * S && PIXEL - WINDOW * S < N {
                        sums[WINDOW] = value.fma(taps[PIXEL - WINDOW * S], sums[WINDOW]);
                    }
                });
            });
        }
        let (low, high) = self.clamp;
        for (window, sum) in sums.into_iter().enumerate() {
            // SAFETY: by the contract.
            let out = unsafe { std::slice::from_raw_parts_mut(to.wrapping_add(window * self.channels), V::LANES) };
            sum.max(low).min(high).store(out);
        }
    }
}

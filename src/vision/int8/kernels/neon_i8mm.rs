//! aarch64 with the int8 matrix multiply: Cortex-A510, A710, Neoverse V1 and later.
//!
//! `smmla` multiplies two rows by two columns, eight `k` deep: 32 multiply-adds an instruction. A tile is 10 rows by 8
//! columns: 20 accumulators of two rows by two columns. A panel keeps eight consecutive `k` of a column together, so
//! two columns are one register as they lie; two rows are loaded 16 bytes each and zipped. The instruction's intrinsic
//! is not stable, so it is written out.
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Kernel, Layout, Tile, neon, unrolled};

const LAYOUT: Layout = Layout { rows: 10, columns: 8, depth: 8, offset: 128 };

/// The kernel, where the machine has its instructions.
pub fn kernel() -> Option<Kernel> {
    is_aarch64_feature_detected!("i8mm").then_some(Kernel { name: "neon-i8mm", layout: LAYOUT, tile, glue: neon::GLUE })
}

fn tile(t: &Tile, acc: &mut [i32]) {
    t.check(LAYOUT, acc);
    // SAFETY: `kernel` is the only way here and has detected the feature; `check` has bounded every access.
    unsafe {
        match t.rows.div_ceil(2) {
            1 => pairs::<1>(t, acc),
            2 => pairs::<2>(t, acc),
            3 => pairs::<3>(t, acc),
            4 => pairs::<4>(t, acc),
            _ => pairs::<5>(t, acc),
        }
    }
}

/// One step of eight `k`: all pairs of rows by the four pairs of columns at `$w`.
macro_rules! step {
    ($pairs:ident, $sums:ident, $a:ident, $w:expr) => {
        unrolled!(4, COLUMN => {
            let w = vld1q_s8($w.add(16 * COLUMN));
            unrolled!($pairs, PAIR => {
                asm!(
                    "smmla {sum:v}.4s, {a:v}.16b, {w:v}.16b",
                    sum = inout(vreg) $sums[PAIR][COLUMN],
                    a = in(vreg) $a[PAIR],
                    w = in(vreg) w,
                    options(pure, nomem, nostack, preserves_flags),
                );
            });
        })
    };
}

/// # Safety
/// `t` must have passed [`Tile::check`] with `t.rows` of `2 P` or `2 P - 1`, and the CPU must have the instruction.
#[target_feature(enable = "neon,i8mm")]
unsafe fn pairs<const P: usize>(t: &Tile, acc: &mut [i32]) {
    let mut sums = [[vdupq_n_s32(0); 4]; P];
    let mut w = t.panel.as_ptr();
    let two = t.row_stride.wrapping_mul(2);
    // The second row of an odd last pair is its first once more; its sums are not stored.
    let second = |pair: usize| if 2 * pair + 1 < t.rows { t.row_stride } else { 0 };
    for s in 0..t.segments {
        // SAFETY: `check` bounds the panel to segments · steps · 64 bytes and every row's run to steps · 8 bytes inside
        // `a`: 16 are loaded while two steps are left, then 8; past the last step the pointers are not read through. The
        // instructions touch registers only.
        unsafe {
            let mut at = t.a.as_ptr().add(s * t.segment_stride).cast::<i8>();
            for _ in 0..t.steps / 2 {
                let (mut first, mut then) = ([vdupq_n_s8(0); P], [vdupq_n_s8(0); P]);
                unrolled!(P, PAIR => {
                    let row = at.wrapping_add(two.wrapping_mul(PAIR));
                    let upper = vreinterpretq_s64_s8(vld1q_s8(row));
                    let lower = vreinterpretq_s64_s8(vld1q_s8(row.wrapping_add(second(PAIR))));
                    first[PAIR] = vreinterpretq_s8_s64(vzip1q_s64(upper, lower));
                    then[PAIR] = vreinterpretq_s8_s64(vzip2q_s64(upper, lower));
                });
                step!(P, sums, first, w);
                step!(P, sums, then, w.add(64));
                at = at.wrapping_add(16);
                w = w.wrapping_add(128);
            }
            if t.steps % 2 == 1 {
                let mut a = [vdupq_n_s8(0); P];
                unrolled!(P, PAIR => {
                    let row = at.wrapping_add(two.wrapping_mul(PAIR));
                    a[PAIR] = vcombine_s8(vld1_s8(row), vld1_s8(row.wrapping_add(second(PAIR))));
                });
                step!(P, sums, a, w);
                w = w.wrapping_add(64);
            }
        }
    }
    unrolled!(P, PAIR => {
        unrolled!(4, COLUMN => {
            // SAFETY: `check` has found room for `t.rows` rows of 8 sums.
            unsafe {
                let out = acc.as_mut_ptr().add(16 * PAIR + 2 * COLUMN);
                vst1_s32(out, vget_low_s32(sums[PAIR][COLUMN]));
                if 2 * PAIR + 1 < t.rows {
                    vst1_s32(out.add(8), vget_high_s32(sums[PAIR][COLUMN]));
                }
            }
        });
    });
}

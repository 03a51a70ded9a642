//! aarch64 with the int8 matrix multiply: Cortex-A510, A710, Neoverse V1 and later.
//!
//! `smmla` multiplies two rows by two columns, eight `k` deep: 32 multiply-adds an instruction. A panel keeps eight
//! consecutive `k` of a column together, so two columns are one register as they lie; two rows are loaded 16 bytes each and
//! zipped. A tile is 6 rows by 16 columns: 24 accumulators of two rows by two columns, six registers of zipped rows and two
//! of weights, all 32; wide rather than tall, because weights cost half a load a register and rows a load and a zip.
//!
//! The instruction's intrinsic is not stable, so it is written out, and with it the loads and zips around it in the order
//! they are to run in: the compiler would begin all of them first and spill (`benches/arm/mca` shows the loop).
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::neon::{load_next, load_pair, load_pair_next};
use super::room::Narrow;
use super::{Kernel, Layout, SMALL_BLOCK, Strip, Tile, neon, unrolled};

const LAYOUT: Layout = Layout { rows: 6, columns: 16, depth: 8, offset: 128, together: 2, narrow: Narrow::No };

/// The kernel, where the machine has its instructions.
pub fn kernel() -> Option<Kernel> {
    is_aarch64_feature_detected!("i8mm").then_some(Kernel {
        name: "neon-i8mm",
        layout: LAYOUT,
        block_bytes: SMALL_BLOCK,
        strip,
        glue: neon::GLUE,
    })
}

fn strip(strip: &Strip, acc: &mut [i32]) {
    // SAFETY: `kernel` is the only way here and has detected the feature.
    unsafe { tiles(strip, acc) };
}

/// # Safety
/// The CPU must have the instruction.
#[target_feature(enable = "neon,i8mm")]
unsafe fn tiles(strip: &Strip, acc: &mut [i32]) {
    // Whole tiles are computed here, so that registers are saved and given back once a strip.
    // SAFETY: a tile stays inside its strip.
    strip.tiles(LAYOUT, acc, |t, acc| unsafe {
        match t.rows.div_ceil(2) {
            3 => pairs::<3>(t, acc),
            2 => few_pairs::<2>(t, acc),
            _ => few_pairs::<1>(t, acc),
        }
    });
}

/// # Safety
/// As of [`pairs`].
#[inline(never)]
#[target_feature(enable = "neon,i8mm")]
unsafe fn few_pairs<const P: usize>(t: &Tile, acc: &mut [i32]) {
    // SAFETY: by the contract.
    unsafe { pairs::<P>(t, acc) };
}

/// Of `$one` and `$other`, two rows, makes their first and their second eight bytes, row beside row.
macro_rules! zip {
    ($one:expr, $other:expr) => {{
        let (upper, lower) = ($one, $other);
        asm!(
            "zip1 {first:v}.2d, {upper:v}.2d, {lower:v}.2d",
            "zip2 {then:v}.2d, {upper:v}.2d, {lower:v}.2d",
            first = out(vreg) $one,
            then = lateout(vreg) $other,
            upper = in(vreg) upper,
            lower = in(vreg) lower,
            options(nomem, nostack, preserves_flags),
        );
    }};
}

/// `$sum` += two rows by two columns.
macro_rules! multiply_add {
    ($sum:expr, $a:expr, $w:expr) => {
        asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {w:v}.16b",
            sum = inout(vreg) $sum,
            a = in(vreg) $a,
            w = in(vreg) $w,
            options(nomem, nostack, preserves_flags),
        )
    };
}

/// One step of eight `k`, the `$step`-th: all pairs of rows by eight pairs of columns. The weights move on by `$bytes` with the
/// first.
macro_rules! step {
    ($pairs:ident, $sums:ident, $a:ident, $w:ident, $bytes:literal, $step:literal) => {
        unrolled!(4, TWO => {
            let (w0, w1): (int8x16_t, int8x16_t);
            if $step == 0 && TWO == 0 {
                load_pair_next!(w0, w1, $w, $bytes);
            } else {
                load_pair!(w0, w1, $w, 128 * $step + 32 * TWO, $bytes);
            }
            unrolled!($pairs, PAIR => multiply_add!($sums[PAIR][2 * TWO], $a[PAIR], w0));
            unrolled!($pairs, PAIR => multiply_add!($sums[PAIR][2 * TWO + 1], $a[PAIR], w1));
        })
    };
}

/// # Safety
/// `t` must have `2 P` or `2 P - 1` rows, and the CPU must have the instruction.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn pairs<const P: usize>(t: &Tile, acc: &mut [i32]) {
    let Strip { segments, steps, .. } = *t.strip;
    let mut sums = [[vdupq_n_s32(0); 8]; P];
    let mut w = t.panel.as_ptr();
    for s in 0..segments {
        let (mut upper, mut lower) = (t.row_starts::<P>(s, 0, 2), t.row_starts::<P>(s, 1, 2));
        // The second row of an odd last pair is its first once more; its sums are not stored.
        if t.rows % 2 == 1 {
            lower[P - 1] = upper[P - 1];
        }
        // SAFETY: the panel has segments · steps · 128 bytes and every row's run steps · 8 bytes inside
        // `a`: 16 are loaded while two steps are left, then 8; past the last step the pointers are not read through. The other
        // instructions touch registers only.
        unsafe {
            for _ in 0..steps / 2 {
                // All loads before the first zip: a core that runs in order would wait for each.
                let (mut first, mut then) = ([vdupq_n_s8(0); P], [vdupq_n_s8(0); P]);
                unrolled!(P, PAIR => {
                    load_next!(first[PAIR], upper[PAIR]);
                    load_next!(then[PAIR], lower[PAIR]);
                });
                unrolled!(P, PAIR => zip!(first[PAIR], then[PAIR]));
                step!(P, sums, first, w, 256, 0);
                step!(P, sums, then, w, 256, 1);
            }
            if steps % 2 == 1 {
                let mut a = [vdupq_n_s8(0); P];
                unrolled!(P, PAIR => a[PAIR] = vcombine_s8(vld1_s8(upper[PAIR]), vld1_s8(lower[PAIR])));
                step!(P, sums, a, w, 128, 0);
            }
        }
    }
    unrolled!(P, PAIR => {
        unrolled!(4, TWO => {
            let [left, right] = [2 * TWO, 2 * TWO + 1].map(|column| vreinterpretq_s64_s32(sums[PAIR][column]));
            // SAFETY: the strip has room for `t.rows` rows of 16 sums.
            unsafe {
                vst1q_s32(t.sums(acc, 2 * PAIR).add(4 * TWO), vreinterpretq_s32_s64(vzip1q_s64(left, right)));
                if 2 * PAIR + 1 < t.rows {
                    let out = t.sums(acc, 2 * PAIR + 1);
                    vst1q_s32(out.add(4 * TWO), vreinterpretq_s32_s64(vzip2q_s64(left, right)));
                }
            }
        });
    });
}

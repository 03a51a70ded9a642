//! aarch64 with the dot product: Cortex-A76 and later.
//!
//! `sdot` by element multiplies four bytes of each of four columns by four bytes of one row and adds them to four
//! 32-bit sums: 16 multiply-adds an instruction. A tile is 6 rows by 16 columns: 24 accumulators, six rows, whose registers
//! serve four steps, and two registers of weights, all 32.
//!
//! The instruction's intrinsic is not stable, so it is written out, and with it the loads of weights in the order they are
//! to run in: the compiler would begin more of them than there are registers for and spill (`benches/arm/mca`).
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::neon::{load_next, load_pair, load_pair_next};
use super::room::Narrow;
use super::{Kernel, Layout, SMALL_BLOCK, Strip, Tile, by_rows, neon, unrolled};

const LAYOUT: Layout = Layout { rows: 6, columns: 16, depth: 4, offset: 128, together: 1, narrow: Narrow::No };

/// The kernel, where the machine has its instructions.
pub fn kernel() -> Option<Kernel> {
    is_aarch64_feature_detected!("dotprod").then_some(Kernel {
        name: "neon-dot",
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
/// The CPU must have the dot product.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tiles(strip: &Strip, acc: &mut [i32]) {
    // Whole tiles are computed here, so that registers are saved and given back once a strip.
    // SAFETY: a tile stays inside its strip.
    strip.tiles(LAYOUT, acc, |t, acc| unsafe {
        match t.rows {
            6 => rows::<6>(t, acc),
            _ => by_rows!(few_rows, t, acc; 1 2 3 4; 5),
        }
    });
}

/// # Safety
/// As of [`rows`].
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
unsafe fn few_rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    // SAFETY: by the contract.
    unsafe { rows::<R>(t, acc) };
}

/// Adds the products of the four bytes that `$lane` counts of `$a` with four bytes of each of four columns.
macro_rules! dot {
    ($sum:expr, $w:expr, $a:expr, $lane:literal) => {
        asm!(
            concat!("sdot {sum:v}.4s, {w:v}.16b, {a:v}.4b[", $lane, "]"),
            sum = inout(vreg) $sum,
            w = in(vreg) $w,
            a = in(vreg) $a,
            options(nomem, nostack, preserves_flags),
        )
    };
}

/// One step of four `k` for all rows, `$lane` of the loaded registers; the weights move on by `$bytes` with the first lane.
macro_rules! step {
    ($rows:ident, $sums:ident, $a:ident, $w:ident, $bytes:literal, $lane:literal) => {{
        unrolled!(2, TWO => {
            let (w0, w1): (int8x16_t, int8x16_t);
            if $lane == 0 && TWO == 0 {
                load_pair_next!(w0, w1, $w, $bytes);
            } else {
                load_pair!(w0, w1, $w, 64 * $lane + 32 * TWO, $bytes);
            }
            unrolled!($rows, ROW => dot!($sums[ROW][2 * TWO], w0, $a[ROW], $lane));
            unrolled!($rows, ROW => dot!($sums[ROW][2 * TWO + 1], w1, $a[ROW], $lane));
        });
    }};
}

/// # Safety
/// `t` must have `R` rows, and the CPU must have the dot product.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    let Strip { segments, steps, .. } = *t.strip;
    let mut sums = [[vdupq_n_s32(0); 4]; R];
    let mut w = t.panel.as_ptr();
    for s in 0..segments {
        let mut at = t.row_starts::<R>(s, 0, 1);
        // SAFETY: the panel has segments · steps · 64 bytes and every row's run steps · 4 bytes inside
        // `a`: 16 are loaded while four steps are left, then 4 at a time; past the last step the pointers are not read
        // through. The instructions touch registers only.
        unsafe {
            for _ in 0..steps / 4 {
                let mut a = [vdupq_n_s8(0); R];
                unrolled!(R, ROW => load_next!(a[ROW], at[ROW]));
                step!(R, sums, a, w, 256, 0);
                step!(R, sums, a, w, 256, 1);
                step!(R, sums, a, w, 256, 2);
                step!(R, sums, a, w, 256, 3);
            }
            for _ in 0..steps % 4 {
                let mut a = [vdupq_n_s8(0); R];
                unrolled!(R, ROW => {
                    a[ROW] = vreinterpretq_s8_s32(vdupq_n_s32(at[ROW].cast::<i32>().read_unaligned()));
                    at[ROW] = at[ROW].wrapping_add(4);
                });
                step!(R, sums, a, w, 64, 0);
            }
        }
    }
    unrolled!(R, ROW => {
        let out = t.sums(acc, ROW);
        // SAFETY: the strip has room for R rows of 16 sums.
        unrolled!(4, FOUR => unsafe { vst1q_s32(out.add(4 * FOUR), sums[ROW][FOUR]) });
    });
}

//! aarch64 without the dot product: Cortex-A53, A72.
//!
//! `smull` and `smlal` multiply eight pairs of bytes and add them up in 16 bits; `sadalp` adds those two by two into 32 bits. How
//! many products fit 16 bits is a matter of the weights ([`fits`]): four as a rule, which makes five
//! instructions for 32 multiply-adds, otherwise two (six) or one (eight). Sums run along `k` in four lanes and are added across
//! at the end, which is why a panel keeps 16 consecutive `k` of a column together.
//!
//! A tile is 4 rows by 4 columns: 16 accumulators, two steps of four rows, two steps of two columns and four rows' products, all
//! 32. The instructions are written out in the order they are to run in: left to schedule them, the compiler starts more
//! products than there are registers for and spills (`benches/arm/mca` shows the loop).
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::room::{Narrow, fits};
use super::vector::Vector;
use super::{Kernel, Layout, SMALL_BLOCK, Strip, Tile, by_rows, glue_for, unrolled};

const LAYOUT: Layout = Layout { rows: 4, columns: 4, depth: 16, offset: 128, together: 1, narrow: Narrow::Fits };

// As wide as a register: of a byte the compiler would clear the rest at each turn.
const FOUR: u32 = fits::FOUR as u32;
const TWO: u32 = fits::TWO as u32;
const ONE: u32 = fits::ONE as u32;

/// The kernel; every aarch64 CPU has these instructions.
pub const KERNEL: Kernel =
    Kernel { name: "neon", layout: LAYOUT, block_bytes: SMALL_BLOCK, strip, glue: compiled::GLUE };

glue_for!(
    #[target_feature(enable = "neon")]
    std::arch::aarch64::float32x4_t
);

/// The routines of every aarch64 kernel.
pub const GLUE: super::Glue = compiled::GLUE;

fn strip(strip: &Strip, acc: &mut [i32]) {
    // Whole tiles are computed here, so that registers are saved and given back once a strip.
    // SAFETY: NEON is part of aarch64; a tile stays inside its strip.
    strip.tiles(LAYOUT, acc, |t, acc| unsafe {
        match t.rows {
            4 => rows::<4>(t, acc),
            _ => by_rows!(few_rows, t, acc; 1 2; 3),
        }
    });
}

/// # Safety
/// As of [`rows`].
#[inline(never)]
unsafe fn few_rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    // SAFETY: by the contract.
    unsafe { rows::<R>(t, acc) };
}

/// `$to` = the 16 bytes at `$from`, which moves on behind them.
macro_rules! load_next {
    ($to:expr, $from:expr) => {
        asm!(
            "ldr {to:q}, [{from}], #16",
            to = out(vreg) $to,
            from = inout(reg) $from,
            options(readonly, nostack, preserves_flags),
        )
    };
}
pub(super) use load_next;

/// `$one`, `$other` = the 32 bytes at `$from + $offset - $moved`.
macro_rules! load_pair {
    ($one:expr, $other:expr, $from:expr, $offset:expr, $moved:expr) => {
        asm!(
            "ldp {one:q}, {other:q}, [{from}, {offset}]",
            one = out(vreg) $one,
            other = out(vreg) $other,
            from = in(reg) $from,
            offset = const $offset as isize - $moved,
            options(readonly, nostack, preserves_flags),
        )
    };
}
pub(super) use load_pair;

/// `$one`, `$other` = the 32 bytes at `$from`, which moves on by `$bytes`.
macro_rules! load_pair_next {
    ($one:expr, $other:expr, $from:expr, $bytes:expr) => {
        asm!(
            "ldp {one:q}, {other:q}, [{from}], {bytes}",
            one = out(vreg) $one,
            other = out(vreg) $other,
            from = inout(reg) $from,
            bytes = const $bytes,
            options(readonly, nostack, preserves_flags),
        )
    };
}
pub(super) use load_pair_next;

/// `$to` = products of bytes, 16 bits each: `smull` those of the low ones, `smull2` of the high ones.
macro_rules! multiply {
    ($instruction:literal, $bytes:literal, $to:expr, $a:expr, $w:expr) => {
        asm!(
            concat!($instruction, " {to:v}.8h, {a:v}.", $bytes, ", {w:v}.", $bytes),
            to = out(vreg) $to,
            a = in(vreg) $a,
            w = in(vreg) $w,
            options(nomem, nostack, preserves_flags),
        )
    };
}

/// `$to` += products of bytes, 16 bits each: `smlal` those of the low ones, `smlal2` of the high ones.
macro_rules! multiply_add {
    ($instruction:literal, $bytes:literal, $to:expr, $a:expr, $w:expr) => {
        asm!(
            concat!($instruction, " {to:v}.8h, {a:v}.", $bytes, ", {w:v}.", $bytes),
            to = inout(vreg) $to,
            a = in(vreg) $a,
            w = in(vreg) $w,
            options(nomem, nostack, preserves_flags),
        )
    };
}

/// `$sum` += neighbouring products, two by two.
macro_rules! add_pairs {
    ($sum:expr, $products:expr) => {
        asm!(
            "sadalp {sum:v}.4s, {products:v}.8h",
            sum = inout(vreg) $sum,
            products = in(vreg) $products,
            options(nomem, nostack, preserves_flags),
        )
    };
}

/// Adds the products of one column with two steps or one, as many of them in 16 bits as `$fit` says. In turns over the rows,
/// so that no instruction waits for the one before.
macro_rules! column {
    ($rows:ident, $sums:ident, $column:expr, $fit:ident, $a:ident, $w:expr $(, $then_a:ident, $then_w:expr)?) => {{
        let mut products = [vdupq_n_s16(0); $rows];
        unrolled!($rows, ROW => multiply!("smull", "8b", products[ROW], $a[ROW], $w));
        if $fit == ONE {
            unrolled!($rows, ROW => add_pairs!($sums[ROW][$column], products[ROW]));
            unrolled!($rows, ROW => multiply!("smull2", "16b", products[ROW], $a[ROW], $w));
        } else {
            unrolled!($rows, ROW => multiply_add!("smlal2", "16b", products[ROW], $a[ROW], $w));
        }
        $(
            if $fit == FOUR {
                unrolled!($rows, ROW => multiply_add!("smlal", "8b", products[ROW], $then_a[ROW], $then_w));
            } else {
                unrolled!($rows, ROW => add_pairs!($sums[ROW][$column], products[ROW]));
                unrolled!($rows, ROW => multiply!("smull", "8b", products[ROW], $then_a[ROW], $then_w));
            }
            if $fit == ONE {
                unrolled!($rows, ROW => add_pairs!($sums[ROW][$column], products[ROW]));
                unrolled!($rows, ROW => multiply!("smull2", "16b", products[ROW], $then_a[ROW], $then_w));
            } else {
                unrolled!($rows, ROW => multiply_add!("smlal2", "16b", products[ROW], $then_a[ROW], $then_w));
            }
        )?
        unrolled!($rows, ROW => add_pairs!($sums[ROW][$column], products[ROW]));
    }};
}

/// Two steps of all rows by all columns; what was read is moved past.
macro_rules! two_steps {
    ($rows:ident, $sums:ident, $at:ident, $w:ident, $fit:ident) => {{
        let (mut a0, mut a1) = ([vdupq_n_s8(0); $rows], [vdupq_n_s8(0); $rows]);
        unrolled!($rows, ROW => load_pair_next!(a0[ROW], a1[ROW], $at[ROW], 32));
        unrolled!(2, HALF => {
            let (w00, w01, w10, w11): (int8x16_t, int8x16_t, int8x16_t, int8x16_t);
            if HALF == 0 {
                load_pair_next!(w00, w01, $w, 128);
            } else {
                load_pair!(w00, w01, $w, 32, 128);
            }
            load_pair!(w10, w11, $w, 64 + 32 * HALF, 128);
            column!($rows, $sums, 2 * HALF, $fit, a0, w00, a1, w10);
            column!($rows, $sums, 2 * HALF + 1, $fit, a0, w01, a1, w11);
        });
    }};
}

/// One step, likewise.
macro_rules! one_step {
    ($rows:ident, $sums:ident, $at:ident, $w:ident, $fit:ident) => {{
        let mut a = [vdupq_n_s8(0); $rows];
        unrolled!($rows, ROW => load_next!(a[ROW], $at[ROW]));
        unrolled!(4, COLUMN => {
            let w: int8x16_t;
            load_next!(w, $w);
            column!($rows, $sums, COLUMN, $fit, a, w);
        });
    }};
}

/// The fit at `$fits`, which moves on behind it.
macro_rules! next_fit {
    ($fits:ident) => {{
        let fit: u32;
        asm!(
            "ldrb {fit:w}, [{fits}], #1",
            fit = lateout(reg) fit,
            fits = inout(reg) $fits,
            options(readonly, nostack, preserves_flags),
        );
        fit
    }};
}

/// # Safety
/// `t` must have `R` rows.
#[inline(always)]
unsafe fn rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    let Strip { segments, steps, .. } = *t.strip;
    // SAFETY: NEON is part of aarch64, here and below.
    let mut sums = [[unsafe { vdupq_n_s32(0) }; 4]; R];
    let mut w = t.panel.as_ptr();
    let mut fits = t.room.bytes().as_ptr();
    for s in 0..segments {
        let mut at = t.row_starts::<R>(s, 0, 1);
        // SAFETY: the panel has segments · steps · 64 bytes and every row's run steps · 16 bytes inside
        // `a`. [`fits`] promises a fit for every pair of steps of a segment, the end, and one for a step that is left. The
        // other instructions touch registers only.
        unsafe {
            let mut fit = next_fit!(fits);
            loop {
                if fit == FOUR {
                    'four: loop {
                        two_steps!(R, sums, at, w, FOUR);
                        fit = next_fit!(fits);
                        // As a condition of the loop it would be merged with the one above, and a jump added to each turn.
                        const { assert!(FOUR == 0) };
                        asm!(
                            "cbz {fit:w}, {again}",
                            fit = in(reg) fit,
                            again = label { continue 'four },
                            options(nomem, nostack, preserves_flags),
                        );
                        break;
                    }
                }
                match fit {
                    TWO => two_steps!(R, sums, at, w, TWO),
                    ONE => two_steps!(R, sums, at, w, ONE),
                    _ => break,
                }
                fit = next_fit!(fits);
            }
            if steps % 2 == 1 {
                match u32::from(*fits) {
                    ONE => one_step!(R, sums, at, w, ONE),
                    _ => one_step!(R, sums, at, w, TWO),
                }
                fits = fits.add(1);
            }
        }
    }
    unrolled!(R, ROW => {
        // SAFETY: the strip has room for R rows of 4 sums.
        unsafe {
            let pairs = [vpaddq_s32(sums[ROW][0], sums[ROW][1]), vpaddq_s32(sums[ROW][2], sums[ROW][3])];
            vst1q_s32(t.sums(acc, ROW), vpaddq_s32(pairs[0], pairs[1]));
        }
    });
}

impl Vector for float32x4_t {
    type Ints = int32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(v: f32) -> Self {
        // SAFETY: NEON is part of aarch64, here and below.
        unsafe { vdupq_n_f32(v) }
    }
    #[inline(always)]
    fn load(x: &[f32]) -> Self {
        let x = &x[..4];
        // SAFETY: the slice is a register long.
        unsafe { vld1q_f32(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, out: &mut [f32]) {
        let out = &mut out[..4];
        // SAFETY: the slice is a register long.
        unsafe { vst1q_f32(out.as_mut_ptr(), self) }
    }
    #[inline(always)]
    fn bytes(x: &[i8]) -> Self {
        let x = u32::from_le_bytes([x[0] as u8, x[1] as u8, x[2] as u8, x[3] as u8]);
        // SAFETY: see `splat`.
        unsafe { vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(u64::from(x)))))) }
    }
    #[inline(always)]
    fn ints(x: &[i32]) -> int32x4_t {
        let x = &x[..4];
        // SAFETY: the slice is a register long.
        unsafe { vld1q_s32(x.as_ptr()) }
    }
    #[inline(always)]
    fn sums(acc: &[i32], zero: i32, sums: int32x4_t) -> Self {
        // SAFETY: see `splat`.
        unsafe { vcvtq_f32_s32(vmlsq_n_s32(Self::ints(acc), sums, zero)) }
    }
    #[inline(always)]
    fn levels(self, offset: i32, out: &mut [u8]) {
        let out = &mut out[..4];
        // SAFETY: see `splat`. Both narrow with saturation, which limits to 0..=255.
        let word = unsafe {
            let words = vqmovun_s32(vcvtnq_s32_f32(self));
            let bytes = vsub_u8(vqmovn_u16(vcombine_u16(words, words)), vdup_n_u8(offset as u8));
            vget_lane_u32::<0>(vreinterpret_u32_u8(bytes))
        };
        out.copy_from_slice(&word.to_ne_bytes());
    }
    #[inline(always)]
    fn levels_of_four([a, b, c, d]: [Self; 4], offset: i32, out: &mut [u8]) {
        let out = &mut out[..16];
        // SAFETY: see `levels`; the slice is 16 bytes long.
        unsafe {
            let low = vqmovun_high_s32(vqmovun_s32(vcvtnq_s32_f32(a)), vcvtnq_s32_f32(b));
            let high = vqmovun_high_s32(vqmovun_s32(vcvtnq_s32_f32(c)), vcvtnq_s32_f32(d));
            let bytes = vqmovn_high_u16(vqmovn_u16(low), high);
            vst1q_u8(out.as_mut_ptr(), vsubq_u8(bytes, vdupq_n_u8(offset as u8)));
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { vaddq_f32(self, other) }
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { vsubq_f32(self, other) }
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { vmulq_f32(self, other) }
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { vdivq_f32(self, other) }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { vfmaq_f32(c, self, b) }
    }
    #[inline(always)]
    fn fma_by<const I: usize>(self, a: &[f32; 4], c: Self) -> Self {
        // SAFETY: see `splat`; the array is a register long.
        unsafe {
            let a = vld1q_f32(a.as_ptr());
            match I {
                0 => vfmaq_laneq_f32::<0>(c, self, a),
                1 => vfmaq_laneq_f32::<1>(c, self, a),
                2 => vfmaq_laneq_f32::<2>(c, self, a),
                _ => vfmaq_laneq_f32::<3>(c, self, a),
            }
        }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see `splat`. Of a number and NaN, the number.
        unsafe { vminnmq_f32(self, other) }
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see `splat`. Of a number and NaN, the number.
        unsafe { vmaxnmq_f32(self, other) }
    }
    #[inline(always)]
    fn cover(self, (low, high, witness): (Self, Self, Self)) -> (Self, Self, Self) {
        // SAFETY: see `splat`. Of a number and NaN, NaN, which so is its own witness.
        unsafe { (vminq_f32(self, low), vmaxq_f32(self, high), witness) }
    }
    #[inline(always)]
    fn cover_both(some: (Self, Self, Self), others: (Self, Self, Self)) -> (Self, Self, Self) {
        // SAFETY: see `cover`.
        unsafe { (vminq_f32(some.0, others.0), vmaxq_f32(some.1, others.1), some.2) }
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: see `splat`.
        unsafe { vrndnq_f32(self) }
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe {
            let exponent = vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)));
            vmulq_f32(self, vreinterpretq_f32_s32(exponent))
        }
    }
    #[inline(always)]
    fn total(self) -> f32 {
        // SAFETY: see `splat`.
        unsafe {
            let two = vadd_f32(vget_low_f32(self), vget_high_f32(self));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
    #[inline(always)]
    fn lowest(self) -> f32 {
        // SAFETY: see `splat`.
        unsafe { vminvq_f32(self) }
    }
    #[inline(always)]
    fn highest(self) -> f32 {
        // SAFETY: see `splat`.
        unsafe { vmaxvq_f32(self) }
    }
}

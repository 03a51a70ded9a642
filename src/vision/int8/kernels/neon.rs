//! aarch64 without the dot product: Cortex-A53, A72.
//!
//! `smull` and `smlal2` multiply 16 pairs of bytes and add them two by two into 16 bits, and `sadalp` adds those two by
//! two into 32 bits: three instructions for 16 multiply-adds. Two products of bytes fit 16 bits unless both are
//! -128 · -128, so a panel that holds -128 takes a fourth instruction instead. Sums run along `k` in four lanes and are
//! added across at the end, which is why a panel keeps 16 consecutive `k` of a column together.
//!
//! A tile is 5 rows by 4 columns: 20 accumulators, 5 rows, 5 products in flight and two registers of weights, all 32. The
//! instructions are written out in the order they are to run in: left to schedule them, the compiler starts more products
//! than there are registers for and spills (`benches/arm/mca` shows the loop).
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::vector::Vector;
use super::{Kernel, Layout, Tile, glue_for, unrolled};

const LAYOUT: Layout = Layout { rows: 5, columns: 4, depth: 16, offset: 128 };

/// The kernel; every aarch64 CPU has these instructions.
pub const KERNEL: Kernel = Kernel { name: "neon", layout: LAYOUT, tile, glue: compiled::GLUE };

glue_for!(
    #[target_feature(enable = "neon")]
    std::arch::aarch64::float32x4_t
);

/// The routines of every aarch64 kernel.
pub const GLUE: super::Glue = compiled::GLUE;

fn tile(t: &Tile, acc: &mut [i32]) {
    t.check(LAYOUT, acc);
    // SAFETY: NEON is part of aarch64; `check` has bounded every access.
    unsafe {
        match t.full_range {
            false => by_rows::<false>(t, acc),
            true => by_rows::<true>(t, acc),
        }
    }
}

/// # Safety
/// `t` must have passed [`Tile::check`]; without `FULL`, its panel holds no -128.
unsafe fn by_rows<const FULL: bool>(t: &Tile, acc: &mut [i32]) {
    // SAFETY: by the contract.
    unsafe {
        match t.rows {
            1 => rows::<1, FULL>(t, acc),
            2 => rows::<2, FULL>(t, acc),
            3 => rows::<3, FULL>(t, acc),
            4 => rows::<4, FULL>(t, acc),
            _ => rows::<5, FULL>(t, acc),
        }
    }
}

/// `$to` = the 16 bytes at `$from + $offset`.
macro_rules! load {
    ($to:expr, $from:expr, $offset:expr) => {
        asm!(
            "ldr {to:q}, [{from}, {offset}]",
            to = out(vreg) $to,
            from = in(reg) $from,
            offset = const $offset,
            options(readonly, nostack, preserves_flags),
        )
    };
}

/// `$to` = the products of the low (`smull`, `8b`) or high (`smull2`, `16b`) bytes, 16 bits each.
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

/// `$to` += the products of the high bytes.
macro_rules! multiply_add {
    ($to:expr, $a:expr, $w:expr) => {
        asm!(
            "smlal2 {to:v}.8h, {a:v}.16b, {w:v}.16b",
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

/// # Safety
/// `t` must have passed [`Tile::check`] with `t.rows == R`.
#[target_feature(enable = "neon")]
unsafe fn rows<const R: usize, const FULL: bool>(t: &Tile, acc: &mut [i32]) {
    let mut sums = [[vdupq_n_s32(0); 4]; R];
    let mut panel = t.panel.as_ptr();
    for s in 0..t.segments {
        // SAFETY: `check` bounds the panel to segments · steps · 64 bytes and every row's run to steps · 16 bytes inside
        // `a`; past the last step the pointers are not read through. The other
        // instructions touch registers only.
        unsafe {
            let mut at = t.a.as_ptr().add(s * t.segment_stride).cast::<i8>();
            for _ in 0..t.steps {
                let mut w: int8x16_t;
                load!(w, panel, 0);
                let mut a = [vdupq_n_s8(0); R];
                unrolled!(R, ROW => {
                    a[ROW] = vld1q_s8(at.wrapping_add(t.row_stride.wrapping_mul(ROW)));
                });
                unrolled!(4, COLUMN => {
                    let mut next = w;
                    if COLUMN < 3 {
                        load!(next, panel, 16 * (COLUMN + 1));
                    }
                    let mut products = [vdupq_n_s16(0); R];
                    unrolled!(R, ROW => multiply!("smull", "8b", products[ROW], a[ROW], w));
                    if FULL {
                        unrolled!(R, ROW => add_pairs!(sums[ROW][COLUMN], products[ROW]));
                        unrolled!(R, ROW => multiply!("smull2", "16b", products[ROW], a[ROW], w));
                    } else {
                        unrolled!(R, ROW => multiply_add!(products[ROW], a[ROW], w));
                    }
                    unrolled!(R, ROW => add_pairs!(sums[ROW][COLUMN], products[ROW]));
                    w = next;
                });
                at = at.wrapping_add(16);
                panel = panel.wrapping_add(64);
            }
        }
    }
    unrolled!(R, ROW => {
        let pairs = [vpaddq_s32(sums[ROW][0], sums[ROW][1]), vpaddq_s32(sums[ROW][2], sums[ROW][3])];
        // SAFETY: `check` has found room for R rows of 4 sums.
        unsafe { vst1q_s32(acc.as_mut_ptr().add(4 * ROW), vpaddq_s32(pairs[0], pairs[1])) };
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
        unsafe { vaddvq_f32(self) }
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

//! x86-64 with AVX2 and FMA, without VNNI.
//!
//! `vpmaddubsw` adds two products of bytes in 16 bits, saturating, and is still exact where activations are within the
//! panel's [`limits`]. Which are is found eight steps at a time, for all rows of a tile. Steps that may not fit are computed
//! behind the others, widened to 16 bits and with `vpmaddwd` alone: as many multiplications, and the widening on top.
//!
//! A tile is 5 rows by 16 columns: ten accumulators, two registers of weights, a broadcast, its products and a constant,
//! 15 of 16; with six rows the compiler spills three accumulators.
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::x86_64::*;

use super::room::{Narrow, limits};
use super::vector::x86_vector;
use super::{Kernel, Layout, SMALL_BLOCK, Strip, Tile, by_rows, glue_for, unrolled};

const LAYOUT: Layout = Layout { rows: 5, columns: 16, depth: 4, offset: 0, together: 1, narrow: Narrow::Limits };

/// Steps whose activations are compared with the limits at a time: as many as a word has bits.
const CHUNK: usize = 64;

/// The kernel, where the machine has its instructions.
pub fn kernel() -> Option<Kernel> {
    let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    found.then_some(Kernel { name: "avx2", layout: LAYOUT, block_bytes: SMALL_BLOCK, strip, glue: compiled::GLUE })
}

glue_for!(
    #[target_feature(enable = "avx2,fma")]
    std::arch::x86_64::__m256
);

/// The routines of both 256-bit kernels.
pub const GLUE: super::Glue = compiled::GLUE;

x86_vector!(
    __m256,
    __m256i,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_fmadd_ps,
    _mm256_min_ps,
    _mm256_max_ps,
    round,
    scale,
    bytes,
    _mm256_loadu_si256,
    sums,
    levels,
    levels_of_four,
    is_zero,
    total,
    lowest,
    highest
);

/// The two halves, one on the other.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(v: __m256) -> (__m128, __m128) {
    (_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v))
}

/// Defines the reduction of a register by one instruction on four lanes.
macro_rules! reduce {
    ($name:ident, $of_four:ident) => {
        #[inline]
        #[target_feature(enable = "avx2")]
        pub fn $name(v: __m256) -> f32 {
            let (low, high) = halves(v);
            let four = $of_four(low, high);
            let two = $of_four(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32($of_four(two, _mm_movehdup_ps(two)))
        }
    };
}
reduce!(total, _mm_add_ps);
reduce!(lowest, _mm_min_ps);
reduce!(highest, _mm_max_ps);

#[inline]
#[target_feature(enable = "avx2")]
fn round(v: __m256) -> __m256 {
    _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
}

#[inline]
#[target_feature(enable = "avx2")]
fn scale(v: __m256, n: __m256) -> __m256 {
    let exponent = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_mul_ps(v, _mm256_castsi256_ps(exponent))
}

/// # Safety
/// `x` must be to 8 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn bytes(x: *const i8) -> __m256 {
    // SAFETY: the contract's.
    let bytes = unsafe { _mm_loadl_epi64(x.cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn sums(acc: __m256i, zero: i32, sums: __m256i) -> __m256 {
    // A product of integers is two operations of the core, and their difference a third.
    _mm256_fnmadd_ps(_mm256_set1_ps(zero as f32), _mm256_cvtepi32_ps(sums), _mm256_cvtepi32_ps(acc))
}

/// # Safety
/// `out` must be to 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn levels_of_four(four: [__m256; 4], offset: i32, out: *mut u8) {
    let [a, b, c, d] = four;
    let (a, b, c, d) = (_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b), _mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
    // Both narrow with saturation, within halves of the registers, which are put in order afterwards.
    let mixed = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let bytes = _mm256_sub_epi8(_mm256_permutevar8x32_epi32(mixed, order), _mm256_set1_epi8(offset as i8));
    // SAFETY: by the contract.
    unsafe { _mm256_storeu_si256(out.cast(), bytes) };
}

#[inline]
#[target_feature(enable = "avx2")]
fn is_zero(v: __m256) -> bool {
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(v, _mm256_setzero_ps())) == 0
}

/// # Safety
/// `out` must be to 8 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn levels(v: __m256, offset: i32, out: *mut u8) {
    let levels = _mm256_cvtps_epi32(v);
    // Both narrow with saturation: what is below 0 becomes 0, what is above 255 becomes 255.
    let words = _mm_packus_epi32(_mm256_castsi256_si128(levels), _mm256_extracti128_si256::<1>(levels));
    let words = _mm_min_epu16(words, _mm_set1_epi16(255));
    let bytes = _mm_sub_epi8(_mm_packus_epi16(words, words), _mm_set1_epi8(offset as i8));
    // SAFETY: by the contract.
    unsafe { _mm_storel_epi64(out.cast(), bytes) };
}

fn strip(strip: &Strip, acc: &mut [i32]) {
    // SAFETY: `kernel` is the only way here and has detected the features; a tile stays inside its strip.
    strip.tiles(LAYOUT, acc, |t, acc| unsafe { by_rows!(rows, t, acc; 1 2 3 4; 5) });
}

/// The first `count` 32-bit words at `from`, at most eight, and 0.
///
/// # Safety
/// `from` must be to as many words.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn words(from: *const u8, count: usize) -> __m256i {
    // SAFETY: by the contract; of a masked load, only what is asked for is read.
    unsafe {
        if count >= 8 {
            return _mm256_loadu_si256(from.cast());
        }
        let asked = _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        _mm256_maskload_epi32(from.cast(), asked)
    }
}

/// One bit for each of some steps, at most [`CHUNK`]: whether all its pairs of activations are within their limits.
///
/// # Safety
/// Each row must begin `stride` bytes after the one before at `at` and have `steps` words, and `limits` must be to two bytes for
/// each step, filled up to whole [`limits::TOGETHER`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn within<const R: usize>((at, stride): (*const u8, usize), limits: *const u8, steps: usize) -> u64 {
    // A pair's limit is that of both its bytes.
    let low = _mm_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    let twice = _mm256_set_m128i(_mm_add_epi8(low, _mm_set1_epi8(8)), low);
    let mut within = 0;
    for from in (0..steps).step_by(limits::TOGETHER) {
        let mut highest = _mm256_setzero_si256();
        // SAFETY: by the contract, of what lies `from` words and pairs further on.
        let limits = unsafe {
            unrolled!(R, ROW => {
                let row = at.wrapping_add(ROW * stride + 4 * from);
                highest = _mm256_max_epu8(highest, words(row, steps - from));
            });
            _mm_loadu_si128(limits.add(2 * from).cast())
        };
        let limits = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(limits), twice);
        let fit = _mm256_cmpeq_epi32(_mm256_subs_epu8(highest, limits), _mm256_setzero_si256());
        within |= u64::from(_mm256_movemask_ps(_mm256_castsi256_ps(fit)) as u8) << from;
    }
    within
}

/// The places of the bits of a word.
fn places(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(place)
    })
}

/// Adds a step's products to the sums of `$rows` rows, in pairs of 16 bits: exact within the limits.
macro_rules! narrow {
    ($rows:ident, $sums:ident, $at:expr, $stride:expr, $w:expr) => {{
        let (at, w, ones) = ($at, $w, _mm256_set1_epi16(1));
        unrolled!($rows, ROW => {
            let a = activations(at.wrapping_add(ROW * $stride));
            $sums[ROW] = added($sums[ROW], w.map(|w| _mm256_maddubs_epi16(a, w)), [ones; 2]);
        });
    }};
}

/// The same widened to 16 bits, first every other `k` and then those between: always exact.
macro_rules! wide {
    ($rows:ident, $sums:ident, $at:expr, $stride:expr, $w:expr) => {{
        let (at, w) = ($at, $w);
        let even = w.map(|w| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)));
        unrolled!($rows, ROW => {
            let a = activations(at.wrapping_add(ROW * $stride));
            $sums[ROW] = added($sums[ROW], [_mm256_and_si256(a, _mm256_set1_epi16(0xff)); 2], even);
        });
        let odd = w.map(|w| _mm256_srai_epi16::<8>(w));
        unrolled!($rows, ROW => {
            let a = activations(at.wrapping_add(ROW * $stride));
            $sums[ROW] = added($sums[ROW], [_mm256_srli_epi16::<8>(a); 2], odd);
        });
    }};
}

/// # Safety
/// `t` must have `R` rows, and the CPU must have AVX2.
#[target_feature(enable = "avx2")]
unsafe fn rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    let Strip { a, row_stride, segments, segment_stride, steps: all, .. } = *t.strip;
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for s in 0..segments {
        for from in (0..all).step_by(CHUNK) {
            let steps = CHUNK.min(all - from);
            let at = a.as_ptr().wrapping_add(t.first * row_stride + s * segment_stride + 4 * from);
            let panel = t.panel.as_ptr().wrapping_add((s * all + from) * 64);
            let limits = t.room.bytes().as_ptr().wrapping_add(s * limits::of_segment(all) + 2 * from);
            // SAFETY: the panel has segments · all · 64 bytes, every row's run all · 4 bytes inside `a`, and the room
            // two limits for each step, filled up as it must be; no place is beyond `steps`.
            unsafe {
                let within = within::<R>((at, row_stride), limits, steps);
                let asked = u64::MAX >> (CHUNK - steps);
                for step in places(within & asked) {
                    narrow!(R, sums, at.wrapping_add(4 * step), row_stride, weights(panel.wrapping_add(64 * step)));
                }
                for step in places(!within & asked) {
                    wide!(R, sums, at.wrapping_add(4 * step), row_stride, weights(panel.wrapping_add(64 * step)));
                }
            }
        }
    }
    unrolled!(R, ROW => {
        // SAFETY: the strip has room for R rows of 16 sums.
        unsafe {
            let out = t.sums(acc, ROW);
            _mm256_storeu_si256(out.cast(), sums[ROW][0]);
            _mm256_storeu_si256(out.add(8).cast(), sums[ROW][1]);
        }
    });
}

/// A step's weights of all columns.
///
/// # Safety
/// `w` must be to 64 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn weights(w: *const i8) -> [__m256i; 2] {
    // SAFETY: by the contract.
    unsafe { [_mm256_loadu_si256(w.cast()), _mm256_loadu_si256(w.add(32).cast())] }
}

/// A step's four activations of a row, in every lane.
///
/// # Safety
/// `at` must be to four bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn activations(at: *const u8) -> __m256i {
    // SAFETY: by the contract.
    _mm256_set1_epi32(unsafe { at.cast::<i32>().read_unaligned() })
}

/// Sums with the products of words added.
#[inline]
#[target_feature(enable = "avx2")]
fn added(sums: [__m256i; 2], a: [__m256i; 2], w: [__m256i; 2]) -> [__m256i; 2] {
    std::array::from_fn(|half| _mm256_add_epi32(sums[half], _mm256_madd_epi16(a[half], w[half])))
}

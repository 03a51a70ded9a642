//! x86-64 with AVX2 and FMA, without VNNI.
//!
//! `vpmaddubsw` adds two products of bytes in 16 bits, saturating, and is still exact where activations are within the
//! panel's [`limits`]. Which are is found eight steps at a time, for all rows of a tile. Of a pair of products that may not
//! fit, the main loop computes the first alone, and the second is added behind it. Widening all bytes to 16 bits and adding with
//! `vpmaddwd` alone, as was done before, takes as many multiplications, and the widening on top.
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

/// Which pairs of a few steps may be multiplied together: for each step a mask of all bytes, or of the first of each pair.
/// Returns one bit for each of the latter.
///
/// # Safety
/// Each row must begin `stride` bytes after the one before at `at` and have `steps` words, `steps` at most [`CHUNK`], and
/// `limits` must be to as many pairs of bytes, filled up to whole [`limits::TOGETHER`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn masks<const R: usize>(
    (at, stride): (*const u8, usize),
    limits: *const u8,
    steps: usize,
    masks: &mut [u32; CHUNK],
) -> u64 {
    let first = _mm256_set1_epi16(0xff);
    let mut over = 0;
    for (group, masks) in masks.as_chunks_mut::<{ limits::TOGETHER }>().0.iter_mut().enumerate() {
        let from = group * limits::TOGETHER;
        if from >= steps {
            break;
        }
        let mut highest = _mm256_setzero_si256();
        // SAFETY: by the contract, of what lies `from` words and pairs further on.
        unsafe {
            for row in 0..R {
                let row = at.wrapping_add(row * stride + 4 * from);
                highest = _mm256_max_epu8(highest, words(row, steps - from));
            }
            // A pair's limit is that of both its bytes.
            let limit = _mm256_cvtepu8_epi16(_mm_loadu_si128(limits.add(2 * from).cast()));
            let limit = _mm256_or_si256(limit, _mm256_slli_epi16::<8>(limit));
            let above = _mm256_subs_epu8(highest, limit);
            let within = _mm256_cmpeq_epi32(above, _mm256_setzero_si256());
            _mm256_storeu_si256(masks.as_mut_ptr().cast(), _mm256_or_si256(within, first));
            let within = _mm256_movemask_ps(_mm256_castsi256_ps(within)) as u8;
            over |= u64::from(!within) << from;
        }
    }
    over
}

/// Adds the products of the step at `$at` with two registers of weights, exact where each pair of them fits 16 bits.
macro_rules! step {
    ($rows:ident, $sums:ident, $at:expr, $stride:expr, $w0:expr, $w1:expr) => {{
        let (w0, w1, ones) = ($w0, $w1, _mm256_set1_epi16(1));
        let at = $at;
        unrolled!($rows, ROW => {
            let a = _mm256_set1_epi32(at.wrapping_add(ROW * $stride).cast::<i32>().read_unaligned());
            let (p0, p1) = (_mm256_maddubs_epi16(a, w0), _mm256_maddubs_epi16(a, w1));
            $sums[ROW][0] = _mm256_add_epi32($sums[ROW][0], _mm256_madd_epi16(p0, ones));
            $sums[ROW][1] = _mm256_add_epi32($sums[ROW][1], _mm256_madd_epi16(p1, ones));
        });
    }};
}

/// # Safety
/// `t` must have `R` rows, and the CPU must have AVX2.
#[target_feature(enable = "avx2")]
unsafe fn rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    let Strip { a, row_stride, segments, segment_stride, steps: all, width, panel, room, .. } = *t.strip;
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    let mut kept = [0u32; CHUNK];
    let second = _mm256_set1_epi16(0xff00u16 as i16);
    for s in 0..segments {
        for from in (0..all).step_by(CHUNK) {
            let steps = CHUNK.min(all - from);
            let at = a.as_ptr().wrapping_add(t.first * row_stride + s * segment_stride + 4 * from);
            let w = panel.as_ptr().wrapping_add((s * all + from) * 64).cast::<__m256i>();
            let limits = room.bytes().as_ptr().wrapping_add(s * limits::of_segment(all) + 2 * from);
            // SAFETY: the panel has segments · all · 64 bytes, every row's run all · 4 bytes inside `a`, and the room
            // two limits for each step, filled up as it must be; `over` has no bits beyond `steps`, as `words` of 0 are
            // within any limit.
            unsafe {
                let mut over = masks::<R>((at, row_stride), limits, steps, &mut kept);
                for (step, kept) in kept.iter().take(steps).enumerate() {
                    let w = w.wrapping_add(2 * step);
                    let kept = _mm256_set1_epi32(*kept as i32);
                    let (w0, w1) = (_mm256_loadu_si256(w), _mm256_loadu_si256(w.wrapping_add(1)));
                    let (w0, w1) = (_mm256_and_si256(kept, w0), _mm256_and_si256(kept, w1));
                    step!(R, sums, at.wrapping_add(4 * step), row_stride, w0, w1);
                }
                while over != 0 {
                    let step = over.trailing_zeros() as usize;
                    over &= over - 1;
                    let w = w.wrapping_add(2 * step);
                    let (w0, w1) = (_mm256_loadu_si256(w), _mm256_loadu_si256(w.wrapping_add(1)));
                    let (w0, w1) = (_mm256_and_si256(second, w0), _mm256_and_si256(second, w1));
                    step!(R, sums, at.wrapping_add(4 * step), row_stride, w0, w1);
                }
            }
        }
    }
    unrolled!(R, ROW => {
        // SAFETY: the strip has room for R rows of 16 sums.
        unsafe {
            let out = acc.as_mut_ptr().add(ROW * width);
            _mm256_storeu_si256(out.cast(), sums[ROW][0]);
            _mm256_storeu_si256(out.add(8).cast(), sums[ROW][1]);
        }
    });
}

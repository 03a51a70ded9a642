//! x86-64 with AVX2 and FMA, without VNNI.
//!
//! `vpmaddubsw` would saturate two products of full-range bytes, so bytes are widened to 16 bits and `vpmaddwd` adds
//! pairs of products straight into 32 bits: exact, at two thirds of the saturating form's rate. Weights are widened as
//! they are loaded; a chunk of each activation row is widened once into a buffer that stays in the first-level cache.
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::x86_64::*;

use super::vector::x86_vector;
use super::{Kernel, Layout, Strip, Tile, by_rows, glue_for, unrolled};

const LAYOUT: Layout = Layout { rows: 6, columns: 16, depth: 2, offset: 0, together: 1, narrow: false };

/// Steps of `k` widened at a time.
const CHUNK: usize = 128;

/// The kernel, where the machine has its instructions.
pub fn kernel() -> Option<Kernel> {
    let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    found.then_some(Kernel { name: "avx2", layout: LAYOUT, strip, glue: compiled::GLUE })
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
        fn $name(v: __m256) -> f32 {
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
    strip.tiles(LAYOUT, acc, |t, acc| unsafe { by_rows!(rows, t, acc; 1 2 3 4 5; 6) });
}

/// # Safety
/// `t` must have `R` rows, and the CPU must have AVX2.
#[target_feature(enable = "avx2")]
unsafe fn rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    let Strip { a, row_stride, segments, segment_stride, steps: all, width, .. } = *t.strip;
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    let mut wide = [[0i16; 2 * CHUNK]; R];
    for s in 0..segments {
        for from in (0..all).step_by(CHUNK) {
            let steps = CHUNK.min(all - from);
            for (r, wide) in wide.iter_mut().enumerate() {
                let a = &a[(t.first + r) * row_stride + s * segment_stride + 2 * from..][..2 * steps];
                for (wide, &a) in wide.iter_mut().zip(a) {
                    *wide = i16::from(a);
                }
            }
            let mut w = t.strip.panel[(s * all + from) * 32..][..steps * 32].as_ptr();
            let mut at = wide.as_ptr().cast::<i16>();
            for _ in 0..steps {
                // SAFETY: `w` is at the 32 bytes of a step, two halves of 16; `at` is at the pair 2k of the first row's buffer,
                // k < CHUNK, and the other rows' lie a buffer's length apart. Past the last step neither is read through.
                unsafe {
                    let w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.cast()));
                    let w1 = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.wrapping_add(16).cast()));
                    unrolled!(R, ROW => {
                        let pair = at.wrapping_add(2 * CHUNK * ROW).cast::<i32>();
                        let a = _mm256_set1_epi32(pair.read_unaligned());
                        sums[ROW][0] = _mm256_add_epi32(sums[ROW][0], _mm256_madd_epi16(a, w0));
                        sums[ROW][1] = _mm256_add_epi32(sums[ROW][1], _mm256_madd_epi16(a, w1));
                    });
                }
                w = w.wrapping_add(32);
                at = at.wrapping_add(2);
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

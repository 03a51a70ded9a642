//! x86-64 with AVX-512 VNNI: `vpdpbusd` multiplies four unsigned by four signed bytes and adds them to one 32-bit sum.
//!
//! A tile is 14 rows by 32 columns: 28 accumulators, two weight registers and a broadcast fill the register file, and
//! 28 independent sums cover the instruction's latency of five cycles at two a cycle.
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::x86_64::*;

use super::room::Narrow;
use super::vector::x86_vector;
use super::{Kernel, Layout, SMALL_BLOCK, Strip, Tile, avx2, by_rows, glue_for, unrolled};
use crate::vision::int8::aligned::LINE;

const LAYOUT: Layout = Layout { rows: 14, columns: 32, depth: 4, offset: 0, together: 1, narrow: Narrow::No };

/// How many bytes ahead weights are fetched into the first-level cache, at a panel's end those of the next. A panel that no tile has used yet is
/// in the second level at best, and not all of that wait is hidden.
const AHEAD: usize = 4096;

/// The kernel, where the machine has its instructions.
pub fn kernel() -> Option<Kernel> {
    let found = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma");
    found.then_some(Kernel {
        name: "avx512-vnni",
        layout: LAYOUT,
        block_bytes: SMALL_BLOCK,
        strip,
        glue: compiled::GLUE,
    })
}

glue_for!(
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
    std::arch::x86_64::__m512
);

x86_vector!(
    __m512,
    __m512i,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    div,
    _mm512_fmadd_ps,
    _mm512_min_ps,
    _mm512_max_ps,
    round,
    _mm512_scalef_ps,
    bytes,
    _mm512_loadu_si512,
    sums,
    levels,
    levels_of_four,
    is_zero,
    total,
    _mm512_reduce_min_ps,
    _mm512_reduce_max_ps
);

/// `a / b` to a few units in the last place, where neither `b` nor its inverse is beyond all floats: one step of Newton's from an inverse
/// of 14 bits; unlike a division its operations leave the core to others meanwhile.
#[inline]
#[target_feature(enable = "avx512f")]
fn div(a: __m512, b: __m512) -> __m512 {
    let inverse = _mm512_rcp14_ps(b);
    let inverse = _mm512_fmadd_ps(inverse, _mm512_fnmadd_ps(b, inverse, _mm512_set1_ps(1.0)), inverse);
    let quotient = _mm512_mul_ps(a, inverse);
    _mm512_fmadd_ps(inverse, _mm512_fnmadd_ps(b, quotient, a), quotient)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn round(v: __m512) -> __m512 {
    _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2")]
fn total(v: __m512) -> f32 {
    avx2::total(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)))
}

/// # Safety
/// `x` must be to 16 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn bytes(x: *const i8) -> __m512 {
    // SAFETY: the contract's.
    let bytes = unsafe { _mm_loadu_si128(x.cast()) };
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sums(acc: __m512i, zero: i32, sums: __m512i) -> __m512 {
    // A product of integers is two operations of the core, and their difference a third.
    _mm512_fnmadd_ps(_mm512_set1_ps(zero as f32), _mm512_cvtepi32_ps(sums), _mm512_cvtepi32_ps(acc))
}

/// # Safety
/// `out` must be to 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn levels_of_four(four: [__m512; 4], offset: i32, out: *mut u8) {
    let [a, b, c, d] = four;
    let (a, b, c, d) = (_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b), _mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
    // Both narrow with saturation, within quarters of the registers, which are put in order afterwards.
    let mixed = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let bytes = _mm512_sub_epi8(_mm512_permutexvar_epi32(order, mixed), _mm512_set1_epi8(offset as i8));
    // SAFETY: by the contract.
    unsafe { _mm512_storeu_si512(out.cast(), bytes) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn is_zero(v: __m512) -> bool {
    _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(v, _mm512_setzero_ps()) == 0
}

/// # Safety
/// `out` must be to 16 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn levels(v: __m512, offset: i32, out: *mut u8) {
    let levels = _mm512_max_epi32(_mm512_cvtps_epi32(v), _mm512_setzero_si512());
    let bytes = _mm_sub_epi8(_mm512_cvtusepi32_epi8(levels), _mm_set1_epi8(offset as i8));
    // SAFETY: by the contract.
    unsafe { _mm_storeu_si128(out.cast(), bytes) };
}

/// The kernel's; [`super::amx`] gives some strips to it.
pub fn strip(strip: &Strip, acc: &mut [i32]) {
    // SAFETY: `kernel` is the only way here and has detected the features; a tile stays inside its strip.
    strip.tiles(LAYOUT, acc, |t, acc| unsafe { by_rows!(rows, t, acc; 1 2 3 4 5 6 7 8 9 10 11 12 13; 14) });
}

/// Keeps the compiler from knowing how `p` came about, so that it holds a few row pointers in registers and reaches
/// the rows between by scaled addressing, rather than spilling one pointer a row.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read through the pointer: there is no instruction")]
fn opaque(mut p: *const u8) -> *const u8 {
    // SAFETY: no instruction is emitted.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags)) };
    p
}

/// # Safety
/// `t` must have `R` rows, and the CPU must have the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    let Strip { a, row_stride, segments, segment_stride, steps, .. } = *t.strip;
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    let mut w = t.panel.as_ptr();
    // The lines that the tiles before have not fetched.
    let next = &t.next[t.next.len().min(t.first / R * segments * steps * LINE)..];
    let (mut next, mut left) = (next.as_ptr(), next.len() / LINE);
    let (one, two) = (row_stride, row_stride.wrapping_mul(2));
    for s in 0..segments {
        // Every third row has a pointer of its own; the two after it are one and two strides away.
        let mut base: [*const u8; 5] = [std::ptr::null(); 5];
        for (i, p) in base.iter_mut().enumerate().take(R.div_ceil(3)) {
            // SAFETY: row 3i of segment s starts inside `a`, as all of a tile.
            *p = opaque(unsafe { a.as_ptr().add((t.first + 3 * i) * row_stride + s * segment_stride) });
        }
        for _ in 0..steps {
            // SAFETY: the panel has segments · steps · 128 bytes and every row's run steps · 4 bytes
            // inside `a`; a prefetch reads nothing; past the last step the pointers are not read through.
            unsafe {
                let w0 = _mm512_loadu_si512(w.cast());
                let w1 = _mm512_loadu_si512(w.add(64).cast());
                _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(AHEAD));
                _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(AHEAD + LINE));
                if left > 0 {
                    _mm_prefetch::<_MM_HINT_T1>(next);
                    next = next.wrapping_add(LINE);
                    left -= 1;
                }
                unrolled!(R, ROW => {
                    let stride = [0, one, two][ROW % 3];
                    let a = base[ROW / 3].wrapping_add(stride).cast::<i32>().read_unaligned();
                    let a = _mm512_set1_epi32(a);
                    sums[ROW][0] = _mm512_dpbusd_epi32(sums[ROW][0], a, w0);
                    sums[ROW][1] = _mm512_dpbusd_epi32(sums[ROW][1], a, w1);
                });
                w = w.add(128);
                base = base.map(|p| p.wrapping_add(4));
            }
        }
    }
    // SAFETY: the strip has room for R rows of 32 sums.
    unsafe {
        unrolled!(R, ROW => {
            let out = t.sums(acc, ROW);
            _mm512_storeu_si512(out.cast(), sums[ROW][0]);
            _mm512_storeu_si512(out.add(16).cast(), sums[ROW][1]);
        });
    }
}

//! x86-64 with AVX-VNNI and without AVX-512: Intel's N100 and what followed Alder Lake.
//!
//! `vpdpbusd` as in [`super::avx512vnni`], on registers of eight sums. A tile is 6 rows by 16 columns: 12 accumulators, two
//! registers of weights and a broadcast, 15 of 16.
#![allow(unsafe_code, reason = "vector intrinsics on raw pointers; each block says why it holds")]

use std::arch::x86_64::*;

use super::room::Narrow;
use super::{Kernel, Layout, SMALL_BLOCK, Strip, Tile, avx2, by_rows, unrolled};

const LAYOUT: Layout = Layout { rows: 6, columns: 16, depth: 4, offset: 0, together: 1, narrow: Narrow::No };

/// The kernel, where the machine has its instructions.
pub fn kernel() -> Option<Kernel> {
    let found =
        is_x86_feature_detected!("avxvnni") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    found.then_some(Kernel { name: "avx-vnni", layout: LAYOUT, block_bytes: SMALL_BLOCK, strip, glue: avx2::GLUE })
}

fn strip(strip: &Strip, acc: &mut [i32]) {
    // SAFETY: `kernel` is the only way here and has detected the features; a tile stays inside its strip.
    strip.tiles(LAYOUT, acc, |t, acc| unsafe { by_rows!(rows, t, acc; 1 2 3 4 5; 6) });
}

/// # Safety
/// `t` must have `R` rows, and the CPU must have AVX-VNNI.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn rows<const R: usize>(t: &Tile, acc: &mut [i32]) {
    let Strip { a, row_stride, segments, segment_stride, steps, .. } = *t.strip;
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    let mut w = t.panel.as_ptr();
    for s in 0..segments {
        let mut at: [*const u8; R] =
            std::array::from_fn(|r| a.as_ptr().wrapping_add((t.first + r) * row_stride + s * segment_stride));
        for _ in 0..steps {
            // SAFETY: the panel has segments · steps · 64 bytes and every row's run steps · 4 bytes inside
            // `a`; past the last step the pointers are not read through.
            unsafe {
                let w0 = _mm256_loadu_si256(w.cast());
                let w1 = _mm256_loadu_si256(w.add(32).cast());
                unrolled!(R, ROW => {
                    let a = _mm256_set1_epi32(at[ROW].cast::<i32>().read_unaligned());
                    sums[ROW][0] = _mm256_dpbusd_avx_epi32(sums[ROW][0], a, w0);
                    sums[ROW][1] = _mm256_dpbusd_avx_epi32(sums[ROW][1], a, w1);
                    at[ROW] = at[ROW].wrapping_add(4);
                });
            }
            w = w.wrapping_add(64);
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

//! Plain Rust: the definition that every other kernel is tested against, and the fallback of unknown machines.
#![allow(unsafe_code, reason = "only the shared macro's; nothing here is unsafe")]

use super::room::Narrow;
use super::{Kernel, Layout, SMALL_BLOCK, Strip, Tile, glue_for};

const LAYOUT: Layout = Layout { rows: 4, columns: 16, depth: 4, offset: 0, together: 1, narrow: Narrow::No };

glue_for!(f32);

pub const KERNEL: Kernel =
    Kernel { name: "portable", layout: LAYOUT, block_bytes: SMALL_BLOCK, strip, glue: compiled::GLUE };

fn strip(strip: &Strip, acc: &mut [i32]) {
    strip.tiles(LAYOUT, acc, tile);
}

fn tile(t: &Tile, acc: &mut [i32]) {
    let Strip { a, row_stride, segments, segment_stride, width, .. } = *t.strip;
    let run = t.strip.steps * LAYOUT.depth;
    for r in 0..t.rows {
        let mut sums = [0i32; LAYOUT.columns];
        for s in 0..segments {
            let a = &a[(t.first + r) * row_stride + s * segment_stride..][..run];
            let w = &t.panel[s * run * LAYOUT.columns..][..run * LAYOUT.columns];
            for (a, w) in a.chunks_exact(LAYOUT.depth).zip(w.chunks_exact(LAYOUT.columns * LAYOUT.depth)) {
                for (sum, w) in sums.iter_mut().zip(w.chunks_exact(LAYOUT.depth)) {
                    *sum += a.iter().zip(w).map(|(&a, &w)| i32::from(a) * i32::from(w)).sum::<i32>();
                }
            }
        }
        acc[r * width..][..LAYOUT.columns].copy_from_slice(&sums);
    }
}

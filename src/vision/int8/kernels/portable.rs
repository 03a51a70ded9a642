//! Plain Rust: the definition that every other kernel is tested against, and the fallback of unknown machines.
#![allow(unsafe_code, reason = "only the shared macro's; nothing here is unsafe")]

use super::{Kernel, Layout, Tile, glue_for};

const LAYOUT: Layout = Layout { rows: 4, columns: 16, depth: 4, offset: 0 };

glue_for!(f32);

pub const KERNEL: Kernel = Kernel { name: "portable", layout: LAYOUT, tile, glue: compiled::GLUE };

fn tile(t: &Tile, acc: &mut [i32]) {
    t.check(LAYOUT, acc);
    let run = t.steps * LAYOUT.depth;
    for r in 0..t.rows {
        let mut sums = [0i32; LAYOUT.columns];
        for s in 0..t.segments {
            let a = &t.a[r * t.row_stride + s * t.segment_stride..][..run];
            let w = &t.panel[s * run * LAYOUT.columns..][..run * LAYOUT.columns];
            for (a, w) in a.chunks_exact(LAYOUT.depth).zip(w.chunks_exact(LAYOUT.columns * LAYOUT.depth)) {
                for (sum, w) in sums.iter_mut().zip(w.chunks_exact(LAYOUT.depth)) {
                    *sum += a.iter().zip(w).map(|(&a, &w)| i32::from(a) * i32::from(w)).sum::<i32>();
                }
            }
        }
        acc[r * LAYOUT.columns..][..LAYOUT.columns].copy_from_slice(&sums);
    }
}

//! The inner loops, one file an instruction set, chosen once at run time.
//!
//! A kernel promises one thing: [`Kernel::strip`] computes the exact 32-bit sums
//! `acc[r][c] = Σ_k a[r][k] · w[k][c]` of a strip of rows against panels of packed weights, so all kernels
//! agree bit for bit. What differs between them is the shape of their tiles and the order of bytes in a panel
//! ([`Layout`]) and whether activation bytes are read as `0..=255` or, on aarch64, as that minus 128
//! ([`Layout::offset`]); nothing outside this folder depends on either. The floating-point work around the sums is
//! written once in [`super::glue`] and compiled once per instruction set through [`glue_for!`].
//!
//! This folder is the only place with `unsafe`: besides the loops it has the [`pool`] that lends each thread its piece of an
//! output, and the system's calls in [`memory`].

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::aligned::{Aligned, LINE};
use super::glue::{AttendOnce, Columns, Depthwise, Finish, FromTiles, Quantise, Scale, Tiles, Weigh};
use float::Strided;
use pool::Block;
use room::{Narrow, Room};

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
pub mod float;
pub mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
pub mod pool;
mod portable;
pub mod room;
#[cfg(test)]
mod tests;
pub mod vector;
pub mod windows;

/// How a kernel wants its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Most rows of activations in one tile.
    pub rows: usize,
    /// Columns (output channels) in one panel.
    pub columns: usize,
    /// Consecutive `k` that lie together for one column: a panel is `[k / depth][columns][depth]` bytes.
    pub depth: usize,
    /// What was subtracted from a level `0..=255` to store it in a byte: 0 or 128.
    pub offset: i32,
    /// Rows that cost no more than one of them, so that tiles are best made of whole groups of so many.
    pub together: usize,
    /// Whether products are added in 16 bits first, as far as [`Strip::room`] says that they fit.
    pub narrow: Narrow,
}

impl Layout {
    /// The byte that holds `level`.
    pub fn store(&self, level: u8) -> u8 {
        level.wrapping_sub(self.offset as u8)
    }
}

/// Panels of weights, side by side in the product though not in memory.
#[derive(Debug, Clone, Copy)]
pub struct Panels<'a> {
    /// Their bytes, from the first panel on.
    pub bytes: &'a [i8],
    /// At least one.
    pub count: usize,
    /// Bytes from one to the next.
    pub stride: usize,
    /// Their rooms, where [`Layout::narrow`] asks for them.
    pub rooms: &'a [Room],
    /// From one room to the next; 0 where all panels have the same.
    pub room_stride: usize,
}

/// The operands of a strip: rows a stride apart by the columns of some panels.
///
/// `k` runs over `segments` runs of `steps · depth` bytes, `segment_stride` bytes apart: one run for a matrix product,
/// one per kernel row for a convolution read in place.
#[derive(Debug, Clone, Copy)]
pub struct Strip<'a> {
    /// Activation bytes, from the first byte of the first row.
    pub a: &'a [u8],
    /// Rows to compute, at least one.
    pub rows: usize,
    /// Bytes from one row to the next.
    pub row_stride: usize,
    /// Runs of `k`.
    pub segments: usize,
    /// Bytes from one run to the next, in every row.
    pub segment_stride: usize,
    /// Depth groups in one run.
    pub steps: usize,
    /// Packed weights, `segments · steps · columns · depth` bytes a panel.
    pub panels: Panels<'a>,
    /// Weights wanted soon: fetched towards the core meanwhile, as far as the steps go.
    pub next: &'a [i8],
    /// Sums from one row to the next.
    pub width: usize,
}

/// Some rows of a strip by one of its panels, as many as a kernel computes at a time.
///
/// Every byte that the strip's description reaches for these rows lies inside its slices, the panel has all its bytes and the room that is
/// its, and every sum lies inside `acc`:
/// [`Strip::tiles`] has checked it, and the `unsafe` kernels rest on it.
struct Tile<'a> {
    strip: &'a Strip<'a>,
    panel: &'a [i8],
    room: &'a Room,
    /// The panel's share of [`Strip::next`], for all its tiles.
    next: &'a [i8],
    /// The first row of the strip, and how many.
    first: usize,
    rows: usize,
}

impl Strip<'_> {
    /// Calls `each` for the strip's tiles of at most `layout.rows` rows, shared out evenly, panel by panel, with the sums from the
    /// tile's first on.
    ///
    /// # Panics
    /// When something would be read or written outside the slices.
    #[inline(always)]
    fn tiles(&self, layout: Layout, acc: &mut [i32], mut each: impl FnMut(&Tile, &mut [i32])) {
        let Panels { bytes, count, stride, rooms, room_stride } = self.panels;
        let run = self.steps * layout.depth;
        let last = (self.rows - 1) * self.row_stride + (self.segments - 1) * self.segment_stride + run;
        assert!(last <= self.a.len(), "activations shorter than the strip");
        let columns = count * layout.columns;
        assert!(columns <= self.width && self.rows * self.width <= acc.len() + self.width - columns, "sums");
        let panel_bytes = self.segments * run * layout.columns;
        let tiles = self.rows.div_ceil(layout.rows);
        let share = self.rows.div_ceil(tiles).next_multiple_of(layout.together).min(layout.rows);
        let mut next = self.next.chunks((self.next.len() / count).next_multiple_of(LINE).max(LINE));
        for panel in 0..count {
            let room = &rooms[panel * room_stride];
            assert!(room.is_of(layout, self.segments, self.steps), "the room of another panel");
            let (panel, mut from) = (&bytes[panel * stride..][..panel_bytes], panel * layout.columns);
            let (next, mut first) = (next.next().unwrap_or_default(), 0);
            while first < self.rows {
                let tile = Tile { strip: self, panel, room, next, first, rows: share.min(self.rows - first) };
                each(&tile, &mut acc[from..]);
                first += tile.rows;
                from += share * self.width;
            }
        }
    }
}

impl Tile<'_> {
    /// Where the sums of one of its rows begin. Unchecked, as [`Strip::tiles`] has checked the last: a check for each would be half of what
    /// ends a tile.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    fn sums(&self, acc: &mut [i32], row: usize) -> *mut i32 {
        acc.as_mut_ptr().wrapping_add(row.wrapping_mul(self.strip.width))
    }

    /// Where the runs of segment `s` begin: those of row `first` and of every `step`-th after it.
    #[cfg(target_arch = "aarch64")]
    fn row_starts<const R: usize>(&self, s: usize, first: usize, step: usize) -> [*const i8; R] {
        let Strip { a, row_stride, segment_stride, .. } = *self.strip;
        let start = a.as_ptr().wrapping_add(s.wrapping_mul(segment_stride));
        let start = start.wrapping_add((self.first + first).wrapping_mul(row_stride));
        std::array::from_fn(|row| start.wrapping_add((row * step).wrapping_mul(row_stride)).cast())
    }
}

/// [`Kernel::block_bytes`] where second-level caches are as small as boards have them.
const SMALL_BLOCK: usize = 256 << 10;

/// One instruction set's routines. All are safe to call: an entry exists only where its instructions do.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// For people and for [`KernelChoice`].
    pub name: &'static str,
    /// Operand layout of `strip`.
    pub layout: Layout,
    /// Activation bytes that a block of rows may take, so that they stay in a second-level cache beside a panel.
    pub block_bytes: usize,
    /// Exact sums of one strip into `acc[row * width + column]`.
    pub strip: fn(&Strip, &mut [i32]),
    /// The floating-point routines compiled for this instruction set.
    pub glue: Glue,
}

impl Kernel {
    /// Multiply-adds a second of whole tiles whose operands stay in the first-level cache, the best of many short runs.
    pub fn macs_per_second(&self) -> f64 {
        const STEPS: usize = 64;
        const TILES: usize = 20;
        const RUNS: usize = 100;
        let Layout { rows, columns, depth, .. } = self.layout;
        let run = STEPS * depth;
        let (mut a, mut panel) = (Aligned::<u8>::zeroed(rows * run), Aligned::<i8>::zeroed(columns * run));
        a.get_mut().fill(1);
        panel.get_mut().fill(1);
        let (a, panel) = (a.get(), panel.get());
        let rooms = [Room::of(self.layout, panel, 1, STEPS)];
        let strip = Strip {
            a,
            rows,
            row_stride: run,
            segments: 1,
            segment_stride: 0,
            steps: STEPS,
            panels: Panels { bytes: panel, count: 1, stride: 0, rooms: &rooms, room_stride: 0 },
            next: &[],
            width: columns,
        };
        let mut acc = vec![0i32; rows * columns];
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let started = Instant::now();
            for _ in 0..TILES {
                (self.strip)(std::hint::black_box(&strip), &mut acc);
            }
            best = best.min(started.elapsed().as_secs_f64());
        }
        (TILES * rows * columns * run) as f64 / best
    }
}

/// [`glue`](super::glue) compiled for one instruction set.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::type_complexity, reason = "each is the type of the routine it names")]
pub struct Glue {
    /// See [`glue::range`].
    pub range: fn(&[f32]) -> Option<(f32, f32)>,
    /// See [`glue::encode`].
    pub encode: fn(&[f32], Scale, i32, &mut [u8]),
    /// See [`glue::quantise`].
    pub quantise: fn(&Quantise, &mut [u8], &mut [Scale], &mut [f32]) -> Option<usize>,
    /// See [`glue::layer_norm`].
    pub layer_norm: fn(&[f32], &[f32], &[f32], f32, &mut [f32]),
    /// See [`glue::accumulate`].
    pub accumulate: fn(&[Scale], &[i32], &[i32], &mut [f32]),
    /// See [`glue::finish`].
    pub finish: fn(&Finish, &[i32], &mut Block<f32>),
    /// See [`glue::transpose`].
    pub transpose: fn(&[u8], usize, &mut Columns),
    /// See [`glue::centre`].
    pub centre: fn(Strided, &mut [f32], &mut [f32]),
    /// See [`glue::values`].
    pub values: fn(&[f32], &mut Columns, &mut [f32], &mut [u8]) -> bool,
    /// See [`glue::weigh`].
    pub weigh: fn(&Weigh, &[i32], &mut [f32], &mut [u8], &mut [Scale]) -> Option<usize>,
    /// See [`glue::attend_once`].
    pub attend_once: fn(&AttendOnce, &mut [f32], &mut [f32]),
    /// See [`glue::depthwise`].
    pub depthwise: fn(&Depthwise, usize, &mut [f32]),
    /// See [`glue::winograd_input`].
    pub winograd_input: fn(&Tiles, &mut [u8], &mut [Scale], &mut [f32]) -> Option<usize>,
    /// See [`glue::winograd_output`].
    pub winograd_output: fn(&FromTiles, &mut [f32], Option<&mut [f32]>),
}

/// Which kernel to run, by name; what `--kernel` and tests say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KernelChoice {
    /// Plain Rust; runs anywhere.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 VNNI.
    Avx512Vnni,
    /// x86-64 with AMX (Sapphire Rapids).
    AmxInt8,
    /// aarch64 without dot product (Cortex-A53, A72).
    Neon,
    /// aarch64 with dot product (Cortex-A76).
    NeonDot,
    /// aarch64 with int8 matrix multiply (Cortex-A510, A710 and later).
    NeonI8mm,
}

impl KernelChoice {
    /// Every kernel, best first.
    pub const ALL: [KernelChoice; 8] = [
        KernelChoice::AmxInt8,
        KernelChoice::Avx512Vnni,
        KernelChoice::AvxVnni,
        KernelChoice::Avx2,
        KernelChoice::NeonI8mm,
        KernelChoice::NeonDot,
        KernelChoice::Neon,
        KernelChoice::Portable,
    ];

    /// The kernel, if this machine can run it.
    pub fn kernel(self) -> Option<Kernel> {
        match self {
            KernelChoice::Portable => Some(portable::KERNEL),
            #[cfg(target_arch = "x86_64")]
            KernelChoice::Avx2 => avx2::kernel(),
            #[cfg(target_arch = "x86_64")]
            KernelChoice::AvxVnni => avxvnni::kernel(),
            #[cfg(target_arch = "x86_64")]
            KernelChoice::Avx512Vnni => avx512vnni::kernel(),
            #[cfg(target_arch = "x86_64")]
            KernelChoice::AmxInt8 => amx::kernel(),
            #[cfg(target_arch = "aarch64")]
            KernelChoice::Neon => Some(neon::KERNEL),
            #[cfg(target_arch = "aarch64")]
            KernelChoice::NeonDot => neon_dot::kernel(),
            #[cfg(target_arch = "aarch64")]
            KernelChoice::NeonI8mm => neon_i8mm::kernel(),
            #[allow(unreachable_patterns, reason = "the kernels of other architectures")]
            _ => None,
        }
    }

    /// Of this machine's instruction-set extensions, those that decide which kernel runs.
    pub fn cpu_features() -> Vec<&'static str> {
        #[cfg(target_arch = "x86_64")]
        let features = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avxvnni", is_x86_feature_detected!("avxvnni")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bw", is_x86_feature_detected!("avx512bw")),
            ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
            ("amx-int8", amx::found()),
        ];
        #[cfg(target_arch = "aarch64")]
        let features = [
            ("neon", true),
            ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
            ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let features: [(&str, bool); 0] = [];
        features.iter().filter(|(_, found)| *found).map(|(name, _)| *name).collect()
    }

    /// The best kernel of this machine.
    pub fn best() -> Kernel {
        KernelChoice::ALL.into_iter().find_map(KernelChoice::kernel).unwrap_or(portable::KERNEL)
    }
}

/// As `--kernel` takes it.
impl std::fmt::Display for KernelChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        // No variant is skipped, so each has its value.
        clap::ValueEnum::to_possible_value(self).map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// Runs `$body` for each `$r` below `$count`, written out: the compiler unrolls a loop of its own only while it finds the
/// body small, and where it does not, accumulators that are indexed by `$r` live in memory instead of registers.
macro_rules! unrolled {
    ($count:expr, $r:ident => $body:expr) => {
        unrolled!(@ $count, $r => $body; 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $count:expr, $r:ident => $body:expr; $($i:literal)*) => {
        $(if $i < $count {
            #[allow(
                clippy::identity_op,
                clippy::erasing_op,
                clippy::absurd_extreme_comparisons,
                reason = "written once for every row, the first among them"
            )]
            {
                const $r: usize = $i;
                $body
            }
        })*
    };
}
use unrolled;

/// Calls `$rows::<R>` with `R` the tile's rows: the given counts, the last for all others, which [`Strip::tiles`] excludes.
macro_rules! by_rows {
    ($rows:ident, $tile:ident, $acc:ident; $($count:literal)*; $last:literal) => {
        match $tile.rows {
            $($count => $rows::<$count>($tile, $acc),)*
            _ => $rows::<$last>($tile, $acc),
        }
    };
}
use by_rows;

/// Compiles the bodies of [`super::glue`] for one instruction set and names them as a [`Glue`].
///
/// The bodies are `#[inline(always)]`, so each takes on the features of the function it is expanded into.
macro_rules! glue_for {
    ($(#[$feature:meta])* $vector:ty) => {
        mod compiled {
            use crate::vision::int8::glue::{
                self, AttendOnce, Columns, Depthwise, Finish, FromTiles, Quantise, Scale, Tiles, Weigh,
            };
            use crate::vision::int8::kernels::float::Strided;
            use crate::vision::int8::kernels::pool::Block;

            $(#[$feature])*
            fn range(x: &[f32]) -> Option<(f32, f32)> {
                glue::range::<$vector>(x)
            }
            $(#[$feature])*
            fn encode(x: &[f32], scale: Scale, offset: i32, out: &mut [u8]) {
                glue::encode::<$vector>(x, scale, offset, out)
            }
            $(#[$feature])*
            fn quantise(q: &Quantise, bytes: &mut [u8], scales: &mut [Scale], scratch: &mut [f32]) -> Option<usize> {
                glue::quantise::<$vector>(q, bytes, scales, scratch)
            }
            $(#[$feature])*
            fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
                glue::layer_norm::<$vector>(x, gain, bias, epsilon, out)
            }
            $(#[$feature])*
            fn accumulate(rows: &[Scale], sums: &[i32], acc: &[i32], partial: &mut [f32]) {
                glue::accumulate::<$vector>(rows, sums, acc, partial)
            }
            $(#[$feature])*
            fn finish(f: &Finish, acc: &[i32], out: &mut Block<f32>) {
                glue::finish::<$vector>(f, acc, out)
            }
            $(#[$feature])*
            fn transpose(rows: &[u8], run: usize, columns: &mut Columns) {
                glue::transpose(rows, run, columns)
            }
            $(#[$feature])*
            fn centre(x: Strided, copy: &mut [f32], means: &mut [f32]) {
                glue::centre::<$vector>(x, copy, means)
            }
            $(#[$feature])*
            fn values(rows: &[f32], columns: &mut Columns, inverse: &mut [f32], levels: &mut [u8]) -> bool {
                glue::values::<$vector>(rows, columns, inverse, levels)
            }
            $(#[$feature])*
            fn weigh(
                w: &Weigh,
                acc: &[i32],
                scores: &mut [f32],
                bytes: &mut [u8],
                scales: &mut [Scale],
            ) -> Option<usize> {
                glue::weigh::<$vector>(w, acc, scores, bytes, scales)
            }
            $(#[$feature])*
            fn attend_once(a: &AttendOnce, scratch: &mut [f32], out: &mut [f32]) {
                glue::attend_once::<$vector>(a, scratch, out)
            }
            $(#[$feature])*
            fn depthwise(d: &Depthwise, y: usize, out: &mut [f32]) {
                glue::depthwise::<$vector>(d, y, out)
            }
            $(#[$feature])*
            fn winograd_input(
                t: &Tiles,
                bytes: &mut [u8],
                scales: &mut [Scale],
                scratch: &mut [f32],
            ) -> Option<usize> {
                glue::winograd_input::<$vector>(t, bytes, scales, scratch)
            }
            $(#[$feature])*
            fn winograd_output(f: &FromTiles, upper: &mut [f32], lower: Option<&mut [f32]>) {
                glue::winograd_output::<$vector>(f, upper, lower)
            }

            // SAFETY (each): the enclosing file hands these out only after it has detected the features.
            #[allow(unused_unsafe, reason = "where no feature is enabled, the calls are safe")]
            pub(super) const GLUE: super::super::Glue = super::super::Glue {
                range: |x| unsafe { range(x) },
                encode: |x, scale, offset, out| unsafe { encode(x, scale, offset, out) },
                quantise: |q, bytes, scales, scratch| unsafe { quantise(q, bytes, scales, scratch) },
                layer_norm: |x, gain, bias, epsilon, out| unsafe { layer_norm(x, gain, bias, epsilon, out) },
                accumulate: |rows, sums, acc, partial| unsafe { accumulate(rows, sums, acc, partial) },
                finish: |f, acc, out| unsafe { finish(f, acc, out) },
                transpose: |rows, run, columns| unsafe { transpose(rows, run, columns) },
                centre: |x, copy, means| unsafe { centre(x, copy, means) },
                values: |rows, columns, inverse, levels| unsafe { values(rows, columns, inverse, levels) },
                weigh: |w, acc, scores, bytes, scales| unsafe { weigh(w, acc, scores, bytes, scales) },
                attend_once: |a, scratch, out| unsafe { attend_once(a, scratch, out) },
                depthwise: |d, y, out| unsafe { depthwise(d, y, out) },
                winograd_input: |t, bytes, scales, scratch| unsafe { winograd_input(t, bytes, scales, scratch) },
                winograd_output: |f, upper, lower| unsafe { winograd_output(f, upper, lower) },
            };
        }
    };
}
use glue_for;

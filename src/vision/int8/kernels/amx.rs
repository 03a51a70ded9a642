//! x86-64 with AMX (Sapphire Rapids and later): `tdpbusd` multiplies 16 rows of 64 unsigned bytes by 16 columns of 64 signed ones.
//!
//! A tile of ours is 32 rows by 32 columns: four of AMX's for sums, two for activations and two for weights are its eight. Weights
//! lie as [`super::avx512vnni`] wants them, so that it takes over runs of `k` that cannot be cut into pieces long enough. A remainder of rows is computed
//! together with rows before it, once more: that costs no more than fewer rows, and setting the tiles up for those would.
#![allow(unsafe_code, reason = "instructions that have no stable intrinsics yet; each block says why it holds")]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::cell::Cell;
#[cfg(target_os = "linux")]
use std::ffi::c_long;
use std::mem::offset_of;

use super::room::Narrow;
use super::{Kernel, Layout, Strip, Tile, avx512vnni};
use crate::vision::int8::aligned::LINE;

const LAYOUT: Layout = Layout { rows: 2 * ROWS, columns: 32, depth: 4, offset: 0, together: ROWS, narrow: Narrow::No };

/// Processors with AMX have two megabytes of second-level cache.
const BLOCK: usize = 1280 << 10;

/// Most rows of one of AMX's tiles.
const ROWS: usize = 16;

/// Most depth groups that one instruction multiplies.
const DEPTH: usize = 16;

/// With fewer depth groups an instruction than this `vpdpbusd` takes over, by a count of cycles for 16 rows: an instruction here takes as
/// long for one group as for 16.
const LEAST_DEPTH: usize = 4;

/// The kernel, where the machine has its instructions and the system lets this process use them.
pub fn kernel() -> Option<Kernel> {
    let vnni = avx512vnni::kernel()?;
    (found() && permitted()).then_some(Kernel { name: "amx-int8", layout: LAYOUT, block_bytes: BLOCK, strip, ..vnni })
}

/// Whether the processor has `amx-tile` and `amx-int8` (Intel's manual, CPUID leaf 7, EDX 24 and 25).
pub fn found() -> bool {
    const BOTH: u32 = 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BOTH == BOTH
}

/// Asks the system for the tiles' eight kilobytes of state, which a process has only then (Linux, `Documentation/arch/x86/xstate.rst`).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: c_long = 158;
    const ARCH_REQ_XCOMP_PERM: c_long = 0x1023;
    const XFEATURE_XTILEDATA: c_long = 18;
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    // SAFETY: the call takes two numbers and touches no memory of ours; a system that does not know it refuses it.
    unsafe { syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// How other systems are asked was not looked up.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

fn strip(strip: &Strip, acc: &mut [i32]) {
    let depth = (1..=DEPTH.min(strip.steps)).rev().find(|depth| strip.steps.is_multiple_of(*depth)).unwrap_or(0);
    if depth < LEAST_DEPTH {
        return avx512vnni::strip(strip, acc);
    }
    // SAFETY: `kernel` is the only way here: the processor has the instructions and the process their state. A tile stays
    // inside its strip, and `depth` divides the steps.
    strip.tiles(LAYOUT, acc, |tile, acc| unsafe { tiles(tile, depth, acc) });
}

thread_local! {
    /// For how many rows and depth groups this thread's tiles are set up. Nothing else in the process uses them, and the system keeps
    /// them with the thread.
    static SHAPE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    first_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Sets this thread's tiles up: 0 to 3 for sums, 4 and 5 for activations, 6 and 7 for weights.
///
/// # Safety
/// The processor must have AMX and the process its state; at most 16 of either.
#[inline(always)]
unsafe fn shape(rows: usize, depth: usize) {
    if SHAPE.get() == (rows, depth) {
        return;
    }
    SHAPE.set((rows, depth));
    let mut tiles = Configuration { palette: 1, first_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let (m, k) = (rows as u8, depth as u8);
    tiles.rows[..8].copy_from_slice(&[m, m, m, m, m, m, k, k]);
    let k = 4 * depth as u16;
    tiles.row_bytes[..8].copy_from_slice(&[64, 64, 64, 64, k, k, 64, 64]);
    // SAFETY: by the contract; the instruction reads the 64 bytes only.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &tiles, options(readonly, nostack, preserves_flags)) };
}

/// What the loops below need seldom.
#[repr(C)]
struct Seldom {
    /// Instructions' depths in a run of `k`.
    chunks: usize,
    /// Bytes from the end of a row's run to the start of its next.
    jump: usize,
    /// Lines fetched early with each chunk.
    lines: usize,
    /// Bytes from one row of sums to the next.
    width: usize,
    /// The sums of the first row, and of the first of the last 16.
    out: [*mut i32; 2],
}

/// # Safety
/// As for [`shape`]; `depth` must divide the steps.
#[inline(always)]
unsafe fn tiles(t: &Tile, depth: usize, acc: &mut [i32]) {
    let Strip { a, row_stride, segments, segment_stride, steps, width, .. } = *t.strip;
    let later = t.rows.saturating_sub(ROWS);
    let chunks = steps / depth;
    // All of them while the panel's first tile is computed.
    let lines = if t.first == 0 { t.next.len() / LINE / (segments * chunks) } else { 0 };
    let seldom = Seldom {
        chunks,
        jump: segment_stride.wrapping_sub(steps * 4),
        lines,
        width: width * 4,
        out: [0, later].map(|row| t.sums(acc, row)),
    };
    let first = a.as_ptr().wrapping_add(t.first * row_stride);
    // The loops over runs and chunks; what is in brackets is for the second 16 rows.
    macro_rules! run {
        ([$($zero:literal)*] [$($load:literal)*] [$($store:literal)*]) => {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                $($zero,)*
                "2:",
                "mov {left}, [{seldom} + {CHUNKS}]",
                "3:",
                "tileloadd tmm4, [{upper} + {stride}]",
                "tileloadd tmm6, [{w} + {step}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{w} + {step} + 64]",
                "tdpbusd tmm1, tmm4, tmm7",
                $($load,)*
                "mov {lines}, [{seldom} + {LINES}]",
                "test {lines}, {lines}",
                "jz 5f",
                "4:",
                "prefetcht1 [{next}]",
                "add {next}, 64",
                "dec {lines}",
                "jnz 4b",
                "5:",
                "add {upper}, {run}",
                "add {lower}, {run}",
                "add {w}, {panel_run}",
                "dec {left}",
                "jnz 3b",
                "add {upper}, [{seldom} + {JUMP}]",
                "add {lower}, [{seldom} + {JUMP}]",
                "dec {segments}",
                "jnz 2b",
                "mov {stride}, [{seldom} + {WIDTH}]",
                "mov {upper}, [{seldom} + {OUT}]",
                "tilestored [{upper} + {stride}], tmm0",
                "tilestored [{upper} + {stride} + 64], tmm1",
                $($store,)*
                seldom = in(reg) &seldom,
                upper = inout(reg) first => _,
                lower = inout(reg) first.wrapping_add(later * row_stride) => _,
                stride = inout(reg) row_stride => _,
                w = inout(reg) t.panel.as_ptr() => _,
                step = in(reg) 4 * LAYOUT.columns,
                run = in(reg) 4 * depth,
                panel_run = in(reg) 4 * depth * LAYOUT.columns,
                segments = inout(reg) segments => _,
                next = inout(reg) t.next.as_ptr() => _,
                left = out(reg) _,
                lines = out(reg) _,
                CHUNKS = const offset_of!(Seldom, chunks),
                JUMP = const offset_of!(Seldom, jump),
                LINES = const offset_of!(Seldom, lines),
                WIDTH = const offset_of!(Seldom, width),
                OUT = const offset_of!(Seldom, out),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            )
        };
    }
    // SAFETY: the tiles are set up for `rows` rows, all of which the tile has from its first and from `later` on, and for `depth`
    // groups of each; the panel has segments · steps · 128 bytes, every row's run steps · 4 bytes inside `a`, and the strip room
    // for these rows of 32 sums. A prefetch reads nothing.
    unsafe {
        shape(t.rows.min(ROWS), depth);
        if later == 0 {
            run!([] [] []);
        } else {
            run!(
                ["tilezero tmm2" "tilezero tmm3"]
                ["tileloadd tmm5, [{lower} + {stride}]" "tdpbusd tmm2, tmm5, tmm6" "tdpbusd tmm3, tmm5, tmm7"]
                [
                    "mov {lower}, [{seldom} + {OUT} + 8]"
                    "tilestored [{lower} + {stride}], tmm2"
                    "tilestored [{lower} + {stride} + 64], tmm3"
                ]
            );
        }
    }
}

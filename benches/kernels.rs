//! The int8 kernels of this machine side by side on one tile, operands in the first-level cache: `cargo bench kernels`.
//! Items are multiply-adds; what counts is the ratio between kernels of one run.

use divan::Bencher;
use divan::counter::ItemsCount;
use remoteclipd::vision::int8::kernels::room::Room;
use remoteclipd::vision::int8::kernels::{Kernel, KernelChoice, Panels, Strip};

fn main() {
    divan::main();
}

fn kernels() -> Vec<&'static str> {
    KernelChoice::ALL.into_iter().filter_map(KernelChoice::kernel).map(|kernel| kernel.name).collect()
}

fn named(name: &str) -> Kernel {
    let found = KernelChoice::ALL.into_iter().filter_map(KernelChoice::kernel).find(|kernel| kernel.name == name);
    found.unwrap_or_else(KernelChoice::best)
}

/// A whole tile, 768 deep: a row of ViT-B-32 against one panel.
#[divan::bench(args = kernels())]
fn whole_tile(bencher: Bencher, name: &str) {
    tile(bencher, &named(name), usize::MAX, 768);
}

/// One row: what is left over at the end of a matrix.
#[divan::bench(args = kernels())]
fn one_row(bencher: Bencher, name: &str) {
    tile(bencher, &named(name), 1, 768);
}

fn tile(bencher: Bencher, kernel: &Kernel, rows: usize, k: usize) {
    let layout = kernel.layout;
    let (rows, run) = (rows.min(layout.rows), k.next_multiple_of(layout.depth));
    let a: Vec<u8> = (0..rows * run).map(|i| (i * 37 % 251) as u8).collect();
    let panel: Vec<i8> = (0..layout.columns * run).map(|i| (i * 91 % 255) as u8 as i8).collect();
    let rooms = [Room::of(layout, &panel, 1, run / layout.depth)];
    let mut acc = vec![0i32; rows * layout.columns];
    bencher.counter(ItemsCount::new(rows * layout.columns * run)).bench_local(|| {
        let strip = Strip {
            a: &a,
            rows,
            row_stride: run,
            segments: 1,
            segment_stride: 0,
            steps: run / layout.depth,
            panels: Panels { bytes: &panel, count: 1, stride: 0, rooms: &rooms, room_stride: 0 },
            next: &[],
            width: layout.columns,
        };
        (kernel.strip)(divan::black_box(&strip), &mut acc);
    });
}

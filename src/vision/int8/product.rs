//! Walks a matrix product tile by tile: which rows, which panels, on which thread.

use super::glue::{Activation, Finish, Scale};
use super::kernels::pool::Block;
use super::kernels::{MAX_TILE, Tile};
use super::packed::Packed;
use super::runtime::Runtime;

/// Activation bytes that one block of rows may take, so that they stay in a second-level cache beside a panel.
const ROW_BLOCK_BYTES: usize = 256 << 10;

/// Weights beyond this size do not stay in a second-level cache from one frame to the next and are fetched early.
const STREAMED_BYTES: usize = 512 << 10;

/// Where the activation bytes of one output row begin.
#[derive(Debug, Clone, Copy)]
pub enum Walk {
    /// Row `r` begins at `r · stride`; groups lie `group_stride` bytes apart within a row.
    Rows {
        /// Bytes from one row to the next.
        stride: usize,
        /// Bytes from one group to the next.
        group_stride: usize,
    },
    /// Rows are output pixels of a convolution over padded NHWC images.
    Windows {
        /// Output height and width.
        output: (usize, usize),
        /// Bytes of one padded image.
        image: usize,
        /// Bytes of one padded line, which are those from one kernel row to the next.
        line: usize,
        /// Bytes from one output pixel's window to the one below and to the one beside it.
        step: (usize, usize),
    },
}

impl Walk {
    fn start(&self, row: usize) -> usize {
        match *self {
            Walk::Rows { stride, .. } => row * stride,
            Walk::Windows { output: (height, width), image, step, .. } => {
                let (y, x) = (row / width % height, row % width);
                row / (height * width) * image + y * step.0 + x * step.1
            }
        }
    }

    fn row_stride(&self) -> usize {
        match *self {
            Walk::Rows { stride, .. } => stride,
            Walk::Windows { step, .. } => step.1,
        }
    }

    fn segment_stride(&self) -> usize {
        match *self {
            Walk::Rows { .. } => 0,
            Walk::Windows { line, .. } => line,
        }
    }

    fn group_stride(&self) -> usize {
        match *self {
            Walk::Rows { group_stride, .. } => group_stride,
            Walk::Windows { .. } => 0,
        }
    }

    /// Rows from `row` up to `end` that one tile may hold: those a single stride apart, shared out evenly.
    fn tile(&self, row: usize, end: usize, most: usize) -> usize {
        let end = match *self {
            Walk::Rows { .. } => end,
            Walk::Windows { output: (_, width), .. } => end.min(row - row % width + width),
        };
        let left = end - row;
        left.div_ceil(left.div_ceil(most))
    }
}

/// The scales of activation rows.
#[derive(Debug, Clone, Copy)]
pub enum Scales<'a> {
    /// One a row.
    Rows(&'a [Scale]),
    /// One an image of so many rows.
    Images(&'a [Scale], usize),
    /// One a group, for all rows.
    Groups(&'a [Scale]),
}

impl Scales<'_> {
    fn get(&self, row: usize, group: usize) -> Scale {
        match self {
            Scales::Rows(scales) => scales[row],
            Scales::Images(scales, rows) => scales[row / rows],
            Scales::Groups(scales) => scales[group],
        }
    }
}

/// One matrix product with everything fused around it.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// Packed weights.
    pub weights: &'a Packed,
    /// Activation bytes; at least the kernel's depth longer than the last row needs.
    pub bytes: &'a [u8],
    /// Where rows begin.
    pub walk: Walk,
    /// What levels mean.
    pub scales: Scales<'a>,
    /// One a column, padded as the weights.
    pub bias: &'a [f32],
    /// Added before the activation: a matrix laid out as the output.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

impl Product<'_> {
    /// Computes all rows of `out`, a matrix of `weights.columns` columns.
    pub fn run(&self, runtime: &Runtime, out: &mut [f32]) {
        let width = self.weights.columns;
        let rows = out.len() / width;
        runtime.pool.blocks(out, width, self.block(runtime, rows), |block| self.compute(runtime, block));
    }

    /// Block size: rows that fit the cache; then enough pieces for the threads, cut along the longer side, so that
    /// threads share out whichever operand is larger instead of each reading all of it.
    fn block(&self, runtime: &Runtime, rows: usize) -> (usize, usize) {
        let layout = runtime.kernel.layout;
        let cached = (ROW_BLOCK_BYTES / self.weights.inner.len().max(1)).next_multiple_of(layout.rows);
        let pieces = match runtime.pool.threads() {
            1 => 1,
            threads => threads * 2,
        };
        let panels = self.weights.padded_columns() / layout.columns;
        if panels >= pieces && self.weights.columns >= rows {
            (cached, panels.div_ceil(pieces) * layout.columns)
        } else {
            let share = rows.div_ceil(pieces).next_multiple_of(layout.rows);
            (cached.min(share), self.weights.padded_columns())
        }
    }

    fn compute(&self, runtime: &Runtime, out: &mut Block<f32>) {
        let layout = runtime.kernel.layout;
        let (rows, columns) = (out.rows(), out.columns());
        let first = columns.start / layout.columns;
        let last = columns.end.div_ceil(layout.columns);
        let mut acc = [0i32; MAX_TILE];
        let mut partial = [0f32; MAX_TILE];
        let streamed = self.weights.len() > STREAMED_BYTES;
        for panel in first..last {
            let mut upcoming = if streamed { self.weights.upcoming(panel + 1) } else { &[] };
            let share = upcoming.len().div_ceil(rows.len().div_ceil(layout.rows)).next_multiple_of(64);
            let mut row = rows.start;
            while row < rows.end {
                let count = self.walk.tile(row, rows.end, layout.rows);
                let (now, later) = upcoming.split_at(share.min(upcoming.len()));
                upcoming = later;
                self.tile(runtime, (panel, row, count), now, (&mut acc, &mut partial), out);
                row += count;
            }
        }
    }

    fn tile(
        &self,
        runtime: &Runtime,
        (panel, row, count): (usize, usize, usize),
        next: &[i8],
        (acc, partial): (&mut [i32], &mut [f32]),
        out: &mut Block<f32>,
    ) {
        let kernel = &runtime.kernel;
        let inner = self.weights.inner;
        let start = self.walk.start(row);
        let mut scales = [Scale::default(); MAX_ROWS];
        if inner.groups > 1 {
            partial.fill(0.0);
        }
        for group in 0..inner.groups {
            let tile = Tile {
                a: &self.bytes[start + group * self.walk.group_stride()..],
                rows: count,
                row_stride: self.walk.row_stride(),
                segments: inner.segments,
                segment_stride: self.walk.segment_stride(),
                steps: inner.padded_run(kernel.layout) / kernel.layout.depth,
                panel: self.weights.panel(panel, group),
                full_range: self.weights.full_range,
                next: if group == 0 { next } else { &[] },
            };
            (kernel.tile)(&tile, acc);
            for (r, scale) in scales[..count].iter_mut().enumerate() {
                *scale = self.scales.get(row + r, group);
                scale.zero -= kernel.layout.offset;
            }
            let sums = self.weights.sums(panel, group);
            if group + 1 < inner.groups {
                (kernel.glue.accumulate)(&scales[..count], sums, acc, partial);
                continue;
            }
            let finish = Finish {
                columns: kernel.layout.columns,
                row,
                column: panel * kernel.layout.columns,
                rows: &scales[..count],
                sums,
                scale: self.weights.scale(panel),
                bias: &self.bias[panel * kernel.layout.columns..][..kernel.layout.columns],
                partial: (inner.groups > 1).then_some(&*partial),
                activation: self.activation,
                residual: self.residual,
                width: self.weights.columns,
            };
            (kernel.glue.finish)(&finish, acc, out);
        }
    }
}

/// The most rows any kernel's tile has.
const MAX_ROWS: usize = 16;

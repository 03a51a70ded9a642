//! Walks a matrix product strip by strip: which rows, which panels, on which thread.

use std::cell::RefCell;
use std::ops::Range;

use super::aligned::LINE;
use super::glue::{Activation, Finish, Scale};
use super::kernels::pool::Block;
use super::kernels::{Kernel, Layout, Strip};
use super::packed::Packed;
use super::runtime::Runtime;

/// Weights beyond this size do not stay in a second-level cache from one frame to the next and are fetched early.
const STREAMED_BYTES: usize = 128 << 10;

/// Most rows of sums that are finished at a time.
pub const STRIP_ROWS: usize = 72;

/// The same of a matrix as wide as [`ALIKE`]: its rows fall on each other's places in a first-level cache.
const FEW_ROWS: usize = 32;

/// Columns of 4 KiB, and multiples of it.
const ALIKE: usize = 1024;

/// Columns of sums that are finished at a time, whole panels: four lines of a cache in each row.
const STRIP_COLUMNS: usize = 64;

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

    /// Rows from one line of windows to the next in memory, where kernels are to compute the few between two lines too, for nothing:
    /// that costs less than beginning anew with each line.
    fn pitch(&self, layout: Layout) -> Option<usize> {
        match *self {
            Walk::Windows { output: (_, width), step, .. } if step.0.is_multiple_of(step.1) => {
                Some(step.0 / step.1).filter(|pitch| pitch - width < layout.together)
            }
            _ => None,
        }
    }

    /// Where `row` stands among rows of which a line has `pitch`.
    fn position(&self, row: usize, pitch: Option<usize>) -> usize {
        match (*self, pitch) {
            (Walk::Windows { output: (_, width), .. }, Some(pitch)) => row / width * pitch + row % width,
            _ => row,
        }
    }

    /// Rows from `row` on, of the same image, that stand within `most` of those.
    fn within(&self, row: usize, pitch: usize, most: usize) -> usize {
        let Walk::Windows { output: (height, width), .. } = *self else { return most };
        let (y, x) = (row / width % height, row % width);
        let end = x + most;
        (end / pitch * width + (end % pitch).min(width)).min((height - y) * width) - x
    }

    /// Rows from `row` up to `end` that are a single stride apart.
    fn together(&self, row: usize, end: usize) -> usize {
        match *self {
            Walk::Rows { .. } => end - row,
            Walk::Windows { output: (_, width), .. } => (width - row % width).min(end - row),
        }
    }
}

/// The scales of activation rows, of bytes as they are stored.
#[derive(Debug, Clone, Copy)]
pub enum Scales<'a> {
    /// One a row.
    Rows(&'a [Scale]),
    /// One an image of so many rows.
    Images(&'a [Scale], usize),
    /// One a group, for all rows.
    Groups(&'a [Scale]),
}

impl<'a> Scales<'a> {
    /// Those of `count` rows from `row` on, for one group; what several rows share is written out into `shared`.
    #[inline(always)]
    fn of(&self, (row, count): (usize, usize), group: usize, shared: &'a mut [Scale; STRIP_ROWS]) -> &'a [Scale] {
        match *self {
            Scales::Rows(scales) => return &scales[row..][..count],
            Scales::Images(scales, rows) => {
                // Image by image: a division for each row would be felt.
                let mut done = 0;
                while done < count {
                    let image = (row + done) / rows;
                    let end = ((image + 1) * rows - row).min(count);
                    shared[done..end].fill(scales[image]);
                    done = end;
                }
            }
            Scales::Groups(scales) => shared[..count].fill(scales[group]),
        }
        &shared[..count]
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
    /// Whether what the output holds is a residual, to be added before the activation.
    pub residual: bool,
    /// Applied last.
    pub activation: Activation,
}

impl Product<'_> {
    /// Computes all rows of `out`, a matrix of `weights.columns` columns.
    pub fn run(&self, runtime: &Runtime, out: &mut [f32]) {
        let width = self.weights.columns;
        let rows = out.len() / width;
        runtime.pool.blocks(out, width, self.block(runtime, rows), |block| {
            self.compute(runtime, block);
        });
    }

    /// The same on this thread alone, for a task that is one of several.
    pub fn run_here(&self, runtime: &Runtime, out: &mut [f32]) {
        self.compute(runtime, &mut Block::whole(out, self.weights.columns));
    }

    /// Block size: rows that fit the cache; then enough pieces for the threads, cut along the longer side, so that
    /// threads share out whichever operand is larger instead of each reading all of it.
    fn block(&self, runtime: &Runtime, rows: usize) -> (usize, usize) {
        let Kernel { layout, block_bytes, .. } = runtime.kernel;
        let cached = (block_bytes / self.weights.inner.len().max(1) + 1).next_multiple_of(layout.rows);
        let cached = rows.div_ceil(rows.div_ceil(cached)).next_multiple_of(layout.rows);
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
        SUMS.with_borrow_mut(|sums| self.compute_in(runtime, sums, out));
    }

    fn compute_in(&self, runtime: &Runtime, sums: &mut Sums, out: &mut Block<f32>) {
        let layout = runtime.kernel.layout;
        let (rows, columns) = (out.rows(), out.columns());
        let last = columns.end.div_ceil(layout.columns);
        let most = if self.weights.columns.is_multiple_of(ALIKE) { FEW_ROWS } else { STRIP_ROWS };
        let streamed = self.weights.len() > STREAMED_BYTES;
        let together = STRIP_COLUMNS / layout.columns;
        for first in (columns.start / layout.columns..last).step_by(together) {
            let panels = first..last.min(first + together);
            let bytes = if streamed { self.weights.upcoming(panels.end, together) } else { &[] };
            let strips = rows.len().div_ceil(most);
            let mut upcoming = Upcoming { bytes, share: bytes.len().div_ceil(strips).next_multiple_of(LINE) };
            let mut row = rows.start;
            while row < rows.end {
                let strip = Rows::next(&self.walk, (layout, most), row..rows.end);
                self.strip(runtime, panels.clone(), strip, &mut upcoming, sums, out);
                row += strip.count;
            }
        }
    }

    /// Computes and finishes a few panels of some rows.
    fn strip(
        &self,
        runtime: &Runtime,
        panels: Range<usize>,
        rows: Rows,
        upcoming: &mut Upcoming,
        sums: &mut Sums,
        out: &mut Block<f32>,
    ) {
        let kernel = &runtime.kernel;
        let column = panels.start * kernel.layout.columns;
        let columns = panels.len() * kernel.layout.columns;
        let groups = self.weights.inner.groups;
        let Sums { exact, scaled, shared } = sums;
        let scaled = &mut scaled[..rows.count * columns];
        if groups > 1 {
            scaled.fill(0.0);
        }
        for group in 0..groups {
            self.exact(kernel, (panels.clone(), group), rows, upcoming, exact);
            // What the last group gives is finished with them, below.
            if group < groups - 1 {
                let scales = self.scales.of((rows.first, rows.count), group, shared);
                (kernel.glue.accumulate)(scales, self.weights.sums(panels.clone(), group), exact, scaled);
            }
        }
        for (row, count, at) in rows.pieces(&self.walk, rows.pitch.is_some()) {
            let finish = Finish {
                columns,
                row,
                column,
                rows: self.scales.of((row, count), groups - 1, shared),
                sums: self.weights.sums(panels.clone(), groups - 1),
                scale: self.weights.scale(panels.clone()),
                bias: &self.bias[column..][..columns],
                partial: (groups > 1).then_some(&*scaled),
                activation: self.activation,
                residual: self.residual,
            };
            (kernel.glue.finish)(&finish, &exact[at * columns..][..count * columns], out);
        }
    }

    /// The exact sums of one group.
    #[inline]
    fn exact(
        &self,
        kernel: &Kernel,
        (panels, group): (Range<usize>, usize),
        rows: Rows,
        upcoming: &mut Upcoming,
        sums: &mut [i32],
    ) {
        let width = panels.len() * kernel.layout.columns;
        let mut strip = Strip {
            a: self.bytes,
            rows: 0,
            row_stride: self.walk.row_stride(),
            segments: self.weights.inner.segments,
            segment_stride: self.walk.segment_stride(),
            steps: self.weights.steps,
            panels: self.weights.panels(panels, group),
            next: if group == 0 { upcoming.take() } else { &[] },
            width,
        };
        for (row, count, place) in rows.pieces(&self.walk, rows.pitch.is_none()) {
            strip.rows = count;
            strip.a = &self.bytes[self.walk.start(row) + group * self.walk.group_stride()..];
            (kernel.strip)(&strip, &mut sums[place * width..]);
        }
    }
}

/// The rows of a strip, which are finished while their sums are in a first-level cache.
#[derive(Debug, Clone, Copy)]
struct Rows {
    first: usize,
    count: usize,
    /// See [`Walk::pitch`].
    pitch: Option<usize>,
}

impl Rows {
    /// The next strip of those that are left, at most so many.
    fn next(walk: &Walk, (layout, most): (Layout, usize), left: Range<usize>) -> Rows {
        let pitch = walk.pitch(layout);
        let count = match pitch {
            None => strip(left.len(), layout, most),
            Some(pitch) => walk.within(left.start, pitch, most).min(left.len()),
        };
        Rows { first: left.start, count, pitch }
    }

    /// The strip line by line or as one: the first row of each piece, how many sums it has, and the number of the first of them.
    fn pieces(self, walk: &Walk, by_line: bool) -> impl Iterator<Item = (usize, usize, usize)> {
        let (mut row, end) = (self.first, self.first + self.count);
        std::iter::from_fn(move || {
            let first = (row < end).then_some(row)?;
            row += if by_line { walk.together(row, end) } else { end - row };
            let [strip, from, last] = [self.first, first, row - 1].map(|row| walk.position(row, self.pitch));
            Some((first, last + 1 - from, from - strip))
        })
    }
}

thread_local! {
    /// Kept from product to product: what one leaves means nothing to the next.
    static SUMS: RefCell<Sums> = const { RefCell::new(Sums::NONE) };
}

/// Sums of a strip.
#[repr(align(64))]
struct Sums {
    exact: [i32; STRIP_ROWS * STRIP_COLUMNS],
    /// Those of earlier groups, each times its rows' scales.
    scaled: [f32; STRIP_ROWS * STRIP_COLUMNS],
    /// Where several rows share a scale: the same, once for each.
    shared: [Scale; STRIP_ROWS],
}

impl Sums {
    const NONE: Sums = Sums { exact: [0; _], scaled: [0.0; _], shared: [Scale { scale: 0.0, zero: 0 }; _] };
}

/// The next panels' bytes, fetched early, a share with each strip.
struct Upcoming<'a> {
    bytes: &'a [i8],
    share: usize,
}

impl<'a> Upcoming<'a> {
    fn take(&mut self) -> &'a [i8] {
        let (now, later) = self.bytes.split_at(self.share.min(self.bytes.len()));
        self.bytes = later;
        now
    }
}

/// Rows of the next strip when `left` are left, at most so many: whole tiles, of like length as far as they allow, and never so few for the last that
/// they would cost as much as more do.
pub fn strip(left: usize, Layout { rows: tile, together, .. }: Layout, most: usize) -> usize {
    let most = most / tile * tile;
    if left > most && left - most < together {
        return left - together;
    }
    left.div_ceil(left.div_ceil(most)).next_multiple_of(tile).min(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::int8::kernels::room::Narrow;

    /// Of a kernel to which up to 16 rows cost the same.
    const TALL: Layout = Layout { rows: 32, columns: 32, depth: 4, offset: 0, together: 16, narrow: Narrow::No };

    #[test]
    fn where_few_rows_cost_as_much_as_more_no_strip_has_few() {
        for (most, rows) in [FEW_ROWS, STRIP_ROWS].into_iter().flat_map(|most| (16..400).map(move |rows| (most, rows)))
        {
            let mut left = rows;
            while left > 0 {
                let now = strip(left, TALL, most);
                assert!((16..=most).contains(&now) || now == left && left + most > rows, "{now} of {left}");
                left -= now;
            }
        }
        assert_eq!([257, 33, 32, 5].map(|left| strip(left, TALL, FEW_ROWS)), [32, 17, 32, 5]);
    }

    #[test]
    fn lines_that_are_computed_through_give_each_row_its_own_sums() {
        for (height, width, between) in [(7, 7, 2), (14, 14, 2), (3, 56, 2), (5, 1, 2), (2, 40, 15), (1, 9, 0)] {
            let (bytes, pitch) = (4, width + between);
            let step = (pitch * bytes, bytes);
            let walk = Walk::Windows { output: (height, width), image: 5000, line: pitch * bytes, step };
            let (mut row, end) = (0, 2 * height * width);
            while row < end {
                let strip = Rows::next(&walk, (TALL, FEW_ROWS), row..end);
                assert!(strip.count > 0 && row / (height * width) == (row + strip.count - 1) / (height * width));
                let [(first, computed, 0)] = strip.pieces(&walk, false).collect::<Vec<_>>()[..] else { panic!("one") };
                assert!(first == row && (1..=FEW_ROWS).contains(&computed), "{computed} rows");
                for (first, count, at) in strip.pieces(&walk, true) {
                    assert_eq!(first, row);
                    for i in 0..count {
                        assert_eq!(walk.start(strip.first) + (at + i) * bytes, walk.start(row + i));
                    }
                    assert!(at + count <= computed);
                    row += count;
                }
            }
            assert_eq!(row, end);
        }
    }

    #[test]
    fn strips_are_whole_tiles_and_need_no_more_of_them() {
        for (most, tile) in [FEW_ROWS, STRIP_ROWS].into_iter().flat_map(|most| (1..=16).map(move |tile| (most, tile))) {
            for rows in 1..400 {
                let layout = Layout { rows: tile, together: 1, ..TALL };
                let (mut left, mut tiles) = (rows, 0);
                while left > 0 {
                    let now = strip(left, layout, most);
                    assert!((1..=most).contains(&now) && (now.is_multiple_of(tile) || now == left), "{now} of {left}");
                    (left, tiles) = (left - now, tiles + now.div_ceil(tile));
                }
                assert_eq!(tiles, rows.div_ceil(tile), "{rows} rows in tiles of {tile}");
            }
        }
    }
}

//! Attention of one head, with both of its products on the integer kernel.
//!
//! Keys and values are written as a kernel reads its weights while they are in its caches, less their means, with a scale for each key
//! and for each channel of the values. Queries are quantised like any activation, and what the softmax makes of their products once more,
//! its highest as level 255. So both products are exact, and the same on every kernel.

use std::cell::RefCell;

use super::aligned::Aligned;
use super::glue::{Activation, CENTRE, Columns, Finish, Levels, Quantise, Scale, Weigh};
use super::kernels::float::Strided;
use super::kernels::pool::Block;
use super::kernels::room::Room;
use super::kernels::{Kernel, Layout, Panels, Strip};
use super::product::{STRIP_ROWS, strip};

thread_local! {
    /// Kept from head to head, so that tasks do not allocate.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// What one head is computed in.
#[derive(Default)]
struct Buffers {
    keys: Matrix,
    values: Matrix,
    queries: Rows,
    /// How values are weighed by a strip of queries.
    weights: Rows,
    /// Exact sums of a strip.
    sums: Aligned<i32>,
    /// Zeros, and behind the last key minus infinity.
    beyond: Vec<f32>,
    /// Of each channel, in whole panels: of the keys, then of the values.
    means: Vec<f32>,
    /// Keys, values or a row of scores.
    floats: Aligned<f32>,
    levels: Aligned<u8>,
    scales: Vec<Scale>,
}

/// Keys or values as a kernel reads its weights.
#[derive(Default)]
struct Matrix {
    /// Bytes of a column, in whole steps.
    run: usize,
    bytes: Aligned<i8>,
    /// One a column, in whole panels, and 0 behind the last.
    scale: Vec<f32>,
    /// Sums of the columns' weights.
    sums: Vec<i32>,
}

impl Matrix {
    /// One to be written. Behind the last of `columns` stands what an earlier one left: levels, the products of which have scale 0.
    fn resized(&mut self, layout: Layout, run: usize, columns: usize) -> Columns<'_> {
        let columns = columns.next_multiple_of(layout.columns);
        self.run = run.next_multiple_of(layout.depth);
        self.scale.clear();
        self.scale.resize(columns, 0.0);
        self.sums.resize(columns, 0);
        Columns { layout, bytes: self.bytes.grown(columns * self.run), scale: &mut self.scale }
    }

    fn columns(&self) -> usize {
        self.scale.len()
    }
}

/// Rows to be multiplied by a [`Matrix`]. Ahead of the first stands one of ones, whose products are the sums of the columns.
#[derive(Default)]
struct Rows {
    stride: usize,
    bytes: Aligned<u8>,
    /// Of all but the ones.
    scales: Vec<Scale>,
}

impl Rows {
    fn resize(&mut self, count: usize, stride: usize) {
        self.stride = stride;
        self.scales.resize(count, Scale::default());
        self.bytes.grown((1 + count) * stride)[..stride].fill(1);
    }

    /// From one row on, the ones being row 0.
    fn from(&self, row: usize) -> &[u8] {
        &self.bytes.get()[row * self.stride..]
    }
}

/// What all heads of one operator have in common.
pub struct Attend<'a> {
    kernel: &'a Kernel,
    tokens: (usize, usize),
    depth: (usize, usize),
    scale: f32,
    /// Of each panel of keys and of values.
    rooms: [Room; 2],
}

impl<'a> Attend<'a> {
    /// For so many tokens that ask and that answer, with so many values of each for a head: of queries and keys, and of values. `scale` is
    /// multiplied onto the products of queries and keys; above 0.
    pub fn new(kernel: &'a Kernel, tokens: (usize, usize), depth: (usize, usize), scale: f32) -> Attend<'a> {
        let room = |run: usize| Room::of_any(kernel.layout, run.div_ceil(kernel.layout.depth));
        Attend { kernel, tokens, depth, scale, rooms: [room(depth.0), room(tokens.1)] }
    }

    /// `softmax(scale · q · kᵀ) · v` into the rows of `out`, from the first values of the head's first tokens on. Returns a token of which
    /// something is not finite.
    pub fn head(&self, [q, k, v]: [Strided; 3], out: &mut Block<f32>) -> Option<usize> {
        BUFFERS.with_borrow_mut(|buffers| {
            let bad = self.keys(k, buffers).or_else(|| self.values(v, buffers)).or_else(|| self.queries(q, buffers));
            bad.or_else(|| self.answer(buffers, out))
        })
    }

    fn keys(&self, k: Strided, buffers: &mut Buffers) -> Option<usize> {
        let Buffers { keys, levels, scales, floats, means, .. } = buffers;
        let Kernel { layout, glue, .. } = self.kernel;
        let (tokens, depth) = (self.tokens.1, self.depth.0);
        let copy = floats.grown(tokens * depth);
        means.resize(depth, 0.0);
        (glue.centre)(k, copy, means);
        let mut columns = keys.resized(*layout, depth, tokens);
        let run = depth.next_multiple_of(layout.depth);
        let rows = levels.grown(tokens * run);
        if depth < run {
            rows.fill(0);
        }
        scales.resize(tokens, Scale::default());
        let copy = Strided { values: copy, stride: depth };
        if self.quantise(copy, (Levels::AroundZero, CENTRE), (rows, run), scales).is_some() {
            return Some(self.bad_row(k, depth));
        }
        columns.scale.iter_mut().zip(&*scales).for_each(|(to, from)| *to = from.scale);
        (glue.transpose)(rows, run, &mut columns);
        None
    }

    fn values(&self, v: Strided, buffers: &mut Buffers) -> Option<usize> {
        let Buffers { values, levels, floats, means, .. } = buffers;
        let Kernel { layout, glue, .. } = self.kernel;
        let (tokens, depth) = (self.tokens.1, self.depth.1);
        let (copy, inverse) = floats.grown((tokens + 1) * depth).split_at_mut(tokens * depth);
        let mut columns = values.resized(*layout, tokens, depth);
        means.clear();
        means.resize(columns.scale.len(), 0.0);
        (glue.centre)(v, copy, &mut means[..depth]);
        let levels = levels.grown(layout.depth * columns.scale.len());
        let finite = (glue.values)(copy, &mut columns, inverse, levels);
        (!finite).then(|| self.bad_row(v, depth))
    }

    /// The first key or value of which something is not finite, or would not be in a sum of them.
    fn bad_row(&self, x: Strided, depth: usize) -> usize {
        let finite = |row: &[f32]| (self.kernel.glue.range)(&row[..depth]).is_some();
        x.values.chunks(x.stride).take(self.tokens.1).position(|row| !finite(row)).unwrap_or(0)
    }

    fn queries(&self, q: Strided, Buffers { queries, keys, .. }: &mut Buffers) -> Option<usize> {
        queries.resize(self.tokens.0, keys.run);
        let bytes = &mut queries.bytes.get_mut()[keys.run..];
        self.quantise(q, (Levels::Covering, self.kernel.layout.offset), (bytes, keys.run), &mut queries.scales)
    }

    /// Queries or keys, `stride` bytes apart.
    fn quantise(
        &self,
        x: Strided,
        (levels, offset): (Levels, i32),
        (bytes, stride): (&mut [u8], usize),
        scales: &mut [Scale],
    ) -> Option<usize> {
        let rows = Quantise { x, width: self.depth.0, norm: None, levels, offset, stride };
        (self.kernel.glue.quantise)(&rows, bytes, scales, &mut [])
    }

    /// What the queries read from the values, some rows at a time.
    fn answer(&self, buffers: &mut Buffers, out: &mut Block<f32>) -> Option<usize> {
        let (scored, answered) = (buffers.keys.columns(), buffers.values.columns());
        buffers.beyond.clear();
        buffers.beyond.resize(self.tokens.1, 0.0);
        buffers.beyond.resize(scored, f32::NEG_INFINITY);
        buffers.weights.resize(STRIP_ROWS, scored.max(buffers.values.run));
        buffers.floats.grown(scored);
        buffers.sums.grown(STRIP_ROWS * scored.max(answered));
        let (mut row, rows) = (0, 1 + self.tokens.0);
        while row < rows {
            let count = strip(rows - row, self.kernel.layout, STRIP_ROWS);
            // The row of ones is in the first strip.
            let ones = usize::from(row == 0);
            let strip = Queries { row, first: row + ones - 1, count: count - ones, ones };
            if let Some(query) = self.weigh(strip, buffers) {
                return Some(query);
            }
            self.read(strip, buffers, out);
            row += count;
        }
        None
    }

    /// Turns a strip of queries into how they weigh the values.
    fn weigh(&self, strip: Queries, buffers: &mut Buffers) -> Option<usize> {
        let Buffers { keys, queries, weights, sums, beyond, floats, .. } = buffers;
        let (columns, sums) = (keys.columns(), sums.get_mut());
        self.products(queries.from(strip.row), strip, queries.stride, (keys, &self.rooms[0]), sums);
        if strip.ones > 0 {
            keys.sums.copy_from_slice(&sums[..columns]);
        }
        let weigh = Weigh {
            queries: &queries.scales[strip.first..][..strip.count],
            keys: self.tokens.1,
            sums: &keys.sums,
            scale: &keys.scale,
            beyond,
            factor: self.scale,
            offset: self.kernel.layout.offset,
            stride: weights.stride,
        };
        let bytes = &mut weights.bytes.get_mut()[strip.ones * weights.stride..];
        let sums = &sums[strip.ones * columns..];
        let bad = (self.kernel.glue.weigh)(&weigh, sums, floats.get_mut(), bytes, &mut weights.scales);
        bad.map(|row| strip.first + row)
    }

    /// Adds the values up as a strip of queries weighs them.
    fn read(&self, strip: Queries, buffers: &mut Buffers, out: &mut Block<f32>) {
        let Buffers { values, weights, sums, means, .. } = buffers;
        let (columns, sums) = (values.columns(), sums.get_mut());
        self.products(weights.from(0), strip, weights.stride, (values, &self.rooms[1]), sums);
        if strip.ones > 0 {
            values.sums.copy_from_slice(&sums[..columns]);
        }
        let finish = Finish {
            columns,
            row: out.rows().start + strip.first,
            column: out.columns().start,
            rows: &weights.scales[..strip.count],
            sums: &values.sums,
            scale: &values.scale,
            bias: means,
            partial: None,
            activation: Activation::Identity,
            residual: false,
        };
        (self.kernel.glue.finish)(&finish, &sums[strip.ones * columns..], out);
    }

    /// Exact sums of a strip's rows by all columns.
    fn products(&self, a: &[u8], rows: Queries, row_stride: usize, (matrix, room): (&Matrix, &Room), sums: &mut [i32]) {
        let Layout { columns, depth, .. } = self.kernel.layout;
        let strip = Strip {
            a,
            rows: rows.ones + rows.count,
            row_stride,
            segments: 1,
            segment_stride: 0,
            steps: matrix.run / depth,
            panels: Panels {
                bytes: matrix.bytes.get(),
                count: matrix.columns() / columns,
                stride: matrix.run * columns,
                rooms: std::slice::from_ref(room),
                room_stride: 0,
            },
            next: &[],
            width: matrix.columns(),
        };
        (self.kernel.strip)(&strip, sums);
    }
}

/// A strip of queries, with the row of ones where it is the first.
#[derive(Clone, Copy)]
struct Queries {
    /// Its first row.
    row: usize,
    /// Its first query, and how many.
    first: usize,
    count: usize,
    /// 1 where the row of ones is ahead of them.
    ones: usize,
}

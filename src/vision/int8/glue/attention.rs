//! What stands around the products of attention: keys and values as a kernel's weights, scores as the weights of values.

use super::MAX_LANES;
use super::activation::exp2;
use super::quantise::{CENTRE, HIGHEST_SIGNED, Scale, inverse, load_short};
use crate::vision::int8::kernels::Layout;
use crate::vision::int8::kernels::float::Strided;
use crate::vision::int8::kernels::vector::Vector;

/// The level of the largest weight of a row of scores, as a power of 2.
const LOG2_HIGHEST: f32 = 7.994_353_4;

/// Registers of columns worked on together.
const WIDE: usize = 4;

/// A matrix of weights to be written as a kernel reads it, `[panel][step][column][depth]`.
#[derive(Debug)]
pub struct Columns<'a> {
    /// How the kernel reads it.
    pub layout: Layout,
    /// The panels.
    pub bytes: &'a mut [i8],
    /// One a column, those of whole panels.
    pub scale: &'a mut [f32],
}

impl Columns<'_> {
    /// One panel, of `k` weights a column.
    #[inline(always)]
    fn panel(&mut self, panel: usize, k: usize) -> &mut [i8] {
        let len = k.next_multiple_of(self.layout.depth) * self.layout.columns;
        &mut self.bytes[panel * len..][..len]
    }
}

/// Writes rows of quantised weights, `run` bytes each, as the columns of a matrix.
#[inline(always)]
pub fn transpose(rows: &[u8], run: usize, columns: &mut Columns) {
    match columns.layout.depth {
        4 => scatter::<4>(rows, run, columns),
        8 => scatter::<8>(rows, run, columns),
        _ => scatter::<16>(rows, run, columns),
    }
}

/// The same, `D` bytes a step.
#[inline(always)]
fn scatter<const D: usize>(rows: &[u8], run: usize, columns: &mut Columns) {
    let across = columns.layout.columns;
    for (panel, rows) in rows.chunks(across * run).enumerate() {
        let to = columns.panel(panel, run).as_chunks_mut::<D>().0;
        for (column, row) in rows.chunks_exact(run).enumerate() {
            for (from, to) in row.as_chunks::<D>().0.iter().zip(to[column..].iter_mut().step_by(across)) {
                for i in 0..D {
                    to[i] = from[i] as i8;
                }
            }
        }
    }
}

/// Copies rows together, one behind the other, less the mean of each column.
///
/// What all keys have in common adds the same to all scores of a query, and what all values have in common to each answer: neither need
/// take levels from what sets them apart. (For keys: Zhang et al., "SageAttention", 2024.) In a layer's output the rows lie so far apart
/// that they fall on each other's places in a cache (12 KiB in ViT-L-14), and they are read several times.
#[inline(always)]
pub fn centre<V: Vector>(x: Strided, copy: &mut [f32], means: &mut [f32]) {
    let (depth, mut column) = (means.len(), 0);
    while column + WIDE * V::LANES <= depth {
        centre_columns::<V, WIDE>(x, copy, means, column);
        column += WIDE * V::LANES;
    }
    while column + V::LANES <= depth {
        centre_columns::<V, 1>(x, copy, means, column);
        column += V::LANES;
    }
    while column < depth {
        centre_columns::<f32, 1>(x, copy, means, column);
        column += 1;
    }
}

/// The same for `C` registers of columns.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "short loops over registers, which are written out")]
fn centre_columns<V: Vector, const C: usize>(x: Strided, copy: &mut [f32], means: &mut [f32], column: usize) {
    let (depth, width) = (means.len(), C * V::LANES);
    let mut sums = [V::splat(0.0); C];
    for (x, copy) in x.values.chunks(x.stride).zip(copy.chunks_exact_mut(depth)) {
        let (from, to) = (&x[column..][..width], &mut copy[column..][..width]);
        for i in 0..C {
            let value = V::load(&from[i * V::LANES..]);
            value.store(&mut to[i * V::LANES..]);
            sums[i] = sums[i].add(value);
        }
    }
    let share = V::splat(1.0 / (copy.len() / depth) as f32);
    for i in 0..C {
        sums[i] = sums[i].mul(share);
        sums[i].store(&mut means[column + i * V::LANES..]);
    }
    for copy in copy.chunks_exact_mut(depth) {
        let to = &mut copy[column..][..width];
        for i in 0..C {
            let to = &mut to[i * V::LANES..];
            V::load(to).sub(sums[i]).store(to);
        }
    }
}

/// Writes rows of `depth` values each as the rows of a matrix; whether all values are finite. `inverses` holds a row.
#[inline(always)]
pub fn values<V: Vector>(rows: &[f32], columns: &mut Columns, inverses: &mut [f32], levels: &mut [u8]) -> bool {
    if !extents::<V>(rows, inverses.len(), columns.scale) {
        return false;
    }
    for (to, scale) in inverses.iter_mut().zip(&*columns.scale) {
        *to = inverse(*scale);
    }
    match columns.layout.depth {
        4 => steps::<V, 4>(rows, inverses, columns, levels),
        8 => steps::<V, 8>(rows, inverses, columns, levels),
        _ => steps::<V, 16>(rows, inverses, columns, levels),
    }
    true
}

/// Finds each column's scale; whether all values are finite.
#[inline(always)]
fn extents<V: Vector>(rows: &[f32], depth: usize, scale: &mut [f32]) -> bool {
    let (mut column, mut finite) = (0, true);
    while column + WIDE * V::LANES <= depth {
        finite &= extent::<V, WIDE>(rows, depth, scale, column);
        column += WIDE * V::LANES;
    }
    while column + V::LANES <= depth {
        finite &= extent::<V, 1>(rows, depth, scale, column);
        column += V::LANES;
    }
    while column < depth {
        finite &= extent::<f32, 1>(rows, depth, scale, column);
        column += 1;
    }
    finite
}

/// The same for `C` registers of columns.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "short loops over registers, which are written out")]
fn extent<V: Vector, const C: usize>(rows: &[f32], depth: usize, scale: &mut [f32], column: usize) -> bool {
    let mut covered = [(V::splat(0.0), V::splat(0.0), V::splat(0.0)); C];
    for row in rows.chunks_exact(depth) {
        let row = &row[column..][..C * V::LANES];
        for i in 0..C {
            covered[i] = V::load(&row[i * V::LANES..]).cover(covered[i]);
        }
    }
    let mut finite = true;
    for i in 0..C {
        let (low, high, witness) = covered[i];
        let bound = high.max(V::splat(0.0).sub(low));
        bound.mul(V::splat(1.0 / HIGHEST_SIGNED)).store(&mut scale[column + i * V::LANES..]);
        finite &= witness.is_zero() && bound.highest().is_finite();
    }
    finite
}

/// Quantises the rows of a step and writes them, `D` bytes a column.
#[inline(always)]
fn steps<V: Vector, const D: usize>(rows: &[f32], inverse: &[f32], columns: &mut Columns, levels: &mut [u8]) {
    let (depth, width, across) = (inverse.len(), columns.scale.len(), columns.layout.columns);
    let tokens = rows.len() / depth;
    let levels = &mut levels[..D * width];
    levels.fill(0);
    for (step, rows) in rows.chunks(D * depth).enumerate() {
        for (row, levels) in rows.chunks_exact(depth).zip(levels.chunks_exact_mut(width)) {
            encode_columns::<V>(row, inverse, levels);
        }
        // Behind the last token nothing is to be weighed.
        levels[rows.len() / depth * width..].fill(0);
        for first in (0..width).step_by(across) {
            let to = &mut columns.panel(first / across, tokens)[step * D * across..][..D * across];
            for quad in 0..D / 4 {
                interleave::<D>(&levels[4 * quad * width + first..], (width, across), quad, to);
            }
        }
    }
}

/// Writes four rows of a step, the `quad`-th four, of one panel.
#[inline(always)]
fn interleave<const D: usize>(rows: &[u8], (width, across): (usize, usize), quad: usize, to: &mut [i8]) {
    let [a, b, c, d] = [0, 1, 2, 3].map(|row| &rows[row * width..][..across]);
    let words = to.as_chunks_mut::<4>().0[quad..].iter_mut().step_by(D / 4);
    // By whole words: bytes one by one do not become vector code.
    for (to, ((a, b), (c, d))) in words.zip(a.iter().zip(b).zip(c.iter().zip(d))) {
        let word = u32::from(*a) | u32::from(*b) << 8 | u32::from(*c) << 16 | u32::from(*d) << 24;
        *to = word.to_le_bytes().map(|byte| byte as i8);
    }
}

/// Levels of a row whose columns have scales of their own.
#[inline(always)]
fn encode_columns<V: Vector>(row: &[f32], inverse: &[f32], levels: &mut [u8]) {
    let inverse = &inverse[..row.len()];
    let mut column = 0;
    while column + WIDE * V::LANES <= row.len() {
        let mut four = [V::splat(CENTRE as f32); WIDE];
        for (i, value) in four.iter_mut().enumerate() {
            let at = column + i * V::LANES;
            *value = V::load(&row[at..]).fma(V::load(&inverse[at..]), *value);
        }
        V::levels_of_four(four, CENTRE, &mut levels[column..]);
        column += WIDE * V::LANES;
    }
    while column + V::LANES <= row.len() {
        let value = V::load(&row[column..]).fma(V::load(&inverse[column..]), V::splat(CENTRE as f32));
        value.levels(CENTRE, &mut levels[column..]);
        column += V::LANES;
    }
    let (row, inverse) = (&row[column..], &inverse[column..]);
    if !row.is_empty() {
        let value = load_short::<V>(row).fma(load_short::<V>(inverse), V::splat(CENTRE as f32));
        let mut last = [0u8; MAX_LANES];
        value.levels(CENTRE, &mut last);
        levels[column..][..row.len()].copy_from_slice(&last[..row.len()]);
    }
}

/// What turns products of queries and keys into the levels by which values are weighed, and what those mean.
#[derive(Debug, Clone, Copy)]
pub struct Weigh<'a> {
    /// Of the queries, of bytes as they are stored.
    pub queries: &'a [Scale],
    /// How many keys there are.
    pub keys: usize,
    /// Of each key, in whole panels: the sum of its weights.
    pub sums: &'a [i32],
    /// Its scale.
    pub scale: &'a [f32],
    /// 0, and minus infinity behind the last, so that nothing there is weighed.
    pub beyond: &'a [f32],
    /// Multiplied onto the products; above 0.
    pub factor: f32,
    /// What is subtracted from a level to store it.
    pub offset: i32,
    /// Bytes from one row of levels to the next.
    pub stride: usize,
}

/// Writes `softmax(factor · scores)` as levels, the highest of a row being 255. The scale of a row makes its levels sum up to 1, as they
/// were rounded. `scores` holds a row. Returns the first row whose scores are beyond all floats.
#[inline(always)]
pub fn weigh<V: Vector>(
    w: &Weigh,
    acc: &[i32],
    scores: &mut [f32],
    bytes: &mut [u8],
    scales: &mut [Scale],
) -> Option<usize> {
    let width = w.keys.next_multiple_of(V::LANES);
    let scores = &mut scores[..width];
    let rows = w.queries.iter().zip(acc.chunks_exact(w.sums.len())).zip(bytes.chunks_mut(w.stride)).zip(scales);
    for (row, (((query, acc), bytes), scale)) in rows.enumerate() {
        let mut highest = V::splat(f32::NEG_INFINITY);
        let keys =
            w.sums.chunks_exact(V::LANES).zip(w.scale.chunks_exact(V::LANES)).zip(w.beyond.chunks_exact(V::LANES));
        let rows = acc.chunks_exact(V::LANES).zip(scores.chunks_exact_mut(V::LANES)).zip(keys);
        for ((acc, to), ((sums, scale), beyond)) in rows {
            let score = V::sums(acc, query.zero, V::ints(sums)).fma(V::load(scale), V::load(beyond));
            score.store(to);
            highest = highest.max(score);
        }
        // In powers of 2, and the highest becomes level 255.
        let factor = w.factor * std::f32::consts::LOG2_E * query.scale;
        let top = factor * highest.highest();
        if !top.is_finite() {
            return Some(row);
        }
        let total = levels::<V>(scores, (factor, LOG2_HIGHEST - top), w.offset, bytes);
        *scale = Scale { scale: 1.0 / total, zero: 0 }.stored(w.offset);
    }
    None
}

/// `2^(factor · x + lowered)` of each value, rounded; returns their sum, which is exact.
#[inline(always)]
fn levels<V: Vector>(x: &[f32], (factor, lowered): (f32, f32), offset: i32, out: &mut [u8]) -> f32 {
    let (factor, lowered) = (V::splat(factor), V::splat(lowered));
    let mut total = [V::splat(0.0); WIDE];
    let mut c = 0;
    while c + WIDE * V::LANES <= x.len() {
        let mut four = [factor; WIDE];
        for i in 0..WIDE {
            four[i] = exp2(V::load(&x[c + i * V::LANES..]).fma(factor, lowered)).round();
            total[i] = total[i].add(four[i]);
        }
        V::levels_of_four(four, offset, &mut out[c..]);
        c += WIDE * V::LANES;
    }
    while c < x.len() {
        let level = exp2(V::load(&x[c..]).fma(factor, lowered)).round();
        total[0] = total[0].add(level);
        level.levels(offset, &mut out[c..]);
        c += V::LANES;
    }
    total[0].add(total[1]).add(total[2].add(total[3])).total()
}

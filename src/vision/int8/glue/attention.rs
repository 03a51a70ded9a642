//! Attention of one head.

use super::MAX_LANES;
use super::activation::exp;
use crate::vision::int8::kernels::pool::Block;
use crate::vision::int8::kernels::vector::Vector;

/// Attention of one head: what each token reads from all tokens.
#[derive(Debug, Clone, Copy)]
pub struct Attend<'a> {
    /// Queries, from the head's first value of the first token.
    pub q: Strided<'a>,
    /// Keys.
    pub k: Strided<'a>,
    /// Values.
    pub v: Strided<'a>,
    /// Tokens that ask and tokens that answer.
    pub tokens: (usize, usize),
    /// Values a token has for this head: of queries and keys, and of values.
    pub depth: (usize, usize),
    /// Multiplied onto the products of queries and keys.
    pub scale: f32,
}

/// Rows of a matrix, `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a> {
    /// The values, from the first row on.
    pub values: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

/// Rows of queries worked on together.
const ASKING: usize = 4;
/// Registers of answers worked on together: with [`ASKING`] rows, 16 sums.
const WIDE: usize = 4;

impl Attend<'_> {
    /// Widths of the scratch matrices: tokens and value depth, rounded up for the widest registers.
    fn padded(&self) -> (usize, usize) {
        let step = MAX_LANES * WIDE;
        (self.tokens.1.next_multiple_of(step), self.depth.1.next_multiple_of(step))
    }

    /// Values of scratch that [`attend`] needs.
    pub fn scratch(&self) -> usize {
        let (tokens, depth) = self.padded();
        self.depth.0 * tokens + self.tokens.1 * depth + ASKING * (tokens + depth)
    }
}

/// `softmax(scale · q · kᵀ) · v`, into the rows of `out`.
#[inline(always)]
pub fn attend<V: Vector>(a: &Attend, scratch: &mut [f32], out: &mut Block<f32>) {
    let (tokens, depth) = a.padded();
    let (keys, rest) = scratch.split_at_mut(a.depth.0 * tokens);
    let (values, rest) = rest.split_at_mut(a.tokens.1 * depth);
    let (scores, answers) = rest.split_at_mut(ASKING * tokens);
    for (d, row) in keys.chunks_exact_mut(tokens).enumerate() {
        let column = a.k.values[d..].iter().step_by(a.k.stride.max(1));
        row[..a.tokens.1].iter_mut().zip(column).for_each(|(key, value)| *key = *value);
        row[a.tokens.1..].fill(0.0);
    }
    for t in 0..a.tokens.1 {
        let row = &mut values[t * depth..][..depth];
        row[..a.depth.1].copy_from_slice(&a.v.values[t * a.v.stride..][..a.depth.1]);
        row[a.depth.1..].fill(0.0);
    }
    let first = out.rows().start;
    for t in (0..a.tokens.0).step_by(ASKING) {
        // The last rows are asked for again rather than by a narrower loop.
        let t = t.min(a.tokens.0.saturating_sub(ASKING));
        let rows = ASKING.min(a.tokens.0);
        let q = Strided { values: &a.q.values[t * a.q.stride..], stride: a.q.stride };
        product::<V>(q, rows, (keys, tokens), a.depth.0, scores);
        for scores in scores.chunks_exact_mut(tokens).take(rows) {
            softmax::<V>(scores, a.tokens.1, a.scale);
        }
        let p = Strided { values: scores, stride: tokens };
        product::<V>(p, rows, (values, depth), a.tokens.1, answers);
        for (r, answer) in answers.chunks_exact(depth).take(rows).enumerate() {
            out.row(first + t + r).copy_from_slice(&answer[..a.depth.1]);
        }
    }
}

/// `out = a · b` for up to [`ASKING`] rows of `k` values; `b` and `out` have rows of `width` values, a multiple of
/// [`WIDE`] registers.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators keep the compiler from holding the sums in registers here")]
fn product<V: Vector>(a: Strided, rows: usize, (b, width): (&[f32], usize), k: usize, out: &mut [f32]) {
    // Rows past the last repeat it; their sums are not stored.
    let row = |r: usize| &a.values[r.min(rows - 1) * a.stride..][..k];
    let (first, second, third, fourth) = (row(0), row(1), row(2), row(3));
    let step = V::LANES * WIDE;
    for c in (0..width).step_by(step) {
        let mut sums = [[V::splat(0.0); WIDE]; ASKING];
        // Zipped, so that no index is checked in the loop.
        let values = first.iter().zip(second).zip(third).zip(fourth);
        for (b, (((first, second), third), fourth)) in b[c..].chunks(width).zip(values) {
            let b = &b[..step];
            let a = [V::splat(*first), V::splat(*second), V::splat(*third), V::splat(*fourth)];
            for w in 0..WIDE {
                let b = V::load(&b[w * V::LANES..]);
                for r in 0..ASKING {
                    sums[r][w] = a[r].fma(b, sums[r][w]);
                }
            }
        }
        for r in 0..ASKING {
            if r < rows {
                for w in 0..WIDE {
                    sums[r][w].store(&mut out[r * width + c + w * V::LANES..]);
                }
            }
        }
    }
}

/// `x = e^(scale · x) / sum`, over the first `count` values of a row that is a multiple of [`WIDE`] registers.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "short loops over registers, which are written out")]
fn softmax<V: Vector>(x: &mut [f32], count: usize, scale: f32) {
    // What is behind them must not count; e^x of it is as good as 0.
    let step = V::LANES * WIDE;
    let x = &mut x[..count.next_multiple_of(step)];
    x[count..].fill(f32::NEG_INFINITY);
    let scale = V::splat(scale);
    let mut highest = [V::splat(f32::NEG_INFINITY); WIDE];
    for x in x.chunks_exact_mut(step) {
        for w in 0..WIDE {
            let v = V::load(&x[w * V::LANES..]).mul(scale);
            v.store(&mut x[w * V::LANES..]);
            highest[w] = highest[w].max(v);
        }
    }
    let highest = V::splat(highest[0].max(highest[1]).max(highest[2].max(highest[3])).highest());
    let mut sum = [V::splat(0.0); WIDE];
    for x in x.chunks_exact_mut(step) {
        for w in 0..WIDE {
            let v = exp(V::load(&x[w * V::LANES..]).sub(highest));
            v.store(&mut x[w * V::LANES..]);
            sum[w] = sum[w].add(v);
        }
    }
    let inverse = V::splat(1.0 / sum[0].add(sum[1]).add(sum[2].add(sum[3])).total());
    for x in x.chunks_exact_mut(V::LANES) {
        V::load(x).mul(inverse).store(x);
    }
}

//! Attention of one head.

use super::MAX_LANES;
use super::activation::exp2;
use super::lanes::{MOST, total};
use crate::vision::int8::kernels::float::{ROWS, Strided, product};
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
    /// Multiplied onto the products of queries and keys; above 0.
    pub scale: f32,
}

impl Attend<'_> {
    /// Widths of the scratch matrices: tokens and value depth, rounded up for the widest register.
    fn padded(&self) -> (usize, usize) {
        (self.tokens.1.next_multiple_of(MAX_LANES), self.depth.1.next_multiple_of(MAX_LANES))
    }

    /// Values of scratch that [`attend`] needs.
    pub fn scratch(&self) -> usize {
        let (tokens, depth) = self.padded();
        self.depth.0 * tokens + self.tokens.1 * depth + ROWS * (tokens + depth)
    }
}

/// `softmax(scale · q · kᵀ) · v`, into the rows of `out`.
#[inline(always)]
pub fn attend<V: Vector>(a: &Attend, scratch: &mut [f32], out: &mut Block<f32>) {
    let (tokens, depth) = a.padded();
    let (keys, rest) = scratch.split_at_mut(a.depth.0 * tokens);
    let (values, rest) = rest.split_at_mut(a.tokens.1 * depth);
    let (scores, answers) = rest.split_at_mut(ROWS * tokens);
    transpose(a.k, (a.tokens.1, a.depth.0), keys, tokens);
    let keys = Strided { values: keys, stride: tokens };
    // Copied even where they are whole registers: in the layer's output they lie so far apart that they fall on each other's
    // places in a cache (12 KiB in ViT-L-14, where reading them there took 6 % of a frame).
    let values = widen(a.v, (a.tokens.1, a.depth.1), values, depth);
    let first = out.rows().start;
    for t in (0..a.tokens.0).step_by(ROWS) {
        // The last rows are asked for again rather than by a narrower loop.
        let t = t.min(a.tokens.0.saturating_sub(ROWS));
        let rows = ROWS.min(a.tokens.0);
        let q = Strided { values: &a.q.values[t * a.q.stride..], stride: a.q.stride };
        // As few registers as hold all tokens: what is behind them in the last is no score.
        let width = a.tokens.1.next_multiple_of(V::LANES);
        product::<V>(q, rows, keys, (a.depth.0, width), (scores, tokens));
        let mut inverse = [0.0; ROWS];
        for (scores, inverse) in scores.chunks_exact_mut(tokens).zip(&mut inverse).take(rows) {
            *inverse = softmax::<V>(&mut scores[..width], a.tokens.1, a.scale);
        }
        let p = Strided { values: scores, stride: tokens };
        product::<V>(p, rows, values, (a.tokens.1, depth), (answers, depth));
        for (r, (answer, inverse)) in answers.chunks_exact(depth).zip(inverse).take(rows).enumerate() {
            scaled::<V>(answer, inverse, out.row(first + t + r));
        }
    }
}

/// The transpose of `rows` by `columns` values, `width` apart, zeros behind each.
#[inline(always)]
fn transpose(from: Strided, (rows, columns): (usize, usize), to: &mut [f32], width: usize) {
    let row = |r: usize| &from.values[r * from.stride..][..columns];
    let fours = rows / 4 * 4;
    for r in (0..fours).step_by(4) {
        let four = row(r).iter().zip(row(r + 1)).zip(row(r + 2)).zip(row(r + 3));
        for (to, (((a, b), c), d)) in to[r..].chunks_mut(width).zip(four) {
            to[..4].copy_from_slice(&[*a, *b, *c, *d]);
        }
    }
    for r in fours..rows {
        to[r..].iter_mut().step_by(width).zip(row(r)).for_each(|(to, value)| *to = *value);
    }
    to.chunks_exact_mut(width).for_each(|to| to[rows..].fill(0.0));
}

/// `rows` by `columns` values, `width` apart, zeros behind each.
#[inline(always)]
fn widen<'a>(from: Strided, (rows, columns): (usize, usize), to: &'a mut [f32], width: usize) -> Strided<'a> {
    for (r, to) in to.chunks_exact_mut(width).enumerate().take(rows) {
        to[..columns].copy_from_slice(&from.values[r * from.stride..][..columns]);
        to[columns..].fill(0.0);
    }
    Strided { values: to, stride: width }
}

/// `x = e^(scale · x - highest)` over the first `count` values of a row of whole registers, for a scale above 0. Returns one by their
/// sum.
#[inline(always)]
pub fn softmax<V: Vector>(x: &mut [f32], count: usize, scale: f32) -> f32 {
    // What is behind them must not count; e^x of it is as good as 0.
    x[count..].fill(f32::NEG_INFINITY);
    // In powers of 2.
    let scale = scale * std::f32::consts::LOG2_E;
    let mut highest = V::splat(f32::NEG_INFINITY);
    for x in x.chunks_exact(V::LANES) {
        highest = highest.max(V::load(x));
    }
    let (scale, lowered) = (V::splat(scale), V::splat(-scale * highest.highest()));
    let mut sums = [V::splat(0.0); MOST];
    let mut rows = x.chunks_exact_mut(MAX_LANES);
    for x in rows.by_ref() {
        for i in 0..MAX_LANES / V::LANES {
            sums[i] = power(&mut x[i * V::LANES..], (scale, lowered), sums[i]);
        }
    }
    let rest = rows.into_remainder();
    for i in 0..MAX_LANES / V::LANES {
        if i * V::LANES < rest.len() {
            sums[i] = power(&mut rest[i * V::LANES..], (scale, lowered), sums[i]);
        }
    }
    1.0 / total(sums, MAX_LANES / V::LANES)
}

/// `x = 2^(scale · x + lowered)` of a register, added to `sum`.
#[inline(always)]
fn power<V: Vector>(x: &mut [f32], (scale, lowered): (V, V), sum: V) -> V {
    let v = exp2(V::load(x).fma(scale, lowered));
    v.store(x);
    sum.add(v)
}

/// `out = factor · x`; `x` is a multiple of a register, and at least as long.
#[inline(always)]
fn scaled<V: Vector>(x: &[f32], factor: f32, out: &mut [f32]) {
    let (whole, rest) = out.split_at_mut(out.len() / V::LANES * V::LANES);
    for (x, out) in x.chunks_exact(V::LANES).zip(whole.chunks_exact_mut(V::LANES)) {
        V::load(x).mul(V::splat(factor)).store(out);
    }
    rest.iter_mut().zip(&x[whole.len()..]).for_each(|(out, x)| *out = factor * x);
}

//! Attention of one query, without keys and values.
//!
//! With one query `q`, the score `q · (K y)` of a token `y` is `(Kᵀ q) · y`, and the answer `Σ p · (V y)` is `V (Σ p · y)`: two
//! matrices times one vector instead of times all tokens. The keys' bias adds the same to all scores of a head, which the softmax
//! takes out again; the values' is added once, for the weights `p` sum up to 1.

use super::MAX_LANES;
use super::activation::exp2;
use super::lanes::{MOST, total};
use crate::vision::int8::kernels::float::{ROWS, Strided, product};
use crate::vision::int8::kernels::vector::Vector;

/// Columns of a panel of weights.
pub const PANEL: usize = 64;

/// Heads that are computed together, so that each token is read once for all of them.
pub const HEADS: usize = ROWS;

/// What leads to or from the channels of one head.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// Panels of [`PANEL`] columns, line by line: a line for each value that comes in, a column for each that goes out.
    pub panels: &'a [i8],
    /// One a channel of the head.
    pub scale: &'a [f32],
    /// One a channel of the head.
    pub bias: &'a [f32],
}

/// The weights of one head. Those of queries and values lead from a token to the head's channels, those of keys back.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Queries.
    pub q: Projection<'a>,
    /// Keys.
    pub k: Projection<'a>,
    /// Values.
    pub v: Projection<'a>,
}

/// What one token reads from all tokens with some heads.
#[derive(Debug, Clone, Copy)]
pub struct AttendOnce<'a> {
    /// The token that asks.
    pub query: &'a [f32],
    /// Those that answer: as many rows, of so many values, a multiple of [`MAX_LANES`].
    pub tokens: (&'a [f32], usize, usize),
    /// At most [`HEADS`].
    pub heads: &'a [Head<'a>],
    /// Channels of a head: of queries and keys, and of values.
    pub depth: (usize, usize),
    /// Multiplied onto the products of queries and keys; above 0.
    pub scale: f32,
}

impl AttendOnce<'_> {
    /// Lengths of the scratch rows: a token's values, scores, and a head's channels, each in whole panels or registers.
    fn padded(&self) -> (usize, usize, usize) {
        let (_, count, width) = self.tokens;
        let depth = self.depth.0.max(self.depth.1).next_multiple_of(PANEL);
        (width.next_multiple_of(PANEL), count.next_multiple_of(MAX_LANES), depth)
    }

    /// Values of scratch that [`attend_once`] needs.
    pub fn scratch(&self) -> usize {
        let (width, scores, depth) = self.padded();
        HEADS * (2 * width + scores) + depth
    }
}

/// `softmax(scale · q · kᵀ) · v` with `q`, `k` and `v` projected from the tokens, the heads' channels side by side in `out`.
#[inline(always)]
pub fn attend_once<V: Vector>(a: &AttendOnce, scratch: &mut [f32], out: &mut [f32]) {
    let (padded, scores_len, depth) = a.padded();
    let (values, count, width) = a.tokens;
    let (asked, rest) = scratch.split_at_mut(HEADS * padded);
    let (answers, rest) = rest.split_at_mut(HEADS * padded);
    let (scores, channels) = rest.split_at_mut(HEADS * scores_len);
    let channels = &mut channels[..depth];
    for (head, asked) in a.heads.iter().zip(asked.chunks_exact_mut(padded)) {
        project::<V>(a.query, head.q.panels, channels);
        let factors = head.q.scale.iter().zip(head.q.bias).zip(head.k.scale);
        for (channel, ((scale, bias), key_scale)) in channels.iter_mut().zip(factors) {
            *channel = (*channel * scale + bias) * key_scale;
        }
        project::<V>(&channels[..a.depth.0], head.k.panels, asked);
    }
    let heads = a.heads.len();
    for (t, token) in values.chunks_exact(width).enumerate().take(count) {
        for (score, product) in scores[t..].iter_mut().step_by(scores_len).zip(products::<V>(token, asked, padded)) {
            *score = product;
        }
    }
    let mut inverse = [0.0; HEADS];
    let whole = count.next_multiple_of(V::LANES);
    for (scores, inverse) in scores.chunks_exact_mut(scores_len).zip(&mut inverse).take(heads) {
        *inverse = softmax::<V>(&mut scores[..whole], count, a.scale);
    }
    let weights = Strided { values: scores, stride: scores_len };
    product::<V>(weights, heads, Strided { values, stride: width }, (count, width), (answers, padded));
    let rows = answers.chunks_exact(padded).zip(inverse).zip(out.chunks_exact_mut(a.depth.1));
    for (head, ((answer, inverse), out)) in a.heads.iter().zip(rows) {
        project::<V>(&answer[..width], head.v.panels, channels);
        for (((out, channel), scale), bias) in out.iter_mut().zip(&*channels).zip(head.v.scale).zip(head.v.bias) {
            *out = channel * inverse * scale + bias;
        }
    }
}

/// Registers of a panel that are worked on together.
const WIDE: usize = 4;

/// `out = x · W`, a panel after the other.
#[inline(always)]
fn project<V: Vector>(x: &[f32], panels: &[i8], out: &mut [f32]) {
    for (panel, out) in panels.chunks_exact(x.len() * PANEL).zip(out.chunks_exact_mut(PANEL)) {
        for from in (0..PANEL).step_by(WIDE * V::LANES) {
            let mut sums = [V::splat(0.0); WIDE];
            for (x, line) in x.iter().zip(panel.as_chunks::<PANEL>().0) {
                let x = V::splat(*x);
                for (w, sum) in sums.iter_mut().enumerate() {
                    *sum = x.fma(V::bytes(&line[from + w * V::LANES..]), *sum);
                }
            }
            for (w, sum) in sums.into_iter().enumerate() {
                sum.store(&mut out[from + w * V::LANES..]);
            }
        }
    }
}

/// Products of one row with [`HEADS`] others, `stride` values apart.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "short loops over registers, which are written out")]
fn products<V: Vector>(x: &[f32], others: &[f32], stride: usize) -> [f32; HEADS] {
    let rows: [&[f32]; HEADS] = std::array::from_fn(|head| &others[head * stride..][..x.len()]);
    let mut sums = [[V::splat(0.0); MOST]; HEADS];
    for at in (0..x.len()).step_by(MAX_LANES) {
        for i in 0..MAX_LANES / V::LANES {
            let at = at + i * V::LANES;
            let x = V::load(&x[at..]);
            for head in 0..HEADS {
                sums[head][i] = x.fma(V::load(&rows[head][at..]), sums[head][i]);
            }
        }
    }
    let mut out = [0.0; HEADS];
    for head in 0..HEADS {
        out[head] = total(sums[head], MAX_LANES / V::LANES);
    }
    out
}

/// `x = e^(scale · x - highest)` over the first `count` values of a row of whole registers, for a scale above 0. Returns one by their
/// sum.
#[inline(always)]
fn softmax<V: Vector>(x: &mut [f32], count: usize, scale: f32) -> f32 {
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

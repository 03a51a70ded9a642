//! The floating-point work around the integer products: quantising, normalising, activation functions, attention.
//!
//! Written once over a register of [`Vector`] and compiled once per instruction set (`glue_for!` in
//! [`super::kernels`]).

use super::kernels::pool::Block;
use super::kernels::vector::Vector;
use super::kernels::windows::Windows;

/// Lanes of the widest register.
const MAX_LANES: usize = 16;

/// How one row's levels `0..=255` map to values: `value = scale · (level - zero)`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scale {
    /// Value of one level.
    pub scale: f32,
    /// The level of 0.0; exact, so that padding with it is exact.
    pub zero: i32,
}

impl Scale {
    /// The finest scale whose levels cover `low..=high` and 0.
    pub fn covering(low: f32, high: f32) -> Scale {
        let (low, high) = (low.min(0.0), high.max(0.0));
        // Divided first: the difference of two finite values can overflow. An all-zero row keeps scale 0.
        let scale = high / 255.0 - low / 255.0;
        let zero = if scale > 0.0 { (-low / scale).round_ties_even() as i32 } else { 0 };
        Scale { scale, zero }
    }

    /// The same for bytes that hold a level less `offset`.
    pub fn stored(self, offset: i32) -> Scale {
        Scale { zero: self.zero - offset, ..self }
    }
}

/// What follows the matrix product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// Limits to `low..=high`: ReLU and ReLU6.
    Clamp {
        /// Lower limit.
        low: f32,
        /// Upper limit.
        high: f32,
    },
    /// `x · Φ(x)` with the exact normal distribution.
    Gelu,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
}

/// The first `x.len()` values of a register, zeros behind them.
#[inline(always)]
fn load_short<V: Vector>(x: &[f32]) -> V {
    let mut last = [0f32; MAX_LANES];
    last[..x.len()].copy_from_slice(x);
    V::load(&last)
}

/// Lowest and highest value of `x` and 0, or `None` when one is not finite.
#[inline(always)]
pub fn range<V: Vector>(x: &[f32]) -> Option<(f32, f32)> {
    let zero = V::splat(0.0);
    // Loops, not closures: those are not sure to be inlined, and then lack this instruction set. Four of each, so that
    // no step waits for the one before.
    let (mut low, mut high, mut poison) = ([zero; 4], [zero; 4], [zero; 4]);
    let mut fours = x.chunks_exact(4 * V::LANES);
    for x in fours.by_ref() {
        for i in 0..4 {
            let v = V::load(&x[i * V::LANES..]);
            (low[i], high[i]) = (v.min(low[i]), v.max(high[i]));
            // Stays 0 for finite values and becomes NaN for all others.
            poison[i] = v.fma(zero, poison[i]);
        }
    }
    let mut low = low[0].min(low[1]).min(low[2].min(low[3]));
    let mut high = high[0].max(high[1]).max(high[2].max(high[3]));
    let mut poison = poison[0].add(poison[1]).add(poison[2].add(poison[3]));
    let mut rest = fours.remainder();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(V::LANES.min(rest.len()));
        let v = if now.len() == V::LANES { V::load(now) } else { load_short::<V>(now) };
        (low, high, poison) = (v.min(low), v.max(high), v.fma(zero, poison));
        rest = later;
    }
    (poison.total() == 0.0).then(|| (low.lowest(), high.highest()))
}

/// Writes the levels of `x` under `scale`, less `offset`, as bytes.
#[inline(always)]
pub fn encode<V: Vector>(x: &[f32], scale: Scale, offset: i32, out: &mut [u8]) {
    let inverse = if scale.scale > 0.0 { 1.0 / scale.scale } else { 0.0 };
    // A scale so small that its inverse overflows stands for values indistinguishable from 0.
    let inverse = V::splat(if inverse.is_finite() { inverse } else { 0.0 });
    let zero = V::splat(scale.zero as f32);
    let out = &mut out[..x.len()];
    let (mut from, mut to) = (x.chunks_exact(4 * V::LANES), out.chunks_exact_mut(4 * V::LANES));
    for (x, out) in from.by_ref().zip(to.by_ref()) {
        let at = |i: usize| V::load(&x[i * V::LANES..]).fma(inverse, zero);
        V::levels_of_four([at(0), at(1), at(2), at(3)], offset, out);
    }
    let (mut from, mut to) = (from.remainder().chunks_exact(V::LANES), to.into_remainder().chunks_exact_mut(V::LANES));
    for (x, out) in from.by_ref().zip(to.by_ref()) {
        V::load(x).fma(inverse, zero).levels(offset, out);
    }
    let (x, out) = (from.remainder(), to.into_remainder());
    if !x.is_empty() {
        let mut levels = [0u8; MAX_LANES];
        load_short::<V>(x).fma(inverse, zero).levels(offset, &mut levels);
        out.copy_from_slice(&levels[..x.len()]);
    }
}

/// Rows to be quantised, each by itself.
#[derive(Debug, Clone, Copy)]
pub struct Quantise<'a> {
    /// The rows, one behind the other.
    pub x: &'a [f32],
    /// Values in a row.
    pub width: usize,
    /// Gain, bias and epsilon of a layer normalisation that comes first.
    pub norm: Option<(&'a [f32], &'a [f32], f32)>,
    /// What is subtracted from a level to store it.
    pub offset: i32,
    /// Bytes from one quantised row to the next.
    pub stride: usize,
}

/// Writes each row's bytes and what they mean; `scratch` holds a row. Returns the first row with a value that is not finite.
#[inline(always)]
pub fn quantise<V: Vector>(q: &Quantise, bytes: &mut [u8], scales: &mut [Scale], scratch: &mut [f32]) -> Option<usize> {
    let rows = q.x.chunks_exact(q.width).zip(bytes.chunks_exact_mut(q.stride)).zip(scales);
    for (r, ((x, bytes), scale)) in rows.enumerate() {
        let x = match q.norm {
            Some((gain, bias, epsilon)) => {
                layer_norm::<V>(x, gain, bias, epsilon, scratch);
                &*scratch
            }
            None => x,
        };
        let Some((low, high)) = range::<V>(x) else { return Some(r) };
        let levels = Scale::covering(low, high);
        encode::<V>(x, levels, q.offset, bytes);
        *scale = levels.stored(q.offset);
    }
    None
}

/// `out = (x - mean(x)) / sqrt(variance(x) + epsilon) · gain + bias`.
#[inline(always)]
pub fn layer_norm<V: Vector>(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let count = x.len() as f32;
    let whole = x.len() / V::LANES * V::LANES;
    let mut sum = V::splat(0.0);
    for x in x[..whole].chunks_exact(V::LANES) {
        sum = sum.add(V::load(x));
    }
    let mean = (sum.total() + x[whole..].iter().sum::<f32>()) / count;
    let mut squares = V::splat(0.0);
    for x in x[..whole].chunks_exact(V::LANES) {
        let d = V::load(x).sub(V::splat(mean));
        squares = d.fma(d, squares);
    }
    let rest: f32 = x[whole..].iter().map(|x| (x - mean) * (x - mean)).sum();
    let inverse = 1.0 / ((squares.total() + rest) / count + epsilon).sqrt();
    for i in (0..whole).step_by(V::LANES) {
        let v = V::load(&x[i..]).sub(V::splat(mean)).mul(V::splat(inverse));
        v.fma(V::load(&gain[i..]), V::load(&bias[i..])).store(&mut out[i..]);
    }
    for i in whole..x.len() {
        out[i] = (x[i] - mean) * inverse * gain[i] + bias[i];
    }
}

/// What turns one tile's sums into values: `(sum - zero · column sum) · row scale · column scale + bias`, then the
/// residual, then the activation.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// Columns of the tile; the slices of column values are as long.
    pub columns: usize,
    /// Matrix row of the tile's first row.
    pub row: usize,
    /// Matrix column of the tile's first column.
    pub column: usize,
    /// One a row, of bytes as they are stored.
    pub rows: &'a [Scale],
    /// Sums of each column's weights.
    pub sums: &'a [i32],
    /// Weight scales.
    pub scale: &'a [f32],
    /// Added after scaling.
    pub bias: &'a [f32],
    /// Row-scaled sums of earlier groups of `k`, laid out as the sums.
    pub partial: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
    /// Added after the bias: a matrix laid out as the output.
    pub residual: Option<&'a [f32]>,
    /// Columns of the output matrix.
    pub width: usize,
}

/// Adds one group's row-scaled sums to `partial`: a product whose rows have several scales, one a group of `k`.
#[inline(always)]
pub fn accumulate<V: Vector>(rows: &[Scale], sums: &[i32], acc: &[i32], partial: &mut [f32]) {
    let columns = sums.len();
    for (r, row) in rows.iter().enumerate() {
        for c in (0..columns).step_by(V::LANES) {
            let partial = &mut partial[r * columns + c..][..V::LANES];
            let v = V::sums(&acc[r * columns + c..], row.zero, V::ints(&sums[c..]));
            v.fma(V::splat(row.scale), V::load(partial)).store(partial);
        }
    }
}

/// See [`Finish`]; writes the part of the tile that lies inside `out`.
#[inline(always)]
pub fn finish<V: Vector>(f: &Finish, acc: &[i32], out: &mut Block<f32>) {
    match f.activation {
        Activation::Identity => finish_with::<V, _>(f, acc, out, Identity),
        Activation::Clamp { low, high } => finish_with::<V, _>(f, acc, out, Clamp { low, high }),
        Activation::Gelu => finish_with::<V, _>(f, acc, out, Gelu),
        Activation::QuickGelu => finish_with::<V, _>(f, acc, out, QuickGelu),
    }
}

/// One [`Activation`] as a type, whose method is sure to be inlined where a closure's is not.
trait Activate: Copy {
    fn apply<V: Vector>(self, x: V) -> V;
}

#[derive(Clone, Copy)]
struct Identity;
#[derive(Clone, Copy)]
struct Clamp {
    low: f32,
    high: f32,
}
#[derive(Clone, Copy)]
struct Gelu;
#[derive(Clone, Copy)]
struct QuickGelu;

impl Activate for Identity {
    #[inline(always)]
    fn apply<V: Vector>(self, x: V) -> V {
        x
    }
}

impl Activate for Clamp {
    #[inline(always)]
    fn apply<V: Vector>(self, x: V) -> V {
        x.max(V::splat(self.low)).min(V::splat(self.high))
    }
}

impl Activate for Gelu {
    #[inline(always)]
    fn apply<V: Vector>(self, x: V) -> V {
        gelu(x)
    }
}

impl Activate for QuickGelu {
    #[inline(always)]
    fn apply<V: Vector>(self, x: V) -> V {
        quick_gelu(x)
    }
}

#[inline(always)]
fn finish_with<V: Vector, A: Activate>(f: &Finish, acc: &[i32], out: &mut Block<f32>, activation: A) {
    let width = f.columns.min(out.columns().end - f.column);
    let mut column = 0;
    while column + 4 * V::LANES <= width {
        finish_columns::<V, A, 4>(f, acc, out, column, activation);
        column += 4 * V::LANES;
    }
    while column + V::LANES <= width {
        finish_columns::<V, A, 1>(f, acc, out, column, activation);
        column += V::LANES;
    }
    while column < width {
        finish_columns::<f32, A, 1>(f, acc, out, column, activation);
        column += 1;
    }
}

/// `C` registers of columns, from the tile's column `column` on: what belongs to the columns is read once for all rows.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "short loops over registers, which are written out")]
fn finish_columns<V: Vector, A: Activate, const C: usize>(
    f: &Finish,
    acc: &[i32],
    out: &mut Block<f32>,
    column: usize,
    activation: A,
) {
    let from = f.column + column - out.columns().start;
    let mut sums = [V::ints(&f.sums[column..]); C];
    let mut scale = [V::splat(0.0); C];
    let mut bias = scale;
    for i in 0..C {
        sums[i] = V::ints(&f.sums[column + i * V::LANES..]);
        scale[i] = V::load(&f.scale[column + i * V::LANES..]);
        bias[i] = V::load(&f.bias[column + i * V::LANES..]);
    }
    let rows = f.rows.iter().zip(acc[column..].chunks(f.columns));
    let outs = out.rows_of(f.row..f.row + f.rows.len(), from..from + C * V::LANES);
    let mut partials = f.partial.map(|partial| partial[column..].chunks(f.columns));
    let mut residuals = f.residual.map(|residual| residual[f.row * f.width + f.column + column..].chunks(f.width));
    for ((row, acc), out) in rows.zip(outs) {
        let (acc, out) = (&acc[..C * V::LANES], &mut out[..C * V::LANES]);
        let row_scale = V::splat(row.scale);
        let mut values = bias;
        for i in 0..C {
            values[i] = V::sums(&acc[i * V::LANES..], row.zero, sums[i]);
        }
        match partials.as_mut().and_then(Iterator::next).map(|partial| &partial[..C * V::LANES]) {
            Some(partial) => {
                for i in 0..C {
                    values[i] = values[i].fma(row_scale, V::load(&partial[i * V::LANES..]));
                }
            }
            None => {
                for i in 0..C {
                    values[i] = values[i].mul(row_scale);
                }
            }
        }
        for i in 0..C {
            values[i] = values[i].fma(scale[i], bias[i]);
        }
        if let Some(residual) = residuals.as_mut().and_then(Iterator::next).map(|residual| &residual[..C * V::LANES]) {
            for i in 0..C {
                values[i] = values[i].add(V::load(&residual[i * V::LANES..]));
            }
        }
        for i in 0..C {
            activation.apply(values[i]).store(&mut out[i * V::LANES..]);
        }
    }
}

/// `e^x`, to a few units in the last place; tends to 0 below -87.
#[inline(always)]
pub fn exp<V: Vector>(x: V) -> V {
    let x = x.max(V::splat(-87.0)).min(V::splat(88.0));
    let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
    let r = n.fma(V::splat(-0.693_359_4), x);
    let r = n.fma(V::splat(2.121_944_4e-4), r);
    let mut p = V::splat(1.987_569_2e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_3e-1, 1.0, 1.0] {
        p = p.fma(r, V::splat(c));
    }
    p.scale(n)
}

/// The error function as a ratio of polynomials, to about 1e-6.
#[inline(always)]
fn erf<V: Vector>(x: V) -> V {
    let x = x.max(V::splat(-4.0)).min(V::splat(4.0));
    let s = x.mul(x);
    let mut a = V::splat(-2.726_142_3e-10);
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        a = a.fma(s, V::splat(c));
    }
    let mut b = V::splat(-1.456_607_2e-5);
    for c in [-2.133_740_5e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        b = b.fma(s, V::splat(c));
    }
    x.mul(a).div(b)
}

#[inline(always)]
fn gelu<V: Vector>(x: V) -> V {
    let half = x.mul(V::splat(0.5));
    half.fma(erf(x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2))), half)
}

#[inline(always)]
fn quick_gelu<V: Vector>(x: V) -> V {
    x.div(V::splat(1.0).add(exp(x.mul(V::splat(-1.702)))))
}

/// A depthwise convolution of one NHWC image.
#[derive(Debug, Clone, Copy)]
pub struct Depthwise<'a> {
    /// The image.
    pub x: &'a [f32],
    /// Its height and width.
    pub size: (usize, usize),
    /// `[kernel row][kernel column][channel]`.
    pub taps: &'a [f32],
    /// One a channel.
    pub bias: &'a [f32],
    /// Kernel height and width.
    pub kernel: (usize, usize),
    /// Rows and columns from one output pixel to the next.
    pub stride: (usize, usize),
    /// Zeros above and left of the image.
    pub before: (usize, usize),
    /// Limits of the output.
    pub clamp: (f32, f32),
}

/// Writes line `y` of the output.
#[inline(always)]
pub fn depthwise<V: Vector>(d: &Depthwise, y: usize, out: &mut [f32]) {
    let channels = d.bias.len();
    let mut c = 0;
    while c + V::LANES <= channels {
        depthwise_channels::<V>(d, y, c, out);
        c += V::LANES;
    }
    for c in c..channels {
        depthwise_channels::<f32>(d, y, c, out);
    }
}

/// One register's worth of channels of one line.
#[inline(always)]
fn depthwise_channels<V: Vector>(d: &Depthwise, y: usize, c: usize, out: &mut [f32]) {
    match (d.kernel, d.stride.1) {
        ((2, 2), 2) if d.size.1 >= 2 => depthwise_line::<V, 2, 2>(d, (y, c), out),
        ((3, 3), 1) if d.size.1 >= 3 => depthwise_line::<V, 3, 1>(d, (y, c), out),
        ((3, 3), 2) if d.size.1 >= 3 => depthwise_line::<V, 3, 2>(d, (y, c), out),
        _ => (0..out.len() / d.bias.len()).for_each(|x| depthwise_at::<V>(d, (y, x), c, out)),
    }
}

/// The same for windows of `N` x `N`, `S` pixels apart, on lines of at least `N` pixels.
#[inline(always)]
fn depthwise_line<V: Vector, const N: usize, const S: usize>(d: &Depthwise, (y, c): (usize, usize), out: &mut [f32]) {
    let (channels, (height, width)) = (d.bias.len(), d.size);
    let mut taps = [[V::splat(0.0); N]; N];
    let mut lines = [&d.x[..0]; N];
    for ky in 0..N {
        // A line above or below the image counts nothing: any other line stands for it, with taps of zero.
        let line = (y * d.stride.0 + ky).checked_sub(d.before.0).filter(|line| *line < height);
        if line.is_some() {
            for (kx, tap) in taps[ky].iter_mut().enumerate() {
                *tap = V::load(&d.taps[(N * ky + kx) * channels + c..]);
            }
        }
        lines[ky] = &d.x[line.unwrap_or(0) * width * channels..][..width * channels];
    }
    let clamp = (V::splat(d.clamp.0), V::splat(d.clamp.1));
    let windows = Windows { lines, taps, bias: V::load(&d.bias[c..]), clamp, channels };
    let columns = out.len() / channels;
    let first = d.before.1.div_ceil(S).min(columns);
    let end = ((width + d.before.1 - N) / S + 1).clamp(first, columns);
    if first < end {
        windows.run::<S>(end - first, (first * S - d.before.1) * channels + c, &mut out[first * channels + c..]);
    }
    for x in (0..first).chain(end..columns) {
        // A window that reaches over the edge: the outermost inside it, with the taps moved along and zeros behind them.
        let from = (x * S).saturating_sub(d.before.1).min(width - N);
        let mut edge = windows;
        for (moved, taps) in edge.taps.iter_mut().zip(&windows.taps) {
            for (pixel, tap) in moved.iter_mut().enumerate() {
                let place = (from + pixel + d.before.1).checked_sub(x * S);
                *tap = place.and_then(|place| taps.get(place)).copied().unwrap_or(V::splat(0.0));
            }
        }
        edge.run::<S>(1, from * channels + c, &mut out[x * channels + c..]);
    }
}

/// One register's worth of channels of one output pixel.
#[inline(always)]
fn depthwise_at<V: Vector>(d: &Depthwise, (y, x): (usize, usize), c: usize, out: &mut [f32]) {
    let channels = d.bias.len();
    let (height, width) = d.size;
    let mut sum = V::load(&d.bias[c..]);
    let (top, left) = (y * d.stride.0, x * d.stride.1);
    for ky in d.before.0.saturating_sub(top)..d.kernel.0.min(height + d.before.0 - top) {
        let line = (top + ky - d.before.0) * width;
        for kx in d.before.1.saturating_sub(left)..d.kernel.1.min(width + d.before.1 - left) {
            let pixel = V::load(&d.x[(line + left + kx - d.before.1) * channels + c..]);
            sum = pixel.fma(V::load(&d.taps[(ky * d.kernel.1 + kx) * channels + c..]), sum);
        }
    }
    sum.max(V::splat(d.clamp.0)).min(V::splat(d.clamp.1)).store(&mut out[x * channels + c..]);
}

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
    let step = V::LANES * WIDE;
    for c in (0..width).step_by(step) {
        let mut sums = [[V::splat(0.0); WIDE]; ASKING];
        for i in 0..k {
            let b = &b[i * width + c..][..step];
            for r in 0..ASKING {
                // Rows past the last repeat it; their sums are not stored.
                let a = V::splat(a.values[r.min(rows - 1) * a.stride + i]);
                for w in 0..WIDE {
                    sums[r][w] = a.fma(V::load(&b[w * V::LANES..]), sums[r][w]);
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

/// `x = e^(scale · x) / sum`, over the first `count` values.
#[inline(always)]
fn softmax<V: Vector>(x: &mut [f32], count: usize, scale: f32) {
    let mut highest = V::splat(f32::NEG_INFINITY);
    let whole = count / V::LANES * V::LANES;
    x[count..].fill(f32::NEG_INFINITY);
    let padded = if whole < count { whole + V::LANES } else { whole };
    let scale_v = V::splat(scale);
    for i in (0..padded).step_by(V::LANES) {
        let v = V::load(&x[i..]).mul(scale_v);
        v.store(&mut x[i..]);
        highest = highest.max(v);
    }
    let highest = V::splat(highest.highest());
    let mut sum = V::splat(0.0);
    for i in (0..padded).step_by(V::LANES) {
        let v = exp(V::load(&x[i..]).sub(highest));
        v.store(&mut x[i..]);
        sum = sum.add(v);
    }
    let inverse = V::splat(1.0 / sum.total());
    for i in (0..padded).step_by(V::LANES) {
        V::load(&x[i..]).mul(inverse).store(&mut x[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_covers_the_row_and_zero() {
        assert_eq!(range::<f32>(&[3.0; 20]), Some((0.0, 3.0)));
        assert_eq!(range::<f32>(&[]), Some((0.0, 0.0)));
        let mut x: Vec<f32> = (0..37).map(|i| i as f32).collect();
        x[36] = -5.0;
        assert_eq!(range::<f32>(&x), Some((-5.0, 35.0)));
    }

    #[test]
    fn whatever_is_not_finite_is_noticed_wherever_it_stands() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..37 {
                let mut x = [1.0; 37];
                x[at] = bad;
                assert_eq!(range::<f32>(&x), None, "{bad} at {at}");
            }
        }
    }

    #[test]
    fn levels_are_within_half_a_step() {
        for (low, high) in [(-1.0, 1.0), (0.0, 6.0), (-3.0, 0.0), (-1e30, 3e38), (-1e-30, 1e-31), (-0.001, 100.0)] {
            let x: Vec<f32> = (0..50).map(|i| low + (high - low) * (i as f32 / 49.0)).collect();
            let scale = Scale::covering(low, high);
            for offset in [0, 128] {
                let mut levels = [0; 50];
                encode::<f32>(&x, scale, offset, &mut levels);
                for (x, level) in x.iter().zip(levels) {
                    let level = i32::from(level.wrapping_add(offset as u8));
                    let back = scale.scale * (level - scale.zero) as f32;
                    assert!((back - x).abs() <= 0.502 * scale.scale, "{x} became {back} of {low}..{high}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_zeros() {
        let mut levels = [9; 5];
        encode::<f32>(&[0.0; 5], Scale::covering(0.0, 0.0), 0, &mut levels);
        assert_eq!((levels, Scale::covering(0.0, 0.0)), ([0; 5], Scale { scale: 0.0, zero: 0 }));
    }

    #[test]
    fn functions_are_close_to_the_real_ones() {
        for i in -1000..=1000 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 1e-6, "exp({x})");
            let quick = f64::from(x) / (1.0 + (-1.702 * f64::from(x)).exp());
            assert!((f64::from(quick_gelu(x)) - quick).abs() < 1e-5, "quick_gelu({x})");
        }
        // From tables of the normal distribution.
        for (x, phi) in [(0.0, 0.5), (0.5, 0.691_462_5), (1.0, 0.841_344_7), (2.0, 0.977_249_9), (3.0, 0.998_650_1)] {
            assert!((gelu(x) - x * phi).abs() < 2e-6, "gelu({x})");
            assert!((gelu(-x) + x * (1.0 - phi)).abs() < 2e-6, "gelu(-{x})");
        }
        assert!((gelu(50.0) - 50.0).abs() < 1e-4 && gelu(-50.0).abs() < 1e-4);
    }

    #[test]
    fn layer_norm_has_mean_bias_and_deviation_gain() {
        let x: Vec<f32> = (0..100).map(|i| (i * i % 37) as f32).collect();
        let mut y = [0.0; 100];
        layer_norm::<f32>(&x, &[2.0; 100], &[3.0; 100], 0.0, &mut y);
        let mean = y.iter().sum::<f32>() / 100.0;
        let deviation = (y.iter().map(|y| (y - mean) * (y - mean)).sum::<f32>() / 100.0).sqrt();
        assert!((mean - 3.0).abs() < 1e-5 && (deviation - 2.0).abs() < 1e-5, "{mean} {deviation}");
    }
}

//! Sums to values: scales, bias, residual, activation.

use super::Activation;
use super::activation::{Activate, Clamp, Gelu, Identity, QuickGelu};
use super::quantise::Scale;
use crate::vision::int8::kernels::pool::Block;
use crate::vision::int8::kernels::vector::Vector;

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
    /// Whether what the output holds is a residual, to be added after the bias.
    pub residual: bool,
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

#[inline(always)]
fn finish_with<V: Vector, A: Activate>(f: &Finish, acc: &[i32], out: &mut Block<f32>, activation: A) {
    let width = f.columns.min(out.columns().end - f.column);
    let mut column = 0;
    while column + 4 * V::LANES <= width {
        finish_columns::<V, A, 4>(f, acc, out, column, activation);
        column += 4 * V::LANES;
    }
    // The widest registers' panels are two of them.
    while column + 2 * V::LANES <= width {
        finish_columns::<V, A, 2>(f, acc, out, column, activation);
        column += 2 * V::LANES;
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
    let rows = f.rows.iter().zip(acc.chunks_exact(f.columns));
    let outs = out.rows_of(f.row..f.row + f.rows.len(), from..from + C * V::LANES);
    let mut partials = f.partial.map(|partial| partial.chunks_exact(f.columns));
    for ((row, acc), out) in rows.zip(outs) {
        let (acc, out) = (&acc[column..][..C * V::LANES], &mut out[..C * V::LANES]);
        let row_scale = V::splat(row.scale);
        let mut values = bias;
        for i in 0..C {
            values[i] = V::sums(&acc[i * V::LANES..], row.zero, sums[i]);
        }
        match partials.as_mut().and_then(Iterator::next).map(|partial| &partial[column..][..C * V::LANES]) {
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
        if f.residual {
            for i in 0..C {
                values[i] = values[i].add(V::load(&out[i * V::LANES..]));
            }
        }
        for i in 0..C {
            activation.apply(values[i]).store(&mut out[i * V::LANES..]);
        }
    }
}

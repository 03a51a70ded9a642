//! Values to bytes: a row's range, the scale that covers it, its levels.

use super::MAX_LANES;
use super::norm::{inverse_deviation, mean, normalise};
use crate::vision::int8::kernels::float::Strided;
use crate::vision::int8::kernels::vector::Vector;

/// The level in the middle.
pub const CENTRE: i32 = 128;

/// The level that stands for the largest magnitude, where levels lie evenly around 0.
pub(super) const HIGHEST_SIGNED: f32 = 127.0;

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
        // Divided first: the difference of two finite values can overflow. An all-zero row keeps scale 0. A product with 1/255 would
        // be quicker, and other in the last place: golden embeddings would differ by 1e-5.
        let scale = high / 255.0 - low / 255.0;
        let zero = if scale > 0.0 { (-low / scale).round_ties_even() as i32 } else { 0 };
        Scale { scale, zero }
    }

    /// The same for `0..=high`.
    pub fn up_to(high: f32) -> Scale {
        Scale { scale: high / 255.0, zero: 0 }
    }

    /// The same for `-bound..=bound`, with 0 in the middle: signed bytes when [`CENTRE`] is taken off, none of them -128.
    pub fn around_zero(bound: f32) -> Scale {
        Scale { scale: bound / HIGHEST_SIGNED, zero: CENTRE }
    }

    /// The same for bytes that hold a level less `offset`.
    pub fn stored(self, offset: i32) -> Scale {
        Scale { zero: self.zero - offset, ..self }
    }
}

/// The first `x.len()` values of a register, zeros behind them.
#[inline(always)]
pub(super) fn load_short<V: Vector>(x: &[f32]) -> V {
    let mut last = [0f32; MAX_LANES];
    last[..x.len()].copy_from_slice(x);
    V::load(&last)
}

/// Lowest and highest value of `x` and 0, or `None` when one is not finite.
#[inline(always)]
pub fn range<V: Vector>(x: &[f32]) -> Option<(f32, f32)> {
    // Loops, not closures: those are not sure to be inlined, and then lack this instruction set. Four of each, so that
    // no step waits for the one before.
    let none = (V::splat(0.0), V::splat(0.0), V::splat(0.0));
    if x.len() < V::LANES {
        return covered(load_short::<V>(x).cover(none));
    }
    let mut four = [none; 4];
    let mut fours = x.chunks_exact(4 * V::LANES);
    for x in fours.by_ref() {
        for i in 0..4 {
            four[i] = V::load(&x[i * V::LANES..]).cover(four[i]);
        }
    }
    let mut ones = fours.remainder().chunks_exact(V::LANES);
    for x in ones.by_ref() {
        four[0] = V::load(x).cover(four[0]);
    }
    if !ones.remainder().is_empty() {
        four[1] = last::<V>(x).cover(four[1]);
    }
    let [first, second, third, fourth] = four;
    covered(V::cover_both(V::cover_both(first, second), V::cover_both(third, fourth)))
}

/// What the lanes of [`Vector::cover`] came to together.
#[inline(always)]
fn covered<V: Vector>((low, high, witness): (V, V, V)) -> Option<(f32, f32)> {
    let (low, high) = (low.lowest(), high.highest());
    (witness.is_zero() && low.is_finite() && high.is_finite()).then_some((low, high))
}

/// The last register of `x`, some of whose values were met before: where that does not matter, no call copies the few that were not.
#[inline(always)]
fn last<V: Vector>(x: &[f32]) -> V {
    V::load(&x[x.len() - V::LANES..])
}

/// Highest of `x` and 0, or `None` when it is infinite; no value is below 0 or NaN.
#[inline(always)]
fn top<V: Vector>(x: &[f32]) -> Option<f32> {
    if x.len() < V::LANES {
        return finite(load_short::<V>(x).max(V::splat(0.0)).highest());
    }
    let mut tops = [V::splat(0.0); 4];
    let mut fours = x.chunks_exact(4 * V::LANES);
    for x in fours.by_ref() {
        for i in 0..4 {
            tops[i] = V::load(&x[i * V::LANES..]).max(tops[i]);
        }
    }
    let mut ones = fours.remainder().chunks_exact(V::LANES);
    for x in ones.by_ref() {
        tops[0] = V::load(x).max(tops[0]);
    }
    if !ones.remainder().is_empty() {
        tops[1] = last::<V>(x).max(tops[1]);
    }
    finite(tops[0].max(tops[1]).max(tops[2].max(tops[3])).highest())
}

#[inline(always)]
fn finite(value: f32) -> Option<f32> {
    value.is_finite().then_some(value)
}

/// One by a scale. One so small that its inverse overflows stands for values indistinguishable from 0, as 0 does.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse < f32::INFINITY { inverse } else { 0.0 }
}

/// Writes the levels of `x` under `scale`, less `offset`, as bytes.
#[inline(always)]
pub fn encode<V: Vector>(x: &[f32], scale: Scale, offset: i32, out: &mut [u8]) {
    let inverse = V::splat(inverse(scale.scale));
    let zero = V::splat(scale.zero as f32);
    let out = &mut out[..x.len()];
    if x.len() < V::LANES {
        let mut levels = [0u8; MAX_LANES];
        load_short::<V>(x).fma(inverse, zero).levels(offset, &mut levels);
        return out.copy_from_slice(&levels[..x.len()]);
    }
    let (mut from, mut to) = (x.chunks_exact(4 * V::LANES), out.chunks_exact_mut(4 * V::LANES));
    for (x, out) in from.by_ref().zip(to.by_ref()) {
        let at = |i: usize| V::load(&x[i * V::LANES..]).fma(inverse, zero);
        V::levels_of_four([at(0), at(1), at(2), at(3)], offset, out);
    }
    let (mut from, mut to) = (from.remainder().chunks_exact(V::LANES), to.into_remainder().chunks_exact_mut(V::LANES));
    for (x, out) in from.by_ref().zip(to.by_ref()) {
        V::load(x).fma(inverse, zero).levels(offset, out);
    }
    if !from.remainder().is_empty() {
        last::<V>(x).fma(inverse, zero).levels(offset, &mut out[x.len() - V::LANES..]);
    }
}

/// What a row's levels reach over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Levels {
    /// From its lowest value to its highest.
    Covering,
    /// From 0 on: it is known that no value is below, or NaN, as behind a clamp.
    Positive,
    /// As far below 0 as above.
    AroundZero,
}

impl Levels {
    /// Those of rows of which it is known, or not, that no value is below 0 or NaN.
    pub fn of(positive: bool) -> Levels {
        if positive { Levels::Positive } else { Levels::Covering }
    }
}

/// Rows to be quantised, each by itself.
#[derive(Debug, Clone, Copy)]
pub struct Quantise<'a> {
    /// The rows.
    pub x: Strided<'a>,
    /// Values in a row.
    pub width: usize,
    /// Gain, bias and epsilon of a layer normalisation that comes first.
    pub norm: Option<(&'a [f32], &'a [f32], f32)>,
    /// Where they lie.
    pub levels: Levels,
    /// What is subtracted from a level to store it.
    pub offset: i32,
    /// Bytes from one row of levels to the next.
    pub stride: usize,
}

/// Rows whose ranges are found one after the other and only then used: what each has to wait for is there by then.
const TOGETHER: usize = 8;

/// The same where they are normalised first, into scratch that stays in a first-level cache.
pub const NORMALISED_TOGETHER: usize = 4;

/// Writes each row's bytes and what they mean; `scratch` holds [`NORMALISED_TOGETHER`] rows. Returns the first row with a value that is
/// not finite.
#[inline(always)]
pub fn quantise<V: Vector>(q: &Quantise, bytes: &mut [u8], scales: &mut [Scale], scratch: &mut [f32]) -> Option<usize> {
    let together = if q.norm.is_some() { NORMALISED_TOGETHER } else { TOGETHER };
    let rows = q.x.values.chunks(together * q.x.stride);
    let rows = rows.zip(bytes.chunks_mut(together * q.stride)).zip(scales.chunks_mut(together));
    for (group, ((x, bytes), scales)) in rows.enumerate() {
        let x = Strided { values: x, ..q.x };
        let x = match q.norm {
            Some(norm) => normalise_together::<V>((x, q.width), norm, scales.len(), scratch),
            None => x,
        };
        if let Some(row) = quantise_together::<V>(q, x, bytes, scales) {
            return Some(group * together + row);
        }
    }
    None
}

/// Layer normalisation of at most [`NORMALISED_TOGETHER`] rows, step by step.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "the steps of a row among those of others")]
fn normalise_together<'a, V: Vector>(
    (x, width): (Strided, usize),
    (gain, bias, epsilon): (&[f32], &[f32], f32),
    count: usize,
    out: &'a mut [f32],
) -> Strided<'a> {
    let (mut means, mut inverses) = ([0.0; NORMALISED_TOGETHER], [0.0; NORMALISED_TOGETHER]);
    for row in 0..count {
        means[row] = mean::<V>(&x.values[row * x.stride..][..width]);
    }
    for row in 0..count {
        inverses[row] = inverse_deviation::<V>(&x.values[row * x.stride..][..width], means[row], epsilon);
    }
    for (row, out) in out.chunks_exact_mut(width).enumerate().take(count) {
        let x = &x.values[row * x.stride..][..width];
        normalise::<V>(x, (gain, bias), (means[row], inverses[row]), out);
    }
    Strided { values: out, stride: width }
}

/// The same for at most [`TOGETHER`] rows `x`.
#[inline(always)]
fn quantise_together<V: Vector>(q: &Quantise, x: Strided, bytes: &mut [u8], scales: &mut [Scale]) -> Option<usize> {
    let mut ranges = [(0.0, 0.0); TOGETHER];
    for (row, (x, covered)) in x.values.chunks(x.stride).zip(&mut ranges[..scales.len()]).enumerate() {
        let x = &x[..q.width];
        let found = if q.levels == Levels::Positive { top::<V>(x).map(|top| (0.0, top)) } else { range::<V>(x) };
        let Some(found) = found else { return Some(row) };
        *covered = found;
    }
    for (scale, (low, high)) in scales.iter_mut().zip(ranges) {
        *scale = match q.levels {
            Levels::Covering => Scale::covering(low, high),
            Levels::Positive => Scale::up_to(high),
            Levels::AroundZero => Scale::around_zero(high.max(-low)),
        };
    }
    for ((x, bytes), scale) in x.values.chunks(x.stride).zip(bytes.chunks_mut(q.stride)).zip(scales) {
        encode::<V>(&x[..q.width], *scale, q.offset, bytes);
        *scale = scale.stored(q.offset);
    }
    None
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
    fn where_nothing_is_below_zero_the_top_says_as_much() {
        for length in 0..40 {
            let mut x: Vec<f32> = (0..length).map(|i| (i * 7 % 31) as f32).collect();
            let (high, (low, covered)) = (top::<f32>(&x).unwrap(), range::<f32>(&x).unwrap());
            assert_eq!((high, Scale::up_to(high)), (covered, Scale::covering(low, covered)));
            for at in 0..length {
                let value = std::mem::replace(&mut x[at], f32::INFINITY);
                assert_eq!(top::<f32>(&x), None);
                x[at] = value;
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
}

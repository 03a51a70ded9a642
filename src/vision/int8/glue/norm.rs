//! Layer normalisation of one row.

use super::lanes::{MOST, total};
use crate::vision::int8::kernels::vector::Vector;

/// `out = (x - mean(x)) / sqrt(variance(x) + epsilon) · gain + bias`.
#[inline(always)]
pub fn layer_norm<V: Vector>(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let mean = mean::<V>(x);
    normalise::<V>(x, (gain, bias), (mean, inverse_deviation::<V>(x, mean, epsilon)), out);
}

/// The first step of a [`layer_norm`]. What each step of a row waits for is there sooner while other rows have theirs.
#[inline(always)]
pub fn mean<V: Vector>(x: &[f32]) -> f32 {
    moment::<V, false>(x, 0.0) / x.len() as f32
}

/// The second step.
#[inline(always)]
pub fn inverse_deviation<V: Vector>(x: &[f32], mean: f32, epsilon: f32) -> f32 {
    1.0 / (moment::<V, true>(x, mean) / x.len() as f32 + epsilon).sqrt()
}

/// The third step: `out = (x - mean) · inverse · gain + bias`.
#[inline(always)]
pub fn normalise<V: Vector>(x: &[f32], (gain, bias): (&[f32], &[f32]), (mean, inverse): (f32, f32), out: &mut [f32]) {
    let whole = normalise_by::<V, 4>(x, (gain, bias), (mean, inverse), out);
    let (x, gain, bias, out) = (&x[whole..], &gain[whole..], &bias[whole..], &mut out[whole..]);
    let whole = normalise_by::<V, 1>(x, (gain, bias), (mean, inverse), out);
    for i in whole..x.len() {
        out[i] = (x[i] - mean) * inverse * gain[i] + bias[i];
    }
}

/// The sum of deviations from `center`, or of their squares.
#[inline(always)]
fn moment<V: Vector, const SQUARED: bool>(x: &[f32], center: f32) -> f32 {
    let mut sums = [V::splat(0.0); MOST];
    let mut rows = x.chunks_exact(MOST);
    for x in rows.by_ref() {
        for i in 0..MOST / V::LANES {
            sums[i] = add_moment::<V, SQUARED>(&x[i * V::LANES..], center, sums[i]);
        }
    }
    let rest = rows.remainder();
    let whole = rest.len() / V::LANES * V::LANES;
    for i in 0..MOST / V::LANES {
        if i * V::LANES < whole {
            sums[i] = add_moment::<V, SQUARED>(&rest[i * V::LANES..], center, sums[i]);
        }
    }
    let rest = rest[whole..].iter().map(|x| if SQUARED { (x - center) * (x - center) } else { x - center });
    total(sums, MOST / V::LANES) + rest.sum::<f32>()
}

#[inline(always)]
fn add_moment<V: Vector, const SQUARED: bool>(x: &[f32], center: f32, sum: V) -> V {
    let deviation = V::load(x).sub(V::splat(center));
    if SQUARED { deviation.fma(deviation, sum) } else { sum.add(deviation) }
}

/// The same, `N` registers at a time while there are as many. Says how many values that were.
#[inline(always)]
fn normalise_by<V: Vector, const N: usize>(
    x: &[f32],
    (gain, bias): (&[f32], &[f32]),
    (mean, inverse): (f32, f32),
    out: &mut [f32],
) -> usize {
    let step = N * V::LANES;
    let parameters = gain.chunks_exact(step).zip(bias.chunks_exact(step));
    for ((x, (gain, bias)), out) in x.chunks_exact(step).zip(parameters).zip(out.chunks_exact_mut(step)) {
        for i in (0..step).step_by(V::LANES) {
            let v = V::load(&x[i..]).sub(V::splat(mean)).mul(V::splat(inverse));
            v.fma(V::load(&gain[i..]), V::load(&bias[i..])).store(&mut out[i..]);
        }
    }
    x.len() / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

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

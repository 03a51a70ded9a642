//! Layer normalisation of one row.

use crate::vision::int8::kernels::vector::Vector;

/// `out = (x - mean(x)) / sqrt(variance(x) + epsilon) · gain + bias`.
#[inline(always)]
pub fn layer_norm<V: Vector>(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let count = x.len() as f32;
    let whole = x.len() / V::LANES * V::LANES;
    let registers = x.chunks_exact(V::LANES);
    let mut sum = V::splat(0.0);
    for x in registers.clone() {
        sum = sum.add(V::load(x));
    }
    let mean = (sum.total() + registers.remainder().iter().sum::<f32>()) / count;
    let mean_of_all = V::splat(mean);
    let mut squares = V::splat(0.0);
    for x in registers.clone() {
        let d = V::load(x).sub(mean_of_all);
        squares = d.fma(d, squares);
    }
    let rest: f32 = registers.remainder().iter().map(|x| (x - mean) * (x - mean)).sum();
    let inverse = 1.0 / ((squares.total() + rest) / count + epsilon).sqrt();
    let parameters = gain.chunks_exact(V::LANES).zip(bias.chunks_exact(V::LANES));
    for ((x, (gain, bias)), out) in registers.zip(parameters).zip(out.chunks_exact_mut(V::LANES)) {
        let v = V::load(x).sub(mean_of_all).mul(V::splat(inverse));
        v.fma(V::load(gain), V::load(bias)).store(out);
    }
    for i in whole..x.len() {
        out[i] = (x[i] - mean) * inverse * gain[i] + bias[i];
    }
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

//! What follows a layer's sums, and the functions it takes.

use crate::vision::int8::kernels::vector::Vector;

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

/// One [`Activation`] as a type, whose method is sure to be inlined where a closure's is not.
pub(super) trait Activate: Copy {
    fn apply<V: Vector>(self, x: V) -> V;
}

#[derive(Clone, Copy)]
pub(super) struct Identity;
#[derive(Clone, Copy)]
pub(super) struct Clamp {
    pub low: f32,
    pub high: f32,
}
#[derive(Clone, Copy)]
pub(super) struct Gelu;
#[derive(Clone, Copy)]
pub(super) struct QuickGelu;

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

/// `e^x`, to a few units in the last place; tends to 0 below -87.
#[inline(always)]
pub(super) fn exp<V: Vector>(x: V) -> V {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}

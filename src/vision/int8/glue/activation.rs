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

/// `2^x` for x of at most 127, to a few units in the last place; tends to 0 below -126.
#[inline(always)]
pub(super) fn exp2<V: Vector>(x: V) -> V {
    let x = x.max(V::splat(-126.0));
    let n = x.round();
    let r = x.sub(n);
    // The polynomial of its degree whose error relative to 2^r is least on -1/2..=1/2: 1e-7.
    let mut p = V::splat(1.326_472_7e-3);
    for c in [9.671_513e-3, 5.550_733_7e-2, 0.240_222_42, std::f32::consts::LN_2, 1.0] {
        p = p.fma(r, V::splat(c));
    }
    p.scale(n)
}

/// `x · Φ(x)`, to 9e-5, a fortieth of a level of a row that reaches up to 1: `Φ(x) - 1/2` as the odd polynomial of its degree that makes
/// the product least wrong, and 1/2 exactly where it is cut off.
#[inline(always)]
fn gelu<V: Vector>(x: V) -> V {
    const END: f32 = 4.149_999;
    let t = x.max(V::splat(-END)).min(V::splat(END));
    let s = t.mul(t);
    let mut p = V::splat(-9.401_852e-10);
    for c in [8.192_885e-8, -3.104_169_3e-6, 6.778_747e-5, -9.572_663e-4, 9.323_973e-3, -6.557_505_5e-2, 0.398_494_6] {
        p = p.fma(s, V::splat(c));
    }
    x.mul(p.fma(t, V::splat(0.5)))
}

#[inline(always)]
fn quick_gelu<V: Vector>(x: V) -> V {
    let power = x.mul(V::splat(-1.702 * std::f32::consts::LOG2_E)).min(V::splat(126.0));
    x.div(V::splat(1.0).add(exp2(power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_close_to_the_real_ones() {
        for i in -1000..=1000 {
            let x = i as f32 / 100.0;
            assert!((f64::from(exp2(x)) / f64::from(x).exp2() - 1.0).abs() < 3e-7, "exp2({x})");
            let quick = f64::from(x) / (1.0 + (-1.702 * f64::from(x)).exp());
            assert!((f64::from(quick_gelu(x)) - quick).abs() < 1e-5, "quick_gelu({x})");
        }
        // Φ by adding its derivative up.
        let (mut phi, step) = (0.5, 1e-3);
        for i in 0..6000 {
            let x = f64::from(i) * step;
            for (x, exact) in [(x, x * phi), (-x, x * (phi - 1.0))] {
                assert!((f64::from(gelu(x as f32)) - exact).abs() < 9e-5, "gelu({x})");
            }
            let middle = x + step / 2.0;
            phi += step * (-middle * middle / 2.0).exp() / std::f64::consts::TAU.sqrt();
        }
        // Behind the end nothing is left of the function but what rounding leaves of 1/2.
        for i in 0..1000 {
            let x = 4.25 + i as f32;
            assert!((gelu(x) / x - 1.0).abs() < 2e-5 && gelu(-x).abs() < 1e-4 + 2e-6 * x, "gelu({x})");
        }
    }
}

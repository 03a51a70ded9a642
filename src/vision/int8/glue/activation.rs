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

/// `x · Φ(x)`, to about 2e-6: `Φ(x) - 1/2` as the ratio `x · a(x²) / b(x²)` that is least wrong on -5..=5, beyond which it hardly
/// changes. By powers of x², because a lane of constants can be multiplied by where one more constant would be a register.
#[inline(always)]
fn gelu<V: Vector>(x: V) -> V {
    const A: [f32; 4] = [2.800_023_5e-2, 4.202_228e-3, 4.881_825e-5, -1.011_578e-7];
    const B: [f32; 4] = [2.370_253_4e-1, 2.485_790_4e-2, 1.409_567_8e-3, 0.0];
    let t = x.max(V::splat(-5.0)).min(V::splat(5.0));
    let s = t.mul(t);
    let (s2, s3) = (s.mul(s), s.mul(s).mul(s));
    let a = s.fma_by::<0>(&A, V::splat(0.398_964_68));
    let a = s2.mul(s2).fma_by::<3>(&A, s3.fma_by::<2>(&A, s2.fma_by::<1>(&A, a)));
    let b = s.fma_by::<0>(&B, V::splat(1.0));
    let b = s3.fma_by::<2>(&B, s2.fma_by::<1>(&B, b));
    x.mul(t.mul(a).div(b).add(V::splat(0.5)))
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
        // From tables of the normal distribution.
        for (x, phi) in [(0.0, 0.5), (0.5, 0.691_462_5), (1.0, 0.841_344_7), (2.0, 0.977_249_9), (3.0, 0.998_650_1)] {
            assert!((gelu(x) - x * phi).abs() < 3e-6, "gelu({x})");
            assert!((gelu(-x) + x * (1.0 - phi)).abs() < 3e-6, "gelu(-{x})");
        }
        assert!((gelu(50.0) - 50.0).abs() < 1e-4 && gelu(-50.0).abs() < 1e-4);
    }
}

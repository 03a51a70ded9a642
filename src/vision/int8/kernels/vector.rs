//! A register of f32, for the floating-point routines of [`super::super::glue`].
//!
//! Those are written once over this trait and compiled once per instruction set: the methods are `#[inline(always)]`
//! and take on the features of the function they are expanded into. Left to itself, the compiler vectorises these
//! routines across the wrong loop, with gathers.

/// A register of [`Vector::LANES`] values. Slices given to it must be at least as long.
pub trait Vector: Copy {
    /// As many 32-bit integers.
    type Ints: Copy;
    /// Values in one register.
    const LANES: usize;
    /// `v` in every lane.
    fn splat(v: f32) -> Self;
    /// The first values of `x`.
    fn load(x: &[f32]) -> Self;
    /// Writes the first values of `out`.
    fn store(self, out: &mut [f32]);
    /// The first bytes of `x` as values.
    fn bytes(x: &[i8]) -> Self;
    /// The first integers of `x`.
    fn ints(x: &[i32]) -> Self::Ints;
    /// `acc - zero · sums` as values, off by at most what rounding either term to f32 takes.
    fn sums(acc: &[i32], zero: i32, sums: Self::Ints) -> Self;
    /// Rounds to the nearest level, ties to even, limits that to `0..=255` and writes `level - offset` as bytes. Magnitudes
    /// are below 2²².
    fn levels(self, offset: i32, out: &mut [u8]);
    /// The same of four registers, one behind the other: narrowing to bytes is cheaper by fours.
    #[inline(always)]
    fn levels_of_four(four: [Self; 4], offset: i32, out: &mut [u8]) {
        let [a, b, c, d] = four;
        a.levels(offset, out);
        b.levels(offset, &mut out[Self::LANES..]);
        c.levels(offset, &mut out[2 * Self::LANES..]);
        d.levels(offset, &mut out[3 * Self::LANES..]);
    }
    /// Lane by lane.
    fn add(self, other: Self) -> Self;
    /// Lane by lane.
    fn sub(self, other: Self) -> Self;
    /// Lane by lane.
    fn mul(self, other: Self) -> Self;
    /// Lane by lane.
    fn div(self, other: Self) -> Self;
    /// `self · b + c`, fused where that is an instruction.
    fn fma(self, b: Self, c: Self) -> Self;
    /// `a[I] · self + c`: where a lane can be multiplied by, the four values are loaded at once.
    #[inline(always)]
    fn fma_by<const I: usize>(self, a: &[f32; 4], c: Self) -> Self {
        Self::splat(a[I]).fma(self, c)
    }
    /// The lesser, lane by lane; `other` where `self` is NaN.
    fn min(self, other: Self) -> Self;
    /// The greater, lane by lane; `other` where `self` is NaN.
    fn max(self, other: Self) -> Self;
    /// The lowest and the highest so far with this one, and a witness: 0 as long as all were finite, unless the two say otherwise.
    #[inline(always)]
    fn cover(self, (low, high, witness): (Self, Self, Self)) -> (Self, Self, Self) {
        // NaN times 0 is NaN, and so is infinity.
        (self.min(low), self.max(high), self.fma(Self::splat(0.0), witness))
    }
    /// What [`Vector::cover`] made of some registers and of others.
    #[inline(always)]
    fn cover_both(some: (Self, Self, Self), others: (Self, Self, Self)) -> (Self, Self, Self) {
        (some.0.min(others.0), some.1.max(others.1), some.2.add(others.2))
    }
    /// To the nearest whole number, ties to even; for magnitudes below 2²².
    fn round(self) -> Self;
    /// `self · 2ⁿ` for whole `n` within -126..=127.
    fn scale(self, n: Self) -> Self;
    /// Whether every lane is 0, and so none of them NaN.
    #[inline(always)]
    fn is_zero(self) -> bool {
        self.total() == 0.0
    }
    /// The sum of all lanes: the upper half is added to the lower, lane by lane, until one is left.
    fn total(self) -> f32;
    /// The least of all lanes; NaN or any of them where one is NaN.
    fn lowest(self) -> f32;
    /// The greatest of all lanes; NaN or any of them where one is NaN.
    fn highest(self) -> f32;
}

impl Vector for f32 {
    type Ints = i32;
    const LANES: usize = 1;

    #[inline(always)]
    fn splat(v: f32) -> f32 {
        v
    }
    #[inline(always)]
    fn load(x: &[f32]) -> f32 {
        x[0]
    }
    #[inline(always)]
    fn store(self, out: &mut [f32]) {
        out[0] = self;
    }
    #[inline(always)]
    fn bytes(x: &[i8]) -> f32 {
        f32::from(x[0])
    }
    #[inline(always)]
    fn ints(x: &[i32]) -> i32 {
        x[0]
    }
    #[inline(always)]
    fn sums(acc: &[i32], zero: i32, sums: i32) -> f32 {
        (acc[0] - zero * sums) as f32
    }
    #[inline(always)]
    fn levels(self, offset: i32, out: &mut [u8]) {
        out[0] = ((self.round() as i32).clamp(0, 255) - offset) as u8;
    }
    #[inline(always)]
    fn add(self, other: f32) -> f32 {
        self + other
    }
    #[inline(always)]
    fn sub(self, other: f32) -> f32 {
        self - other
    }
    #[inline(always)]
    fn mul(self, other: f32) -> f32 {
        self * other
    }
    #[inline(always)]
    fn div(self, other: f32) -> f32 {
        self / other
    }
    #[inline(always)]
    fn fma(self, b: f32, c: f32) -> f32 {
        self * b + c
    }
    #[inline(always)]
    fn min(self, other: f32) -> f32 {
        if self < other { self } else { other }
    }
    #[inline(always)]
    fn max(self, other: f32) -> f32 {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn round(self) -> f32 {
        // 1.5 · 2²³ leaves no bits for a fraction; a call into the C library would cost more.
        const WHOLE: f32 = 12_582_912.0;
        (self + WHOLE) - WHOLE
    }
    #[inline(always)]
    fn scale(self, n: f32) -> f32 {
        self * f32::from_bits(((n as i32 + 127) as u32) << 23)
    }
    #[inline(always)]
    fn total(self) -> f32 {
        self
    }
    #[inline(always)]
    fn lowest(self) -> f32 {
        self
    }
    #[inline(always)]
    fn highest(self) -> f32 {
        self
    }
}

/// Implements [`Vector`] for a register type from the names of its intrinsics.
///
/// Each method checks the slice it is given and then runs one or two intrinsics, which need the instruction set only:
/// the type is used by functions of its own kernel file alone, which run after its features were detected.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_vector {
    ($register:ty, $ints:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident,
     $div:ident, $fma:ident, $min:ident, $max:ident, $round:path, $scale:path, $bytes:path, $ints_of:path, $sums:path,
     $levels:path, $levels_of_four:path, $is_zero:path, $total:path, $lowest:path, $highest:path) => {
        impl crate::vision::int8::kernels::vector::Vector for $register {
            type Ints = $ints;
            const LANES: usize = $lanes;

            #[inline(always)]
            fn splat(v: f32) -> Self {
                // SAFETY: see the macro.
                unsafe { $splat(v) }
            }
            #[inline(always)]
            fn load(x: &[f32]) -> Self {
                let x = &x[..$lanes];
                // SAFETY: see the macro; the slice is a register long.
                unsafe { $load(x.as_ptr()) }
            }
            #[inline(always)]
            fn store(self, out: &mut [f32]) {
                let out = &mut out[..$lanes];
                // SAFETY: see the macro; the slice is a register long.
                unsafe { $store(out.as_mut_ptr(), self) }
            }
            #[inline(always)]
            fn bytes(x: &[i8]) -> Self {
                let x = &x[..$lanes];
                // SAFETY: see the macro; the slice is a byte a lane long.
                unsafe { $bytes(x.as_ptr()) }
            }
            #[inline(always)]
            fn ints(x: &[i32]) -> $ints {
                let x = &x[..$lanes];
                // SAFETY: see the macro; the slice is a register long.
                unsafe { $ints_of(x.as_ptr().cast()) }
            }
            #[inline(always)]
            fn sums(acc: &[i32], zero: i32, sums: $ints) -> Self {
                // SAFETY: see the macro.
                unsafe { $sums(Self::ints(acc), zero, sums) }
            }
            #[inline(always)]
            fn levels(self, offset: i32, out: &mut [u8]) {
                let out = &mut out[..$lanes];
                // SAFETY: see the macro; the slice is a byte a lane long.
                unsafe { $levels(self, offset, out.as_mut_ptr()) }
            }
            #[inline(always)]
            fn levels_of_four(four: [Self; 4], offset: i32, out: &mut [u8]) {
                let out = &mut out[..4 * $lanes];
                // SAFETY: see the macro; the slice is a byte a lane long.
                unsafe { $levels_of_four(four, offset, out.as_mut_ptr()) }
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: see the macro.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: see the macro.
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                // SAFETY: see the macro.
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                // SAFETY: see the macro.
                unsafe { $div(self, other) }
            }
            #[inline(always)]
            fn fma(self, b: Self, c: Self) -> Self {
                // SAFETY: see the macro.
                unsafe { $fma(self, b, c) }
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                // SAFETY: see the macro.
                unsafe { $min(self, other) }
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                // SAFETY: see the macro.
                unsafe { $max(self, other) }
            }
            #[inline(always)]
            fn round(self) -> Self {
                // SAFETY: see the macro.
                unsafe { $round(self) }
            }
            #[inline(always)]
            fn scale(self, n: Self) -> Self {
                // SAFETY: see the macro.
                unsafe { $scale(self, n) }
            }
            #[inline(always)]
            fn is_zero(self) -> bool {
                // SAFETY: see the macro.
                unsafe { $is_zero(self) }
            }
            #[inline(always)]
            fn total(self) -> f32 {
                // SAFETY: see the macro.
                unsafe { $total(self) }
            }
            #[inline(always)]
            fn lowest(self) -> f32 {
                // SAFETY: see the macro.
                unsafe { $lowest(self) }
            }
            #[inline(always)]
            fn highest(self) -> f32 {
                // SAFETY: see the macro.
                unsafe { $highest(self) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use x86_vector;

//! Products of small f32 matrices, four rows at a time: the answers of an attention pool.
//!
//! Sixteen sums stay in registers, and four values of each row are loaded at once where a lane can be multiplied by. Checked one
//! by one, the lines would cost more instructions than a third of the sums.
#![allow(unsafe_code, reason = "reads lines through pointers that were checked for the whole product at once")]

use super::unrolled;
use super::vector::Vector;

/// Rows of a matrix, `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a> {
    /// The values, from the first row on.
    pub values: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

/// Rows worked on together.
pub const ROWS: usize = 4;
/// Registers of columns worked on together.
const WIDE: usize = 4;

/// Adds to each sum what `$product` makes of a register of the line, the row's number and the sum.
macro_rules! add_line {
    ($sums:ident, $line:ident, |$b:ident, $r:ident, $sum:ident| $product:expr) => {
        unrolled!(WIDE, WORD => if WORD < W {
            let $b = V::load(std::slice::from_raw_parts($line.wrapping_add(WORD * V::LANES), V::LANES));
            unrolled!(ROWS, ROW => {
                let ($r, $sum) = (ROW, $sums[ROW][WORD]);
                $sums[ROW][WORD] = $product;
            });
        });
    };
}

/// `out = a · b` for `rows` rows of `k` values, at most [`ROWS`]; `b` has `k` lines of `width` values, whole registers, and the
/// rows of `out` lie `stride` values apart.
///
/// # Panics
/// When something would be read or written outside the slices.
#[inline(always)]
pub fn product<V: Vector>(
    a: Strided,
    rows: usize,
    b: Strided,
    (k, width): (usize, usize),
    (out, stride): (&mut [f32], usize),
) {
    assert!((1..=ROWS).contains(&rows) && width.is_multiple_of(V::LANES), "rows and columns");
    assert!(k > 0 && (rows - 1) * a.stride + k <= a.values.len(), "rows of the first matrix");
    assert!((k - 1) * b.stride + width <= b.values.len(), "lines of the second matrix");
    assert!((rows - 1) * stride + width <= out.len(), "sums");
    // Rows past the last repeat it; their sums are not stored.
    let starts: [*const f32; ROWS] =
        std::array::from_fn(|row| a.values.as_ptr().wrapping_add(row.min(rows - 1) * a.stride));
    let mut c = 0;
    while c < width {
        let (b, out) = (Strided { values: &b.values[c..], ..b }, &mut out[c..]);
        // SAFETY: the asserts have bounded `rows` rows of k values, and k lines of which as many registers are left from here.
        c += V::LANES
            * match (width - c) / V::LANES {
                WIDE.. => unsafe { columns::<V, WIDE>(starts, b, k) }.store(rows, out, stride),
                _ => unsafe { columns::<V, 1>(starts, b, k) }.store(rows, out, stride),
            };
    }
}

/// Sums of [`ROWS`] rows by `W` registers of columns.
struct Sums<V, const W: usize>([[V; W]; ROWS]);

impl<V: Vector, const W: usize> Sums<V, W> {
    /// Writes those of the first `rows` rows and says how many registers wide they are.
    #[inline(always)]
    fn store(self, rows: usize, out: &mut [f32], stride: usize) -> usize {
        for (r, sums) in self.0.into_iter().enumerate().take(rows) {
            let out = &mut out[r * stride..][..W * V::LANES];
            for (w, sum) in sums.into_iter().enumerate() {
                sum.store(&mut out[w * V::LANES..]);
            }
        }
        W
    }
}

/// # Safety
/// Each of `rows` must be to `k` values, and `b` must have `k` lines of at least `W` registers.
#[inline(always)]
unsafe fn columns<V: Vector, const W: usize>(mut rows: [*const f32; ROWS], b: Strided, k: usize) -> Sums<V, W> {
    let mut sums = [[V::splat(0.0); W]; ROWS];
    let mut line = b.values.as_ptr();
    // SAFETY: by the contract, four lines and four values of each row while as many are left.
    unsafe {
        for _ in 0..k / 4 {
            let a = rows.map(|row| &*row.cast::<[f32; 4]>());
            unrolled!(4, I => {
                add_line!(sums, line, |b, r, sum| b.fma_by::<I>(a[r], sum));
                line = line.wrapping_add(b.stride);
            });
            rows = rows.map(|row| row.wrapping_add(4));
        }
        for i in 0..k % 4 {
            add_line!(sums, line, |b, r, sum| V::splat(*rows[r].add(i)).fma(b, sum));
            line = line.wrapping_add(b.stride);
        }
    }
    Sums(sums)
}

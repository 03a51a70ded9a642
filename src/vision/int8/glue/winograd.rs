//! The transforms around the products of a 3×3 convolution in Winograd's form: tiles of 2×2 outputs from 4×4 inputs, with 16
//! products where a window each takes 36.
//!
//! `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`, with the matrices of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015),
//! F(2×2, 3×3). For each of the 16 places of a tile, the sums over channels are a matrix product of tiles by weights.

use super::quantise::{Scale, encode};
use crate::vision::int8::kernels::vector::Vector;

/// Places of a transformed tile.
pub const PLACES: usize = 16;

/// The place that is a sum of four pixels.
const SUMS: usize = 5;

/// The pixels in the middle of a tile, which are what its outputs stand at.
const MIDDLE: [usize; 4] = [5, 6, 9, 10];

/// Some lines of tiles of one NHWC image, padded with a zero all around.
#[derive(Debug, Clone, Copy)]
pub struct Tiles<'a> {
    /// The image.
    pub image: &'a [f32],
    /// Its height and width.
    pub size: (usize, usize),
    /// Channels, a multiple of the widest register's values.
    pub channels: usize,
    /// The first line of tiles.
    pub first: usize,
    /// Lines of tiles.
    pub lines: usize,
    /// Bytes from one tile's rows to the next tile's, and from one of its [`PLACES`] to the next.
    pub stride: (usize, usize),
    /// Taken off each level, as the kernel reads bytes.
    pub offset: i32,
}

impl Tiles<'_> {
    /// Tiles in a line.
    pub fn across(&self) -> usize {
        self.size.1.div_ceil(2)
    }

    /// Tiles in all lines.
    pub fn count(&self) -> usize {
        self.lines * self.across()
    }

    /// Values of scratch that [`winograd_input`] needs.
    pub fn scratch(&self) -> usize {
        (PLACES + 1) * self.channels
    }
}

/// Transforms and quantises the tiles, each place of each tile by itself; `scales` are `[place][tile]`. Answers with the tile in which
/// a value is not finite.
#[inline(always)]
pub fn winograd_input<V: Vector>(
    t: &Tiles,
    bytes: &mut [u8],
    scales: &mut [Scale],
    scratch: &mut [f32],
) -> Option<usize> {
    let (values, blank) = scratch[..t.scratch()].split_at_mut(PLACES * t.channels);
    blank.fill(0.0);
    let (count, across) = (t.count(), t.across());
    for tile in 0..count {
        let finite = transform_tile::<V>(t, (t.first + tile / across, tile % across), blank, values);
        let (of_tile, bounded) = scales_of::<V>(values, t.channels);
        if !(finite && bounded) {
            return Some(tile);
        }
        let rows = values.chunks_exact(t.channels).zip(bytes[tile * t.stride.0..].chunks_mut(t.stride.1)).zip(of_tile);
        for (((row, bytes), scale), stored) in rows.zip(scales[tile..].iter_mut().step_by(count)) {
            encode::<V>(row, scale, t.offset, bytes);
            *stored = scale.stored(t.offset);
        }
    }
    None
}

/// The scale of each place, and whether all its values are finite. Sums of differences lie about evenly around 0, and one bound is found
/// faster than two; where all are sums, and of pixels behind a ReLU, none is below 0.
#[inline(always)]
fn scales_of<V: Vector>(values: &[f32], channels: usize) -> ([Scale; PLACES], bool) {
    let (mut scales, mut bounded) = ([Scale::default(); PLACES], true);
    for (place, (scale, row)) in scales.iter_mut().zip(values.chunks_exact(channels)).enumerate() {
        let (low, high) = extent::<V>(row);
        let bound = V::splat(0.0).sub(low).max(high).highest();
        bounded &= bound.is_finite();
        *scale = match place {
            SUMS if low.lowest() >= 0.0 => Scale::up_to(bound),
            _ => Scale::around_zero(bound),
        };
    }
    (scales, bounded)
}

/// Lowest and highest value so far, lane by lane.
#[inline(always)]
fn extent<V: Vector>(x: &[f32]) -> (V, V) {
    let (mut low, mut high) = ([V::splat(0.0); 2], [V::splat(0.0); 2]);
    let mut at = 0;
    while at < x.len() {
        let v = V::load(&x[at..]);
        (low[0], high[0]) = (v.min(low[0]), v.max(high[0]));
        at += V::LANES;
        if at < x.len() {
            let v = V::load(&x[at..]);
            (low[1], high[1]) = (v.min(low[1]), v.max(high[1]));
            at += V::LANES;
        }
    }
    (low[0].min(low[1]), high[0].max(high[1]))
}

/// `Bᵀ d B` of one tile for all channels; whether all values were finite of those pixels that are the middle of this tile and of no other.
#[inline(always)]
fn transform_tile<V: Vector>(t: &Tiles, (y, x): (usize, usize), blank: &[f32], out: &mut [f32]) -> bool {
    let pixel = |place: usize| -> &[f32] {
        let (y, x) = (2 * y + place / 4, 2 * x + place % 4);
        let inside = (1..=t.size.0).contains(&y) && (1..=t.size.1).contains(&x);
        if inside { &t.image[((y - 1) * t.size.1 + x - 1) * t.channels..][..t.channels] } else { &blank[..t.channels] }
    };
    let pixels: [&[f32]; PLACES] = std::array::from_fn(pixel);
    let mut witness = V::splat(0.0);
    let mut c = 0;
    while c < t.channels {
        let mut d = [V::splat(0.0); PLACES];
        for place in 0..PLACES {
            d[place] = V::load(&pixels[place][c..]);
        }
        for place in MIDDLE {
            // NaN times 0 is NaN, and so is infinity.
            witness = d[place].fma(V::splat(0.0), witness);
        }
        let mut lines = [V::splat(0.0); PLACES];
        for i in 0..4 {
            [lines[i], lines[4 + i], lines[8 + i], lines[12 + i]] = inward([d[i], d[4 + i], d[8 + i], d[12 + i]]);
        }
        for i in 0..4 {
            let line = inward([lines[4 * i], lines[4 * i + 1], lines[4 * i + 2], lines[4 * i + 3]]);
            for j in 0..4 {
                line[j].store(&mut out[(4 * i + j) * t.channels + c..]);
            }
        }
        c += V::LANES;
    }
    witness.is_zero()
}

/// A column of `Bᵀ d`.
#[inline(always)]
fn inward<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 4] {
    [a.sub(c), b.add(c), c.sub(b), b.sub(d)]
}

/// A column of `Aᵀ m`.
#[inline(always)]
fn outward<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 2] {
    [a.add(b).add(c), b.sub(c).sub(d)]
}

/// What makes outputs of products.
#[derive(Debug, Clone, Copy)]
pub struct FromTiles<'a> {
    /// `[place][tile][channel]`, of a line of tiles.
    pub products: &'a [f32],
    /// Values from one place to the next.
    pub stride: usize,
    /// One a channel; a multiple of the widest register's values.
    pub bias: &'a [f32],
    /// Limits of the output.
    pub clamp: (f32, f32),
}

/// Writes the two lines of outputs that a line of tiles makes, or the first of them, each of whole pixels.
#[inline(always)]
pub fn winograd_output<V: Vector>(f: &FromTiles, upper: &mut [f32], mut lower: Option<&mut [f32]>) {
    let channels = f.bias.len();
    let (low, high) = (V::splat(f.clamp.0), V::splat(f.clamp.1));
    let width = upper.len() / channels;
    for tile in 0..width.div_ceil(2) {
        let places: [&[f32]; PLACES] =
            std::array::from_fn(|place| &f.products[place * f.stride + tile * channels..][..channels]);
        let both = 2 * tile + 1 < width;
        let mut c = 0;
        while c < channels {
            let mut columns = [V::splat(0.0); 8];
            for i in 0..4 {
                let m = [0, 4, 8, 12].map(|line| V::load(&places[line + i][c..]));
                [columns[i], columns[4 + i]] = outward(m);
            }
            let bias = V::load(&f.bias[c..]);
            let at = 2 * tile * channels + c;
            for (line, out) in [Some(&mut *upper), lower.as_deref_mut()].into_iter().enumerate() {
                let Some(out) = out else { continue };
                let m = [columns[4 * line], columns[4 * line + 1], columns[4 * line + 2], columns[4 * line + 3]];
                let [left, right] = outward(m);
                left.add(bias).max(low).min(high).store(&mut out[at..]);
                if both {
                    right.add(bias).max(low).min(high).store(&mut out[at + channels..]);
                }
            }
            c += V::LANES;
        }
    }
}

/// `G g Gᵀ` of one 3×3 kernel.
pub fn winograd_weight(g: &[f32; 9]) -> [f32; PLACES] {
    let spread = |a: f32, b: f32, c: f32| [a, (a + b + c) * 0.5, (a - b + c) * 0.5, c];
    let columns: [[f32; 4]; 3] = std::array::from_fn(|i| spread(g[i], g[3 + i], g[6 + i]));
    let mut out = [0.0; PLACES];
    for (i, line) in out.chunks_exact_mut(4).enumerate() {
        line.copy_from_slice(&spread(columns[0][i], columns[1][i], columns[2][i]));
    }
    out
}

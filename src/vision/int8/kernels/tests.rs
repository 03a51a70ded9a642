//! Every kernel of this machine against sums computed one by one, on shapes and values chosen to go wrong.

use proptest::prelude::*;

use super::float::Strided;
use super::memory::Arena;
use super::pool::Pool;
use super::{Kernel, KernelChoice, Strip};
use crate::vision::int8::glue::{Activation, Depthwise, Finish, Levels, Quantise, Scale};
use crate::vision::int8::packed::{Inner, Matrix, Packed};

fn kernels() -> Vec<Kernel> {
    KernelChoice::ALL.into_iter().filter_map(KernelChoice::kernel).collect()
}

/// A product of `rows` activation rows and a weight matrix, `inner` cut as the kernels read it.
#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    columns: usize,
    segments: usize,
    run: usize,
    /// Bytes between the rows' runs, so that rows overlap or lie apart.
    row_stride: usize,
    levels: Vec<u8>,
    weights: Vec<i8>,
}

impl Case {
    fn segment_stride(&self) -> usize {
        (self.rows - 1) * self.row_stride + self.run
    }

    fn level(&self, row: usize, k: usize) -> i32 {
        let at = row * self.row_stride + k / self.run * self.segment_stride() + k % self.run;
        i32::from(self.levels[at])
    }

    fn expected(&self, offset: i32) -> Vec<i32> {
        let k = self.segments * self.run;
        let sum = |r: usize, c: usize| {
            (0..k).map(|i| (self.level(r, i) - offset) * i32::from(self.weights[c * k + i])).sum::<i32>()
        };
        (0..self.rows * self.columns).map(|i| sum(i / self.columns, i % self.columns)).collect()
    }

    /// The same through a kernel.
    fn computed(&self, kernel: &Kernel) -> Vec<i32> {
        let layout = kernel.layout;
        let k = self.segments * self.run;
        let inner = Inner { groups: 1, segments: self.segments, run: self.run };
        let places: Vec<_> = (0..k).collect();
        let matrix = Matrix { values: &self.weights, places: &places, stride: k };
        let packed =
            Packed::new((kernel, &mut Arena::default()), "w", inner, &vec![1.0; self.columns], &matrix).unwrap();
        let mut bytes: Vec<u8> = self.levels.iter().map(|level| layout.store(*level)).collect();
        // What follows the last run is read and must not matter.
        bytes.extend([0xAB; 64]);
        let padded = packed.padded_columns();
        let mut acc = vec![i32::MAX; self.rows * padded];
        // The last panel by itself.
        let panels = padded / layout.columns;
        for panels in [0..panels - 1, panels - 1..panels] {
            if panels.is_empty() {
                continue;
            }
            let strip = Strip {
                a: &bytes,
                rows: self.rows,
                row_stride: self.row_stride,
                segments: self.segments,
                segment_stride: self.segment_stride(),
                steps: packed.steps,
                panels: packed.panels(panels.clone(), 0),
                next: packed.upcoming(panels.end, 2),
                width: padded,
            };
            (kernel.strip)(&strip, &mut acc[panels.start * layout.columns..]);
        }
        acc.chunks_exact(padded).flat_map(|row| &row[..self.columns]).copied().collect()
    }

    fn check(&self) {
        for kernel in kernels() {
            let (expected, computed) = (self.expected(kernel.layout.offset), self.computed(&kernel));
            assert!(expected == computed, "{} differs on {self:?}", kernel.name);
        }
    }

    fn filled(rows: usize, columns: usize, k: usize, level: u8, weight: i8) -> Case {
        let levels = vec![level; rows * k];
        Case { rows, columns, segments: 1, run: k, row_stride: k, levels, weights: vec![weight; columns * k] }
    }
}

#[test]
fn extreme_values_do_not_saturate() {
    for (level, weight) in [(255, 127), (255, -128), (255, -127), (0, -128), (0, 127), (1, -1), (128, 1), (0, 0)] {
        for k in [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 100, 768, 3072] {
            Case::filled(3, 33, k, level, weight).check();
        }
    }
}

#[test]
fn alternating_extremes_cancel_exactly() {
    let mut case = Case::filled(5, 40, 515, 0, 0);
    case.levels.iter_mut().enumerate().for_each(|(i, l)| *l = if i % 3 == 0 { 255 } else { 0 });
    case.weights.iter_mut().enumerate().for_each(|(i, w)| *w = if i % 2 == 0 { 127 } else { -128 });
    case.check();
}

#[test]
fn every_row_count_and_column_tail() {
    for rows in 1..=35 {
        for columns in [1, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64] {
            let mut case = Case::filled(rows, columns, if rows % 2 == 0 { 128 } else { 37 }, 0, 0);
            case.levels.iter_mut().enumerate().for_each(|(i, l)| *l = (i * 89 % 256) as u8);
            case.weights.iter_mut().enumerate().for_each(|(i, w)| *w = (i * 57 % 256) as u8 as i8);
            case.check();
        }
    }
}

/// The sums are the same on every machine: this digest was written on x86-64 and is asserted everywhere.
#[test]
fn the_sums_are_those_of_every_other_machine() {
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    for ((rows, columns, segments, run), written) in
        [((50, 64, 1, 768), 0x080b_a2e0_5764_599e), ((13, 33, 3, 37), 0xf18e_1923_535c_b6f6)]
    {
        let levels = (0..segments * rows * run).map(|_| random()).collect();
        let weights: Vec<i8> = (0..columns * segments * run).map(|_| random() as i8).collect();
        let case = Case { rows, columns, segments, run, row_stride: run, levels, weights };
        let k = segments * run;
        let column_sum = |c: usize| case.weights[c * k..][..k].iter().map(|w| i32::from(*w)).sum::<i32>();
        for kernel in kernels() {
            let computed = case.computed(&kernel);
            // Back to levels 0..=255, which not all kernels read.
            let sums = computed.iter().enumerate().map(|(i, sum)| sum + kernel.layout.offset * column_sum(i % columns));
            // FNV-1a.
            let digest = sums.flat_map(i32::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |digest: u64, byte| {
                (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            assert_eq!(digest, written, "{} on {rows} rows", kernel.name);
        }
    }
}

/// Values between -1 and 1, the same each time.
fn values(seed: u32) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[test]
fn ranges_cover_every_value_and_nothing_that_is_not_finite_passes() {
    for kernel in kernels() {
        for len in 0..140 {
            let mut x: Vec<f32> = std::iter::repeat_with(values(len)).take(len as usize).collect();
            let (low, high) = x.iter().fold((0f32, 0f32), |(low, high), x| (low.min(*x), high.max(*x)));
            assert_eq!((kernel.glue.range)(&x), Some((low, high)), "{} of {len}", kernel.name);
            for at in 0..x.len() {
                let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][at % 3];
                let good = std::mem::replace(&mut x[at], bad);
                assert_eq!((kernel.glue.range)(&x), None, "{}: {bad} at {at} of {len}", kernel.name);
                x[at] = good;
            }
        }
    }
}

#[test]
fn rows_known_to_be_positive_become_the_same_bytes() {
    let mut value = values(7);
    for kernel in kernels() {
        for width in 1..70 {
            let x: Vec<f32> = (0..11 * width).map(|_| value().max(0.0)).collect();
            let quantised = |x: &[f32], positive: bool| {
                let (mut bytes, mut scales) = (vec![0; x.len()], vec![Scale::default(); 11]);
                let offset = kernel.layout.offset;
                let rows = Quantise {
                    x: Strided { values: x, stride: width },
                    width,
                    norm: None,
                    levels: Levels::of(positive),
                    offset,
                    stride: width,
                };
                let bad = (kernel.glue.quantise)(&rows, &mut bytes, &mut scales, &mut []);
                (bad, bytes, scales)
            };
            assert_eq!(quantised(&x, true), quantised(&x, false), "{} of {width}", kernel.name);
            let mut infinite = x;
            infinite[10 * width - 1] = f32::INFINITY;
            assert_eq!(quantised(&infinite, true).0, Some(9), "{} of {width}", kernel.name);
        }
    }
}

#[test]
fn levels_are_the_nearest_and_stay_within_a_byte() {
    for kernel in kernels() {
        for len in 0..140 {
            // A scale that is too narrow for some: those are cut, not wrapped.
            let scale = Scale::covering(-0.7, 0.8);
            let x: Vec<f32> = std::iter::repeat_with(values(len)).take(len as usize).collect();
            for offset in [0, 128] {
                let mut out = vec![0xAA; x.len() + 1];
                (kernel.glue.encode)(&x, scale, offset, &mut out);
                assert_eq!(out[x.len()], 0xAA, "{} wrote beyond {len}", kernel.name);
                for (x, out) in x.iter().zip(&out) {
                    let exact = (f64::from(*x) / f64::from(scale.scale) + f64::from(scale.zero)).clamp(0.0, 255.0);
                    let level = f64::from(out.wrapping_add(offset as u8));
                    assert!((level - exact).abs() <= 0.501, "{}: {x} became {level} of {len}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn tiles_become_values_with_bias_residual_and_limits() {
    for kernel in kernels() {
        let pool = Pool::new(1).unwrap();
        let (columns, rows) = (kernel.layout.columns, kernel.layout.rows);
        for width in (1..=columns).chain([columns + 3]) {
            for (partial, residual) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut random = values(width as u32);
                let mut some = |count: usize| -> Vec<f32> { (0..count).map(|_| random()).collect() };
                let acc: Vec<i32> = some(rows * columns).iter().map(|x| (x * 1e5) as i32).collect();
                let sums: Vec<i32> = some(columns).iter().map(|x| (x * 1e3) as i32).collect();
                let (scale, bias, parts) = (some(columns), some(columns), some(rows * columns));
                let others = some(rows * width);
                let scales: Vec<Scale> = (0..rows).map(|r| Scale { scale: 1e-5, zero: r as i32 * 20 - 30 }).collect();
                let finish = Finish {
                    columns,
                    row: 0,
                    column: 0,
                    rows: &scales,
                    sums: &sums,
                    scale: &scale,
                    bias: &bias,
                    partial: partial.then_some(&parts),
                    activation: Activation::Clamp { low: -0.5, high: 0.9 },
                    residual,
                };
                let mut out = if residual { others.clone() } else { vec![f32::NAN; rows * width] };
                pool.blocks(&mut out, width, (rows, width), |block| (kernel.glue.finish)(&finish, &acc, block));
                for (r, row) in out.chunks_exact(width).enumerate() {
                    for (c, value) in row.iter().enumerate().take(columns) {
                        let sum = acc[r * columns + c] - scales[r].zero * sums[c];
                        let part = if partial { parts[r * columns + c] } else { 0.0 };
                        let other = if residual { others[r * width + c] } else { 0.0 };
                        let exact = (sum as f32 * scales[r].scale + part) * scale[c] + bias[c] + other;
                        let off = (value - exact.clamp(-0.5, 0.9)).abs();
                        assert!(off < 1e-5, "{}: {value} for {exact} at {r}, {c} of {width}", kernel.name);
                    }
                }
            }
        }
    }
}

#[test]
fn depthwise_sums_are_those_of_the_definition() {
    let shapes = [((1, 1), 3), ((2, 2), 2), ((3, 3), 1), ((3, 3), 2), ((5, 5), 1), ((3, 5), 1), ((2, 2), 1)];
    for kernel in kernels() {
        for (window, stride) in shapes {
            for (channels, size, before) in
                [(1, (5, 5), 1), (4, (9, 12), 1), (16, (7, 6), 0), (19, (8, 11), 1), (35, (6, 17), 1), (8, (5, 5), 2)]
                    .into_iter()
                    .chain((4..17).map(|width| (20, (4, width), 1)))
            {
                let before = before.min(window.0 - 1);
                let mut random = values(channels as u32);
                let mut some = |count: usize| -> Vec<f32> { (0..count).map(|_| random()).collect() };
                let x = some(size.0 * size.1 * channels);
                let (taps, bias) = (some(window.0 * window.1 * channels), some(channels));
                let layer = Depthwise {
                    x: &x,
                    size,
                    taps: &taps,
                    bias: &bias,
                    kernel: window,
                    stride: (stride, stride),
                    before: (before, before),
                    clamp: (-1.5, 1.5),
                };
                let outputs = |size: usize, window: usize| (size + 2 * before - window) / stride + 1;
                let (height, width) = (outputs(size.0, window.0), outputs(size.1, window.1));
                for y in 0..height {
                    let mut out = vec![f32::NAN; width * channels];
                    (kernel.glue.depthwise)(&layer, y, &mut out);
                    for (at, value) in out.iter().enumerate() {
                        let (left, c) = (at / channels * stride, at % channels);
                        let mut sum = bias[c];
                        for (ky, kx) in (0..window.0).flat_map(|ky| (0..window.1).map(move |kx| (ky, kx))) {
                            let (line, column) =
                                ((y * stride + ky).wrapping_sub(before), (left + kx).wrapping_sub(before));
                            if line < size.0 && column < size.1 {
                                let pixel = x[(line * size.1 + column) * channels + c];
                                sum += pixel * taps[(ky * window.1 + kx) * channels + c];
                            }
                        }
                        let off = (value - sum.clamp(-1.5, 1.5)).abs();
                        assert!(off < 1e-5, "{}: {value} for {sum} at {y}, {at} of {layer:?}", kernel.name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_normalised_row_has_mean_bias_and_deviation_gain() {
    for kernel in kernels() {
        for len in 2..140 {
            let mut random = values(len as u32);
            let mut some = || -> Vec<f32> { (0..len).map(|_| random()).collect() };
            let (x, gain, bias) = (some(), some(), some());
            let mut out = vec![f32::NAN; len];
            (kernel.glue.layer_norm)(&x, &gain, &bias, 1e-3, &mut out);
            let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / len as f64;
            let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / len as f64;
            for (i, value) in out.iter().enumerate() {
                let exact =
                    (f64::from(x[i]) - mean) / (variance + 1e-3).sqrt() * f64::from(gain[i]) + f64::from(bias[i]);
                assert!(
                    (f64::from(*value) - exact).abs() < 1e-4,
                    "{}: {value} for {exact} at {i} of {len}",
                    kernel.name
                );
            }
        }
    }
}

/// A sum that differs in its last bit grows, layer by layer, to as much as int8 differs from f32.
#[test]
fn kernels_that_fuse_multiply_and_add_agree_to_the_last_bit() {
    let fused = || kernels().into_iter().filter(|kernel| kernel.name != "portable");
    let agree = |what: &str, outputs: Vec<(&str, Vec<f32>)>| {
        for (name, output) in &outputs {
            let same = output.iter().zip(&outputs[0].1).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}: {name} and {}", outputs[0].0);
        }
    };
    for (count, width) in [(50, 768), (65, 192), (257, 1024), (5, 16), (9, 80)] {
        let mut random = values(count as u32);
        let mut some = |count: usize| -> Vec<f32> { (0..count).map(|_| random() * 3.0).collect() };
        let (x, gain, bias) = (some(width), some(width), some(width));
        let norm = |kernel: Kernel| {
            let mut out = vec![0.0; width];
            (kernel.glue.layer_norm)(&x, &gain, &bias, 1e-5, &mut out);
            (kernel.name, out)
        };
        agree(&format!("a norm of {width}"), fused().map(norm).collect());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_shapes_and_values(
        (rows, columns, segments) in (prop_oneof![1usize..20, 14usize..70], 1usize..70, 1usize..4),
        run in prop_oneof![1usize..80, (1usize..6, 12usize..17).prop_map(|(chunks, depth)| chunks * depth * 4)],
        stride in 1usize..100,
        seed in any::<u32>(),
    ) {
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8
        };
        let len = segments * ((rows - 1) * stride + run);
        let levels = (0..len).map(|_| random()).collect();
        let weights = (0..columns * segments * run).map(|_| random() as i8).collect();
        Case { rows, columns, segments, run, row_stride: stride, levels, weights }.check();
    }
}

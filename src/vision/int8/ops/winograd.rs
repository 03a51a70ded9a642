//! A 3×3 convolution of stride 1 over NHWC images in Winograd's form: `[b, h, w, c] → [b, h, w, n]`.
//!
//! Of 36 products that a tile of 2×2 outputs takes 16 are left, and each place of each tile is quantised by itself, where windows read in
//! place must share one scale an image. What is gained is spent in part on transforms: it pays where channels are many.

use tract_onnx::tract_hir::internal::*;

use super::{BadRow, equal_by_identity};
use crate::vision::int8::glue::{Activation, FromTiles, PLACES, Scale, Tiles, winograd_weight};
use crate::vision::int8::kernels::pool::Block;
use crate::vision::int8::packed::{Matrix, Packed};
use crate::vision::int8::product::{Product, Scales, Walk};
use crate::vision::int8::runtime::Runtime;

/// Fewest tiles that one task takes, if there are as many: for each, all weights are read.
const TILES_PER_TASK: usize = 56;

/// Bytes between the rows of one tile and of the next, so that they do not fall on each other's places in a first-level cache.
const APART: usize = 64;

/// The weights of a convolution in Winograd's form.
#[derive(Debug)]
pub struct WinogradWeights {
    /// A matrix for each place of a tile.
    pub places: Vec<Packed>,
    /// One a channel of the output.
    pub bias: Vec<f32>,
    /// As many zeros as the matrices have columns.
    pub zeros: Vec<f32>,
}

impl WinogradWeights {
    /// Of int8 kernels `[output][input][3][3]` with a scale an output: transformed, and rounded to int8 again with a scale for each output
    /// of each place. `pack` makes a kernel's form of a matrix and its scales.
    ///
    /// # Errors
    /// Those of `pack`.
    pub fn new(
        (c, n): (usize, usize),
        (values, scale): (&[i8], &[f32]),
        bias: Vec<f32>,
        pack: impl Fn(&[f32], &Matrix) -> TractResult<Packed>,
    ) -> TractResult<WinogradWeights> {
        let mut levels = vec![vec![0i8; c * n]; PLACES];
        let mut scales = vec![vec![0f32; n]; PLACES];
        let mut transformed = vec![0f32; PLACES * c];
        for (output, kernels) in values.as_chunks::<9>().0.chunks_exact(c).enumerate() {
            for (input, kernel) in kernels.iter().enumerate() {
                let places = transformed[input..].iter_mut().step_by(c);
                places.zip(winograd_weight(&kernel.map(f32::from))).for_each(|(to, value)| *to = value);
            }
            for ((row, levels), scales) in transformed.chunks_exact(c).zip(&mut levels).zip(&mut scales) {
                let most = row.iter().fold(0f32, |most, value| most.max(value.abs()));
                let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
                scales[output] = most / 127.0 * scale[output];
                let levels = levels[output * c..][..c].iter_mut().zip(row);
                levels.for_each(|(level, value)| *level = (value * inverse + 0.5f32.copysign(*value)) as i8);
            }
        }
        let places: Vec<usize> = (0..c).collect();
        let packed =
            |(values, scale): (&Vec<i8>, &Vec<f32>)| pack(scale, &Matrix { values, places: &places, stride: c });
        let places = levels.iter().zip(&scales).map(packed).collect::<TractResult<Vec<_>>>()?;
        let zeros = vec![0.0; places[0].padded_columns()];
        Ok(WinogradWeights { places, bias, zeros })
    }
}

/// `clamp(conv(x, W) + bias)`, with a zero all around `x`.
#[derive(Debug, Clone)]
pub struct Winograd {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// The weights.
    pub weights: Arc<WinogradWeights>,
    /// Limits of the output.
    pub clamp: (f32, f32),
}

equal_by_identity!(Winograd, weights);

impl Winograd {
    fn channels(&self) -> (usize, usize) {
        (self.weights.places[0].inner.len(), self.weights.places[0].columns)
    }

    /// Lines of tiles that one task computes, of an image with as many.
    fn lines_per_task(&self, down: usize, across: usize) -> usize {
        let share = down.div_ceil(self.runtime.pool.threads());
        TILES_PER_TASK.div_ceil(across).min(share).max(1)
    }

    fn image(&self, image: &[f32], size: (usize, usize), bad: &BadRow, out: &mut [f32]) {
        let (channels, columns) = self.channels();
        let Runtime { kernel, pool, .. } = &*self.runtime;
        let (down, width) = (size.0.div_ceil(2), size.1 * columns);
        let lines = self.lines_per_task(down, size.1.div_ceil(2));
        let place = channels.next_multiple_of(kernel.layout.depth);
        pool.blocks(out, width, (2 * lines, width), |block| {
            let tiles = Tiles {
                image,
                size,
                channels,
                first: block.rows().start / 2,
                lines: block.rows().len().div_ceil(2),
                stride: (PLACES * place + APART, place),
                offset: kernel.layout.offset,
            };
            self.lines(&tiles, bad, block);
        });
    }

    /// The outputs of some lines of tiles.
    fn lines(&self, tiles: &Tiles, bad: &BadRow, out: &mut Block<f32>) {
        let (count, across, columns) = (tiles.count(), tiles.across(), self.channels().1);
        Runtime::with_thread_scratch(|values, scratch| {
            let products = PLACES * count * columns;
            let (products, transformed) = values.grown(products + tiles.scratch()).split_at_mut(products);
            let (bytes, scales) = scratch.take(count * tiles.stride.0, PLACES * count);
            match (self.runtime.kernel.glue.winograd_input)(tiles, bytes, scales, transformed) {
                Some(tile) => bad.set((tiles.first + tile / across) * 2 * tiles.size.1 + tile % across * 2),
                None => {
                    self.multiply(tiles, bytes, scales, products);
                    self.write(tiles, products, out);
                }
            }
        });
    }

    /// The products of each place, `[place][tile][column]`.
    fn multiply(&self, tiles: &Tiles, bytes: &[u8], scales: &[Scale], products: &mut [f32]) {
        let (count, columns) = (tiles.count(), self.channels().1);
        let places = self.weights.places.iter().zip(scales.chunks_exact(count));
        for (at, ((weights, scales), out)) in places.zip(products.chunks_exact_mut(count * columns)).enumerate() {
            let product = Product {
                weights,
                bytes: &bytes[at * tiles.stride.1..],
                walk: Walk::Rows { stride: tiles.stride.0, group_stride: 0 },
                scales: Scales::Rows(scales),
                bias: &self.weights.zeros,
                residual: false,
                activation: Activation::Identity,
            };
            product.run_here(&self.runtime, out);
        }
    }

    /// The outputs of those products.
    fn write(&self, tiles: &Tiles, products: &[f32], out: &mut Block<f32>) {
        let (columns, rows) = (self.channels().1, out.rows());
        for line in 0..tiles.lines {
            let from = FromTiles {
                products: &products[line * tiles.across() * columns..],
                stride: tiles.count() * columns,
                bias: &self.weights.bias,
                clamp: self.clamp,
            };
            let first = rows.start + 2 * line;
            let mut outs = out.rows_of(first..rows.end.min(first + 2), 0..tiles.size.1 * columns);
            if let (Some(upper), lower) = (outs.next(), outs.next()) {
                (self.runtime.kernel.glue.winograd_output)(&from, upper, lower);
            }
        }
    }
}

impl Op for Winograd {
    fn name(&self) -> StaticName {
        "WinogradInt8".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let (channels, columns) = self.channels();
        Ok(vec![format!("3x3 of {channels} -> {columns}, {:?}", self.clamp)])
    }

    op_as_typed_op!();
}

impl EvalOp for Winograd {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let shape = inputs[0].shape();
        let (batch, size, (channels, columns)) = (shape[0], (shape[1], shape[2]), self.channels());
        let x = inputs[0].try_as_plain_ram()?;
        let images = x.as_slice::<f32>()?.chunks_exact(size.0 * size.1 * channels);
        let mut out = self.runtime.output(&[batch, size.0, size.1, columns])?;
        let mut view = out.try_as_plain_ram_mut()?;
        let outs = view.as_slice_mut::<f32>()?.chunks_exact_mut(size.0 * size.1 * columns);
        let bad = BadRow::new();
        for (image, out) in images.zip(outs) {
            self.image(image, size, &bad, out);
        }
        bad.check("WinogradInt8")?;
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Winograd {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = inputs[0].shape.as_concrete().context("WinogradInt8: the input's shape is not fixed")?;
        Ok(tvec!(f32::fact([shape[0], shape[1], shape[2], self.channels().1])))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let shape = inputs[0].shape.as_concrete().context("WinogradInt8: the input's shape is not fixed")?;
        let (channels, columns) = self.channels();
        let tiles = shape[0] * shape[1].div_ceil(2) * shape[2].div_ceil(2);
        Ok(tvec!((Cost::FMA(i8::datum_type()), (tiles * PLACES * channels * columns).to_dim())))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::int8::kernels::memory::Arena;
    use crate::vision::int8::kernels::pool::Pool;
    use crate::vision::int8::kernels::{Kernel, KernelChoice};
    use crate::vision::int8::packed::Inner;

    /// Random values, taps and biases.
    struct Layer {
        size: (usize, usize),
        channels: (usize, usize),
        x: Vec<f32>,
        taps: Vec<i8>,
        bias: Vec<f32>,
    }

    impl Layer {
        fn new(size: (usize, usize), channels: (usize, usize)) -> Layer {
            let mut state = 9u32;
            let mut random = move |count: usize, reach: f32| -> Vec<f32> {
                let mut one = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * reach
                };
                (0..count).map(|_| one()).collect()
            };
            Layer {
                size,
                channels,
                x: random(size.0 * size.1 * channels.0, 3.0),
                taps: random(channels.1 * channels.0 * 9, 127.0).into_iter().map(|tap| tap as i8).collect(),
                bias: random(channels.1, 1.0),
            }
        }

        /// The value of channel `n` at `y`, `x`.
        fn exact(&self, y: usize, x: usize, n: usize) -> f64 {
            let ((height, width), c) = (self.size, self.channels.0);
            let mut sum = f64::from(self.bias[n]);
            for tap in 0..9 {
                let (y, x) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
                if y < height && x < width {
                    let products = (0..c).map(|i| {
                        let tap = f64::from(self.taps[(n * c + i) * 9 + tap]) * Self::scale(n);
                        f64::from(self.x[(y * width + x) * c + i]) * tap
                    });
                    sum += products.sum::<f64>();
                }
            }
            sum.clamp(-20.0, 20.0)
        }

        /// Of the taps of channel `n`.
        fn scale(n: usize) -> f64 {
            f64::from((1 + n % 3) as f32 / 256.0)
        }

        fn weights(&self, kernel: &Kernel) -> TractResult<WinogradWeights> {
            let scale: Vec<f32> = (0..self.channels.1).map(|n| Self::scale(n) as f32).collect();
            let pack = |scale: &[f32], matrix: &Matrix| {
                let packed =
                    Packed::new((kernel, &mut Arena::default()), "w", Inner::plain(self.channels.0), scale, matrix);
                packed.map_err(TractError::msg)
            };
            WinogradWeights::new(self.channels, (&self.taps, &scale), self.bias.clone(), pack)
        }

        fn computed(&self, kernel: Kernel, threads: usize) -> TractResult<Vec<f32>> {
            let shape = [1, self.size.0, self.size.1, self.channels.0];
            let weights = Arc::new(self.weights(&kernel)?);
            let runtime = Arc::new(Runtime::new(kernel, Pool::new(threads)?));
            let mut model = TypedModel::default();
            let source = model.add_source("x", f32::fact(shape))?;
            let out = model.wire_node("conv", Winograd { runtime, weights, clamp: (-20.0, 20.0) }, &[source])?;
            model.select_output_outlets(&out)?;
            let out = model.into_runnable()?.run(tvec!(Tensor::from_shape(&shape, &self.x)?.into_tvalue()))?;
            Ok(out[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        }
    }

    fn kernels() -> impl Iterator<Item = Kernel> {
        KernelChoice::ALL.into_iter().filter_map(KernelChoice::kernel)
    }

    #[test]
    fn every_output_is_what_its_window_gives() {
        for (size, channels) in [((1, 1), (16, 16)), ((2, 3), (16, 48)), ((5, 7), (48, 32)), ((18, 17), (64, 80))] {
            let layer = Layer::new(size, channels);
            for kernel in kernels() {
                let out = layer.computed(kernel, 1).unwrap();
                let mut squares = (0.0, 0.0);
                for (at, value) in out.iter().enumerate() {
                    let (pixel, n) = (at / channels.1, at % channels.1);
                    let exact = layer.exact(pixel / size.1, pixel % size.1, n);
                    let off = f64::from(*value) - exact;
                    // Each of some hundreds of operands is rounded to a hundredth of its range.
                    assert!(off.abs() < 2.0, "{}: {value} for {exact} at {pixel}, {n} of {size:?}", kernel.name);
                    squares = (squares.0 + off * off, squares.1 + exact * exact);
                }
                assert!(squares.0 < 8e-4 * squares.1, "{}: {squares:?} of {size:?}", kernel.name);
            }
        }
    }

    #[test]
    fn kernels_and_threads_agree() {
        let layer = Layer::new((18, 17), (64, 80));
        let expected = layer.computed(KernelChoice::Portable.kernel().unwrap(), 1).unwrap();
        for kernel in kernels() {
            for threads in 1..4 {
                let out = layer.computed(kernel, threads).unwrap();
                // What differs is how floating point rounds, and a level here or there by that.
                let far = out.iter().zip(&expected).filter(|(a, b)| (**a - **b).abs() > 0.1).count();
                assert!(far == 0, "{} with {threads} threads: {far} values", kernel.name);
            }
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_an_error_wherever_it_stands() {
        for value in [f32::NAN, f32::INFINITY] {
            for at in [0, 5 * 7 * 16 - 1, 17 * 16 + 3] {
                let mut layer = Layer::new((5, 7), (16, 16));
                layer.x[at] = value;
                for kernel in kernels() {
                    let error = layer.computed(kernel, 1).unwrap_err();
                    assert!(format!("{error:#}").contains("not finite"), "{}: {error:#}", kernel.name);
                }
            }
        }
    }
}

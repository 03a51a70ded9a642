//! The first convolution, straight from RGB bytes: `u8 [b, h, w, 3] → f32 [b, h', w', n]`.
//!
//! The model was trained on `(pixel / 255 - mean) / std`. Dividing by 255 and by `std` is a scale and subtracting the
//! mean is an addition to the bias, so the bytes themselves are the quantised activations, with no rounding at all.
//! Where `std` differs from colour to colour, each colour has its own scale and so is a group of the product by itself,
//! and windows are gathered colour by colour; where it is one number, the picture is read in place, line by line. Where
//! the window reaches over the edge, the model's padding is 0 after normalising, which is the mean before it: the nearest
//! whole level stands for it, less than 0.01 away.

use tract_onnx::tract_hir::internal::*;

use super::{Window, equal_by_identity};
use crate::vision::int8::glue::{Activation, Scale};
use crate::vision::int8::packed::Packed;
use crate::vision::int8::product::{Product, Scales, Walk};
use crate::vision::int8::runtime::Runtime;

/// Lines of windows gathered by one task.
const LINES_PER_TASK: usize = 4;

/// `activation(conv(normalise(pixels), W) + bias)`.
#[derive(Debug, Clone)]
pub struct PixelConv {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// The weights: a group a colour, each `[kernel row][kernel column]`; or, where the colours share a scale, one group
    /// with a segment a kernel row, each `[kernel column][colour]`.
    pub weights: Arc<Packed>,
    /// One a column, padded as the weights, the mean's part included.
    pub bias: Arc<Vec<f32>>,
    /// Kernel size, strides, padding.
    pub window: Window,
    /// One a colour: what a stored byte is worth after normalising.
    pub scales: [Scale; 3],
    /// The levels of the padding, one a colour.
    pub blank: [u8; 3],
    /// Applied last.
    pub activation: Activation,
}

equal_by_identity!(PixelConv, weights);

impl PixelConv {
    fn output_shape(&self, input: &[usize]) -> TVec<usize> {
        let (height, width) = self.window.output((input[1], input[2]));
        tvec!(input[0], height, width, self.weights.columns)
    }

    /// The picture with its padding, as stored bytes.
    fn pad(&self, image: &[u8], (height, width): (usize, usize), out: &mut [u8]) {
        let layout = self.runtime.kernel.layout;
        let Window { before, .. } = self.window;
        let blank = self.blank.map(|level| layout.store(level));
        let fill = |pixels: &mut [u8]| pixels.as_chunks_mut::<3>().0.fill(blank);
        for (y, line) in out.chunks_exact_mut(self.window.padded((height, width)).1 * 3).enumerate() {
            let Some(y) = y.checked_sub(before.0).filter(|y| *y < height) else {
                fill(line);
                continue;
            };
            let (left, rest) = line.split_at_mut(before.1 * 3);
            let (middle, right) = rest.split_at_mut(width * 3);
            fill(left);
            fill(right);
            let levels = &image[y * width * 3..][..width * 3];
            middle.iter_mut().zip(levels).for_each(|(out, level)| *out = layout.store(*level));
        }
    }

    /// Reads the windows in place, in a padded picture.
    fn in_place(&self, pixels: &[u8], shape: &[usize], out: &mut [f32]) {
        let image = (shape[1], shape[2]);
        let padded = self.window.padded(image);
        let (line, image_bytes) = (padded.1 * 3, padded.0 * padded.1 * 3);
        let mut scratch = self.runtime.scratch();
        // The last window's run is read as far as the kernel's depth goes.
        let (bytes, _) = scratch.take(shape[0] * image_bytes + self.runtime.kernel.layout.depth, 0);
        for (bytes, pixels) in bytes.chunks_exact_mut(image_bytes).zip(pixels.chunks_exact(image.0 * image.1 * 3)) {
            self.pad(pixels, image, bytes);
        }
        let step = (self.window.stride.0 * line, self.window.stride.1 * 3);
        let walk = Walk::Windows { output: self.window.output(image), image: image_bytes, line, step };
        self.product(bytes, walk).run(&self.runtime, out);
    }

    /// Gathers each window, colour by colour.
    fn gathered(&self, pixels: &[u8], shape: &[usize], out: &mut [f32]) {
        let (image, image_bytes) = ((shape[1], shape[2]), shape[1] * shape[2] * 3);
        let (height, width) = self.window.output(image);
        let rows = shape[0] * height * width;
        let group = self.weights.inner.padded_run(self.runtime.kernel.layout);
        let stride = 3 * group;
        let mut scratch = self.runtime.scratch();
        let (bytes, _) = scratch.take(rows * stride, 0);
        self.runtime.pool.blocks(bytes, width * stride, (LINES_PER_TASK, width * stride), |block| {
            for line in block.rows() {
                let (b, y) = (line / height, line % height);
                self.gather(&pixels[b * image_bytes..][..image_bytes], image, y, block.row(line));
            }
        });
        self.product(bytes, Walk::Rows { stride, group_stride: group }).run(&self.runtime, out);
    }

    fn product<'a>(&'a self, bytes: &'a [u8], walk: Walk) -> Product<'a> {
        Product {
            weights: &self.weights,
            bytes,
            walk,
            scales: Scales::Groups(&self.scales),
            bias: &self.bias,
            residual: false,
            activation: self.activation,
        }
    }

    /// Writes the windows of a line of output pixels, colour by colour.
    fn gather(&self, image: &[u8], size: (usize, usize), y: usize, out: &mut [u8]) {
        let Window { kernel, stride, before, .. } = self.window;
        let group = self.weights.inner.padded_run(self.runtime.kernel.layout);
        let padded = self.window.padded(size).1;
        Runtime::with_thread_scratch(|_, scratch| {
            let (colours, _) = scratch.take(3 * padded, 0);
            for ky in 0..kernel.0 {
                let line = (y * stride.0 + ky).checked_sub(before.0).filter(|y| *y < size.0);
                self.separate(line.map_or(&[], |y| &image[y * size.1 * 3..][..size.1 * 3]), colours);
                for (colour, levels) in colours.chunks_exact(padded).enumerate() {
                    let out = &mut out[colour * group + ky * kernel.1..];
                    match kernel.1 {
                        // A length that the compiler knows spares a call for each copy.
                        3 => copy_runs(levels, (3, stride.1), out, 3 * group),
                        run => copy_runs(levels, (run, stride.1), out, 3 * group),
                    }
                }
            }
        });
    }

    /// Writes a line's three colours one behind the other, with their padding, as stored bytes; of an empty line only padding.
    fn separate(&self, line: &[u8], colours: &mut [u8]) {
        let layout = self.runtime.kernel.layout;
        let (red, rest) = colours.split_at_mut(colours.len() / 3);
        let (green, blue) = rest.split_at_mut(red.len());
        let mut colours = [red, green, blue];
        for (colour, blank) in colours.iter_mut().zip(self.blank) {
            colour.fill(layout.store(blank));
        }
        let [red, green, blue] = colours.map(|colour| colour[self.window.before.1..].iter_mut());
        for (((pixel, red), green), blue) in line.as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue) {
            [*red, *green, *blue] = pixel.map(|level| layout.store(level));
        }
    }
}

/// Copies runs of `run` bytes, `step` apart, to where they are `stride` apart.
#[inline(always)]
fn copy_runs(from: &[u8], (run, step): (usize, usize), to: &mut [u8], stride: usize) {
    for (from, to) in from.windows(run).step_by(step).zip(to.chunks_mut(stride)) {
        to[..run].copy_from_slice(from);
    }
}

impl Op for PixelConv {
    fn name(&self) -> StaticName {
        "PixelConvInt8".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("-> {}, {:?}, {:?}", self.weights.columns, self.window, self.activation)])
    }

    op_as_typed_op!();
}

impl EvalOp for PixelConv {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let shape = inputs[0].shape();
        let pixels = inputs[0].try_as_plain_ram()?;
        let pixels = pixels.as_slice::<u8>()?;
        let mut out = self.runtime.output(&self.output_shape(shape))?;
        let mut view = out.try_as_plain_ram_mut()?;
        if self.weights.inner.groups == 1 {
            self.in_place(pixels, shape, view.as_slice_mut()?);
        } else {
            self.gathered(pixels, shape, view.as_slice_mut()?);
        }
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for PixelConv {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = inputs[0].shape.as_concrete().context("PixelConvInt8: the input's shape is not fixed")?;
        Ok(tvec!(f32::fact(&*self.output_shape(shape))))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let shape = inputs[0].shape.as_concrete().context("PixelConvInt8: the input's shape is not fixed")?;
        let outputs: usize = self.output_shape(shape).iter().product();
        Ok(tvec!((Cost::FMA(i8::datum_type()), (outputs * self.weights.inner.len()).to_dim())))
    }

    as_op!();
}

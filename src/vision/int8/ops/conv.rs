//! A convolution over NHWC images: `[b, h, w, c] → [b, h', w', n]`, one group.
//!
//! A 1×1 convolution of stride 1 is a linear layer over pixels and is quantised pixel by pixel. A larger window mixes
//! pixels in one 32-bit sum, so they must share a scale: one an image. The quantised image is laid out with its
//! padding, and each kernel row of a window is then one run of bytes that the kernel reads in place, with no im2col
//! copy. Zero is exact under every scale, so the padding is too.
//!
//! A depthwise convolution before a pointwise one is computed line by line as part of it, and each pixel is quantised while
//! it is in the first-level cache: what it was in f32 is never a tensor.

use tract_onnx::tract_hir::internal::*;

use super::depthwise::LINES_PER_TASK;
use super::linear::quantise_rows;
use super::{BadRow, Depthwise, Window, equal_by_identity};
use crate::vision::int8::glue::{Activation, Levels, Quantise, Scale};
use crate::vision::int8::kernels::float::Strided;
use crate::vision::int8::packed::Packed;
use crate::vision::int8::product::{Product, Scales, Walk};
use crate::vision::int8::runtime::Runtime;

/// `activation(conv([depthwise](x), W) + bias [+ residual])`; the residual is the second input.
#[derive(Debug, Clone)]
pub struct Conv {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// Comes first, where the convolution itself is pointwise.
    pub depthwise: Option<Depthwise>,
    /// The weights: a segment a kernel row.
    pub weights: Arc<Packed>,
    /// One a column, padded as the weights.
    pub bias: Arc<Vec<f32>>,
    /// Kernel size, strides, padding.
    pub window: Window,
    /// Applied last.
    pub activation: Activation,
    /// Whether no value of the input is below 0 or NaN, since a clamp made them.
    pub positive: bool,
    /// Whether there is a second input.
    pub residual: bool,
}

equal_by_identity!(Conv, weights);

impl Conv {
    /// `[b, h, w, c]` of what the weights meet.
    fn inner_shape(&self, input: &[usize]) -> TVec<usize> {
        self.depthwise.as_ref().map_or_else(|| input.into(), |depthwise| depthwise.output_shape(input))
    }

    fn output_shape(&self, input: &[usize]) -> TVec<usize> {
        let inner = self.inner_shape(input);
        let (height, width) = self.window.output((inner[1], inner[2]));
        tvec!(inner[0], height, width, self.weights.columns)
    }

    fn pointwise(&self, x: &[f32], shape: &[usize], out: &mut [f32]) -> TractResult<()> {
        let inner = self.inner_shape(shape);
        let (pixels, c) = (inner[..3].iter().product(), inner[3]);
        let stride = c.next_multiple_of(self.runtime.kernel.layout.depth);
        let mut scratch = self.runtime.scratch();
        let (bytes, scales) = scratch.take(pixels * stride, pixels);
        match &self.depthwise {
            None => quantise_rows(
                &self.runtime,
                "ConvInt8",
                (x, c, Levels::of(self.positive)),
                None,
                (bytes, stride),
                scales,
            )?,
            Some(depthwise) => self.quantise_lines(depthwise, (x, shape), (bytes, stride), scales)?,
        }
        let walk = Walk::Rows { stride, group_stride: 0 };
        self.product(bytes, walk, Scales::Rows(scales)).run(&self.runtime, out);
        Ok(())
    }

    /// Quantises the pixels that `depthwise` makes of `x`, images of `shape`, into `bytes`, `stride` apart.
    fn quantise_lines(
        &self,
        depthwise: &Depthwise,
        (x, shape): (&[f32], &[usize]),
        (bytes, stride): (&mut [u8], usize),
        scales: &mut [Scale],
    ) -> TractResult<()> {
        let Runtime { kernel, pool, .. } = &*self.runtime;
        let (width, c) = (depthwise.output_shape(shape)[2], shape[3]);
        let (levels, offset) = (Levels::of(depthwise.clamp.0 >= 0.0), kernel.layout.offset);
        let bad = BadRow::new();
        pool.rows((bytes, scales), (width * stride, width), LINES_PER_TASK, |first, bytes, scales| {
            let lines = bytes.chunks_exact_mut(width * stride).zip(scales.chunks_exact_mut(width)).zip(first..);
            Runtime::with_thread_values(width * c, |values| {
                for ((bytes, scales), line) in lines {
                    depthwise.line(x, shape, line, values);
                    let pixels =
                        Quantise { x: Strided { values, stride: c }, width: c, norm: None, levels, offset, stride };
                    if let Some(pixel) = (kernel.glue.quantise)(&pixels, bytes, scales, &mut []) {
                        bad.set(line * width + pixel);
                    }
                }
            });
        });
        bad.check("SeparableInt8")
    }

    fn windowed(&self, x: &[f32], shape: &[usize], out: &mut [f32]) -> TractResult<()> {
        let (image, c) = ((shape[1], shape[2]), shape[3]);
        let padded = self.window.padded(image);
        let line = padded.1 * c;
        let image_bytes = padded.0 * line;
        let mut scratch = self.runtime.scratch();
        // The padding of the last window's run may be read beyond the image.
        let slack = self.runtime.kernel.layout.depth;
        let (bytes, scales) = scratch.take(shape[0] * image_bytes + slack, shape[0]);
        for (b, scale) in scales.iter_mut().enumerate() {
            let x = &x[b * image.0 * image.1 * c..][..image.0 * image.1 * c];
            *scale = self.quantise(x, image, c, &mut bytes[b * image_bytes..][..image_bytes])?;
        }
        let output = self.window.output(image);
        let step = (self.window.stride.0 * line, self.window.stride.1 * c);
        let walk = Walk::Windows { output, image: image_bytes, line, step };
        self.product(bytes, walk, Scales::Images(scales, output.0 * output.1)).run(&self.runtime, out);
        Ok(())
    }

    /// One image, with its padding.
    fn quantise(&self, x: &[f32], (height, width): (usize, usize), c: usize, out: &mut [u8]) -> TractResult<Scale> {
        let Runtime { kernel, pool, .. } = &*self.runtime;
        let bad = BadRow::new();
        let mut ranges = vec![(0f32, 0f32); height];
        pool.rows((&mut [(); 0], &mut ranges), (0, 1), 8, |from, _, ranges| {
            for (y, range) in ranges.iter_mut().enumerate() {
                match (kernel.glue.range)(&x[(from + y) * width * c..][..width * c]) {
                    Some(found) => *range = found,
                    None => bad.set(from + y),
                }
            }
        });
        bad.check("ConvInt8")?;
        let low = ranges.iter().fold(0.0, |low, r| r.0.min(low));
        let high = ranges.iter().fold(0.0, |high, r| r.1.max(high));
        let scale = Scale::covering(low, high);
        let blank = kernel.layout.store(scale.zero as u8);
        let Window { before, .. } = self.window;
        let line = self.window.padded((height, width)).1 * c;
        pool.blocks(out, line, (8, line), |block| {
            for y in block.rows() {
                let line = block.row(y);
                match y.checked_sub(before.0).filter(|y| *y < height) {
                    None => line.fill(blank),
                    Some(y) => {
                        let (left, rest) = line.split_at_mut(before.1 * c);
                        let (middle, right) = rest.split_at_mut(width * c);
                        left.fill(blank);
                        right.fill(blank);
                        (kernel.glue.encode)(&x[y * width * c..][..width * c], scale, kernel.layout.offset, middle);
                    }
                }
            }
        });
        Ok(scale.stored(kernel.layout.offset))
    }

    fn product<'a>(&'a self, bytes: &'a [u8], walk: Walk, scales: Scales<'a>) -> Product<'a> {
        Product {
            weights: &self.weights,
            bytes,
            walk,
            scales,
            bias: &self.bias,
            residual: self.residual,
            activation: self.activation,
        }
    }
}

impl Op for Conv {
    fn name(&self) -> StaticName {
        if self.depthwise.is_some() { "SeparableInt8" } else { "ConvInt8" }.into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let depthwise =
            self.depthwise.as_ref().map(|depthwise| format!("{:?}, {:?}, ", depthwise.window, depthwise.clamp));
        Ok(vec![format!(
            "{}{} -> {}, {:?}, {:?}{}",
            depthwise.unwrap_or_default(),
            self.weights.inner.len(),
            self.weights.columns,
            self.window,
            self.activation,
            if self.residual { ", residual" } else { "" }
        )])
    }

    op_as_typed_op!();
}

impl EvalOp for Conv {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let residual = self.residual.then(|| inputs.pop()).flatten();
        let x = inputs[0].try_as_plain_ram()?;
        let mut out = self.runtime.output_on(residual, &self.output_shape(inputs[0].shape()))?;
        let mut view = out.try_as_plain_ram_mut()?;
        if self.window.is_pointwise() {
            self.pointwise(x.as_slice()?, inputs[0].shape(), view.as_slice_mut()?)?;
        } else {
            self.windowed(x.as_slice()?, inputs[0].shape(), view.as_slice_mut()?)?;
        }
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Conv {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = inputs[0].shape.as_concrete().context("ConvInt8: the input's shape is not fixed")?;
        Ok(tvec!(f32::fact(&*self.output_shape(shape))))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let shape = inputs[0].shape.as_concrete().context("ConvInt8: the input's shape is not fixed")?;
        let outputs: usize = self.output_shape(shape).iter().product();
        let mut costs = tvec!((Cost::FMA(i8::datum_type()), (outputs * self.weights.inner.len()).to_dim()));
        if let Some(depthwise) = &self.depthwise {
            costs.push((Cost::FMA(f32::datum_type()), depthwise.macs(shape).to_dim()));
        }
        Ok(costs)
    }

    as_op!();
}

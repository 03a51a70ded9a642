//! A depthwise convolution over NHWC images: one small kernel a channel.
//!
//! Nine multiply-adds a value are too few to be worth quantising the input for: the few int8 weights are widened to f32
//! when the model is loaded, and the sums are f32.

use tract_onnx::tract_hir::internal::*;

use super::{Window, equal_by_identity};
use crate::vision::int8::glue;
use crate::vision::int8::runtime::Runtime;

/// Lines computed by one task.
pub const LINES_PER_TASK: usize = 4;

/// The kernels of a depthwise convolution.
#[derive(Debug)]
pub struct DepthwiseWeights {
    /// `[kernel row][kernel column][channel]`.
    pub taps: Vec<f32>,
    /// One bias a channel.
    pub bias: Vec<f32>,
}

/// `clamp(depthwise(x, W) + bias)`.
#[derive(Debug, Clone)]
pub struct Depthwise {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// The weights.
    pub weights: Arc<DepthwiseWeights>,
    /// Kernel size, strides, padding.
    pub window: Window,
    /// Limits of the output.
    pub clamp: (f32, f32),
}

equal_by_identity!(Depthwise, weights);

impl Depthwise {
    /// `[b, h', w', c]` of `[b, h, w, c]`.
    pub fn output_shape(&self, input: &[usize]) -> TVec<usize> {
        let (height, width) = self.window.output((input[1], input[2]));
        tvec!(input[0], height, width, input[3])
    }

    /// Writes line `line` of the outputs for `x`, images of `shape`, counting through all of them.
    pub fn line(&self, x: &[f32], shape: &[usize], line: usize, out: &mut [f32]) {
        let height = self.output_shape(shape)[1];
        let image = shape[1] * shape[2] * shape[3];
        let layer = glue::Depthwise {
            x: &x[line / height * image..][..image],
            size: (shape[1], shape[2]),
            taps: &self.weights.taps,
            bias: &self.weights.bias,
            kernel: self.window.kernel,
            stride: self.window.stride,
            before: self.window.before,
            clamp: self.clamp,
        };
        (self.runtime.kernel.glue.depthwise)(&layer, line % height, out);
    }

    /// Multiply-adds for an input of `shape`.
    pub fn macs(&self, shape: &[usize]) -> usize {
        self.output_shape(shape).iter().product::<usize>() * self.window.kernel.0 * self.window.kernel.1
    }
}

impl Op for Depthwise {
    fn name(&self) -> StaticName {
        "DepthwiseInt8".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{:?}, {:?}", self.window, self.clamp)])
    }

    op_as_typed_op!();
}

impl EvalOp for Depthwise {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let shape = inputs[0].shape();
        let x = inputs[0].try_as_plain_ram()?;
        let x = x.as_slice::<f32>()?;
        let out_shape = self.output_shape(shape);
        let mut out = self.runtime.output(&out_shape)?;
        let mut view = out.try_as_plain_ram_mut()?;
        let width = out_shape[2] * out_shape[3];
        self.runtime.pool.blocks(view.as_slice_mut::<f32>()?, width, (LINES_PER_TASK, width), |block| {
            for line in block.rows() {
                self.line(x, shape, line, block.row(line));
            }
        });
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Depthwise {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = inputs[0].shape.as_concrete().context("DepthwiseInt8: the input's shape is not fixed")?;
        Ok(tvec!(f32::fact(&*self.output_shape(shape))))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let shape = inputs[0].shape.as_concrete().context("DepthwiseInt8: the input's shape is not fixed")?;
        Ok(tvec!((Cost::FMA(f32::datum_type()), self.macs(shape).to_dim())))
    }

    as_op!();
}

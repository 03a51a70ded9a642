//! Layer normalisation over the last axis, alone or in front of a linear layer.

use tract_onnx::tract_hir::internal::*;

use crate::vision::int8::kernels::Kernel;
use crate::vision::int8::runtime::Runtime;

/// Rows normalised by one task.
pub const ROWS_PER_TASK: usize = 16;

/// Gain, bias and epsilon.
#[derive(Debug)]
pub struct Norm {
    /// Multiplied, one a channel.
    pub gain: Vec<f32>,
    /// Added, one a channel.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Norm {
    /// Writes one row, normalised.
    pub fn row(&self, kernel: &Kernel, x: &[f32], out: &mut [f32]) {
        (kernel.glue.layer_norm)(x, &self.gain, &self.bias, self.epsilon, out);
    }
}

/// [`Norm`] as a node; knows its runtime only once the rewrite has run.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// The parameters.
    pub norm: Arc<Norm>,
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
}

super::equal_by_identity!(LayerNorm, norm);

impl Op for LayerNorm {
    fn name(&self) -> StaticName {
        "LayerNormF32".into()
    }

    op_as_typed_op!();
}

impl EvalOp for LayerNorm {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = inputs[0].try_as_plain_ram()?;
        let x = x.as_slice::<f32>()?;
        let width = self.norm.gain.len();
        let mut out = self.runtime.output(inputs[0].shape())?;
        let mut view = out.try_as_plain_ram_mut()?;
        let Runtime { kernel, pool, .. } = &*self.runtime;
        pool.blocks(view.as_slice_mut::<f32>()?, width, (ROWS_PER_TASK, width), |block| {
            for r in block.rows() {
                self.norm.row(kernel, &x[r * width..][..width], block.row(r));
            }
        });
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for LayerNorm {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(inputs[0].shape.iter())))
    }

    as_op!();
}

//! A linear layer over the rows of a matrix: `[m, k] → [m, n]`.
//!
//! Each row is quantised by itself, with the finest scale that covers it and zero: a CLIP tower has channels hundreds
//! of times larger than the rest in some tokens and not in others, and one scale for all tokens would drown the small
//! ones (see `docs/performance.md` for the figures).

use tract_onnx::tract_hir::internal::*;

use super::norm::Norm;
use super::{BadRow, equal_by_identity};
use crate::vision::int8::glue::{Activation, Levels, NORMALISED_TOGETHER, Quantise, Scale};
use crate::vision::int8::kernels::float::Strided;
use crate::vision::int8::packed::Packed;
use crate::vision::int8::product::{Product, Scales, Walk};
use crate::vision::int8::runtime::Runtime;

/// Rows quantised by one task.
const ROWS_PER_TASK: usize = 32;

/// `activation(norm(x) · W + bias [+ residual])`; the residual is the second input.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// The weights.
    pub weights: Arc<Packed>,
    /// One a column, padded as the weights.
    pub bias: Arc<Vec<f32>>,
    /// Applied to the rows first.
    pub norm: Option<Arc<Norm>>,
    /// Applied last.
    pub activation: Activation,
    /// Whether there is a second input.
    pub residual: bool,
}

equal_by_identity!(Linear, weights);

/// Quantises the rows of `x`, `k` values each, into `bytes`, `stride` apart.
pub fn quantise_rows(
    runtime: &Runtime,
    op: &str,
    (x, k, levels): (&[f32], usize, Levels),
    norm: Option<&Norm>,
    (bytes, stride): (&mut [u8], usize),
    scales: &mut [Scale],
) -> TractResult<()> {
    let Runtime { kernel, pool, .. } = runtime;
    let bad = BadRow::new();
    let norm = norm.map(|Norm { gain, bias, epsilon }| (&gain[..], &bias[..], *epsilon));
    let scratch = if norm.is_some() { NORMALISED_TOGETHER * k } else { 0 };
    pool.rows((&mut bytes[..scales.len() * stride], scales), (stride, 1), ROWS_PER_TASK, |from, bytes, scales| {
        let x = &x[from * k..][..scales.len() * k];
        let rows = Quantise {
            x: Strided { values: x, stride: k },
            width: k,
            norm,
            levels,
            offset: kernel.layout.offset,
            stride,
        };
        Runtime::with_thread_values(scratch, |scratch| {
            if let Some(row) = (kernel.glue.quantise)(&rows, bytes, scales, scratch) {
                bad.set(from + row);
            }
        });
    });
    bad.check(op)
}

impl Op for Linear {
    fn name(&self) -> StaticName {
        "LinearInt8".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!(
            "{} -> {}, {:?}{}{}",
            self.weights.inner.len(),
            self.weights.columns,
            self.activation,
            if self.norm.is_some() { ", normalised" } else { "" },
            if self.residual { ", residual" } else { "" }
        )])
    }

    op_as_typed_op!();
}

impl EvalOp for Linear {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let residual = self.residual.then(|| inputs.pop()).flatten();
        let x = inputs[0].try_as_plain_ram()?;
        let (m, k) = (inputs[0].shape()[0], self.weights.inner.len());
        let depth = self.runtime.kernel.layout.depth;
        let stride = k.next_multiple_of(depth);
        let mut out = self.runtime.output_on(residual, &[m, self.weights.columns])?;
        let mut scratch = self.runtime.scratch();
        let (bytes, scales) = scratch.take(m * stride, m);
        quantise_rows(
            &self.runtime,
            "LinearInt8",
            (x.as_slice()?, k, Levels::Covering),
            self.norm.as_deref(),
            (bytes, stride),
            scales,
        )?;
        let product = Product {
            weights: &self.weights,
            bytes,
            walk: Walk::Rows { stride, group_stride: 0 },
            scales: Scales::Rows(scales),
            bias: &self.bias,
            residual: self.residual,
            activation: self.activation,
        };
        product.run(&self.runtime, out.try_as_plain_ram_mut()?.as_slice_mut()?);
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Linear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs[0].shape[1] == self.weights.inner.len().to_dim(), "LinearInt8: {:?}", inputs[0]);
        Ok(tvec!(f32::fact([inputs[0].shape[0].clone(), self.weights.columns.to_dim()])))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let weights = self.weights.inner.len() * self.weights.columns;
        Ok(tvec!((Cost::FMA(i8::datum_type()), inputs[0].shape[0].clone() * weights)))
    }

    as_op!();
}

//! Patches to tokens: position embeddings, the class token's row, the normalisation ahead of the first block.

use tract_onnx::tract_hir::internal::*;

use super::equal_by_identity;
use super::norm::{Norm, ROWS_PER_TASK};
use crate::vision::int8::runtime::Runtime;

/// `norm([0; x] + positions)`, picture by picture: `[b, n, w] → [b, t, w]`, the rows without a patch first.
#[derive(Debug, Clone)]
pub struct Embed {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// `[t][w]`.
    pub positions: Arc<Vec<f32>>,
    /// Rows ahead of the patches: the class token, which is its position alone.
    pub ahead: usize,
    /// Applied last.
    pub norm: Arc<Norm>,
}

equal_by_identity!(Embed, positions);

impl Embed {
    fn width(&self) -> usize {
        self.norm.gain.len()
    }

    fn tokens(&self) -> usize {
        self.positions.len() / self.width()
    }

    /// Writes one token, whose patch is `x`, through `sum`.
    fn token(&self, token: usize, x: Option<&[f32]>, sum: &mut [f32], out: &mut [f32]) {
        let position = &self.positions[token * self.width()..][..self.width()];
        match x {
            None => sum.copy_from_slice(position),
            Some(x) => sum.iter_mut().zip(x.iter().zip(position)).for_each(|(sum, (x, position))| *sum = x + position),
        }
        self.norm.row(&self.runtime.kernel, sum, out);
    }
}

impl Op for Embed {
    fn name(&self) -> StaticName {
        "EmbedF32".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{} tokens of {}, {} without a patch", self.tokens(), self.width(), self.ahead)])
    }

    op_as_typed_op!();
}

impl EvalOp for Embed {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = inputs[0].try_as_plain_ram()?;
        let x = x.as_slice::<f32>()?;
        let (width, tokens) = (self.width(), self.tokens());
        let mut out = self.runtime.output(&[inputs[0].shape()[0], tokens, width])?;
        let mut view = out.try_as_plain_ram_mut()?;
        self.runtime.pool.blocks(view.as_slice_mut::<f32>()?, width, (ROWS_PER_TASK, width), |block| {
            Runtime::with_thread_values(width, |sum| {
                for row in block.rows() {
                    let (picture, token) = (row / tokens, row % tokens);
                    let patch = token.checked_sub(self.ahead).map(|patch| picture * (tokens - self.ahead) + patch);
                    self.token(token, patch.map(|patch| &x[patch * width..][..width]), sum, block.row(row));
                }
            });
        });
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Embed {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = inputs[0].shape.as_concrete().context("EmbedF32: the input's shape is not fixed")?;
        Ok(tvec!(f32::fact([shape[0], self.tokens(), self.width()])))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::int8::kernels::KernelChoice;
    use crate::vision::int8::kernels::pool::Pool;

    #[test]
    fn every_token_is_its_patch_and_its_position_normalised() {
        let (pictures, tokens, ahead, width) = (2, 5, 2, 19);
        let values = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| (i * step % 101) as f32 / 50.0 - 1.0).collect()
        };
        let (x, positions) = (values(pictures * (tokens - ahead) * width, 37), values(tokens * width, 53));
        let norm = Arc::new(Norm { gain: values(width, 7), bias: values(width, 3), epsilon: 1e-5 });
        for kernel in KernelChoice::ALL.into_iter().filter_map(KernelChoice::kernel) {
            let op = Embed {
                runtime: Arc::new(Runtime::new(kernel, Pool::new(2).unwrap())),
                positions: Arc::new(positions.clone()),
                ahead,
                norm: norm.clone(),
            };
            let mut model = TypedModel::default();
            let source = model.add_source("x", f32::fact([pictures, tokens - ahead, width])).unwrap();
            let out = model.wire_node("embed", op, &[source]).unwrap();
            model.select_output_outlets(&out).unwrap();
            let input = Tensor::from_shape(&[pictures, tokens - ahead, width], &x).unwrap();
            let out = model.into_runnable().unwrap().run(tvec!(input.into_tvalue())).unwrap();
            assert_eq!(out[0].shape(), [pictures, tokens, width]);
            let view = out[0].try_as_plain_ram().unwrap();
            for (row, out) in view.as_slice::<f32>().unwrap().chunks_exact(width).enumerate() {
                let (picture, token) = (row / tokens, row % tokens);
                let patch = |c: usize| match token.checked_sub(ahead) {
                    Some(patch) => x[(picture * (tokens - ahead) + patch) * width + c],
                    None => 0.0,
                };
                let sums: Vec<f32> = (0..width).map(|c| patch(c) + positions[token * width + c]).collect();
                let mean = sums.iter().sum::<f32>() / width as f32;
                let variance = sums.iter().map(|sum| (sum - mean).powi(2)).sum::<f32>() / width as f32;
                for (c, value) in out.iter().enumerate() {
                    let exact = (sums[c] - mean) / (variance + 1e-5).sqrt() * norm.gain[c] + norm.bias[c];
                    assert!((value - exact).abs() < 1e-4, "{}: {value} for {exact} at {row}, {c}", kernel.name);
                }
            }
        }
    }
}

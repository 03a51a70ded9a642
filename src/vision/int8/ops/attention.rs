//! Attention, `softmax(scale · q · kᵀ) · v` head by head, reading queries, keys and values where a linear layer left
//! them.
//!
//! In f32: its products are one hundredth of a tower's, and the scores decide what is looked at.

use tract_onnx::tract_hir::internal::*;

use crate::vision::int8::glue::Attend;
use crate::vision::int8::kernels::float::Strided;
use crate::vision::int8::runtime::Runtime;

/// Where the heads of one operand lie: head `h`, token `t` begins at `starts[h] + t · stride`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads {
    /// First value of each head's first token.
    pub starts: Vec<usize>,
    /// From one token to the next.
    pub stride: usize,
    /// Tokens.
    pub tokens: usize,
    /// Values a token has for one head.
    pub depth: usize,
}

impl Heads {
    fn head<'a>(&self, values: &'a [f32], head: usize) -> Strided<'a> {
        Strided { values: &values[self.starts[head]..], stride: self.stride }
    }
}

/// Inputs: the tensors that hold queries, keys and values, which may be one and the same. The output is a matrix of
/// `outer · tokens` rows of `inner · depth` values, heads counted `[outer][inner]`.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// Queries, keys, values.
    pub operands: [Heads; 3],
    /// Multiplied onto the products of queries and keys; above 0.
    pub scale: f32,
    /// Heads that lie beside each other in a row of the output.
    pub inner: usize,
    /// Shape of the output, as the graph wants it.
    pub shape: TVec<usize>,
}

impl PartialEq for Attention {
    fn eq(&self, other: &Self) -> bool {
        self.operands == other.operands
            && self.scale == other.scale
            && self.inner == other.inner
            && self.shape == other.shape
    }
}

impl Eq for Attention {}

impl Op for Attention {
    fn name(&self) -> StaticName {
        "AttentionF32".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let [q, k, v] = &self.operands;
        Ok(vec![format!(
            "{} heads, {} x {} tokens, depth {} and {}",
            q.starts.len(),
            q.tokens,
            k.tokens,
            q.depth,
            v.depth
        )])
    }

    op_as_typed_op!();
}

impl EvalOp for Attention {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let views = inputs.iter().map(|i| i.try_as_plain_ram()).collect::<TractResult<Vec<_>>>()?;
        let values = views.iter().map(|v| v.as_slice::<f32>()).collect::<TractResult<Vec<_>>>()?;
        let mut out = self.runtime.output(&self.shape)?;
        let mut view = out.try_as_plain_ram_mut()?;
        let [q, k, v] = &self.operands;
        let width = self.inner * v.depth;
        let Runtime { kernel, pool, .. } = &*self.runtime;
        pool.blocks(view.as_slice_mut::<f32>()?, width, (q.tokens, v.depth), |block| {
            let head = block.rows().start / q.tokens * self.inner + block.columns().start / v.depth;
            let attend = Attend {
                q: q.head(values[0], head),
                k: k.head(values[1], head),
                v: v.head(values[2], head),
                tokens: (q.tokens, k.tokens),
                depth: (q.depth, v.depth),
                scale: self.scale,
            };
            Runtime::with_thread_values(attend.scratch(), |scratch| (kernel.glue.attend)(&attend, scratch, block));
        });
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Attention {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }

    fn cost(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let [q, k, v] = &self.operands;
        let products = q.starts.len() * q.tokens * k.tokens * (q.depth + v.depth);
        Ok(tvec!((Cost::FMA(f32::datum_type()), products.to_dim())))
    }

    as_op!();
}

//! Attention of one query a picture, with the layers that lead to it, as one operator that computes neither keys nor values.

use tract_onnx::tract_hir::internal::*;

use super::Context;
use super::layout::{reshape, same, shape};
use super::linear::{FoundLinear, Weight};
use super::rows::pick;
use crate::vision::int8::glue::{Activation, MAX_LANES};
use crate::vision::int8::ops::{Attention, AttentionPool, Heads, Projection};
use crate::vision::int8::weight::Values;

/// Fewest tokens from which on two matrices times one vector in f32 are less than times each token in int8.
const LEAST_TOKENS: usize = 8;

/// See the module.
pub fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &Attention,
) -> TractResult<Option<TypedModelPatch>> {
    let [Some(q), Some(k), Some(v)] = std::array::from_fn(|i| Operand::of(model, node.inputs[i], &op.operands[i], op))
    else {
        return Ok(None);
    };
    let tokens = op.operands[1].tokens;
    let (asking, answering) = (shape(model, q.input)?, shape(model, k.input)?);
    let pictures = q.rows.len();
    let all = |operand: &Operand| operand.rows.iter().copied().eq((0..pictures).map(|picture| picture * tokens));
    let fits = op.operands[0].tokens == 1
        && op.operands[2].tokens == tokens
        && tokens >= LEAST_TOKENS
        && answering[0] == pictures * tokens
        && answering[1].is_multiple_of(MAX_LANES);
    if !fits || !same(model, k.input, v.input) || !all(&k) || !all(&v) {
        return Ok(None);
    }
    let depth = (op.operands[0].depth, op.operands[2].depth);
    let pool = AttentionPool {
        runtime: context.runtime.clone(),
        projections: Arc::new([
            q.to_heads(depth.0, asking[1])?,
            k.back(depth.0, answering[1])?,
            v.to_heads(depth.1, answering[1])?,
        ]),
        heads: op.inner,
        depth,
        tokens,
        scale: op.scale,
    };
    let mut patch = TypedModelPatch::new("attention of one query");
    let inputs = patch.taps(model, &[q.input, k.input])?;
    let asking = pick(&mut patch, name, inputs[0], asking[1], &q.rows)?;
    let wire = patch.wire_node(name, pool, &[asking, inputs[1]])?[0];
    let wire = reshape(&mut patch, name, wire, &op.shape)?;
    patch.shunt_outside(model, node.id.into(), wire)?;
    Ok(Some(patch))
}

/// The layer that an operand of attention comes from.
struct Operand<'a> {
    weight: &'a Weight,
    values: &'a Tensor,
    bias: &'a [f32],
    /// What the layer reads, a matrix.
    input: OutletId,
    /// The first row of each picture.
    rows: Vec<usize>,
    /// The first column of each head.
    columns: Vec<usize>,
}

impl<'a> Operand<'a> {
    fn of(model: &'a TypedModel, outlet: OutletId, heads: &Heads, op: &Attention) -> Option<Operand<'a>> {
        let node = model.node(outlet.node);
        let layer = node.op_as::<FoundLinear>()?;
        let Values::Here(values) = &layer.weight.of.values else { return None };
        let width = layer.weight.columns();
        let plain = !layer.residual && layer.norm.is_none() && layer.activation == Activation::Identity;
        let adjacent = heads.tokens == 1 || heads.stride == width;
        let columns: Vec<usize> = heads.starts[..op.inner].iter().map(|start| start % width).collect();
        let rows: Vec<usize> = heads.starts.iter().step_by(op.inner).map(|start| start / width).collect();
        let expected = rows.iter().flat_map(|row| columns.iter().map(move |column| row * width + column));
        if !plain || !adjacent || !heads.starts.iter().copied().eq(expected) {
            return None;
        }
        Some(Operand { weight: &layer.weight, values, bias: &layer.bias, input: node.inputs[0], rows, columns })
    }

    /// From `width` values to `depth` channels a head.
    fn to_heads(&self, depth: usize, width: usize) -> TractResult<Projection> {
        let weights = self.weights()?;
        let weight = |head: usize, line: usize, column: usize| weights(self.columns[head] + column, line);
        Ok(Projection::new((self.columns.len(), width, depth), self.channels(depth)?, weight))
    }

    /// From `depth` channels a head to `width` values.
    fn back(&self, depth: usize, width: usize) -> TractResult<Projection> {
        let weights = self.weights()?;
        let weight = |head: usize, line: usize, column: usize| weights(self.columns[head] + line, column);
        Ok(Projection::new((self.columns.len(), depth, width), self.channels(depth)?, weight))
    }

    /// The weight of an output channel for an input.
    fn weights(&self) -> TractResult<impl Fn(usize, usize) -> i8> {
        let values = self.values.try_as_plain_ram()?.as_slice::<i8>()?;
        let Weight { places, stride, .. } = self.weight;
        Ok(move |channel: usize, input: usize| values[places[input] + channel * stride])
    }

    /// Scales and biases of the heads' channels.
    fn channels(&self, depth: usize) -> TractResult<(Vec<f32>, Vec<f32>)> {
        let scale = self.weight.of.scale.try_as_plain_ram()?;
        let scale = scale.as_slice::<f32>()?;
        let of_heads = |all: &[f32]| self.columns.iter().flat_map(|from| &all[*from..][..depth]).copied().collect();
        Ok((of_heads(scale), of_heads(self.bias)))
    }
}

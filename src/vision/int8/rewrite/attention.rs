//! Softmax between two products of computed tensors, as one attention operator.
//!
//! Exporters reach queries, keys and values from the layer that computed them through any mixture of slices, gathers,
//! reshapes, moves and a scaling. Rather than know each of them, the rule sends the numbers 0, 1, 2 … through those
//! very operators and looks where they come out: if every head's tokens lie a fixed stride apart in the layer's
//! output, the operator can read them there.

use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math::Mul;
use tract_onnx::tract_core::ops::nn::Softmax;
use tract_onnx::tract_hir::internal::*;

use super::layout::{places, selects, shape};
use super::{Context, beside_constant};
use crate::vision::int8::ops::{Attention, Heads};
use crate::vision::int8::packed::MAX_K;

/// A product's axes, by what they are to attention; positions in the first operand, the second and the output.
struct Axes {
    /// Batch and head axes, in the output's order.
    heads: Vec<(usize, usize, usize)>,
    /// The axis of the first operand's own; none where it is 1 long.
    first: Option<(usize, usize)>,
    /// The axis of the second operand's own; none where it is 1 long.
    second: Option<(usize, usize)>,
    /// The axis summed over.
    inner: (usize, usize),
}

impl Axes {
    /// `None` when the product is something else. With `swap`, the operands' roles are exchanged. Axes 1 long that only
    /// some of the three tensors have mean nothing and are left out.
    fn of(op: &EinSum, shapes: &[TVec<usize>; 3], swap: bool) -> Option<Axes> {
        let (mut heads, mut first, mut second, mut inner) = (vec![], None, None, None);
        for axis in op.axes.iter_all_axes() {
            if axis.inputs.iter().chain(&axis.outputs).any(|places| places.len() > 1) {
                return None;
            }
            let dimension = (0..2)
                .find_map(|i| axis.inputs[i].first().map(|at| shapes[i][*at]))
                .or_else(|| axis.outputs[0].first().map(|at| shapes[2][*at]))?;
            let everywhere = axis.inputs.iter().chain(&axis.outputs).all(|places| places.len() == 1);
            if dimension == 1 && !everywhere {
                continue;
            }
            let place = |i: usize| axis.inputs[i ^ usize::from(swap)].first().copied();
            match (place(0), place(1), axis.outputs[0].first().copied()) {
                (Some(a), Some(b), Some(o)) => heads.push((a, b, o)),
                (Some(a), None, Some(o)) if first.is_none() => first = Some((a, o)),
                (None, Some(b), Some(o)) if second.is_none() => second = Some((b, o)),
                (Some(a), Some(b), None) if inner.is_none() => inner = Some((a, b)),
                _ => return None,
            }
        }
        heads.sort_unstable_by_key(|(_, _, o)| *o);
        Some(Axes { heads, first, second, inner: inner? })
    }
}

/// See the module.
pub fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &Softmax,
) -> TractResult<Option<TypedModelPatch>> {
    let (scores, scale) = unscaled(model, node.inputs[0])?;
    let [asked] = model.outlet_successors(node.id.into()) else { return Ok(None) };
    let (asking, answering) = (model.node(scores.node), model.node(asked.node));
    let (Some(qk), Some(pv)) = (asking.op_as::<EinSum>(), answering.op_as::<EinSum>()) else { return Ok(None) };
    let [softmax_axis] = *op.axes else { return Ok(None) };
    if asking.inputs.len() != 2 || answering.inputs.len() != 2 {
        return Ok(None);
    }
    let qk_shapes = product_shapes(model, asking)?;
    // Keys are the operand whose own axis the softmax runs along.
    let Some(mut ask) = Axes::of(qk, &qk_shapes, false) else { return Ok(None) };
    let swapped = ask.first.is_some_and(|(_, o)| o == softmax_axis);
    if swapped {
        let Some(axes) = Axes::of(qk, &qk_shapes, true) else { return Ok(None) };
        ask = axes;
    }
    let Some(answer) = Axes::of(pv, &product_shapes(model, answering)?, asked.slot == 1) else { return Ok(None) };
    let (Some((key_axis, _)), Some((depth_axis, depth_place))) =
        (ask.second.filter(|(_, o)| *o == softmax_axis), answer.second)
    else {
        return Ok(None);
    };
    let consistent = answer.inner.0 == softmax_axis
        && answer.first.map(|(scores, _)| scores) == ask.first.map(|(_, scores)| scores)
        && ask.heads.len() == answer.heads.len();
    if !consistent {
        return Ok(None);
    }
    // Heads in the order of the final output; each names its axis of the scores, by which the two products join.
    let mut q_axes = vec![];
    let mut k_axes = vec![];
    for (scores_axis, _, _) in &answer.heads {
        let Some((q, k, _)) = ask.heads.iter().find(|(_, _, o)| o == scores_axis) else { return Ok(None) };
        q_axes.push(*q);
        k_axes.push(*k);
    }
    let v_axes: Vec<usize> = answer.heads.iter().map(|(_, v, _)| *v).collect();
    let q_outlet = asking.inputs[usize::from(swapped)];
    let k_outlet = asking.inputs[usize::from(!swapped)];
    let v_outlet = answering.inputs[1 - asked.slot];
    let query_axis = ask.first.map(|(q, _)| q);
    let Some(q) = Operand::trace(model, q_outlet, &q_axes, query_axis, ask.inner.0)? else { return Ok(None) };
    let Some(k) = Operand::trace(model, k_outlet, &k_axes, Some(key_axis), ask.inner.1)? else { return Ok(None) };
    let Some(v) = Operand::trace(model, v_outlet, &v_axes, Some(answer.inner.1), depth_axis)? else { return Ok(None) };
    let scale = scale * q.scale * k.scale;
    let fits = k.heads.tokens.max(k.heads.depth) <= MAX_K;
    if !fits || v.scale != 1.0 || scale.is_nan() || scale <= 0.0 {
        return Ok(None);
    }

    let output = shape(model, answering.id.into())?;
    if depth_place + 1 != output.len() {
        return Ok(None);
    }
    let inner: usize = match (answer.first, answer.heads.last()) {
        (Some((_, token_place)), _) => output[token_place + 1..depth_place].iter().product(),
        // Of one query each, all heads lie side by side; those along the last axis are of one picture.
        (None, Some((_, _, last))) => output[*last],
        (None, None) => 1,
    };
    let attention = Attention {
        runtime: context.runtime.clone(),
        scale,
        operands: [q.heads, k.heads, v.heads],
        inner,
        shape: output,
    };
    let mut patch = TypedModelPatch::new("attention");
    let inputs = patch.taps(model, &[q.root, k.root, v.root])?;
    let wire = patch.wire_node(name, attention, &inputs)?;
    patch.shunt_outside(model, answering.id.into(), wire[0])?;
    Ok(Some(patch))
}

/// Shapes of a product's operands and output.
fn product_shapes(model: &TypedModel, node: &TypedNode) -> TractResult<[TVec<usize>; 3]> {
    Ok([shape(model, node.inputs[0])?, shape(model, node.inputs[1])?, shape(model, node.id.into())?])
}

/// The factor of a multiplication by one constant, and what is multiplied.
fn scaling(model: &TypedModel, node: &TypedNode) -> TractResult<Option<(OutletId, f32)>> {
    let found = beside_constant::<Mul>(model, node)?.filter(|(_, factor)| factor.len() == 1);
    found.map(|(scaled, factor)| Ok((scaled, factor.cast_to_scalar::<f32>()?))).transpose()
}

fn unscaled(model: &TypedModel, outlet: OutletId) -> TractResult<(OutletId, f32)> {
    Ok(scaling(model, model.node(outlet.node))?.unwrap_or((outlet, 1.0)))
}

/// One operand, found in the tensor it came from.
struct Operand {
    root: OutletId,
    heads: Heads,
    scale: f32,
}

impl Operand {
    /// `axes` are the operand's: those of the heads in order, that of the tokens if there are several, that of the values.
    fn trace(
        model: &TypedModel,
        end: OutletId,
        head_axes: &[usize],
        token_axis: Option<usize>,
        depth_axis: usize,
    ) -> TractResult<Option<Operand>> {
        let (mut root, mut scale) = (end, 1.0);
        let mut path = vec![];
        loop {
            let node = model.node(root.node);
            if let Some((source, factor)) = scaling(model, node)? {
                scale *= factor;
                root = source;
            } else if node.op_is::<AxisOp>() || selects(model, node)? {
                path.push(node);
                root = node.inputs[0];
            } else {
                break;
            }
        }
        path.reverse();
        let places = places(model, &shape(model, root)?, &path)?;
        let mut order: Vec<usize> = head_axes.iter().copied().chain(token_axis).chain([depth_axis]).collect();
        let (tokens, depth) = (token_axis.map_or(1, |axis| places.shape()[axis]), places.shape()[depth_axis]);
        // Axes that were left out are 1 long and may stand anywhere.
        let left_out: Vec<usize> = (0..places.rank()).filter(|axis| !order.contains(axis)).collect();
        order.splice(0..0, left_out);
        let places = places.permute_axes(&order)?;
        let places = places.try_as_plain_ram()?;
        let heads = strided(places.as_slice()?, tokens, depth);
        Ok(heads.map(|heads| Operand { root, heads, scale }))
    }
}

/// Reads `[head][token][value]` places as heads whose tokens lie one stride apart, if that is what they are.
fn strided(places: &[i32], tokens: usize, depth: usize) -> Option<Heads> {
    let stride = if tokens > 1 { (places[depth] - places[0]) as usize } else { 0 };
    let starts: Vec<usize> = places.chunks_exact(tokens * depth).map(|head| head[0] as usize).collect();
    let as_expected = places.chunks_exact(depth).enumerate().all(|(row, values)| {
        let from = starts[row / tokens] + row % tokens * stride;
        values.iter().enumerate().all(|(i, place)| *place as usize == from + i)
    });
    as_expected.then_some(Heads { starts, stride, tokens, depth })
}

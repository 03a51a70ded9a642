//! Where values go: axis moves, making them and dropping those that cancel, and operators that select.

use tract_onnx::tract_core::ops::array::{Gather, Slice};
use tract_onnx::tract_core::ops::change_axes::perm_to_ops;
use tract_onnx::tract_hir::internal::*;

/// The fixed shape of an outlet.
pub fn shape(model: &TypedModel, outlet: OutletId) -> TractResult<TVec<usize>> {
    let fact = model.outlet_fact(outlet)?;
    let shape =
        fact.shape.as_concrete().with_context(|| format!("{:?} has no fixed shape", model.node(outlet.node)))?;
    Ok(shape.into())
}

/// Moves axes so that axis `i` of the result is axis `permutation[i]` of `wire`.
pub fn permute(
    patch: &mut TypedModelPatch,
    name: &str,
    mut wire: OutletId,
    permutation: &[usize],
) -> TractResult<OutletId> {
    for (i, op) in perm_to_ops(permutation).into_iter().enumerate() {
        wire = patch.wire_node(format!("{name}.move.{i}"), op, &[wire])?[0];
    }
    Ok(wire)
}

/// Gives `wire` another shape of as many values.
pub fn reshape(patch: &mut TypedModelPatch, name: &str, wire: OutletId, to: &[usize]) -> TractResult<OutletId> {
    let from = shape(&patch.model, wire)?;
    if *from == *to {
        return Ok(wire);
    }
    let dims = |shape: &[usize]| shape.iter().map(|d| d.to_dim()).collect();
    let op = AxisOp::Reshape(0, dims(&from), dims(to));
    Ok(patch.wire_node(format!("{name}.reshape"), op, &[wire])?[0])
}

/// Whether `node` passes on values of its first input that do not depend on them.
pub fn selects(model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
    let gathers = node.op_is::<Gather>() && model.outlet_fact(node.inputs[1])?.konst.is_some();
    Ok(gathers || node.op_is::<Slice>())
}

/// Where the values that come out of `path` stood: the numbers 0, 1, 2 … of a tensor `from`, sent through those operators. Each of
/// them moves or [`selects`].
pub fn places(model: &TypedModel, from: &[usize], path: &[&TypedNode]) -> TractResult<Tensor> {
    let count = i32::try_from(from.iter().product::<usize>())?;
    let mut places = Tensor::from_shape(from, &(0..count).collect::<Vec<_>>())?;
    for node in path {
        let mut inputs = tvec!(places.into_tvalue());
        for input in &node.inputs[1..] {
            let constant = model.outlet_fact(*input)?.konst.clone();
            inputs.push(constant.context("selected by a constant")?.into_tvalue());
        }
        let moved = node.op.eval_out_of_plan(inputs)?.with_context(|| format!("{node} moves nothing"))?;
        places = moved.into_iter().next().context("one output")?.into_tensor();
    }
    Ok(places)
}

/// Replaces every chain of axis operations that leaves the order of values alone by one reshape.
pub fn straighten(model: &mut TypedModel) -> TractResult<()> {
    while let Some(patch) = find_chain(model)? {
        patch.apply(model)?;
        model.compact()?;
    }
    Ok(())
}

fn find_chain(model: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
    for node in model.nodes.iter().filter(|n| !n.op_is::<AxisOp>()) {
        for &end in &node.inputs {
            let (root, chain) = chain_above(model, end);
            if chain.len() > 1 && keeps_order(&shape(model, root)?, &chain)? {
                let mut patch = TypedModelPatch::new("axis operations that cancel");
                let tap = patch.tap_model(model, root)?;
                let name = format!("{}.straight", model.node(end.node).name);
                let wire = reshape(&mut patch, &name, tap, &shape(model, end)?)?;
                patch.shunt_outside(model, end, wire)?;
                return Ok(Some(patch));
            }
        }
    }
    Ok(None)
}

/// The first outlet above `end` that is not an axis operation's, and the operations from there to `end`.
pub fn chain_above(model: &TypedModel, end: OutletId) -> (OutletId, Vec<&AxisOp>) {
    let mut root = end;
    let mut chain = vec![];
    while let Some(op) = model.node(root.node).op_as::<AxisOp>() {
        chain.push(op);
        root = model.node(root.node).inputs[0];
    }
    chain.reverse();
    (root, chain)
}

/// Follows each value through the chain.
fn keeps_order(from: &[usize], chain: &[&AxisOp]) -> TractResult<bool> {
    if chain.iter().all(|op| !matches!(op, AxisOp::Move(..))) {
        return Ok(true);
    }
    let count = from.iter().product::<usize>() as i32;
    let mut numbers = Tensor::from_shape(from, &(0..count).collect::<Vec<_>>())?;
    for op in chain {
        op.change_tensor(&mut numbers, false)?;
    }
    let numbers = numbers.try_as_plain_ram()?;
    Ok(numbers.as_slice::<i32>()?.iter().copied().eq(0..count))
}

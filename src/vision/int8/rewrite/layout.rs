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

/// Applies what `find` finds, until that is nothing.
pub fn exhaust(
    model: &mut TypedModel,
    find: impl Fn(&TypedModel) -> TractResult<Option<TypedModelPatch>>,
) -> TractResult<()> {
    while let Some(patch) = find(model)? {
        patch.apply(model)?;
        model.compact()?;
    }
    Ok(())
}

/// Replaces every chain of axis operations that leaves the order of values alone by one reshape.
pub fn straighten(model: &mut TypedModel) -> TractResult<()> {
    exhaust(model, find_chain)
}

fn find_chain(model: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
    for node in model.nodes.iter().filter(|n| !n.op_is::<AxisOp>()) {
        for &end in &node.inputs {
            let (root, chain) = chain_above(model, end);
            if chain.len() > 1 && keeps_order(model, &shape(model, root)?, &chain)? {
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
pub fn chain_above(model: &TypedModel, end: OutletId) -> (OutletId, Vec<&TypedNode>) {
    let mut root = end;
    let mut chain = vec![];
    while model.node(root.node).op_is::<AxisOp>() {
        chain.push(model.node(root.node));
        root = model.node(root.node).inputs[0];
    }
    chain.reverse();
    (root, chain)
}

/// Whether a chain of axis operations moves none, so that values stay in order whatever they are.
pub fn only_reshapes(chain: &[&TypedNode]) -> bool {
    chain.iter().all(|node| !matches!(node.op_as(), Some(AxisOp::Move(..))))
}

/// Whether two outlets hold the same values in the same order, for they come from one through equal axis operations.
pub fn same(model: &TypedModel, a: OutletId, b: OutletId) -> bool {
    let [left, right] = [a, b].map(|outlet| model.node(outlet.node));
    a == b
        || left.op_as::<AxisOp>().is_some_and(|op| right.op_as() == Some(op))
            && same(model, left.inputs[0], right.inputs[0])
}

fn keeps_order(model: &TypedModel, from: &[usize], chain: &[&TypedNode]) -> TractResult<bool> {
    if only_reshapes(chain) {
        return Ok(true);
    }
    let places = places(model, from, chain)?;
    let places = places.try_as_plain_ram()?;
    Ok(places.as_slice::<i32>()?.iter().copied().eq(0..places.len() as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_values_are_told_from_those_in_another_order() {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact([2, 3])).unwrap();
        let mut wire = |name: &str, op: AxisOp| model.wire_node(name, op, &[x]).unwrap()[0];
        let dims = |dims: [i32; 2]| dims.iter().map(|d| d.to_dim()).collect();
        let reshape = AxisOp::Reshape(0, dims([2, 3]), dims([3, 2]));
        let [moved, again] = ["moved", "again"].map(|name| wire(name, AxisOp::Move(0, 1)));
        let reshaped = wire("reshaped", reshape);
        assert!(same(&model, x, x) && same(&model, moved, again));
        assert!(!same(&model, moved, reshaped) && !same(&model, moved, x) && !same(&model, x, moved));
        let kept = |end| {
            let (root, chain) = chain_above(&model, end);
            keeps_order(&model, &shape(&model, root).unwrap(), &chain).unwrap()
        };
        assert!(kept(reshaped) && !kept(moved) && kept(x));
    }
}

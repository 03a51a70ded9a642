//! Layer normalisations: into the linear layer they feed, or onto a kernel.

use tract_onnx::tract_hir::internal::*;

use super::Context;
use super::layout::{chain_above, only_reshapes, reshape, shape};
use super::linear::FoundLinear;
use crate::vision::int8::import::ImportedNorm;
use crate::vision::int8::ops::LayerNorm;

/// Fuses a normalisation that feeds one linear layer and nothing else.
pub fn fuse(
    _context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &FoundLinear,
) -> TractResult<Option<TypedModelPatch>> {
    let (root, chain) = chain_above(model, node.inputs[0]);
    let source = model.node(root.node);
    let Some(ImportedNorm(norm)) = source.op_as::<ImportedNorm>() else { return Ok(None) };
    let rows_kept = norm.gain.len() == op.weight.places.len();
    if op.norm.is_some() || !only_reshapes(&chain) || !rows_kept || !feeds_only(model, root, node.id)? {
        return Ok(None);
    }
    let mut patch = TypedModelPatch::new("fused normalisation");
    let mut inputs = patch.taps(model, &node.inputs)?;
    let tap = patch.tap_model(model, source.inputs[0])?;
    inputs[0] = reshape(&mut patch, &format!("{name}.norm"), tap, &shape(model, node.inputs[0])?)?;
    let wire = patch.wire_node(name, FoundLinear { norm: Some(norm.clone()), ..op.clone() }, &inputs)?;
    patch.shunt_outside(model, node.id.into(), wire[0])?;
    Ok(Some(patch))
}

/// Whether everything that `outlet` feeds ends in node `consumer`, through axis operations only.
fn feeds_only(model: &TypedModel, outlet: OutletId, consumer: usize) -> TractResult<bool> {
    if model.outputs.contains(&outlet) {
        return Ok(false);
    }
    let [successor] = model.outlet_successors(outlet) else { return Ok(false) };
    if successor.node == consumer {
        return Ok(successor.slot == 0);
    }
    Ok(model.node(successor.node).op_is::<AxisOp>() && feeds_only(model, successor.node.into(), consumer)?)
}

/// Gives a normalisation that stands alone its kernel.
pub fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    op: &ImportedNorm,
) -> TractResult<Option<TypedModelPatch>> {
    let op = LayerNorm { norm: op.0.clone(), runtime: context.runtime.clone() };
    Ok(Some(TypedModelPatch::replace_single_op(model, node, &node.inputs, op)?))
}

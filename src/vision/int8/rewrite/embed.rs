//! What stands between the patches and the first block of a transformer: a row for the class token, position embeddings, normalisation.

use tract_onnx::tract_core::ops::array::{Pad, PadMode};
use tract_onnx::tract_core::ops::math::Add;
use tract_onnx::tract_hir::internal::*;

use super::layout::shape;
use super::{Context, beside_constant};
use crate::vision::int8::import::ImportedNorm;
use crate::vision::int8::ops::Embed;

/// Fuses `norm(pad(x) + positions)`, as OpenCLIP's towers are exported: the class token is the position of a row of zeros.
pub fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &ImportedNorm,
) -> TractResult<Option<TypedModelPatch>> {
    let sum = model.node(node.inputs[0].node);
    let Some((pad, positions)) = beside_constant::<Add>(model, sum)? else { return Ok(None) };
    let Some((ahead, patches)) = padded(model, pad)? else { return Ok(None) };
    let [_, tokens, width] = shape(model, node.id.into())?[..] else { return Ok(None) };
    if op.0.gain.len() != width || positions.len() != tokens * width {
        return Ok(None);
    }
    let positions = positions.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
    let op = Embed { runtime: context.runtime.clone(), positions: Arc::new(positions), ahead, norm: op.0.clone() };
    let mut patch = TypedModelPatch::new("tokens of patches");
    let tap = patch.tap_model(model, patches)?;
    let wire = patch.wire_node(name, op, &[tap])?;
    patch.shunt_outside(model, node.id.into(), wire[0])?;
    Ok(Some(patch))
}

/// If `outlet` is rows of zeros ahead of another: how many, and which.
fn padded(model: &TypedModel, outlet: OutletId) -> TractResult<Option<(usize, OutletId)>> {
    let node = model.node(outlet.node);
    let Some(Pad { pads, mode: PadMode::Constant(value) }) = node.op_as::<Pad>() else { return Ok(None) };
    let [(0, 0), (ahead, 0), (0, 0)] = pads[..] else { return Ok(None) };
    Ok((value.cast_to_scalar::<f32>()? == 0.0).then_some((ahead, node.inputs[0])))
}

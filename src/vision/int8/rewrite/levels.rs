//! A depthwise convolution that a clamp bounds hands bytes to the pointwise convolution behind it: the bounds are the
//! scale, so no range has to be found and no f32 image is written.

use tract_onnx::tract_hir::internal::*;

use super::Context;
use crate::vision::int8::ops::{Conv, Depthwise};

/// For the pointwise convolution.
pub fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &Conv,
) -> TractResult<Option<TypedModelPatch>> {
    // A row that fills its last step is read without a byte of the next.
    let whole = op.weights.inner.len().is_multiple_of(context.runtime.kernel.layout.depth);
    let feeder = model.node(node.inputs[0].node);
    let Some(depthwise) = feeder.op_as::<Depthwise>() else { return Ok(None) };
    let (low, high) = depthwise.clamp;
    let bounded = low == 0.0 && high.is_finite() && high > 0.0;
    let single = model.outlet_successors(node.inputs[0]).len() == 1 && !model.outputs.contains(&node.inputs[0]);
    if !(op.window.is_pointwise() && op.levels.is_none() && whole && bounded && single) {
        return Ok(None);
    }
    let levels = Some(high / 255.0);
    let mut patch = TypedModelPatch::new("levels between convolutions");
    let x = patch.tap_model(model, feeder.inputs[0])?;
    let mut inputs = patch.wire_node(&feeder.name, Depthwise { levels, ..depthwise.clone() }, &[x])?;
    for residual in &node.inputs[1..] {
        inputs.push(patch.tap_model(model, *residual)?);
    }
    let y = patch.wire_node(name, Conv { levels, ..op.clone() }, &inputs)?[0];
    patch.shunt_outside(model, node.id.into(), y)?;
    Ok(Some(patch))
}

//! Products with an int8 weight, as plain `[m, k] → [m, n]` layers: found first, packed when the other rules are done with them.

use tract_onnx::tract_core::axes::Axis;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_hir::internal::*;

use super::Context;
use super::epilogue::Epilogue;
use super::layout::{permute, reshape, shape};
use crate::vision::int8::glue::Activation;
use crate::vision::int8::ops::{Linear, Norm, equal_by_identity};
use crate::vision::int8::packed::Inner;
use crate::vision::int8::weight::QuantWeight;

/// The weight of a layer as a matrix.
#[derive(Debug)]
pub struct Weight {
    /// The integers and a scale a column.
    pub of: QuantWeight,
    /// Where each input of column 0 stands among the integers.
    pub places: Vec<usize>,
    /// How far on the next column's are.
    pub stride: usize,
}

impl Weight {
    /// The weight as a matrix of (columns, inner) under `axes`.
    fn new(of: &QuantWeight, axes: &Axes) -> TractResult<Weight> {
        let shape = of.shape();
        let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        // The offset of every inner index: the product set of the summed axes, the last running fastest.
        let mut places = vec![0usize];
        for (_, w) in &axes.inner {
            places = places.iter().flat_map(|base| (0..shape[*w]).map(move |i| base + i * stride(*w))).collect();
        }
        let column_axis = axes.columns[0].0;
        ensure!(column_axis == of.axis, "weights are quantised along an axis that is not their output channels");
        Ok(Weight { of: of.clone(), places, stride: stride(column_axis) })
    }

    /// Output channels.
    pub fn columns(&self) -> usize {
        self.of.scale.len()
    }
}

/// A [`Linear`] layer that has yet to get its packed weights.
#[derive(Debug, Clone)]
pub struct FoundLinear {
    /// The weights.
    pub weight: Arc<Weight>,
    /// One a column.
    pub bias: Arc<Vec<f32>>,
    /// Applied to the rows first.
    pub norm: Option<Arc<Norm>>,
    /// Applied last.
    pub activation: Activation,
    /// Whether there is a second input.
    pub residual: bool,
}

equal_by_identity!(FoundLinear, weight);

impl Op for FoundLinear {
    fn name(&self) -> StaticName {
        "FoundLinear".into()
    }

    op_as_typed_op!();
}

impl EvalOp for FoundLinear {
    not_out_of_plan!();
}

impl TypedOp for FoundLinear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact([inputs[0].shape[0].clone(), self.weight.columns().to_dim()])))
    }

    as_op!();
}

/// Where the axes of a product of an activation with a weight go.
#[derive(Debug)]
struct Axes {
    /// Kept axes, as (activation, output).
    rows: Vec<(usize, usize)>,
    /// Summed axes, as (activation, weight), in the activation's order.
    inner: Vec<(usize, usize)>,
    /// Output channels, as (weight, output), in the output's order.
    columns: Vec<(usize, usize)>,
    /// Axes of the activation, all 1 long, that the output lacks.
    dropped: Vec<usize>,
    /// Axes of the output, all 1 long, that come from nowhere.
    added: Vec<usize>,
}

impl Axes {
    /// `None` when the product is no linear layer: an axis shared by all three, or summed over one operand alone.
    fn of(op: &EinSum, activation: usize, shapes: &[TVec<usize>; 2]) -> Option<Axes> {
        let weight = 1 - activation;
        let mut axes = Axes { rows: vec![], inner: vec![], columns: vec![], dropped: vec![], added: vec![] };
        for axis in op.axes.iter_all_axes() {
            let Axis { inputs, outputs, .. } = axis;
            if inputs.iter().chain(outputs).any(|places| places.len() > 1) {
                return None;
            }
            let (a, w) = (inputs[activation].first().copied(), inputs[weight].first().copied());
            match (a, w, outputs[0].first().copied()) {
                (Some(a), None, Some(o)) => axes.rows.push((a, o)),
                (Some(a), Some(w), None) => axes.inner.push((a, w)),
                (None, Some(w), Some(o)) => axes.columns.push((w, o)),
                (Some(a), None, None) if shapes[activation][a] == 1 => axes.dropped.push(a),
                (None, None, Some(o)) => axes.added.push(o),
                _ => return None,
            }
        }
        axes.rows.sort_unstable();
        axes.inner.sort_unstable();
        axes.columns.sort_unstable_by_key(|(_, o)| *o);
        axes.added.sort_unstable();
        (!axes.inner.is_empty() && !axes.columns.is_empty()).then_some(axes)
    }

    /// Order of the activation's axes: rows, then what is summed.
    fn activation_order(&self) -> Vec<usize> {
        let kept = self.rows.iter().map(|(a, _)| *a);
        kept.chain(self.dropped.iter().copied()).chain(self.inner.iter().map(|(a, _)| *a)).collect()
    }

    /// Order of the output's axes that makes it a matrix: what came from nowhere, rows, columns.
    fn output_order(&self) -> Vec<usize> {
        let rows = self.rows.iter().map(|(_, o)| *o);
        self.added.iter().copied().chain(rows).chain(self.columns.iter().map(|(_, o)| *o)).collect()
    }
}

/// Finds the layers.
pub fn rule(
    _context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &EinSum,
) -> TractResult<Option<TypedModelPatch>> {
    let weight_of = |slot: usize| model.node(node.inputs[slot].node).op_as::<QuantWeight>();
    let (activation, weight) = match node.inputs.len() {
        2 => match (weight_of(0), weight_of(1)) {
            (None, Some(weight)) => (0, weight),
            (Some(weight), None) => (1, weight),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let shapes = [shape(model, node.inputs[0])?, shape(model, node.inputs[1])?];
    let Some(axes) = Axes::of(op, activation, &shapes) else { return Ok(None) };
    let [(_, channel_axis)] = axes.columns[..] else { return Ok(None) };
    let weight = Weight::new(weight, &axes).with_context(|| name.to_owned())?;
    let (k, n) = (weight.places.len(), weight.columns());
    let epilogue = Epilogue::follow(model, node, channel_axis, n, vec![0.0; n])?;

    let mut patch = TypedModelPatch::new("int8 linear layer");
    let m = shapes[activation].iter().product::<usize>() / k;
    let x = patch.tap_model(model, node.inputs[activation])?;
    let x = permute(&mut patch, &format!("{name}.x"), x, &axes.activation_order())?;
    let mut inputs = tvec!(reshape(&mut patch, &format!("{name}.x"), x, &[m, k])?);
    let order = axes.output_order();
    if let Some(residual) = epilogue.residual {
        let wire = patch.tap_model(model, residual)?;
        let wire = permute(&mut patch, &format!("{name}.residual"), wire, &order)?;
        inputs.push(reshape(&mut patch, &format!("{name}.residual"), wire, &[m, n])?);
    }
    let layer = FoundLinear {
        weight: Arc::new(weight),
        bias: Arc::new(epilogue.bias),
        norm: None,
        activation: epilogue.activation,
        residual: epilogue.residual.is_some(),
    };
    let wire = patch.wire_node(name, layer, &inputs)?[0];
    let output = shape(model, node.id.into())?;
    let ordered: Vec<usize> = order.iter().map(|o| output[*o]).collect();
    let wire = reshape(&mut patch, &format!("{name}.y"), wire, &ordered)?;
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, o)| inverse[*o] = i);
    let wire = permute(&mut patch, &format!("{name}.y"), wire, &inverse)?;
    patch.shunt_outside(model, epilogue.last, wire)?;
    Ok(Some(patch))
}

/// Packs their weights.
pub fn pack(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &FoundLinear,
) -> TractResult<Option<TypedModelPatch>> {
    let Weight { of, places, stride } = &*op.weight;
    let weights = context.pack(of, Inner::plain(places.len()), places, *stride).with_context(|| name.to_owned())?;
    let mut bias = op.bias.to_vec();
    bias.resize(weights.padded_columns(), 0.0);
    let layer = Linear {
        runtime: context.runtime.clone(),
        weights: Arc::new(weights),
        bias: Arc::new(bias),
        norm: op.norm.clone(),
        activation: op.activation,
        residual: op.residual,
    };
    Ok(Some(TypedModelPatch::replace_single_op(model, node, &node.inputs, layer)?))
}

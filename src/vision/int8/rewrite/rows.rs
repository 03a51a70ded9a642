//! Rows that nobody reads are not computed: a transformer's last block of which the class token alone goes on.
//!
//! tract's own pass for this moves slices up through products and would also cut one query-key-value layer into three that slice
//! their weight on every run.

use tract_onnx::tract_core::ops::array::Gather;
use tract_onnx::tract_hir::internal::*;

use super::layout::{exhaust, places, reshape, selects, shape};
use super::linear::FoundLinear;
use crate::vision::int8::import::ImportedNorm;
use crate::vision::int8::ops::{Attention, Heads};

/// Computes of each layer, normalisation and attention the rows that are read, where that is at most half of them.
pub fn keep(model: &mut TypedModel) -> TractResult<()> {
    exhaust(model, find)
}

fn find(model: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
    for node in &model.nodes {
        let by_rows = node.op_is::<FoundLinear>() || node.op_is::<ImportedNorm>() || node.op_is::<Attention>();
        if by_rows
            && let Some(selections) = selections(model, node.id.into())?
            && let Some(patch) = narrow(model, node, &selections)?
        {
            return Ok(Some(patch));
        }
    }
    Ok(None)
}

/// The operators from an outlet down to one that selects, that one included.
type Path<'a> = Vec<&'a TypedNode>;

/// The ways down from `outlet`, through axis operations, if all of them come to an operator that selects.
fn selections(model: &TypedModel, outlet: OutletId) -> TractResult<Option<Vec<Path<'_>>>> {
    let (mut open, mut closed) = (vec![(outlet, Path::new())], vec![]);
    while let Some((outlet, path)) = open.pop() {
        if model.outputs.contains(&outlet) {
            return Ok(None);
        }
        for successor in model.outlet_successors(outlet) {
            let node = model.node(successor.node);
            let path: Path = path.iter().copied().chain([node]).collect();
            if node.op_is::<AxisOp>() {
                open.push((node.id.into(), path));
            } else if successor.slot == 0 && selects(model, node)? {
                closed.push(path);
            } else {
                return Ok(None);
            }
        }
    }
    Ok(Some(closed).filter(|paths| !paths.is_empty()))
}

/// `node` over the rows that all selections share, if they are whole rows and few.
fn narrow(model: &TypedModel, node: &TypedNode, selections: &[Path]) -> TractResult<Option<TypedModelPatch>> {
    let from = shape(model, node.id.into())?;
    let (width, count) = (row_width(node, &from), from.iter().product::<usize>());
    let selected = |path: &Path| selected(&places(model, &from, path)?, width);
    let all = selections.iter().map(selected).collect::<TractResult<Vec<_>>>()?;
    let Some(rows) = all[0].clone().filter(|rows| all.iter().all(|other| other.as_ref() == Some(rows))) else {
        return Ok(None);
    };
    if rows.len() * 2 > count / width {
        return Ok(None);
    }
    let mut patch = TypedModelPatch::new("rows that are read");
    let Some(wire) = wire(model, &mut patch, node, &rows)? else { return Ok(None) };
    for (number, end) in selections.iter().filter_map(|path| path.last()).enumerate() {
        let to = shape(model, end.id.into())?;
        let wire = reshape(&mut patch, &format!("{}.rows.{number}", node.name), wire, &to)?;
        patch.shunt_outside(model, end.id.into(), wire)?;
    }
    Ok(Some(patch))
}

/// Values of one row, of which the operator computes each from the same rows of its inputs.
fn row_width(node: &TypedNode, shape: &[usize]) -> usize {
    match node.op_as::<Attention>() {
        Some(attention) => attention.inner * attention.operands[2].depth,
        None => shape[shape.len() - 1],
    }
}

/// The rows whose places these are, if they are whole ones.
fn selected(places: &Tensor, width: usize) -> TractResult<Option<Vec<usize>>> {
    let places = places.try_as_plain_ram()?;
    Ok(places.as_slice::<i32>()?.chunks(width).map(|row| whole(row, width)).collect())
}

fn whole(places: &[i32], width: usize) -> Option<usize> {
    let first = *places.first()? as usize;
    let follow = places.iter().zip(first..).all(|(place, expected)| *place as usize == expected);
    (places.len() == width && follow && first.is_multiple_of(width)).then_some(first / width)
}

/// The operator over these rows, its output a matrix of them.
fn wire(
    model: &TypedModel,
    patch: &mut TypedModelPatch,
    node: &TypedNode,
    rows: &[usize],
) -> TractResult<Option<OutletId>> {
    let name = format!("{}.rows", node.name);
    if let Some(attention) = node.op_as::<Attention>() {
        let Some(attention) = asking(attention, rows) else { return Ok(None) };
        let inputs = patch.taps(model, &node.inputs)?;
        return Ok(Some(patch.wire_node(name, attention, &inputs)?[0]));
    }
    let mut inputs = tvec!();
    for (slot, input) in node.inputs.iter().enumerate() {
        let from = shape(model, *input)?;
        let width = from[from.len() - 1];
        let tap = patch.tap_model(model, *input)?;
        inputs.push(pick(patch, &format!("{name}.{slot}"), tap, width, rows)?);
    }
    Ok(Some(patch.wire_node(name, node.op.clone(), &inputs)?[0]))
}

/// Some rows of `wire`, as a matrix.
pub fn pick(
    patch: &mut TypedModelPatch,
    name: &str,
    wire: OutletId,
    width: usize,
    rows: &[usize],
) -> TractResult<OutletId> {
    let count = shape(&patch.model, wire)?.iter().product::<usize>();
    let wire = reshape(patch, &format!("{name}.matrix"), wire, &[count / width, width])?;
    let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    let rows = patch.add_const(format!("{name}.numbers"), tensor1(&rows))?;
    Ok(patch.wire_node(format!("{name}.pick"), Gather::new(0), &[wire, rows])?[0])
}

/// Attention of fewer queries, if they are the same tokens of each picture, one next to the other.
fn asking(attention: &Attention, rows: &[usize]) -> Option<Attention> {
    let [q, k, v] = attention.operands.clone();
    let pictures = q.starts.len() / attention.inner;
    let (first, tokens) = (*rows.first()?, rows.len() / pictures);
    let expected = (0..pictures).flat_map(|picture| picture * q.tokens + first..picture * q.tokens + first + tokens);
    if first + tokens > q.tokens || !rows.iter().copied().eq(expected) {
        return None;
    }
    let starts = q.starts.iter().map(|start| start + first * q.stride).collect();
    let shape = tvec!(rows.len(), attention.inner * v.depth);
    Some(Attention { operands: [Heads { starts, tokens, ..q }, k, v], shape, ..attention.clone() })
}

//! tract's ONNX reader with two operators read our way.
//!
//! tract evaluates `DequantizeLinear` of a constant while it loads the file, which leaves an f32 tensor four times the
//! size and no trace of the int8 one; here a constant, symmetric, per-channel int8 tensor becomes a [`QuantWeight`]
//! source node, which refuses evaluation outside a plan and so survives every constant-folding pass until the rewrite
//! absorbs it. tract also spells `LayerNormalization` out as eight nodes; here it stays one.
//!
//! Anything else under these two names is refused by name: bundles of this project contain none.

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::ops::Norm;
use super::weight::{QuantWeight, Values};

/// The operator that stands for a weight which was packed beforehand.
pub const PACKED_WEIGHT: &str = "PackedWeight";

/// The reader.
pub fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    onnx.op_register.insert("DequantizeLinear", dequantize_linear);
    onnx.op_register.insert("LayerNormalization", layer_normalization);
    onnx.op_register.insert(PACKED_WEIGHT, packed_weight);
    onnx
}

/// The constant that input `ix` of an imported node must be.
fn constant(prefix: &str, target: &TypedModel, inputs: &[OutletId], ix: usize) -> TractResult<Arc<Tensor>> {
    let fact = target.outlet_fact(inputs[ix])?;
    fact.konst.clone().with_context(|| format!("{prefix}: input {ix} must be a constant, it is computed"))
}

fn dequantize_linear(_ctx: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let axis = node.get_attr_opt("axis")?.unwrap_or(1i64);
    let tensor = node.input.first().cloned().unwrap_or_default();
    Ok((expand(ConstantDequantize { tensor, axis, inputs: node.input.len() }), vec![]))
}

/// `DequantizeLinear` as the parser meets it, before shapes and constants are known.
#[derive(Debug, Clone)]
struct ConstantDequantize {
    /// The integers' name.
    tensor: String,
    axis: i64,
    inputs: usize,
}

impl Expansion for ConstantDequantize {
    fn name(&self) -> StaticName {
        "DequantizeLinear".into()
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.inputs)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, target: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let constant = |ix| constant(prefix, target, inputs, ix);
        let (values, scale) = (constant(0)?, constant(1)?);
        ensure!(
            values.datum_type() == i8::datum_type(),
            "{prefix}: weights must be int8, not {:?}",
            values.datum_type()
        );
        ensure!(scale.datum_type() == f32::datum_type(), "{prefix}: weight scales must be float32");
        if self.inputs == 3 {
            ensure!(constant(2)?.is_all_zero()?, "{prefix}: weights must be symmetric (zero point 0)");
        }
        let rank = values.rank() as i64;
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis };
        ensure!((0..rank).contains(&axis), "{prefix}: axis {axis} is outside a rank {rank} weight");
        let axis = axis as usize;
        ensure!(
            scale.len() == values.shape()[axis],
            "{prefix}: {} scales for {} output channels; quantise per output channel",
            scale.len(),
            values.shape()[axis]
        );
        let name = self.tensor.clone();
        target.wire_node(prefix, QuantWeight { name, values: Values::Here(values), scale, axis }, &[])
    }
}

fn packed_weight(_ctx: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let shape = node.get_attr_tvec::<i64>("shape")?.iter().map(|side| *side as usize).collect();
    let (tensor, axis) = (node.get_attr("tensor")?, node.get_attr::<i64>("axis")? as usize);
    Ok((expand(PackedWeight { tensor, axis, shape }), vec![]))
}

/// What [`store`](super::store) leaves of a `DequantizeLinear` whose integers it keeps: the scales are the one input.
#[derive(Debug, Clone)]
struct PackedWeight {
    /// The integers' name.
    tensor: String,
    axis: usize,
    shape: TVec<usize>,
}

impl Expansion for PackedWeight {
    fn name(&self) -> StaticName {
        PACKED_WEIGHT.into()
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&outputs[0].shape, ShapeFactoid::from(&*self.shape))
    }

    fn wire(&self, prefix: &str, target: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let scale = constant(prefix, target, inputs, 0)?;
        let values = Values::Packed(self.shape.clone());
        target.wire_node(prefix, QuantWeight { name: self.tensor.clone(), values, scale, axis: self.axis }, &[])
    }
}

fn layer_normalization(_ctx: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let axis = node.get_attr_opt("axis")?.unwrap_or(-1i64);
    let epsilon = node.get_attr_opt("epsilon")?.unwrap_or(1e-5f32);
    ensure!(node.output.len() == 1, "{}: only the first output of LayerNormalization is supported", node.name);
    Ok((expand(ConstantNorm { axis, epsilon, inputs: node.input.len() }), vec![]))
}

/// `LayerNormalization` as the parser meets it.
#[derive(Debug, Clone)]
struct ConstantNorm {
    axis: i64,
    epsilon: f32,
    inputs: usize,
}

impl Expansion for ConstantNorm {
    fn name(&self) -> StaticName {
        "LayerNormalization".into()
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.inputs)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&inputs[0].datum_type, f32::datum_type())?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, target: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let rank = target.outlet_fact(inputs[0])?.rank() as i64;
        ensure!(self.axis == -1 || self.axis == rank - 1, "{prefix}: only the last axis can be normalised");
        let values = |ix: usize| -> TractResult<Vec<f32>> {
            Ok(constant(prefix, target, inputs, ix)?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        };
        let gain = values(1)?;
        let bias = if self.inputs > 2 { values(2)? } else { vec![0.0; gain.len()] };
        ensure!(gain.len() == bias.len(), "{prefix}: gain and bias differ in length");
        let norm = Arc::new(Norm { gain, bias, epsilon: self.epsilon });
        target.wire_node(prefix, ImportedNorm(norm), &inputs[..1])
    }
}

/// A layer normalisation that the rewrite has yet to give a kernel.
#[derive(Debug, Clone)]
pub struct ImportedNorm(pub Arc<Norm>);

impl PartialEq for ImportedNorm {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ImportedNorm {}

impl Op for ImportedNorm {
    fn name(&self) -> StaticName {
        "ImportedNorm".into()
    }

    op_as_typed_op!();
}

impl EvalOp for ImportedNorm {
    not_out_of_plan!();
}

impl TypedOp for ImportedNorm {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(inputs[0].shape.iter())))
    }

    as_op!();
}

//! The int8 weight of a bundle as a graph node that nothing can fold.

use std::sync::Arc;

use tract_onnx::tract_hir::internal::*;

/// Where the integers of a [`QuantWeight`] are.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Here, row-major in the shape the graph sees.
    Here(Arc<Tensor>),
    /// In a [`Store`](super::store::Store), packed: what is known is the shape the graph sees.
    Packed(TVec<usize>),
}

/// An int8 tensor with one f32 scale per slice of `axis`; `w[i] = values[i] * scale[i's index along axis]`.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantWeight {
    /// The integers' in the file.
    pub name: String,
    /// The integers.
    pub values: Values,
    /// One scale per output channel.
    pub scale: Arc<Tensor>,
    /// The dimension of `values` that counts output channels.
    pub axis: usize,
}

impl Eq for QuantWeight {}

impl QuantWeight {
    /// The shape the graph sees.
    pub fn shape(&self) -> &[usize] {
        match &self.values {
            Values::Here(values) => values.shape(),
            Values::Packed(shape) => shape,
        }
    }

    /// The integers.
    ///
    /// # Errors
    /// When they are elsewhere, packed.
    pub fn values(&self) -> TractResult<&Tensor> {
        match &self.values {
            Values::Here(values) => Ok(values),
            Values::Packed(_) => bail!("{}: the weight is packed, and not for this layer", self.name),
        }
    }

    fn fact(&self) -> TypedFact {
        f32::fact(self.shape())
    }

    /// The f32 tensor this stands for: for consumers the rewrite does not take over.
    fn dequantised(&self) -> TractResult<Tensor> {
        let mut out = self.values()?.cast_to::<f32>()?.into_owned();
        let shape = out.shape().to_vec();
        let inner: usize = shape[self.axis + 1..].iter().product();
        let channels = shape[self.axis];
        let scale = self.scale.try_as_plain_ram()?;
        let scale = scale.as_slice::<f32>()?;
        let mut view = out.try_as_plain_ram_mut()?;
        for (i, v) in view.as_slice_mut::<f32>()?.iter_mut().enumerate() {
            *v *= scale[i / inner % channels];
        }
        Ok(out)
    }
}

impl Op for QuantWeight {
    fn name(&self) -> StaticName {
        "QuantWeight".into()
    }

    op_as_typed_op!();
}

impl EvalOp for QuantWeight {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, _inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(tvec!(self.dequantised()?.into_tvalue()))
    }
}

impl TypedOp for QuantWeight {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(self.fact()))
    }

    fn change_axes(
        &self,
        _model: &TypedModel,
        _node: &TypedNode,
        io: InOut,
        change: &AxisOp,
    ) -> TractResult<Option<AxisChangeConsequence>> {
        ensure!(io == InOut::Out(0));
        let Some(axis) = change.transform_axis(self.axis) else { return Ok(None) };
        let mut shape: TVec<usize> = self.shape().into();
        if change.change_shape_array(&mut shape, false).is_err() || shape[axis] != self.scale.len() {
            return Ok(None);
        }
        let values = match &self.values {
            Values::Packed(_) => Values::Packed(shape),
            Values::Here(values) => {
                let mut values = values.as_ref().clone();
                change.change_tensor(&mut values, false)?;
                Values::Here(values.into_arc_tensor())
            }
        };
        let op = QuantWeight { values, axis, ..self.clone() };
        Ok(Some(AxisChangeConsequence { substitute_op: Some(Box::new(op)), wire_changes: tvec!((io, change.clone())) }))
    }

    as_op!();
}

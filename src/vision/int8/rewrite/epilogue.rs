//! What stands behind a product and can be computed on its tiles: bias, residual and activation, in this order.

use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::{Add, Max, Min, Mul};
use tract_onnx::tract_core::ops::nn::gelu_exact::GeluExact;
use tract_onnx::tract_core::ops::nn::{Sigmoid, Silu};
use tract_onnx::tract_hir::internal::*;

use crate::vision::int8::glue::Activation;

/// The fused tail of a product.
#[derive(Debug)]
pub struct Epilogue {
    /// One a channel.
    pub bias: Vec<f32>,
    /// A computed tensor of the product's shape.
    pub residual: Option<OutletId>,
    /// Applied last.
    pub activation: Activation,
    /// The outlet that all this replaces.
    pub last: OutletId,
}

impl Epilogue {
    /// Follows the graph from `product`, whose output counts its `channels` channels along `axis`.
    pub fn follow(
        model: &TypedModel,
        product: &TypedNode,
        axis: usize,
        channels: usize,
        bias: Vec<f32>,
    ) -> TractResult<Epilogue> {
        let mut epilogue = Epilogue { bias, residual: None, activation: Activation::Identity, last: product.id.into() };
        while epilogue.step(model, axis, channels)? {}
        Ok(epilogue)
    }

    fn step(&mut self, model: &TypedModel, axis: usize, channels: usize) -> TractResult<bool> {
        if self.last_is_output(model) {
            return Ok(false);
        }
        if self.activation == Activation::Identity && self.quick_gelu(model)? {
            return Ok(true);
        }
        let [successor] = model.outlet_successors(self.last) else { return Ok(false) };
        let node = model.node(successor.node);
        if let Some(op) = node.op_as::<ElementWiseOp>() {
            return Ok(self.activation == Activation::Identity && op.0.is::<GeluExact>() && {
                self.activate(Activation::Gelu, node)
            });
        }
        let Some(op) = node.op_as::<TypedBinOp>() else { return Ok(false) };
        let other = node.inputs[1 - successor.slot];
        let constant = model.outlet_fact(other)?.konst.clone();
        match constant {
            Some(values) if op.0.is::<Add>() => self.add_bias(&values, axis, channels, node),
            Some(values) if op.0.is::<Max>() || op.0.is::<Min>() => self.clamp(&values, op.0.is::<Max>(), node),
            None if op.0.is::<Add>() => self.add_residual(model, other, node),
            _ => Ok(false),
        }
    }

    fn last_is_output(&self, model: &TypedModel) -> bool {
        model.outputs.contains(&self.last)
    }

    fn activate(&mut self, activation: Activation, node: &TypedNode) -> bool {
        self.activation = activation;
        self.last = node.id.into();
        true
    }

    fn add_bias(&mut self, values: &Tensor, axis: usize, channels: usize, node: &TypedNode) -> TractResult<bool> {
        let along_axis = values.len() == channels && values.shape().get(axis) == Some(&channels);
        if self.activation != Activation::Identity || !(values.len() == 1 || along_axis) {
            return Ok(false);
        }
        let values = values.try_as_plain_ram()?;
        let values = values.as_slice::<f32>()?;
        self.bias.iter_mut().zip(values.iter().cycle()).for_each(|(bias, v)| *bias += v);
        self.last = node.id.into();
        Ok(true)
    }

    fn add_residual(&mut self, model: &TypedModel, other: OutletId, node: &TypedNode) -> TractResult<bool> {
        let same_shape = model.outlet_fact(other)?.shape == model.outlet_fact(self.last)?.shape;
        if self.activation != Activation::Identity || self.residual.is_some() || !same_shape || other == self.last {
            return Ok(false);
        }
        self.residual = Some(other);
        self.last = node.id.into();
        Ok(true)
    }

    fn clamp(&mut self, values: &Tensor, from_below: bool, node: &TypedNode) -> TractResult<bool> {
        let (low, high) = match self.activation {
            Activation::Identity => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Clamp { low, high } => (low, high),
            _ => return Ok(false),
        };
        if values.len() != 1 {
            return Ok(false);
        }
        let limit = values.cast_to_scalar::<f32>()?;
        let (low, high) =
            if from_below { (low.max(limit), high.max(limit)) } else { (low.min(limit), high.min(limit)) };
        Ok(self.activate(Activation::Clamp { low, high }, node))
    }

    /// `x · sigmoid(1.702 x)`, or `silu(1.702 x) / 1.702`, which it may have been folded to.
    fn quick_gelu(&mut self, model: &TypedModel) -> TractResult<bool> {
        let is_factor = |node: &TypedNode| -> bool {
            node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Mul>())
                && node.inputs.iter().any(|i| {
                    let konst = model.outlet_fact(*i).ok().and_then(|f| f.konst.clone());
                    konst.and_then(|k| k.cast_to_scalar::<f32>().ok()).is_some_and(|k| (k - 1.702).abs() < 1e-4)
                })
        };
        let successors = model.outlet_successors(self.last);
        let Some(scaled) = successors.iter().map(|s| model.node(s.node)).find(|n| is_factor(n)) else {
            return Ok(false);
        };
        let Some(next) = model.single_succ(scaled.id)? else { return Ok(false) };
        let Some(op) = next.op_as::<ElementWiseOp>() else { return Ok(false) };
        let Some(end) = model.single_succ(next.id)? else { return Ok(false) };
        let is_product = end.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Mul>());
        let spelt_out = op.0.is::<Sigmoid>() && successors.len() == 2 && end.inputs.contains(&self.last);
        let folded = op.0.is::<Silu>() && successors.len() == 1 && {
            let konst = end.inputs.iter().find_map(|i| model.outlet_fact(*i).ok().and_then(|f| f.konst.clone()));
            konst.and_then(|k| k.cast_to_scalar::<f32>().ok()).is_some_and(|k| (k - 1.0 / 1.702).abs() < 1e-4)
        };
        Ok(is_product && (spelt_out || folded) && self.activate(Activation::QuickGelu, end))
    }
}

//! Turns a bundle's graph, as imported, into one of our operators.
//!
//! Four passes. The first runs on the graph as the file spells it: convolutions with an int8 kernel become NHWC
//! operators (the first of them reading RGB bytes), with the activation and the residual behind them fused; average
//! pools follow, and the axis moves this puts between neighbours cancel when tract declutters. The second runs on the decluttered graph:
//! products with an int8 weight are found as layers over a plain matrix, with bias, activation and residual fused, and attention
//! between them. The third drops chains of axis operations that cancel, rows that nobody reads, and the keys and values of a single query. Then what stands next to each other
//! is fused: a depthwise convolution with the pointwise one behind it, a layer normalisation with the one layer it feeds or with the position
//! embeddings ahead of it; and the layers
//! get their packed weights, as [`Linear`](super::ops::Linear).
//!
//! A product the rules do not recognise keeps its [`QuantWeight`](super::weight::QuantWeight) and is computed by tract
//! from weights it dequantises on every run: slow but right. [`super::super::encoder`]'s op histogram shows it.

mod attention;
mod attention_pool;
mod conv;
mod embed;
mod epilogue;
mod layout;
mod linear;
mod norm;
mod rows;

use std::sync::{Mutex, PoisonError};

use tract_onnx::tract_hir::internal::*;

use super::import::ImportedNorm;
use super::kernels::memory::Arena;
use super::ops::{Attention, Conv as Int8Conv, Linear};
use super::packed::{Inner, Matrix, Packed};
use super::runtime::Runtime;
use super::store::Store;
use super::weight::{QuantWeight, Values};
use linear::FoundLinear;
use tract_onnx::tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_onnx::tract_core::ops::cnn::{Conv, SumPool};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::nn::Softmax;
use tract_onnx::tract_core::optim::Optimizer;

/// What the rules need beside the graph.
#[derive(Debug, Clone)]
pub struct Context {
    /// Kernel and threads for the operators.
    pub runtime: Arc<Runtime>,
    /// Mean of the model's normalisation, of values in 0..1, RGB.
    pub mean: [f32; 3],
    /// Standard deviation of the model's normalisation, RGB.
    pub std: [f32; 3],
    /// Weights that were packed beforehand.
    pub store: Option<Arc<Store>>,
    /// Where others are packed to.
    pub arena: Arc<Mutex<Arena>>,
}

impl Context {
    /// The weight as the kernel reads it: packed now, or beforehand. `places` says where each `k` of column 0 stands among its
    /// values, `stride` how far on the next column's is.
    fn pack(&self, weight: &QuantWeight, inner: Inner, places: &[usize], stride: usize) -> TractResult<Packed> {
        let kernel = &self.runtime.kernel;
        let scale = weight.scale.try_as_plain_ram()?;
        let scale = scale.as_slice::<f32>()?;
        let packed = match (&weight.values, &self.store) {
            (Values::Packed(_), Some(store)) => store.packed(kernel, &weight.name, inner, scale),
            _ => {
                let values = weight.values()?.try_as_plain_ram()?;
                return self.pack_now(
                    &weight.name,
                    inner,
                    scale,
                    &Matrix { values: values.as_slice::<i8>()?, places, stride },
                );
            }
        };
        packed.map_err(TractError::msg)
    }

    /// A matrix with one scale a column as the kernel reads it.
    fn pack_now(&self, name: &str, inner: Inner, scale: &[f32], matrix: &Matrix) -> TractResult<Packed> {
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        Packed::new((&self.runtime.kernel, &mut arena), name, inner, scale, matrix).map_err(TractError::msg)
    }
}

/// The packed weights of `model`, as [`Context::pack`] gave them to layers that need nothing else of them.
pub fn packed(model: &TypedModel) -> Vec<Arc<Packed>> {
    let of = |node: &TypedNode| match (node.op_as::<Linear>(), node.op_as::<Int8Conv>()) {
        (Some(layer), _) => Some(layer.weights.clone()),
        (_, Some(layer)) => Some(layer.weights.clone()),
        _ => None,
    };
    model.nodes.iter().filter_map(of).collect()
}

/// Rewrites `model`, whose one input is the normalised f32 image `[batch, 3, size, size]`. Where its first operator is
/// an int8 convolution, the input becomes RGB bytes `[batch, size, size, 3]`.
///
/// # Errors
/// tract's, or ours naming the node whose weights cannot be packed.
pub fn rewrite(context: Context, mut model: TypedModel) -> TractResult<TypedModel> {
    model.prop_consts()?;
    conv::pixels(&context, &mut model)?;
    apply::<Conv>(&context, &mut model, conv::rule)?;
    apply::<SumPool>(&context, &mut model, conv::pooling)?;
    declutter(&mut model)?;
    apply::<EinSum>(&context, &mut model, linear::rule)?;
    apply::<Softmax>(&context, &mut model, attention::rule)?;
    layout::straighten(&mut model)?;
    rows::keep(&mut model)?;
    apply::<Attention>(&context, &mut model, attention_pool::rule)?;
    apply::<Int8Conv>(&context, &mut model, conv::separable)?;
    apply::<Int8Conv>(&context, &mut model, conv::positive)?;
    apply::<ImportedNorm>(&context, &mut model, embed::rule)?;
    apply::<FoundLinear>(&context, &mut model, norm::fuse)?;
    apply::<ImportedNorm>(&context, &mut model, norm::rule)?;
    apply::<FoundLinear>(&context, &mut model, linear::pack)?;
    model.into_optimized()
}

/// tract's declutter without the pass that pushes slices up through products: it would cut one query-key-value layer
/// into three that slice their weight on every run.
fn declutter(model: &mut TypedModel) -> TractResult<()> {
    let mut optimizer = Optimizer::declutter();
    optimizer.passes.retain(|pass| format!("{pass:?}") != "PushSliceUp");
    model.optimize_with_session(&mut optimizer.session())
}

/// The other operand of an `O` with one constant operand, and that.
fn beside_constant<O: BinMiniOp>(model: &TypedModel, node: &TypedNode) -> TractResult<Option<(OutletId, Arc<Tensor>)>> {
    if !node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<O>()) {
        return Ok(None);
    }
    for slot in 0..2 {
        if let Some(constant) = &model.outlet_fact(node.inputs[slot])?.konst {
            return Ok(Some((node.inputs[1 - slot], constant.clone())));
        }
    }
    Ok(None)
}

/// Answers with what should stand in place of a node holding an `O`.
type Rule<O> = fn(&Context, &TypedModel, &TypedNode, &str, &O) -> TractResult<Option<TypedModelPatch>>;

fn apply<O: Op>(context: &Context, model: &mut TypedModel, rule: Rule<O>) -> TractResult<()> {
    let context = context.clone();
    Rewriter::<()>::default()
        .with_rule_for::<O>(std::any::type_name::<O>(), move |(), model, node, name, op| {
            rule(&context, model, node, name, op)
        })
        .rewrite(&(), model)
}

/// Multiply-adds of one run of `model`, for all node kinds that count theirs.
///
/// # Errors
/// tract's, for a node without a cost.
pub fn macs(model: &TypedModel) -> TractResult<u64> {
    let mut total = 0;
    for node in &model.nodes {
        for (cost, count) in node.op.cost(&model.node_input_facts(node.id)?)? {
            if matches!(cost, Cost::FMA(_)) {
                total += count.to_i64()? as u64;
            }
        }
    }
    Ok(total)
}

//! Convolutions with an int8 kernel, as NHWC operators.

use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PoolSpec, SumPool};
use tract_onnx::tract_core::ops::nn::DataFormat;
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_onnx::tract_hir::internal::*;

use super::Context;
use super::epilogue::Epilogue;
use super::layout::{chain_above, shape};
use crate::vision::int8::glue::{Activation, MAX_LANES, Scale};
use crate::vision::int8::ops::{
    Conv as Int8Conv, Depthwise, DepthwiseWeights, PixelConv, Window, Winograd, WinogradWeights,
};
use crate::vision::int8::packed::{Inner, Matrix, Packed};
use crate::vision::int8::weight::QuantWeight;

/// What Winograd's form is for.
const WINOGRAD_WINDOW: Window = Window { kernel: (3, 3), stride: (1, 1), before: (1, 1), after: (1, 1) };

/// Channels from which on it is quicker. The same for every kernel, even where it is not: embeddings of one bundle must agree on all boards
/// more closely than two ways to quantise do.
const WINOGRAD_CHANNELS: usize = 128;

/// A two-dimensional convolution that our operators can take over.
struct Found<'a> {
    weight: &'a QuantWeight,
    window: Window,
    channels: (usize, usize),
    group: usize,
    epilogue: Epilogue,
}

impl<'a> Found<'a> {
    fn of(model: &'a TypedModel, node: &TypedNode, op: &Conv) -> TractResult<Option<Found<'a>>> {
        let Some(weight) = model.node(node.inputs[1].node).op_as::<QuantWeight>() else { return Ok(None) };
        let spec = &op.pool_spec;
        let plain = op.q_params.is_none()
            && op.kernel_fmt == KernelFormat::OIHW
            && spec.data_format == DataFormat::NCHW
            && spec.kernel_shape.len() == 2
            && spec.dilations().iter().all(|d| *d == 1)
            && weight.axis == 0;
        if !plain {
            return Ok(None);
        }
        let window = window(spec, &shape(model, node.inputs[0])?[2..]);
        let channels = (spec.input_channels, spec.output_channels);
        let Some(bias) = model.outlet_fact(node.inputs[2])?.konst.clone() else { return Ok(None) };
        let bias = bias.cast_to::<f32>()?.into_owned();
        let bias = bias.try_as_plain_ram()?;
        let bias = bias.as_slice::<f32>()?;
        ensure!(bias.len() == 1 || bias.len() == channels.1, "{}: {} biases", node.name, bias.len());
        let bias: Vec<f32> = bias.iter().copied().cycle().take(channels.1).collect();
        let epilogue = Epilogue::follow(model, node, 1, channels.1, bias)?;
        Ok(Some(Found { weight, window, channels, group: op.group, epilogue }))
    }

    fn is_depthwise(&self) -> bool {
        self.group == self.channels.0 && self.group == self.channels.1
    }

    /// The kernel as integers, `[out][in / group][height][width]`, and its scales.
    fn values(&self) -> TractResult<(Vec<i8>, Vec<f32>)> {
        let values = self.weight.values()?.try_as_plain_ram()?.as_slice::<i8>()?.to_vec();
        Ok((values, self.weight.scale.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))
    }

    fn padded_bias(&self, weights: &Packed) -> Vec<f32> {
        let mut bias = self.epilogue.bias.clone();
        bias.resize(weights.padded_columns(), 0.0);
        bias
    }

    fn dense(&self, context: &Context) -> TractResult<Int8Conv> {
        let (height, width) = self.window.kernel;
        let c = self.channels.0;
        let inner = match self.window.is_pointwise() {
            true => Inner::plain(c),
            false => Inner { groups: 1, segments: height, run: width * c },
        };
        let place = |k: usize| (k % c * height + k / (width * c)) * width + k / c % width;
        let places: Vec<_> = (0..inner.len()).map(place).collect();
        let weights = context.pack(self.weight, inner, &places, c * height * width)?;
        Ok(Int8Conv {
            runtime: context.runtime.clone(),
            depthwise: None,
            bias: Arc::new(self.padded_bias(&weights)),
            weights: Arc::new(weights),
            window: self.window,
            activation: self.epilogue.activation,
            positive: false,
            residual: self.epilogue.residual.is_some(),
        })
    }

    /// `None` when something other than a clamp is to be fused.
    fn depthwise(&self, context: &Context) -> TractResult<Option<Depthwise>> {
        let Some(clamp) = self.clamp() else { return Ok(None) };
        let (values, scale) = self.values()?;
        let (taps, channels) = (self.window.kernel.0 * self.window.kernel.1, scale.len());
        let tap = |i: usize| f32::from(values[i % channels * taps + i / channels]) * scale[i % channels];
        let taps = (0..taps * channels).map(tap).collect();
        let weights = Arc::new(DepthwiseWeights { taps, bias: self.epilogue.bias.clone() });
        Ok(Some(Depthwise { runtime: context.runtime.clone(), weights, window: self.window, clamp }))
    }

    /// `None` where Winograd's form is no gain or something other than a clamp is to be fused.
    fn winograd(&self, context: &Context) -> TractResult<Option<Winograd>> {
        let Some(clamp) = self.clamp() else { return Ok(None) };
        let (c, n) = self.channels;
        let pays = c.min(n) >= WINOGRAD_CHANNELS;
        if self.window != WINOGRAD_WINDOW || !pays || !c.is_multiple_of(MAX_LANES) || !n.is_multiple_of(MAX_LANES) {
            return Ok(None);
        }
        let (values, scale) = self.values()?;
        let pack = |scale: &[f32], matrix: &Matrix| context.pack_now(&self.weight.name, Inner::plain(c), scale, matrix);
        let weights = WinogradWeights::new((c, n), (&values, &scale), self.epilogue.bias.clone(), pack)?;
        let weights = Arc::new(weights);
        Ok(Some(Winograd { runtime: context.runtime.clone(), weights, clamp }))
    }

    /// The limits behind the convolution, if there is nothing else.
    fn clamp(&self) -> Option<(f32, f32)> {
        match self.epilogue.activation {
            _ if self.epilogue.residual.is_some() => None,
            Activation::Identity => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Activation::Clamp { low, high } => Some((low, high)),
            _ => None,
        }
    }

    fn pixels(&self, context: &Context) -> TractResult<PixelConv> {
        let (values, scale) = self.values()?;
        let (height, width) = self.window.kernel;
        let Context { mean, std, .. } = context;
        let one_scale = std.iter().all(|value| *value == std[0]);
        let inner = match one_scale {
            true => Inner { groups: 1, segments: height, run: width * 3 },
            false => Inner { groups: 3, segments: 1, run: height * width },
        };
        // Where a value of the inner dimension stands in the file: `[colour][height][width]`.
        let place = |k: usize| match one_scale {
            true => (k % 3 * height + k / (width * 3)) * width + k / 3 % width,
            false => k,
        };
        let places: Vec<_> = (0..inner.len()).map(place).collect();
        let weights = context.pack(self.weight, inner, &places, 3 * height * width)?;
        let mut bias = self.padded_bias(&weights);
        for (n, bias) in bias.iter_mut().enumerate().take(weights.columns) {
            for c in 0..3 {
                let taps = (0..height * width).map(|i| i32::from(values[(n * 3 + c) * height * width + i]));
                *bias -= mean[c] / std[c] * taps.sum::<i32>() as f32 * scale[n];
            }
        }
        Ok(PixelConv {
            runtime: context.runtime.clone(),
            weights: Arc::new(weights),
            bias: Arc::new(bias),
            window: self.window,
            scales: std
                .map(|std| Scale { scale: 1.0 / (255.0 * std), zero: 0 }.stored(context.runtime.kernel.layout.offset)),
            blank: mean.map(|mean| (mean * 255.0).round_ties_even() as u8),
            activation: self.epilogue.activation,
        })
    }
}

fn window(spec: &PoolSpec, image: &[usize]) -> Window {
    let padding = spec.computed_padding(image);
    let pair = |f: &dyn Fn(usize) -> usize| (f(0), f(1));
    Window {
        kernel: pair(&|i| spec.kernel_shape[i]),
        stride: pair(&|i| spec.stride(i)),
        before: pair(&|i| padding[i].pad_before),
        after: pair(&|i| padding[i].pad_after),
    }
}

/// A convolution anywhere but at the input.
pub fn rule(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &Conv,
) -> TractResult<Option<TypedModelPatch>> {
    let Some(found) = Found::of(model, node, op)? else { return Ok(None) };
    let to_nhwc = AxisOp::Move(1, 3);
    let mut patch = TypedModelPatch::new("int8 convolution");
    let x = patch.tap_model(model, node.inputs[0])?;
    let mut inputs = patch.wire_node(format!("{name}.x.nhwc"), to_nhwc.clone(), &[x])?;
    let y = if found.is_depthwise() {
        let Some(op) = found.depthwise(context)? else { return Ok(None) };
        patch.wire_node(name, op, &inputs)?
    } else if found.group == 1
        && let Some(op) = found.winograd(context).with_context(|| name.to_owned())?
    {
        patch.wire_node(name, op, &inputs)?
    } else if found.group == 1 {
        if let Some(residual) = found.epilogue.residual {
            let residual = patch.tap_model(model, residual)?;
            inputs.push(patch.wire_node(format!("{name}.residual.nhwc"), to_nhwc, &[residual])?[0]);
        }
        patch.wire_node(name, found.dense(context).with_context(|| name.to_owned())?, &inputs)?
    } else {
        return Ok(None);
    };
    let y = patch.wire_node(format!("{name}.y.nchw"), AxisOp::Move(3, 1), &y)?[0];
    patch.shunt_outside(model, found.epilogue.last, y)?;
    Ok(Some(patch))
}

/// A pooling between convolutions: over NHWC too, so that the moves on either side cancel. An average of whole windows
/// is a depthwise convolution with equal weights.
pub fn pooling(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &SumPool,
) -> TractResult<Option<TypedModelPatch>> {
    let spec = &op.pool_spec;
    if spec.data_format != DataFormat::NCHW || spec.kernel_shape.len() != 2 {
        return Ok(None);
    }
    let mut patch = TypedModelPatch::new("pooling over NHWC");
    let mut wire = patch.taps(model, &node.inputs)?;
    let input = shape(model, node.inputs[0])?;
    let window = window(spec, &input[2..]);
    if !window.is_pointwise() {
        wire = patch.wire_node(format!("{name}.x.nhwc"), AxisOp::Move(1, 3), &wire)?;
        let undilated = spec.dilations().iter().all(|d| *d == 1);
        wire = if op.normalize && undilated && window.before == (0, 0) && window.after == (0, 0) {
            patch.wire_node(name, average(context, window, input[1]), &wire)?
        } else {
            let op = SumPool { pool_spec: PoolSpec { data_format: DataFormat::NHWC, ..spec.clone() }, ..op.clone() };
            patch.wire_node(name, op, &wire)?
        };
        wire = patch.wire_node(format!("{name}.y.nchw"), AxisOp::Move(3, 1), &wire)?;
    }
    patch.shunt_outside(model, node.id.into(), wire[0])?;
    Ok(Some(patch))
}

fn average(context: &Context, window: Window, channels: usize) -> Depthwise {
    let taps = window.kernel.0 * window.kernel.1;
    let weights = DepthwiseWeights { taps: vec![1.0 / taps as f32; taps * channels], bias: vec![0.0; channels] };
    let clamp = (f32::NEG_INFINITY, f32::INFINITY);
    Depthwise { runtime: context.runtime.clone(), weights: Arc::new(weights), window, clamp }
}

/// A depthwise convolution that feeds a pointwise one and nothing else: becomes part of it.
pub fn separable(
    _context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    name: &str,
    op: &Int8Conv,
) -> TractResult<Option<TypedModelPatch>> {
    let between = node.inputs[0];
    let source = model.node(between.node);
    let Some(depthwise) = source.op_as::<Depthwise>() else { return Ok(None) };
    let alone = model.outlet_successors(between).len() == 1 && !model.outputs.contains(&between);
    if op.depthwise.is_some() || !op.window.is_pointwise() || !alone {
        return Ok(None);
    }
    let mut patch = TypedModelPatch::new("separable convolution");
    let mut inputs = patch.taps(model, &node.inputs)?;
    inputs[0] = patch.tap_model(model, source.inputs[0])?;
    let wire = patch.wire_node(name, Int8Conv { depthwise: Some(depthwise.clone()), ..op.clone() }, &inputs)?;
    patch.shunt_outside(model, node.id.into(), wire[0])?;
    Ok(Some(patch))
}

/// A pointwise convolution of values that a clamp made: is told so, and looks for their highest only.
pub fn positive(
    _context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    _name: &str,
    op: &Int8Conv,
) -> TractResult<Option<TypedModelPatch>> {
    if op.positive || !op.window.is_pointwise() || !is_positive(model, node.inputs[0]) {
        return Ok(None);
    }
    let op = Int8Conv { positive: true, ..op.clone() };
    Ok(Some(TypedModelPatch::replace_single_op(model, node, &node.inputs, op)?))
}

/// Whether no value of `outlet` can be below 0 or NaN.
fn is_positive(model: &TypedModel, outlet: OutletId) -> bool {
    let (root, _) = chain_above(model, outlet);
    let node = model.node(root.node);
    let clamps = |activation| matches!(activation, Activation::Clamp { low, .. } if low >= 0.0);
    if let Some(conv) = node.op_as::<Int8Conv>() {
        clamps(conv.activation)
    } else if let Some(conv) = node.op_as::<PixelConv>() {
        clamps(conv.activation)
    } else if let Some(conv) = node.op_as::<Winograd>() {
        conv.clamp.0 >= 0.0
    } else if let Some(Depthwise { weights, clamp, .. }) = node.op_as::<Depthwise>() {
        // An average, say.
        let keeps = weights.taps.iter().chain(&weights.bias).all(|value| *value >= 0.0);
        clamp.0 >= 0.0 || keeps && is_positive(model, node.inputs[0])
    } else {
        false
    }
}

/// The convolution that reads the model's input: takes RGB bytes from now on, and the model with it.
pub fn pixels(context: &Context, model: &mut TypedModel) -> TractResult<()> {
    let image = model.input_outlets()?[0];
    ensure!(model.node(image.node).op_is::<TypedSource>(), "the model's input is not a source");
    let &[successor] = model.outlet_successors(image) else { return Ok(()) };
    let node = model.node(successor.node);
    let Some(op) = node.op_as::<Conv>().filter(|op| op.group == 1 && op.pool_spec.input_channels == 3) else {
        return Ok(());
    };
    let Some(found) = Found::of(model, node, op)?.filter(|found| found.epilogue.residual.is_none()) else {
        return Ok(());
    };
    let name = node.name.clone();
    let op = found.pixels(context).with_context(|| name.clone())?;
    let last = found.epilogue.last;
    let shape = shape(model, image)?;
    let bytes = model.add_source("pixels", u8::fact([shape[0], shape[2], shape[3], 3]))?;
    let mut patch = TypedModelPatch::new("convolution of pixels");
    let tap = patch.tap_model(model, bytes)?;
    let y = patch.wire_node(&name, op, &[tap])?;
    let y = patch.wire_node(format!("{name}.y.nchw"), AxisOp::Move(3, 1), &y)?[0];
    patch.shunt_outside(model, last, y)?;
    patch.apply(model)?;
    model.set_input_outlets(&[bytes])?;
    model.compact()
}

#!/usr/bin/env python3
"""Turn an image tower's weights into int8, in standard ONNX.

    quantise.py image_f32.onnx image.onnx
    quantise.py image_f32.onnx image.onnx --pictures DIR [--equalise] [--sensitivity] [--size-budget 1.1]

Promises: every constant weight of a Conv, Gemm or MatMul becomes `DequantizeLinear(int8 weight, float32 scale)`, symmetric
(no zero point), one scale an output channel, feeding the operator directly; everything else is left as it was. No data is
needed, unless more than that is asked for:

    --equalise      make outlier channels behind a LayerNorm smaller first (equalise.py); kept only if it loses less
    --sensitivity   measure what each layer loses in the arithmetic that flies (sensitivity.py) and print it
    --size-budget   with --sensitivity: leave those layers in float32 that win back most, within this size, as a multiple of
                    the size with all layers int8

Why this form. The activations of a CLIP have outlier channels that no scale fixed beforehand fits, so remoteclipd takes
their scales per token while it runs; a file can know only the weights, and this one carries just those. Any ONNX runtime
can execute it with float32 activations, and so check remoteclipd's arithmetic. The zero point is left out because it would
say nothing: remoteclipd multiplies int8 by int8 and has no term for one.

The scale is the channel's largest weight over 127; choosing it for the least mean square error instead (clipping the
largest weight) gained nothing measurable. Rounding does: a channel's rounding errors add up to a shift of its output
wherever its inputs have a mean, as they have behind every ReLU. So a few weights, those nearest to the middle between two
steps, are rounded the other way until the errors of the channel cancel. That needs no data, and it took an early
default bundle's loss of cosine from 0.0015 to 0.0004, RN50's from 0.00019 to 0.00012 (random weights), ViT-B-32's from 0.00026
to 0.00025.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul")
INT8_MAX = 127  # symmetric: -128 is not used
EXTRA_BYTES = 3  # of a weight in float32 over one in int8


def quantise_weight(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 weight of the same shape, and one float32 scale for each index along `axis`."""
    moved = np.moveaxis(weight, axis, 0)
    rows = moved.reshape(len(moved), -1).astype(np.float32)
    scale = np.abs(rows).max(axis=1) / INT8_MAX
    scale[scale == 0] = 1.0  # an unused channel: any scale gives its zeros back
    rounded = round_keeping_sums(rows / scale[:, None]).astype(np.int8).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, axis)), scale


def round_keeping_sums(rows: np.ndarray) -> np.ndarray:
    """Each row in whole numbers within ±127, none more than one step off, the row's sum kept to half a step."""
    nearest = np.rint(rows)
    error = nearest - rows
    surplus = np.rint(error.sum(axis=1, keepdims=True))
    direction = np.sign(surplus)
    # Rank by how little it costs to round the other way; the first |surplus| of each row do.
    rank = np.argsort(np.argsort(-direction * error, axis=1, kind="stable"), axis=1, kind="stable")
    flipped = np.where(rank < np.abs(surplus), nearest - direction, nearest)
    return np.clip(flipped, -INT8_MAX, INT8_MAX)


def output_axis(node: onnx.NodeProto, rank: int) -> int:
    """Which axis of the node's weight counts its output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm" and any(a.name == "transB" and a.i == 1 for a in node.attribute):
        return 0
    return rank - 1


def weight_uses(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """Each Conv, Gemm and MatMul whose second input is a float32 initializer, with it."""
    initializers = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) >= 2}
    return [(n, initializers[n.input[1]]) for n in graph.node if n.op_type in WEIGHTED and n.input[1] in initializers]


def quantise(model: onnx.ModelProto, keep: frozenset[str] = frozenset()) -> int:
    """Quantise in place, all weights but those named in `keep`; returns the number of layers."""
    graph, added, done = model.graph, {}, set()
    uses = [(node, tensor) for node, tensor in weight_uses(graph) if tensor.name not in keep]
    for node, tensor in uses:
        if tensor.name not in done:
            axis = output_axis(node, len(tensor.dims))
            weight, scale = quantise_weight(numpy_helper.to_array(tensor), axis)
            names = [f"{tensor.name}.int8", f"{tensor.name}.scale"]
            graph.initializer.append(numpy_helper.from_array(weight, names[0]))
            graph.initializer.append(numpy_helper.from_array(scale, names[1]))
            added[tensor.name] = helper.make_node("DequantizeLinear", names, [f"{tensor.name}.dequantised"], axis=axis)
            done.add(tensor.name)
        node.input[1] = f"{tensor.name}.dequantised"
    _put_before_use(graph, added)
    _drop_unused(graph)
    onnx.checker.check_model(model)
    return len(uses)


def dequantise(model: onnx.ModelProto) -> None:
    """The way back, in place: each constant behind a DequantizeLinear becomes a float32 constant of the node's output."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            kept.append(node)
            continue
        values, scale = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [-1 if i == axis else 1 for i in range(values.ndim)] if scale.ndim else []
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32) * scale.reshape(shape), node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    _drop_unused(graph)


def _put_before_use(graph: onnx.GraphProto, added: dict[str, onnx.NodeProto]) -> None:
    by_output = {node.output[0]: node for node in added.values()}
    nodes = []
    for node in graph.node:
        nodes.extend(by_output.pop(name) for name in node.input if name in by_output)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def pictures(folder: Path, model: onnx.ModelProto, count: int, mean: list[float], std: list[float]) -> np.ndarray:
    """Normalised squares [N,3,S,S] of at most `count` pictures, evenly taken from below `folder`."""
    from PIL import Image  # noqa: PLC0415  (plain quantising needs none of it)

    from train_data import preprocess  # noqa: PLC0415

    size = model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif", ".tiff"))
    if not paths:
        raise ValueError(f"--pictures {folder}: there is no picture below it")
    paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    squares = np.stack([preprocess(Image.open(p).convert("RGB"), size) for p in paths]).astype(np.float32) / 255
    return np.ascontiguousarray(((squares - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2), dtype=np.float32)


def refine(model: onnx.ModelProto, options: argparse.Namespace) -> frozenset[str]:
    """Equalise in place and find the layers to keep, as asked for; prints what was measured."""
    from equalise import equalise  # noqa: PLC0415  (onnxruntime is needed from here on)
    from sensitivity import Measure  # noqa: PLC0415

    samples = pictures(options.pictures, model, options.count, options.mean, options.std)
    measure = Measure(model, samples)
    everything = set(range(len(measure.layers)))
    told = lambda losses: f"cosine {1 - losses.mean():.6f}, least {1 - losses.max():.6f}"  # noqa: E731
    before = measure.losses(everything)
    print(f"all {len(everything)} layers int8: {told(before)}, on {len(samples)} pictures of {options.pictures.name}")
    if options.equalise:
        candidate = onnx.ModelProto()
        candidate.CopyFrom(model)
        count = equalise(candidate, samples)
        other = Measure(candidate, samples)
        after = other.losses(everything)
        better = count > 0 and after.mean() < before.mean()
        print(f"{count} LayerNorms equalised: {told(after)}; {'kept' if better else 'not kept'}")
        if better:
            model.CopyFrom(candidate)
            measure, before = other, after
    if not options.sensitivity:
        return frozenset()
    _, layers = measure.every_layer()
    print(f"{'loss alone':>12} {'won back':>12} {'bytes':>10}  layer")
    for layer in sorted(layers, key=lambda one: one.gain, reverse=True):
        print(f"{layer.alone:12.7f} {layer.gain:12.7f} {layer.extra_bytes:10d}  {layer.operator} {layer.tensor}")
    if options.size_budget is None:
        return frozenset()
    size = sum(layer.extra_bytes // EXTRA_BYTES for layer in layers)
    kept = measure.keep_within(int(size * (options.size_budget - 1)))
    print(f"{len(kept)} layers kept in float32 within {options.size_budget} times the size: {told(measure.loss_with(kept))}")
    return frozenset(layer.tensor for layer in kept)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="image tower: float32, as export.py --keep-f32 leaves it, or an int8 one")
    parser.add_argument("output", type=Path, help="the int8 file to write")
    parser.add_argument("--pictures", type=Path, help="folder of pictures to measure on; not those that figures are stated for")
    parser.add_argument("--count", type=int, default=16, help="of them")
    parser.add_argument("--mean", type=float, nargs=3, default=[0.48145466, 0.4578275, 0.40821073], help="CLIP's where not given")
    parser.add_argument("--std", type=float, nargs=3, default=[0.26862954, 0.26130258, 0.27577711])
    parser.add_argument("--equalise", action="store_true")
    parser.add_argument("--sensitivity", action="store_true")
    parser.add_argument("--size-budget", type=float, metavar="RATIO")
    options = parser.parse_args(arguments)
    if not options.input.is_file():
        parser.error(f"{options.input}: no such file")
    if (options.equalise or options.sensitivity) and not options.pictures:
        parser.error("--equalise and --sensitivity need --pictures, a folder to measure on")
    if options.size_budget is not None and (options.size_budget < 1 or not options.sensitivity):
        parser.error("--size-budget is at least 1 and needs --sensitivity")
    return options


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    model = onnx.load(options.input)
    dequantise(model)
    try:
        keep = refine(model, options) if options.equalise or options.sensitivity else frozenset()
    except ValueError as error:
        print(f"quantise.py: {error}", file=sys.stderr)
        return 1
    layers = quantise(model, keep)
    if layers == 0:
        print(f"quantise.py: {options.input}: no Conv, Gemm or MatMul has a float32 constant weight", file=sys.stderr)
        return 1
    onnx.save(model, options.output)
    print(f"{options.output}: {layers} layers int8, {options.input.stat().st_size} → {options.output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

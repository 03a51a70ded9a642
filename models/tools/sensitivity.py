"""Which layers int8 damages, measured; used by `quantise.py --sensitivity`.

Promises: what is measured is the arithmetic that flies, written in ONNX's own operators beside the float32 one: int8 weights
as `quantise.py` rounds them, and eight-bit inputs with the scales that remoteclipd takes at run time (a row at a time for
MatMul, Gemm and pointwise convolutions, a picture at a time for larger windows; depthwise and first layers take their inputs
as they are). One session holds both ways of every layer and a switch for each, so nothing but the switches differs between
two measurements.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from quantise import EXTRA_BYTES, output_axis, quantise_weight, weight_uses

SWITCHES = "int8_layers"


@dataclass
class Layer:
    """One weighted operator."""

    tensor: str
    operator: str
    extra_bytes: int
    alone: float = 0.0  # loss of cosine with this layer alone in int8
    gain: float = 0.0  # what keeping this layer alone in float32 wins back


class Measure:
    """Both ways of every layer in one session."""

    def __init__(self, model: onnx.ModelProto, pictures: np.ndarray):
        both = onnx.ModelProto()
        both.CopyFrom(model)
        self.layers = _both_ways(both.graph)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(both.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.picture, self.pictures = model.graph.input[0].name, pictures
        self.reference = self._run(set())

    def _run(self, int8: set[int]) -> np.ndarray:
        switches = np.array([float(i in int8) for i in range(len(self.layers))], np.float32)
        # A few at a time: ViT-L-14's activations of all of them need not be in memory together.
        parts = [self.session.run(["embedding"], {self.picture: self.pictures[i : i + 4], SWITCHES: switches})[0] for i in range(0, len(self.pictures), 4)]
        rows = np.concatenate(parts).astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def losses(self, int8: set[int]) -> np.ndarray:
        """1 - cosine to float32, a picture each, with these layers in int8."""
        return 1 - (self._run(int8) * self.reference).sum(axis=1)

    def every_layer(self, tell=lambda done, total: None) -> tuple[float, list[Layer]]:
        """The mean loss of all layers together, and each layer by itself."""
        everything = set(range(len(self.layers)))
        total = float(self.losses(everything).mean())
        for i, layer in enumerate(self.layers):
            layer.alone = float(self.losses({i}).mean())
            layer.gain = total - float(self.losses(everything - {i}).mean())
            tell(i + 1, len(self.layers))
        return total, self.layers

    def keep_within(self, budget: int) -> list[Layer]:
        """Layers to keep in float32 for at most `budget` more bytes: by what each wins back a byte."""
        kept, left = [], budget
        for layer in sorted(self.layers, key=lambda one: one.gain / one.extra_bytes, reverse=True):
            if layer.gain > 0 and layer.extra_bytes <= left:
                kept.append(layer)
                left -= layer.extra_bytes
        return kept

    def loss_with(self, kept: list[Layer]) -> np.ndarray:
        """The losses, a picture each, with these layers in float32 and all others in int8."""
        names = {layer.tensor for layer in kept}
        return self.losses({i for i, layer in enumerate(self.layers) if layer.tensor not in names})


def _both_ways(graph: onnx.GraphProto) -> list[Layer]:
    """Give every weighted operator a switch between float32 and int8; returns the layers in the switches' order."""
    uses = {node.output[0]: tensor for node, tensor in weight_uses(graph)}
    layers, nodes = [], []
    graph.input.append(helper.make_tensor_value_info(SWITCHES, TensorProto.FLOAT, [len(uses)]))
    for node in graph.node:
        tensor = uses.get(node.output[0])
        if tensor is not None:
            builder = _Builder(graph, nodes, len(layers))
            weight = numpy_helper.to_array(tensor)
            node.input[1] = builder.blend(tensor.name, builder.constant("weight", _rounded(node, weight)))
            axes = _input_axes(node, weight, graph.input[0].name)
            if axes is not None:
                node.input[0] = builder.blend(node.input[0], builder.eight_bits(node.input[0], axes))
            layers.append(Layer(tensor.name, node.op_type, weight.size * EXTRA_BYTES))
        nodes.append(node)
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    return layers


def _rounded(node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
    axis = output_axis(node, weight.ndim)
    values, scale = quantise_weight(weight, axis)
    return values * scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])


def _input_axes(node: onnx.NodeProto, weight: np.ndarray, picture: str) -> list[int] | None:
    """The axes that share an input scale; none where the input is not quantised."""
    if node.input[0] == picture:
        return None  # the picture's bytes, as they are
    if node.op_type != "Conv":
        return [-1]
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    if group != 1:
        return None
    strides = next((list(a.ints) for a in node.attribute if a.name == "strides"), [1, 1])
    return [1] if weight.shape[2:] == (1, 1) and strides == [1, 1] else [1, 2, 3]


class _Builder:
    """Writes the nodes of one layer's switch."""

    def __init__(self, graph: onnx.GraphProto, nodes: list[onnx.NodeProto], layer: int):
        self.graph, self.nodes, self.prefix, self.count = graph, nodes, f"int8_layer_{layer}", 0
        self.switch = self.op("Gather", SWITCHES, self.constant("index", np.array(layer, np.int64)))

    def constant(self, name: str, values: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.array(values, order="C"), f"{self.prefix}_{name}"))
        return f"{self.prefix}_{name}"

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        self.count += 1
        output = f"{self.prefix}_{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def blend(self, plain: str, int8: str) -> str:
        return self.op("Add", plain, self.op("Mul", self.switch, self.op("Sub", int8, plain)))

    def eight_bits(self, x: str, axes: list[int]) -> str:
        """To 256 steps from the least to the largest value, zero among them, and back."""
        zero, least, steps = (self.constant(n, np.array(v, np.float32)) for n, v in (("zero", 0), ("least", 1e-20), ("steps", 255)))
        high = self.op("Max", self.op("ReduceMax", x, axes=axes, keepdims=1), zero)
        low = self.op("Min", self.op("ReduceMin", x, axes=axes, keepdims=1), zero)
        scale = self.op("Max", self.op("Div", self.op("Sub", high, low), steps), least)
        offset = self.op("Round", self.op("Div", low, scale))
        step = self.op("Sub", self.op("Round", self.op("Div", x, scale)), offset)
        return self.op("Mul", self.op("Add", self.op("Clip", step, zero, steps), offset), scale)

"""Outlier channels behind a LayerNorm made smaller, at no cost: used by `quantise.py --equalise`.

A LayerNorm's gain and bias divided by a number a channel, and the rows of the weights behind it multiplied by the same, are
the same function in float32. In eight bits they are not: a channel thirty times as large as the others takes their steps.
The number is `sqrt(largest input / largest weight)` of the channel (SmoothQuant, Xiao et al. 2023, with alpha 0.5), brought
to a geometric mean of 1.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

ALPHA = 0.5
MATRICES = ("MatMul", "Gemm")


def equalise(model: onnx.ModelProto, pictures: np.ndarray) -> int:
    """In place; returns the number of LayerNorms that were changed."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    norms = [(norm, readers) for norm in graph.node if norm.op_type == "LayerNormalization" and (readers := _readers(graph, norm, constants))]
    largest = _largest(model, [norm.output[0] for norm, _ in norms], pictures)
    for norm, readers in norms:
        weights = {node.input[1]: _input_rows(node, numpy_helper.to_array(constants[node.input[1]])) for node in readers}
        heaviest = np.max([np.abs(rows).max(axis=1) for rows in weights.values()], axis=0)
        factor = np.sqrt(np.maximum(largest[norm.output[0]], 1e-8)) / np.sqrt(np.maximum(heaviest, 1e-8))
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        for name in norm.input[1:3]:
            _replace(constants[name], numpy_helper.to_array(constants[name]) / factor)
        for node in {node.input[1]: node for node in readers}.values():
            values = numpy_helper.to_array(constants[node.input[1]])
            _replace(constants[node.input[1]], values * (factor[None, :] if _transposed(node) else factor[:, None]))
    return len(norms)


def _readers(graph: onnx.GraphProto, norm: onnx.NodeProto, constants: dict) -> list[onnx.NodeProto]:
    """The matrices that read this LayerNorm; none unless nothing else does and none of the constants is shared."""
    readers = [node for node in graph.node if norm.output[0] in node.input]
    if not all(n.op_type in MATRICES and n.input[0] == norm.output[0] and n.input[1] in constants for n in readers):
        return []
    touched = [*norm.input[1:3], *(n.input[1] for n in readers)]
    used = sum(name in touched for node in graph.node for name in node.input)
    last = norm.output[0] in {o.name for o in graph.output}
    return readers if not last and len(norm.input) == 3 and used == len(touched) else []


def _transposed(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gemm" and any(a.name == "transB" and a.i == 1 for a in node.attribute)


def _input_rows(node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
    return weight.T if _transposed(node) else weight


def _replace(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))


def _largest(model: onnx.ModelProto, outputs: list[str], pictures: np.ndarray) -> dict[str, np.ndarray]:
    """The largest size of each channel of these tensors, over all rows and pictures."""
    if not outputs:
        return {}
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = model.graph.input[0].name
    largest = {}
    for picture in pictures:
        for output, values in zip(outputs, session.run(outputs, {name: picture[None]})):
            rows = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            largest[output] = np.maximum(largest.get(output, 0), rows)
    return largest

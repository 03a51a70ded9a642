"""An open_clip.CLIP's two towers as ONNX.

Promises: `image` float32 [batch,3,S,S] → `embedding` float32 [batch,D] and `tokens` int64 [batch,context] → `embedding`,
neither normalised; opset 17, standard operators, one file; the batch is the only free dimension. Batch norms are folded
into convolutions, attention is MatMul and Softmax. Shapes are constants: nothing is read off the input at run time, which
small engines like tract thank one for.
"""

import io
import warnings

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import nn

from openclip_models import ModelError, explicit_attention

OPSET = 17


class TransformerImageTower(nn.Module):
    """VisionTransformer.forward with the class token added by padding, so that no shape depends on the batch."""

    def __init__(self, visual: VisionTransformer):
        super().__init__()
        if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg") or visual.final_ln_after_pool:
            raise ModelError("this VisionTransformer pools in a way that export.py cannot write; pool_type must be tok or avg")
        self.visual = visual
        position = visual.positional_embedding.detach().clone()
        position[0] += visual.class_embedding.detach()
        self.register_buffer("position", position)

    def forward(self, image):
        v, (length, width) = self.visual, self.position.shape
        x = v.conv1(image).reshape(-1, width, length - 1).transpose(1, 2)
        x = v.ln_pre(F.pad(x, (0, 0, 1, 0)) + self.position)
        x = v.transformer(x)
        # The class token alone needs its own LayerNorm only; the mean is over all patches behind theirs.
        pooled = v.ln_post(x[:, 0]) if v.pool_type == "tok" else v.ln_post(x)[:, 1:].mean(dim=1)
        return pooled @ v.proj


class TextTower(nn.Module):
    """CLIP.encode_text, the end-of-text token picked by a product with a one-hot row instead of by index."""

    def __init__(self, model: CLIP):
        super().__init__()
        if model.text_pool_type != "argmax" or model.attn_mask is None or not isinstance(model.text_projection, nn.Parameter):
            raise ModelError("this text tower is not CLIP's (causal mask, end-of-text by argmax, a projection matrix)")
        self.model = model
        self.register_buffer("places", torch.arange(model.context_length))

    def forward(self, tokens):
        m = self.model
        x = m.token_embedding(tokens) + m.positional_embedding
        x = m.ln_final(m.transformer(x, attn_mask=m.attn_mask))
        end = (tokens.argmax(dim=1, keepdim=True) == self.places).to(x.dtype)
        return (end.unsqueeze(1) @ x).reshape(-1, m.ln_final.normalized_shape[0]) @ m.text_projection


def export_image(model: CLIP, size: int) -> onnx.ModelProto:
    visual = model.visual
    tower = TransformerImageTower(visual) if isinstance(visual, VisionTransformer) else visual
    return _export(tower, torch.zeros(2, 3, size, size), "image")


def export_text(model: CLIP) -> onnx.ModelProto:
    """The text tower, its weights kept as float16 and cast to float32 where they are used."""
    tokens = torch.zeros(2, model.context_length, dtype=torch.int64)
    return _store_as_float16(_export(TextTower(model), tokens, "tokens"))


def _export(tower: nn.Module, example: torch.Tensor, name: str) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with explicit_attention(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter calls itself deprecated; the other one writes other graphs
        torch.onnx.export(
            tower.eval(), (example,), buffer, dynamo=False, opset_version=OPSET, input_names=[name],
            output_names=["embedding"], dynamic_axes={name: {0: "batch"}, "embedding": {0: "batch"}},
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    _constants_to_initializers(model.graph)
    _fold_constants(model.graph)
    _drop_idle_casts(model)
    _share_equal_constants(model.graph)
    model.producer_name, model.producer_version, model.doc_string = "remoteclipd export.py", "", ""
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    _state_output_shape(model.graph, tower, example)
    onnx.checker.check_model(model)
    return model


def _state_output_shape(graph: onnx.GraphProto, tower: nn.Module, example: torch.Tensor) -> None:
    with explicit_attention(), torch.no_grad():
        width = tower(example).shape[1]
    graph.output[0].CopyFrom(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width]))


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        if node.op_type == "Constant":
            tensor = next(a.t for a in node.attribute if a.name == "value")
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        elif node.op_type == "Identity" and node.input[0] in {i.name for i in graph.initializer}:
            _rename_uses(graph, node.output[0], node.input[0])
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Compute what depends on constants alone (the exporter leaves the padding's arithmetic in the graph)."""
    values = {t.name: t for t in graph.initializer}
    kept = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if not all(name in values for name in inputs):
            kept.append(node)
            continue
        types = [helper.make_tensor_value_info(n, values[n].data_type, list(values[n].dims)) for n in inputs]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        single = helper.make_model(helper.make_graph([node], "one", types, outputs), opset_imports=[helper.make_opsetid("", OPSET)])
        feeds = {n: numpy_helper.to_array(values[n]) for n in inputs}
        for name, result in zip(node.output, ReferenceEvaluator(single).run(None, feeds)):
            values[name] = numpy_helper.from_array(np.asarray(result), name)
    used = {name for node in kept for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(t for name, t in values.items() if name in used)


def _drop_idle_casts(model: onnx.ModelProto) -> None:
    """OpenCLIP's LayerNorm casts back to the type that it was given, which is float32 already."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input)}
    idle = [n for n in graph.node if n.op_type == "Cast" and types.get(n.input[0]) == n.attribute[0].i]
    for node in idle:
        graph.node.remove(node)
        _rename_uses(graph, node.output[0], node.input[0])


def _share_equal_constants(graph: onnx.GraphProto) -> None:
    """One initializer for each small constant, however often the exporter wrote it."""
    first: dict[tuple, str] = {}
    kept = []
    for tensor in graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data or tensor.SerializeToString())
        if len(tensor.raw_data) <= 64 and key in first:
            _rename_uses(graph, tensor.name, first[key])
        else:
            first.setdefault(key, tensor.name)
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def _store_as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Halve the file: float32 matrices become float16 with a Cast to float32 behind them."""
    graph, casts, stored = model.graph, [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        # The mask's -inf stays as it is, and so would a weight that float16 can't hold.
        if tensor.data_type != TensorProto.FLOAT or values.ndim < 2 or not np.isfinite(half).all():
            stored.append(tensor)
            continue
        stored.append(numpy_helper.from_array(half, f"{tensor.name}.float16"))
        casts.append(helper.make_node("Cast", [f"{tensor.name}.float16"], [tensor.name], to=TensorProto.FLOAT))
    del graph.initializer[:]
    graph.initializer.extend(stored)
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model

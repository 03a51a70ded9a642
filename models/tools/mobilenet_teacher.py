"""The ImageNet MobileNet v1 that the default image tower starts from, and the tower's form for training.

Promises: the teacher's int8 weights, dequantised, as the state of a stock timm `mobilenetv1_100`; and a tower whose batch
norms are folded into its convolutions for training (a frozen batch norm is only a slower bias), and which unfolds again to
the stock state dict with the same function.

The teacher pads as TensorFlow does (below and to the right), the student as timm does (all round): from the first step on
it trains with timm's padding, so nothing has to be converted afterwards.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval


def teacher_layers(tflite: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(weight, bias) of the teacher's 27 convolutions in torch's layout, float32."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(tflite))
    interpreter.allocate_tensors()
    details = {t["index"]: t for t in interpreter.get_tensor_details()}

    def dequantised(index: int) -> torch.Tensor:
        scale, zero = details[index]["quantization"]
        return torch.from_numpy((interpreter.get_tensor(index).astype(np.float32) - zero) * np.float32(scale))

    layers = []
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            weight, bias = (dequantised(i) for i in op["inputs"][1:3])
            order = (0, 3, 1, 2) if op["op_name"] == "CONV_2D" else (3, 0, 1, 2)
            layers.append((weight.permute(order).contiguous(), bias))
    return layers


def conv_norm_pairs(trunk: nn.Module) -> list[tuple[str, str]]:
    """Names of each convolution and of the batch norm behind it, in order."""
    convs = [n for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d)]
    norms = [n for n, m in trunk.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convs) == len(norms)
    return list(zip(convs, norms))


def start_from_teacher(trunk: nn.Module, tflite: Path) -> None:
    """Fill a timm mobilenetv1_100 trunk with the teacher's weights; each batch norm becomes its bias."""
    pairs = conv_norm_pairs(trunk)
    layers = teacher_layers(tflite)
    assert len(pairs) == len(layers)
    with torch.no_grad():
        for (conv, norm), (weight, bias) in zip(pairs, layers):
            trunk.get_submodule(conv).weight.copy_(weight)
            _set_norm_to_bias(trunk.get_submodule(norm), bias)


def fold_norms(trunk: nn.Module) -> None:
    """Fold every batch norm into its convolution, in place; its activation stays behind."""
    for conv, norm in conv_norm_pairs(trunk):
        stock = trunk.get_submodule(norm)
        trunk.set_submodule(conv, fuse_conv_bn_eval(trunk.get_submodule(conv), stock))
        trunk.set_submodule(norm, nn.Sequential(stock.drop, stock.act))


def unfold_norms(folded: nn.Module, stock: nn.Module) -> None:
    """Fill a stock trunk from a folded one of the same architecture."""
    with torch.no_grad():
        for conv, norm in conv_norm_pairs(stock):
            trained = folded.get_submodule(conv)
            stock.get_submodule(conv).weight.copy_(trained.weight)
            _set_norm_to_bias(stock.get_submodule(norm), trained.bias)


def _set_norm_to_bias(norm: nn.BatchNorm2d, bias: torch.Tensor) -> None:
    norm.weight.fill_(1.0)
    norm.bias.copy_(bias)
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)

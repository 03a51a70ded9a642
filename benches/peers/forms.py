"""The forms in which the peers run a bundle's image tower, all made from the bundle's own int8 weights.

Promises: `f32.onnx` computes what the weights say, in float32; the others are what the peers' own tools make of it: weights
and activations int8. Static scales come from the calibration pictures given, which no figure is measured on.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

sys.path.insert(0, str(Path(__file__).parents[2] / "models/tools"))
from quantise import dequantise  # noqa: E402  (the project's own tool, where it lies)


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, pictures: np.ndarray):
        self.rows = iter({name: picture[None]} for picture in pictures)

    def get_next(self):
        return next(self.rows, None)


def make(bundle: Path, folder: Path, calibration: np.ndarray) -> dict[str, Path]:
    """The forms by name; those that stand there already are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    forms = {name: folder / f"{name}.onnx" for name in ("f32", "dynamic", "static_u8s8", "static_s8s8")}
    if not forms["f32"].exists():
        model = onnx.load(bundle / "image.onnx")
        dequantise(model)
        onnx.save(model, forms["f32"])
    prepared = folder / "prepared.onnx"
    if not prepared.exists():
        quant_pre_process(str(forms["f32"]), str(prepared), skip_symbolic_shape=True)
    if not forms["dynamic"].exists():
        quantize_dynamic(str(prepared), str(forms["dynamic"]), per_channel=True, weight_type=QuantType.QInt8)
    graph = onnx.load(prepared, load_external_data=False).graph
    name = graph.input[0].name
    # A convolutional tower is best quantised from end to end. A transformer is not: the tool would give LayerNorm's gains
    # and position embeddings a scale a channel, which OpenVINO refuses, so there it is the products that are quantised.
    transformer = any(node.op_type == "LayerNormalization" for node in graph.node)
    layers = ["Conv", "Gemm", "MatMul"] if transformer else None
    for form, activations in (("static_u8s8", QuantType.QUInt8), ("static_s8s8", QuantType.QInt8)):
        if not forms[form].exists():
            quantize_static(
                str(prepared), str(forms[form]), _Reader(name, calibration), quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=layers,
                activation_type=activations, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
                extra_options={"ActivationSymmetric": activations == QuantType.QInt8},
            )
    return forms

"""What int8 costs and how it is told: equalising, sensitivity, and the other engine's side of `eval --stages`."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import MODELS, TOOLS
from onnx import helper, numpy_helper
from PIL import Image

from equalise import equalise
from quantise import dequantise, main, quantise
from sensitivity import Measure
from train_data import preprocess

WIDTH, CHANNEL = 32, 5


def tower(outlier: float = 1.0, seed: int = 0) -> onnx.ModelProto:
    """Patches, two blocks of LayerNorm and two matrices, a projection; one channel of the second LayerNorm is planted."""
    rng = np.random.default_rng(seed)
    stored, nodes = [], []

    def constant(name: str, values) -> str:
        stored.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def op(kind: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    x = op("Conv", "image", constant("patch", rng.normal(size=(WIDTH, 3, 4, 4)) / 7), strides=[4, 4])
    stored.append(numpy_helper.from_array(np.array([0, WIDTH, -1]), "flat"))
    x = op("Transpose", op("Reshape", x, "flat"), perm=[0, 2, 1])
    for block in range(2):
        gain, undo = rng.normal(1, 0.1, WIDTH), np.ones(WIDTH)
        if block == 1:
            gain[CHANNEL] *= outlier
            undo[CHANNEL] /= outlier
        y = op("LayerNormalization", x, constant(f"gain{block}", gain), constant(f"bias{block}", rng.normal(0, 0.1, WIDTH) * gain))
        y = op("MatMul", y, constant(f"up{block}", rng.normal(size=(WIDTH, 64)) * undo[:, None] / 6))
        y = op("MatMul", op("Relu", y), constant(f"down{block}", rng.normal(size=(64, WIDTH)) / 8))
        x = op("Add", x, y)
    x = op("MatMul", op("ReduceMean", x, axes=[1], keepdims=0), constant("projection", rng.normal(size=(WIDTH, 24)) / 6))
    nodes[-1].output[0] = "embedding"
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])
    embedding = helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", 24])
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [embedding], stored), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def pictures(count: int = 6) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(count, 3, 32, 32)).astype(np.float32)


def loss(model: onnx.ModelProto) -> float:
    measure = Measure(model, pictures())
    return float(measure.losses(set(range(len(measure.layers)))).mean())


def test_dequantise_is_the_way_back():
    model = tower()
    quantise(model)
    before = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    dequantise(model)
    onnx.checker.check_model(model)
    assert len(before) == 6 and not any(n.op_type == "DequantizeLinear" for n in model.graph.node)
    # And round again to the very same numbers.
    first = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    quantise(model)
    dequantise(model)
    again = {t.name.removesuffix(".dequantised"): numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, values in first.items():
        if name.endswith(".dequantised"):
            np.testing.assert_allclose(again[name], values, rtol=1e-6)


def test_the_layer_with_the_outlier_loses_most_and_is_kept_first():
    measure = Measure(tower(outlier=200), pictures())
    total, layers = measure.every_layer()
    worst = max(layers, key=lambda layer: layer.alone)
    assert worst.tensor == "up1" and worst.gain > 0.5 * total
    kept = measure.keep_within(worst.extra_bytes)
    assert [layer.tensor for layer in kept] == ["up1"]
    assert measure.loss_with(kept).mean() < 0.5 * total
    assert measure.keep_within(0) == []


def test_no_switch_is_no_loss():
    assert np.abs(Measure(tower(outlier=200), pictures()).losses(set())).max() < 1e-6


def test_equalising_undoes_an_outlier_and_changes_nothing_in_float32():
    model = tower(outlier=200)
    before, reference = loss(model), Measure(model, pictures()).reference
    assert equalise(model, pictures()) == 2
    np.testing.assert_allclose(Measure(model, pictures()).reference, reference, atol=1e-5)
    assert loss(model) < 0.5 * before
    assert loss(model) < 2 * loss(tower(outlier=1))


def test_a_norm_that_others_read_is_left_alone():
    model = tower()
    norm = next(n for n in model.graph.node if n.op_type == "LayerNormalization")
    model.graph.node.append(helper.make_node("Relu", [norm.output[0]], ["elsewhere"]))
    assert equalise(model, pictures()) == 1


def test_the_program_keeps_a_layer_within_its_budget(tmp_path, capsys):
    onnx.save(tower(outlier=200), tmp_path / "f32.onnx")
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    arguments = [str(tmp_path / "f32.onnx"), str(tmp_path / "int8.onnx"), "--pictures", str(tmp_path)]
    assert main([*arguments, "--sensitivity", "--size-budget", "1.6"]) == 0
    said = capsys.readouterr().out
    assert "won back" in said and "layers kept in float32 within 1.6" in said
    left = [t.name for t in onnx.load(tmp_path / "int8.onnx").graph.initializer if t.name == "up1"]
    assert left == ["up1"], "its weight stays float32"
    assert main([*arguments[:2], "--pictures", str(tmp_path / "none"), "--sensitivity"]) == 1
    with pytest.raises(SystemExit):
        main([*arguments[:2], "--sensitivity"])


def test_stages_speaks_its_protocol(tmp_path):
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (150, 200, 3), dtype=np.uint8)).save(picture)
    image = Image.open(picture)
    command = [sys.executable, TOOLS / "stages.py", "--bundle", MODELS / "default"]
    tool = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    hello = json.loads(tool.stdout.readline())
    assert hello["stages"][:3] == ["weights", "decode", "resize"] and hello["embed_dim"] == 512
    square = preprocess(image, 128)

    def ask(path):
        request = {"path": str(path), "width": 200, "height": 150}
        tool.stdin.write(json.dumps(request).encode() + b"\n" + np.asarray(image).tobytes() + square.tobytes())
        tool.stdin.flush()
        return json.loads(tool.stdout.readline())

    assert ask(picture) == {"error": None}
    count = len(hello["stages"])
    vectors = np.frombuffer(tool.stdout.read(count * 512 * 4), "<f4").reshape(count, 512)
    # All three take the same pixels here, so they must give the same.
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[2], rtol=1e-5, atol=1e-5)
    assert "cannot identify" in ask(__file__)["error"]
    assert ask(picture) == {"error": None}, "one picture that Pillow refuses ends nothing"
    tool.stdin.close()
    tool.stdout.read()
    assert tool.wait() == 0

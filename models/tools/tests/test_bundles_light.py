"""The shipped bundles and the quantiser. Needs requirements-light.txt only: no torch, no training data."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import MODELS
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

import bundle as bundles
from prompts_text import CONCEPTS, HELD_OUT, shares_kin
from quantise import WEIGHTED, quantise, quantise_weight, round_keeping_sums

SHIPPED = sorted(p.parent for p in MODELS.glob("*/manifest.toml"))
shipped = pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)

# What open_clip's SimpleTokenizer gives with the bundles' vocabulary of 6,144; start is 6142, end 6143.
SENTENCES = {
    "a satellite photo of denseresidential.": [6142, 320, 1382, 826, 802, 1125, 539, 1177, 567, 2152, 5459, 269, 6143],
    "Two boats, isn't it?": [6142, 1237, 647, 1032, 267, 2923, 713, 585, 286, 6143],
    "  Runway \n 27L at the AIRPORT": [6142, 1639, 923, 273, 278, 331, 536, 518, 3259, 6143],
    "a café’s “garden”": [6142, 320, 3471, 4166, 568, 257, 2756, 257, 6143],
}

# Which of three texts is nearest to the first; each of them is a wording or word that training met.
NEAREST = (
    ("parked cars", "a parking lot", "a forest", "a river"),
    ("the woods", "a forest", "a tennis court", "storage tanks"),
    ("yachts at a pier", "a harbor", "a golf course", "an intersection"),
    ("an airstrip", "a runway", "a beach", "farmland"),
    ("houses packed together", "dense residential area", "a runway", "a baseball diamond"),
)


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_both_bundles_are_shipped():
    assert {p.name for p in SHIPPED} == {"default", "vit-tiny"}


def test_bundles_share_one_text_side():
    texts = [[(p / file).read_bytes() for file in ("text.onnx", "tokenizer.json", "vocabulary.txt")] for p in SHIPPED]
    assert texts[0] == texts[1]


@shipped
def test_hashes_are_as_the_manifest_says(folder):
    bundles.verify(folder)
    assert set(bundles.read_manifest(folder)["files"]) == {p for p in bundles.FILES if (folder / p).exists()}


@shipped
def test_a_changed_file_is_named(folder, tmp_path):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    content = bytearray((copy / "image.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "image.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="image.onnx: sha256"):
        bundles.verify(copy)


@shipped
def test_image_tower_keeps_its_contract(folder):
    manifest = bundles.read_manifest(folder)
    size, width = manifest["image"]["size"], manifest["model"]["embed_dim"]
    tower = session(folder / "image.onnx")
    assert [(i.name, i.type, i.shape) for i in tower.get_inputs()] == [("image", "tensor(float)", ["batch", 3, size, size])]
    pictures = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
    (together,) = tower.run(["embedding"], {"image": pictures})
    (alone,) = tower.run(["embedding"], {"image": pictures[1:2]})
    assert together.shape == (3, width) and np.isfinite(together).all()
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-3, atol=1e-4)


@shipped
def test_every_weight_is_int8(folder):
    graph = onnx.load(folder / "image.onnx").graph
    layers = int8_layers(graph)
    assert len(layers) == bundles.read_manifest(folder)["quantisation"]["layers"] > 20
    stored = {t.name: t for t in graph.initializer}
    assert not [n.name for n in graph.node if n.op_type in WEIGHTED and n.input[1] in stored]
    assert sum(t.data_type == TensorProto.INT8 for t in graph.initializer) == len(layers)


def int8_layers(graph):
    stored = {t.name: t for t in graph.initializer}
    dequantised = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
    layers = [n for n in graph.node if n.op_type in WEIGHTED and n.input[1] in dequantised]
    for node in layers:
        weight, scale = (stored[name] for name in dequantised[node.input[1]].input)
        axis = next(a.i for a in dequantised[node.input[1]].attribute if a.name == "axis")
        assert weight.data_type == TensorProto.INT8 and scale.data_type == TensorProto.FLOAT
        assert list(scale.dims) == [weight.dims[axis]]
    return layers


@shipped
@pytest.mark.parametrize("text", SENTENCES)
def test_tokenizer_gives_open_clips_ids(folder, text):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(text).ids == SENTENCES[text]
    assert tokenizer.truncation is None and tokenizer.padding is None


@shipped
@pytest.mark.parametrize("texts", NEAREST, ids=lambda t: t[0])
def test_text_tower_ranks_right(folder, texts):
    manifest = bundles.read_manifest(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=manifest["text"]["context_length"], pad_id=manifest["text"]["pad"])
    tokens = np.array([e.ids for e in tokenizer.encode_batch(list(texts))], dtype=np.int64)
    (embeddings,) = session(folder / "text.onnx").run(["embedding"], {"tokens": tokens})
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = embeddings[1:] @ embeddings[0]
    assert similarity.argmax() == 0, similarity


@shipped
def test_vocabulary_is_sorted_words(folder):
    words = (folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    assert words == sorted(set(words)) and all(w == w.lower() and " " not in w for w in words)
    assert {"runway", "harbor", "forest", "cars"} <= set(words) and "xylophone" not in words


def test_rounding_keeps_sums_within_one_step():
    rows = np.random.default_rng(1).uniform(-127, 127, (50, 97)).astype(np.float32)
    rounded = round_keeping_sums(rows)
    assert np.abs(rounded - rows).max() <= 1.0
    assert np.abs((rounded - rows).sum(axis=1)).max() <= 0.51
    assert np.abs((np.rint(rows) - rows).sum(axis=1)).max() > 2  # plain rounding does not


@pytest.mark.parametrize("axis", [0, 1])
def test_quantised_weight_is_near(axis):
    weight = np.random.default_rng(2).normal(size=(24, 36)).astype(np.float32)
    weight[3], weight[:, 5] = 0, 0
    stored, scale = quantise_weight(weight, axis)
    assert stored.dtype == np.int8 and stored.shape == weight.shape and scale.shape == (weight.shape[axis],)
    shape = [-1 if i == axis else 1 for i in range(2)]
    assert (np.abs(stored * scale.reshape(shape) - weight) <= scale.reshape(shape) * 1.001).all()


def test_quantise_runs_and_agrees():
    rng = np.random.default_rng(3)
    weights = {"conv": rng.normal(size=(8, 3, 3, 3)), "gemm": rng.normal(size=(16, 8)), "matmul": rng.normal(size=(16, 4))}
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "gemm"], ["d"], transB=1),
        helper.make_node("MatMul", ["d", "matmul"], ["y"]),
    ]
    stored = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], stored), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    picture = {"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)}
    (before,) = session(model.SerializeToString()).run(None, picture)
    assert quantise(model) == 3
    (after,) = session(model.SerializeToString()).run(None, picture)
    assert len(int8_layers(model.graph)) == 3
    assert 0 < np.abs(after - before).max() < 0.02 * np.abs(before).max()


def test_held_out_wordings_are_held_out():
    trained = {w.lower() for c in CONCEPTS for w in c.all_wordings}
    assert not trained & {w.lower() for texts in HELD_OUT.values() for w in texts}
    assert set(HELD_OUT) == {c.folder for c in CONCEPTS if c.dataset == "ucm"}


def test_a_wording_is_shared_only_between_kin():
    for a in CONCEPTS:
        for b in CONCEPTS:
            if a is not b and set(a.all_wordings) & set(b.all_wordings):
                assert shares_kin(a.folder, b.folder), (a.folder, b.folder, set(a.all_wordings) & set(b.all_wordings))

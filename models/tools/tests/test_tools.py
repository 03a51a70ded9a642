"""The tools that need torch: models, export, tokenizer, training pieces, reference. See requirements.txt.

The three RemoteCLIP architectures are exported with random weights; ViT-L-14 takes minutes and 8 GB, so it runs only with
REMOTECLIPD_SLOW_TESTS=1.
"""

import copy
import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TOOLS
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import load_file, safe_open, save_file

import export
import mobilenet_teacher
import reference
import which_activation
from bundle import read_manifest, verify
from evaluation import recalls
from openclip_models import ModelError, build_model, encode_text_trimmed, explicit_attention, load_checkpoint, load_spec, load_tokenizer, randomise
from optimise import Muon
from tokenizer_json import build_tokenizer
from train_batches import TextSampler, judged_columns, pick_captions
from train_data import eurosat_split, load_caption_pairs, read_karpathy
from train_losses import caption_loss, class_loss, pair_loss

DEFAULT, VIT_TINY = (str(TOOLS / f"configs/remoteclipd-{name}.json") for name in ("default", "vit-tiny"))
SLOW = pytest.mark.skipif(not os.environ.get("REMOTECLIPD_SLOW_TESTS"), reason="minutes and 8 GB; set REMOTECLIPD_SLOW_TESTS=1")


def small_model(arch=VIT_TINY, activation="gelu", seed=0):
    spec = load_spec(arch)
    model = build_model(spec.config, activation)
    randomise(model, seed)
    return spec, model


# Models and checkpoints


def test_stock_and_explicit_attention_agree():
    spec, model = small_model()
    tokens = load_tokenizer(spec.config)(["a river", "two rows of trees on both banks of the river"])
    pictures = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        stock = model.encode_image(pictures), model.encode_text(tokens)
        with explicit_attention():
            ours = model.encode_image(pictures), model.encode_text(tokens)
            trimmed = encode_text_trimmed(model, tokens)
    for a, b in (*zip(stock, ours), (stock[1], trimmed)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_wrapped_checkpoints_load(tmp_path, wrap):
    spec, model = small_model()
    torch.save(wrap(model.state_dict()), tmp_path / "c.pt")
    other = build_model(spec.config, "gelu")
    load_checkpoint(other, tmp_path / "c.pt", spec.name)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))


def test_wrong_architecture_is_one_sentence(tmp_path, capsys):
    _, model = small_model(VIT_TINY)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "vit.safetensors")
    arguments = ["--arch", DEFAULT, "--activation", "gelu", "--checkpoint", str(tmp_path / "vit.safetensors"), "--out", str(tmp_path / "b")]
    assert export.main(arguments) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "vit.safetensors is not a checkpoint of remoteclipd-default" in message and "--arch" in message
    assert not (tmp_path / "b").exists()


def test_unknown_architecture_is_named():
    with pytest.raises(ModelError, match="RN51"):
        load_spec("RN51")


# Export


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("arch", [DEFAULT, VIT_TINY, "RN50", "ViT-B-32", pytest.param("ViT-L-14", marks=SLOW)])
def test_export_agrees_with_torch(tmp_path, arch, activation):
    if activation == "quick_gelu" and arch != VIT_TINY:
        pytest.skip("one architecture is enough for the other activation")
    parity = export.export(export.parse_arguments(["--arch", arch, "--activation", activation, "--random-init", "--out", str(tmp_path)]))
    assert parity.image_f32.min() >= 0.99999 and parity.text.min() >= 0.99999
    assert parity.image.min() >= 0.999
    manifest = read_manifest(tmp_path)
    assert manifest["model"]["activation"] == activation
    verify(tmp_path)


def test_activation_changes_the_embedding():
    _, gelu = small_model(activation="gelu")
    _, quick = small_model(activation="quick_gelu")
    pictures = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        cosine = F.cosine_similarity(gelu.encode_image(pictures), quick.encode_image(pictures)).item()
    assert cosine < 0.99999  # so that an export with the wrong one fails its parity


# Tokenizer

TRICKY = (
    "it's the harbor's; they're, we've, I'll, I'd, can't", "27L/09R runway no. 3 (2,500m)", "café naïve Ångström ŒUVRE", "  tabs\tand\n\nlines  ",
    "‘curly’ “quotes”", "日本の港 и порт", "a—b – c … d", "!!! ??? ###", "emoji 🚁 over 🏖️", "x²+y³ = ½", "ALL CAPS", "under_score and-dash",
)


@pytest.mark.parametrize("config", [DEFAULT, "ViT-B-32"])
def test_tokenizer_json_equals_open_clip_on_tricky_texts(config):
    compare_tokenizers(load_spec(config).config, TRICKY)


def test_tokenizer_json_equals_open_clip_on_captions(data):
    captions = sorted({s["raw"] for name in ("rsicd", "rsitmd") for i in read_karpathy(data / f"captions/dataset_{name}.json.gz") for s in i["sentences"]})
    assert len(captions) > 2000
    for config in (DEFAULT, "ViT-B-32"):
        compare_tokenizers(load_spec(config).config, captions[::5])


def compare_tokenizers(config, texts):
    theirs: SimpleTokenizer = load_tokenizer(config)
    ours = build_tokenizer(config["text_cfg"]["vocab_size"])
    different = [t for t in texts if ours.encode(t).ids != [theirs.sot_token_id, *theirs.encode(t), theirs.eot_token_id]]
    assert not different, different[:5]


# Training


def test_folding_batch_norms_changes_nothing():
    spec, model = small_model(DEFAULT)
    folded = copy.deepcopy(model)
    mobilenet_teacher.fold_norms(folded.visual.trunk)
    stock = build_model(spec.config, "gelu")
    stock.load_state_dict({k: v for k, v in folded.state_dict().items() if not k.startswith("visual.trunk")}, strict=False)
    mobilenet_teacher.unfold_norms(folded.visual.trunk, stock.visual.trunk)
    pictures = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        embeddings = [m.encode_image(pictures) for m in (model, folded, stock)]
    torch.testing.assert_close(embeddings[0], embeddings[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(embeddings[1], embeddings[2], rtol=1e-3, atol=1e-4)


def test_losses_prefer_the_right_answer():
    right = F.normalize(torch.eye(4, 16), dim=-1)
    wrong = right.roll(1, dims=0)
    labels, classes = torch.arange(4), torch.arange(4)
    asked = torch.ones(4, 4, dtype=torch.bool)
    assert class_loss(right, labels, right, classes, asked, 10.0) < class_loss(wrong, labels, right, classes, asked, 10.0)
    assert caption_loss(right, right, torch.eye(4), 10.0) < caption_loss(wrong, right, torch.eye(4), 10.0)
    assert pair_loss(right, right, list("abcd")) < pair_loss(wrong, right, list("abcd"))


def test_a_column_not_asked_about_does_not_count():
    images, texts = F.normalize(torch.randn(1, 8), dim=-1), F.normalize(torch.randn(3, 8), dim=-1)
    asked = torch.tensor([[True, False, True]]).expand(3, 3)
    losses = [class_loss(images, torch.tensor([0]), t, torch.arange(3), asked, 10.0) for t in (texts, texts * torch.tensor([[1], [-1], [1]]))]
    assert losses[0] == losses[1] and torch.isfinite(losses[0])


def test_every_concept_is_judged_by_its_own_wordings():
    judged = judged_columns()
    assert judged.diagonal().all() and judged[:21, :21].all() and not judged.all()


def test_captions_of_other_pictures_are_marked_when_they_are_the_same():
    captions = [["a", "b"], ["b", "c"], ["d", "e"]]
    texts, own = pick_captions(captions, 2, np.random.default_rng(0))
    assert texts == list("abcde") and own[:, texts.index("b")].tolist() == [1, 1, 0]


def test_eurosat_splits_are_disjoint_and_in_string_order():
    names = [f"c_{i}.jpg" for i in range(1200)]
    train, val, test = (eurosat_split(names[::-1], s) for s in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (864, 96, 240) and train + val + test == sorted(names)


def test_caption_pairs_are_of_one_picture(data):
    groups, classes = load_caption_pairs(data)
    first, second, _ = TextSampler(groups, classes, np.random.default_rng(0)).caption_pairs(20)
    together = [set(g) for g in groups]
    assert all(a != b and any({a, b} <= g for g in together) for a, b in zip(first, second))


def test_muon_steps_are_orthogonal():
    p = torch.nn.Parameter(torch.zeros(8, 32))
    optimiser = Muon([p], lr=1.0, weight_decay=0.0)
    p.grad = torch.randn(8, 32)
    optimiser.step()
    singular = torch.linalg.svdvals(p.detach() / (0.2 * 32**0.5))
    assert 0.6 < singular.min() and singular.max() < 1.3


def test_recalls_of_a_perfect_and_a_reversed_order():
    images = np.eye(12, dtype=np.float32)
    captions, owners = np.repeat(images, 5, axis=0), np.repeat(np.arange(12), 5)
    assert recalls(images, captions, owners)["mean_recall"] == 100
    assert recalls(images, -captions, owners)["text_to_image_recall@10"] == 0


# Reference


def test_reference_of_a_folder(tmp_path):
    spec, model = small_model()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "m.safetensors")
    rng = np.random.default_rng(0)
    for name in ("b/2.png", "a/1.png", "a/0.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (150, 200, 3), dtype=np.uint8)).save(tmp_path / "set" / name)
    out = tmp_path / "r.safetensors"
    common = ["--arch", VIT_TINY, "--activation", "gelu", "--checkpoint", str(tmp_path / "m.safetensors"), "--bundle", "tiny", "--out", str(out)]
    assert reference.main([*common, "--folder", str(tmp_path / "set"), "--template", "{}", "--template", "a photo of {}."]) == 0
    tensors = load_file(out)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["files"]) == ["a/0.png", "a/1.png", "b/2.png"] and tensors["labels"].tolist() == [0, 0, 1]
    assert tensors["image_embeddings"].shape == (3, 512) and tensors["text_embeddings"].shape == (2, 2, 512)
    torch.testing.assert_close(tensors["image_embeddings"].norm(dim=1), torch.ones(3))
    assert metadata["dtype"] == "float32" and metadata["bundle"] == "tiny" and len(metadata["checkpoint_sha256"]) == 64


def test_reference_names_an_absent_picture(tmp_path, capsys):
    image = {"filename": "a/gone.jpg", "split": "test", "sentences": [{"raw": "x"}]}
    (tmp_path / "c.json").write_text(json.dumps({"images": [image]}))
    arguments = ["--arch", VIT_TINY, "--activation", "gelu", "--checkpoint", "x.pt", "--bundle", "b", "--out", str(tmp_path / "o")]
    assert reference.main([*arguments, "--captions", str(tmp_path / "c.json"), "--images", str(tmp_path)]) == 1
    assert "a/gone.jpg" in capsys.readouterr().err


# Which activation


def test_the_right_activation_is_found(tmp_path, capsys):
    spec, model = small_model(activation="quick_gelu", seed=3)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "m.safetensors")
    texts = [f"an aerial image of a {c}" for c in ("river", "port")]
    with torch.no_grad():
        recorded = F.normalize(model.encode_text(load_tokenizer(spec.config)(texts)), dim=-1)
    metadata = {"prompts": json.dumps(["an aerial image of a"]), "classes": json.dumps(["river", "port"])}
    save_file({"text_embeddings": recorded[None]}, tmp_path / "golden.safetensors", metadata)
    arguments = ["--arch", VIT_TINY, "--checkpoint", str(tmp_path / "m.safetensors"), "--golden", str(tmp_path / "golden.safetensors")]
    assert which_activation.main(arguments) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["quick_gelu"].endswith("<- this one") and not lines["gelu"].endswith("this one")

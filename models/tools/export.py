#!/usr/bin/env python3
"""Write a remoteclipd bundle from an OpenCLIP checkpoint.

    export.py --arch ViT-B-32 --activation gelu --checkpoint RemoteCLIP-ViT-B-32.pt --license Apache-2.0 --out DIR
    export.py --arch ViT-B-32 --activation gelu --random-init --out DIR

Promises: DIR holds image.onnx (int8 weights), text.onnx, tokenizer.json and manifest.toml, with vocabulary.txt where one
was given; the manifest states every file's hash and how far the int8 file was measured to be from torch. A checkpoint that
isn't of the stated architecture is refused in one sentence.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image

from bundle import sha256, write_manifest
from evaluation import normalise
from onnx_towers import export_image, export_text
from openclip_models import ACTIVATIONS, ModelError, ModelSpec, build_model, load_checkpoint, load_spec, load_tokenizer, randomise
from quantise import quantise
from tokenizer_json import build_tokenizer
from train_data import preprocess

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
PARITY_IMAGES = 210
PARITY_TEXTS = ("a satellite photo of an airport.", "a busy airport with many aeroplanes.", "forest", "a river between two fields")


@dataclass
class Parity:
    """Cosines between torch in float32 and the files in onnxruntime."""

    image: np.ndarray
    image_f32: np.ndarray
    text: np.ndarray
    measured_on: str


def parity_pictures(folder: Path | None, spec: ModelSpec) -> tuple[torch.Tensor, str]:
    """Normalised pictures: evenly taken from the folder, or made up."""
    size = spec.image_size
    if folder is None:
        rng = np.random.default_rng(0)
        coarse = [rng.integers(0, 256, (rng.integers(4, size // 4),) * 2 + (3,), dtype=np.uint8) for _ in range(16)]
        pictures, source = [Image.fromarray(c) for c in coarse], "16 made-up pictures (seeded noise of several scales)"
    else:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
        if not paths:
            raise ModelError(f"--parity-images {folder}: there is no picture ({', '.join(PICTURES)}) in it")
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(PARITY_IMAGES, len(paths))).astype(int)]
        pictures, source = [Image.open(p).convert("RGB") for p in paths], f"{len(paths)} pictures of {folder.name}"
    pixels = torch.from_numpy(np.stack([preprocess(p, size) for p in pictures])).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    return ((pixels - mean) / std).contiguous(), source


def run_onnx(model: onnx.ModelProto, inputs: np.ndarray, batch: int = 8) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: inputs[i : i + batch]})[0] for i in range(0, len(inputs), batch)])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (normalise(a.astype(np.float64)) * normalise(b.astype(np.float64))).sum(axis=1)


@torch.no_grad()
def in_batches(function, inputs: torch.Tensor) -> np.ndarray:
    return torch.cat([function(part) for part in inputs.split(8)]).numpy()


def build_bundle(model, spec: ModelSpec, options) -> tuple[int, Parity]:
    """Write the files; returns the number of int8 layers and the parity measured on the way."""
    out = options.out
    pictures, measured_on = parity_pictures(options.parity_images, spec)
    tokens = load_tokenizer(spec.config)(list(PARITY_TEXTS))
    image_reference, text_reference = in_batches(model.encode_image, pictures), in_batches(model.encode_text, tokens)

    image = export_image(model, spec.image_size)
    image_f32 = cosines(run_onnx(image, pictures.numpy()), image_reference)
    if options.keep_f32:
        onnx.save(image, out / "image_f32.onnx")
    layers = quantise(image)
    onnx.save(image, out / "image.onnx")
    image_int8 = cosines(run_onnx(image, pictures.numpy()), image_reference)
    del image  # ViT-L-14's towers need not be in memory together

    text = export_text(model)
    onnx.save(text, out / "text.onnx")
    text_cosines = cosines(run_onnx(text, tokens.numpy()), text_reference)
    build_tokenizer(spec.config["text_cfg"]["vocab_size"]).save(str(out / "tokenizer.json"), pretty=False)
    return layers, Parity(image_int8, image_f32, text_cosines, measured_on)


def manifest_tables(model, spec: ModelSpec, options, layers: int, parity: Parity) -> dict[str, dict]:
    config = spec.config
    checkpoint = options.checkpoint
    vocab_size = config["text_cfg"]["vocab_size"]
    return {
        "model": {
            "architecture": spec.name,
            "activation": options.activation,
            "embed_dim": config["embed_dim"],
            "logit_scale": round(float(model.logit_scale.detach().exp()), 4),
            "checkpoint": checkpoint.name if checkpoint else f"random-init, seed {options.seed}",
            "checkpoint_sha256": sha256(checkpoint) if checkpoint else "",
            "license": options.license,
        },
        "image": {"size": spec.image_size, "mean": list(spec.mean), "std": list(spec.std), "resize": "bicubic"},
        "text": {
            "context_length": config["text_cfg"]["context_length"],
            "vocab_size": vocab_size,
            "start_of_text": vocab_size - 2,
            "end_of_text": vocab_size - 1,
            "pad": 0,
        },
        "quantisation": {
            "weights": "int8 symmetric per output channel",
            "activations": "per token at run time",
            "layers": layers,
            "calibration": "none: weights need no data, activations get their scales at run time",
        },
        "parity": {
            "compared": "torch float32 against image.onnx in onnxruntime (int8 weights, float32 activations)",
            "measured_on": parity.measured_on,
            "cosine_mean": round(float(parity.image.mean()), 6),
            "cosine_min": round(float(parity.image.min()), 6),
            "cosine_min_before_quantisation": round(float(parity.image_f32.min()), 7),
            "text_cosine_min": round(float(parity.text.min()), 7),
        },
    }


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", required=True, help="RN50, ViT-B-32, ViT-L-14 (any OpenCLIP name) or a config .json")
    parser.add_argument("--activation", required=True, choices=ACTIVATIONS, help="what the checkpoint was trained with")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="state dict, .pt or .safetensors")
    source.add_argument("--random-init", action="store_true", help="seeded random weights, for tests")
    parser.add_argument("--seed", type=int, default=0, help="of --random-init")
    parser.add_argument("--name", help="the bundle's name; the folder's where not given")
    parser.add_argument("--license", default="not stated", help="of the checkpoint, as an SPDX identifier")
    parser.add_argument("--vocabulary", type=Path, help="words that the text side was trained on, one a line")
    parser.add_argument("--parity-images", type=Path, help="folder of pictures to measure parity on")
    parser.add_argument("--keep-f32", action="store_true", help="leave image_f32.onnx too")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    return parser.parse_args(arguments)


def export(options: argparse.Namespace) -> Parity:
    spec = load_spec(options.arch)
    model = build_model(spec.config, options.activation)
    if options.random_init:
        randomise(model, options.seed)
    else:
        load_checkpoint(model, options.checkpoint, spec.name)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.vocabulary:
        (options.out / "vocabulary.txt").write_bytes(options.vocabulary.read_bytes())
    layers, parity = build_bundle(model, spec, options)
    tables = manifest_tables(model, spec, options, layers, parity)
    write_manifest(options.out, options.name or options.out.resolve().name, tables)
    return parity


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    try:
        parity = export(options)
    except ModelError as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 1
    print(
        f"{options.out}: int8 cosine to torch {parity.image.mean():.6f} (least {parity.image.min():.6f}), "
        f"before int8 {parity.image_f32.min():.7f}, text {parity.text.min():.7f}, on {parity.measured_on}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

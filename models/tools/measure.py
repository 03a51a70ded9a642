#!/usr/bin/env python3
"""Measure a bundle's files in onnxruntime, or a checkpoint in torch, on UC Merced and EuroSAT.

    measure.py --data DIR --split val|test --bundle DIR
    measure.py --data DIR --split val|test --arch CONFIG --activation gelu --checkpoint FILE

Promises: one JSON object with the figures that the model cards state, computed by the same lines for both.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer

from bundle import read_manifest
from evaluation import normalise
from judge import Judge, judge_model
from openclip_models import ACTIVATIONS, build_model, explicit_attention, load_checkpoint, load_spec, load_tokenizer
from train_data import SPLITS


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(tower: onnxruntime.InferenceSession, inputs: np.ndarray, batch: int = 32) -> np.ndarray:
    name = tower.get_inputs()[0].name
    return normalise(np.concatenate([tower.run(None, {name: inputs[i : i + batch]})[0] for i in range(0, len(inputs), batch)]))


def measure_bundle(folder: Path, judge: Judge) -> dict[str, float]:
    context = read_manifest(folder)["text"]["context_length"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=context, pad_id=0)
    image, text = session(folder / "image.onnx"), session(folder / "text.onnx")

    def embed_texts(texts: list[str]) -> np.ndarray:
        return run(text, np.array([e.ids for e in tokenizer.encode_batch(texts)], dtype=np.int64))

    return judge.figures(lambda pixels: run(image, pixels.contiguous().numpy()), embed_texts)


def measure_checkpoint(options, judge: Judge) -> dict[str, float]:
    spec = load_spec(options.arch)
    model = build_model(spec.config, options.activation)
    load_checkpoint(model, options.checkpoint, spec.name)
    with explicit_attention():
        return judge_model(model, load_tokenizer(spec.config), judge)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ucm/, eurosat/ and captions/")
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--bundle", type=Path, help="measure this bundle's files in onnxruntime")
    parser.add_argument("--arch", help="with --checkpoint: an OpenCLIP name or a config .json")
    parser.add_argument("--activation", choices=ACTIVATIONS, help="with --checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="measure this checkpoint in torch instead")
    options = parser.parse_args(arguments)
    if (options.bundle is None) == (options.checkpoint is None):
        parser.error("give either --bundle, or --arch, --activation and --checkpoint")
    if options.checkpoint and not (options.arch and options.activation):
        parser.error("--checkpoint needs --arch and --activation")
    torch.set_num_threads(1)
    judge = Judge(options.data, options.split)
    figures = measure_bundle(options.bundle, judge) if options.bundle else measure_checkpoint(options, judge)
    print(json.dumps({k: round(v, 2) for k, v in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""The other engine's side of `remoteclipd eval --stages`, which starts this program and feeds it pictures.

    stages.py --bundle DIR

Promises: Pillow's decoder and resize as `reference.py` uses them, and onnxruntime on the bundle's own `image.onnx`; on
standard output nothing but the protocol. First one line of JSON: `stages`, the names of the vectors that will come, in their
order; `absent`, what cannot be run here and why; `embed_dim`. Then for each picture

    in   one line of JSON: path, width, height; our decoded picture, RGB, width x height x 3; our square, size x size x 3
    out  one line of JSON: error (null, or why there are no vectors), and, without an error, the vectors as little-endian f32

    weights      Pillow's pixels; the int8 weights, in float32
    decode       our decoder and Pillow's resize; the same
    resize       our decoder and our resize; the same
    onnxruntime  our pixels; int8 weights and int8 activations, onnxruntime's dynamic quantisation
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image

from bundle import read_manifest
from quantise import dequantise
from train_data import preprocess


class Tower:
    """An ONNX image tower: uint8 square in, embedding out."""

    def __init__(self, path: Path, image: dict):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.mean, self.std = (np.array(image[key], np.float32) for key in ("mean", "std"))

    def __call__(self, square: np.ndarray) -> np.ndarray:
        pixels = (square.astype(np.float32) / 255 - self.mean) / self.std
        return self.session.run(None, {self.input: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])})[0][0]


def towers(bundle: Path, folder: Path, image: dict) -> tuple[Tower, Tower | None, str | None]:
    """The tower in float32, the same in onnxruntime's int8, and why the second is not to be had if it is not."""
    model = onnx.load(bundle / "image.onnx")
    dequantise(model)
    plain, dynamic = folder / "f32.onnx", folder / "int8.onnx"
    onnx.save(model, plain)
    try:
        quantize_dynamic(plain, dynamic, per_channel=True, weight_type=QuantType.QInt8)
        return Tower(plain, image), Tower(dynamic, image), None
    except Exception as error:  # whatever onnxruntime's tool or engine makes of this model, the other stages stand
        return Tower(plain, image), None, f"{type(error).__name__}: {str(error).splitlines()[0]}"


def read_exactly(count: int) -> bytes:
    content = sys.stdin.buffer.read(count)
    if len(content) != count:
        raise EOFError
    return content


def vectors(request: dict, size: int, plain: Tower, dynamic: Tower | None) -> list[np.ndarray]:
    width, height = request["width"], request["height"]
    decoded = np.frombuffer(read_exactly(width * height * 3), np.uint8).reshape(height, width, 3)
    square = np.frombuffer(read_exactly(size * size * 3), np.uint8).reshape(size, size, 3)
    theirs = preprocess(Image.open(request["path"]).convert("RGB"), size)
    mixed = preprocess(Image.fromarray(decoded), size)
    found = [plain(theirs), plain(mixed), plain(square)]
    return found if dynamic is None else [*found, dynamic(square)]


def answer(line: dict, rows: list[np.ndarray] = ()) -> None:
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\n" + b"".join(row.astype("<f4").tobytes() for row in rows))
    sys.stdout.buffer.flush()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    options = parser.parse_args(arguments)
    manifest = read_manifest(options.bundle)
    size = manifest["image"]["size"]
    with tempfile.TemporaryDirectory() as folder:
        plain, dynamic, reason = towers(options.bundle, Path(folder), manifest["image"])
        names = ["weights", "decode", "resize"] + (["onnxruntime"] if dynamic else [])
        absent = {"onnxruntime": reason} if reason else {}
        answer({"stages": names, "absent": absent, "embed_dim": manifest["model"]["embed_dim"]})
        for line in iter(sys.stdin.buffer.readline, b""):
            try:
                rows = vectors(json.loads(line), size, plain, dynamic)
            except EOFError:
                return 1
            except OSError as error:  # Pillow refuses what we decoded: worth knowing, no reason to stop
                answer({"error": str(error)})
            else:
                answer({"error": None}, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

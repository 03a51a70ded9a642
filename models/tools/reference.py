#!/usr/bin/env python3
"""Embeddings of the full-precision model over a data set: what the int8 build is judged against.

    reference.py --arch CONFIG --activation gelu --checkpoint FILE --bundle DIR \\
        (--folder DIR | --captions FILE.json --images DIR [--split test]) [--classes FILE.json] --out FILE.safetensors

Promises: torch in float32 unless another type is asked for, on CUDA when there is one, else on the CPU. In the file:

    image_embeddings    [N,D]    L2-normalised, rows in sorted file-name order
    labels              i64 [N]  index into the class names
    text_embeddings     [T,C,D]  L2-normalised, template by class
    caption_embeddings  [M,D]    with --captions: L2-normalised
    caption_image       i64 [M]  the row of the caption's picture

and as metadata (JSON where it is a list): files, image_sha256, classes, prompts, templates, prompts_sha256, captions, bundle,
architecture, activation, checkpoint_sha256, device, dtype, torch, open_clip, protocol.

--classes maps a folder's name to the words put into the templates, {"parkinglot": "parking lot", …}; without it the
folder names are used as they are.
"""

import argparse
import hashlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from bundle import sha256
from openclip_models import ACTIVATIONS, ModelError, build_model, load_checkpoint, load_spec, load_tokenizer
from train_data import caption_text, preprocess, read_karpathy

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROTOCOL = "shorter side bicubic (Pillow, anti-aliased), centre crop; captions capitalised; L2-normalised"


@dataclass
class DataSet:
    """Pictures by name below a root, the class folder of each, and its captions where there are any."""

    root: Path
    files: list[str]
    captions: list[list[str]]

    @property
    def labels(self) -> list[str]:
        return [Path(name).parts[0] if len(Path(name).parts) > 1 else "" for name in self.files]


def folder_data(root: Path, skip: float) -> DataSet:
    files = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        names = sorted(p.relative_to(root).as_posix() for p in folder.iterdir() if p.suffix.lower() in PICTURES)
        files += names[int(len(names) * skip) :]
    if not files:
        raise ModelError(f"--folder {root}: holds no <class>/<picture>")
    return DataSet(root, files, [[] for _ in files])


def karpathy_data(captions: Path, root: Path, split: str) -> DataSet:
    images = sorted((i for i in read_karpathy(captions) if i["split"] == split), key=lambda i: i["filename"])
    if not images:
        raise ModelError(f"{captions.name}: no picture of split {split!r}")
    absent = [i["filename"] for i in images if not (root / i["filename"]).is_file()]
    if absent:
        raise ModelError(f"{captions.name}: {len(absent)} pictures are not below --images, {absent[0]} for one")
    return DataSet(root, [i["filename"] for i in images], [[caption_text(s["raw"]) for s in i["sentences"]] for i in images])


class Reference:
    """The model on its device; embeds in batches."""

    def __init__(self, options):
        self.spec = load_spec(options.arch)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = DTYPES[options.dtype]
        self.batch = options.batch
        model = build_model(self.spec.config, options.activation)
        load_checkpoint(model, options.checkpoint, self.spec.name)
        self.model = model.to(self.device, self.dtype)
        self.tokenizer = load_tokenizer(self.spec.config)
        # TensorFloat-32 would round the inputs of every product to 10 bits: not a full-precision reference.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    @torch.no_grad()
    def images(self, data: DataSet) -> tuple[torch.Tensor, list[str]]:
        """Normalised embeddings, and the sha256 of each picture's file."""
        rows, hashes = [], []
        for start in range(0, len(data.files), self.batch):
            pixels = []
            for name in data.files[start : start + self.batch]:
                content = (data.root / name).read_bytes()
                hashes.append(hashlib.sha256(content).hexdigest())
                pixels.append(self._pixels(content, name))
            rows.append(self._normalised(self.model.encode_image(torch.stack(pixels).to(self.device, self.dtype))))
        return torch.cat(rows), hashes

    @torch.no_grad()
    def texts(self, texts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(texts).to(self.device)
        return torch.cat([self._normalised(self.model.encode_text(part)) for part in tokens.split(self.batch)])

    def _pixels(self, content: bytes, name: str) -> torch.Tensor:
        try:
            image = Image.open(io.BytesIO(content)).convert("RGB")
        except OSError as error:
            raise ModelError(f"{name}: not a picture that can be read: {error}") from error
        pixels = torch.from_numpy(preprocess(image, self.spec.image_size).copy()).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.spec.mean, self.spec.std))
        return (pixels - mean) / std

    @staticmethod
    def _normalised(x: torch.Tensor) -> torch.Tensor:
        return F.normalize(x.float(), dim=-1).cpu()


def class_words(labels: list[str], path: Path | None) -> tuple[list[str], list[str]]:
    """The folder names in order, and what is put into the templates for each."""
    folders = sorted(set(labels))
    words = json.loads(path.read_text()) if path else {}
    if path and (missing := [f for f in folders if f not in words]):
        raise ModelError(f"{path.name}: has no words for {', '.join(missing)}")
    return folders, [words.get(f, f) for f in folders]


def compute(options) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    data = folder_data(options.folder, options.skip_first) if options.folder else karpathy_data(options.captions, options.images, options.split)
    folders, words = class_words(data.labels, options.classes)
    reference = Reference(options)
    embeddings, hashes = reference.images(data)
    prompts = [[template.format(w) for w in words] for template in options.template]
    tensors = {
        "image_embeddings": embeddings,
        "labels": torch.tensor([folders.index(c) for c in data.labels]),
        "text_embeddings": torch.stack([reference.texts(row) for row in prompts]),
    }
    captions = [c for own in data.captions for c in own]
    if captions:
        tensors["caption_embeddings"] = reference.texts(captions)
        tensors["caption_image"] = torch.tensor([i for i, own in enumerate(data.captions) for _ in own])
    if options.store == "float16":
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    lists = {"files": data.files, "image_sha256": hashes, "classes": folders, "class_words": words, "templates": options.template, "captions": captions}
    return tensors, {k: json.dumps(v) for k, v in lists.items()} | facts(reference, options, prompts)


def facts(reference: Reference, options, prompts: list[list[str]]) -> dict[str, str]:
    """What the numbers depend on besides the pictures."""
    return {
        "bundle": options.bundle,
        "architecture": reference.spec.name,
        "activation": options.activation,
        "checkpoint_sha256": sha256(options.checkpoint),
        "prompts_sha256": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "device": torch.cuda.get_device_name() if reference.device == "cuda" else "cpu",
        "dtype": options.dtype,
        "stored_as": options.store,
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "protocol": PROTOCOL,
    }


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", required=True, help="RN50, ViT-B-32, ViT-L-14 or a config .json")
    parser.add_argument("--activation", required=True, choices=ACTIVATIONS)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--bundle", required=True, help="name of the bundle that this is the reference of")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--folder", type=Path, help="data set with a folder a class")
    parser.add_argument(
        "--skip-first", type=float, default=0.0, metavar="PART",
        help="with --folder: leave out this part of each class in plain string order (0.8 for EuroSAT's test split)",
    )
    source.add_argument("--captions", type=Path, help="Karpathy JSON, gzipped or not; needs --images")
    parser.add_argument("--images", type=Path, help="the folder that the JSON's file names start from")
    parser.add_argument("--split", default="test", help="of the JSON")
    parser.add_argument("--classes", type=Path, help="JSON: folder name → words for the templates")
    parser.add_argument("--template", action="append", help="with {} for the class; may be given several times")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="what the model computes in")
    parser.add_argument("--store", choices=("float32", "float16"), default="float32", help="what the file holds")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.captions and not options.images:
        parser.error("--captions needs --images, the folder that its file names start from")
    options.template = options.template or ["a satellite photo of {}."]
    return options


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    try:
        tensors, metadata = compute(options)
    except ModelError as error:
        print(f"reference.py: {error}", file=sys.stderr)
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out, metadata)
    shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in tensors.items())
    print(f"{options.out}: {shapes} on {metadata['device']} in {metadata['dtype']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

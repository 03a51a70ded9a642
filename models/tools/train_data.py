"""The training data: UC Merced with its captions, EuroSAT, and the caption sets whose pictures are not there.

Promises: the splits of the project's protocol, made from file names alone (so that every tool agrees on them); pictures
decoded once into memory; augmented views drawn from a seeded generator. Nothing of a test split is ever opened here
unless it is asked for by that name.

    UCM       train / val / test: the split of the captions file
    EuroSAT   per class in plain string order: the first 80 % train, the last 20 % test; the last tenth of train is val
"""

import gzip
import io
import json
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SPLITS = ("train", "val", "test")


@dataclass
class ImageSet:
    """Pictures of one data set and split: `pixels[i]` is an RGB image whose folder class is `classes[i]`."""

    names: list[str]
    classes: list[str]
    pixels: list[Image.Image]
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.names)

    def every(self, step: int) -> "ImageSet":
        return ImageSet(*(field[::step] for field in (self.names, self.classes, self.pixels, self.captions)))


def caption_text(raw: str) -> str:
    """The retrieval protocol's form of a caption: first letter upper case, the rest lower case."""
    return raw.capitalize()


def read_karpathy(path: Path) -> list[dict]:
    """The `images` list of a Karpathy-form JSON, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return json.load(file)["images"]


def eurosat_split(names: list[str], split: str) -> list[str]:
    """The names of one class that belong to `split`; `names` may be in any order."""
    ordered = sorted(names)
    test_from = int(len(ordered) * 0.8)
    val_from = int(test_from * 0.9)
    return {"train": ordered[:val_from], "val": ordered[val_from:test_from], "test": ordered[test_from:]}[split]


def load_ucm(data: Path, split: str) -> ImageSet:
    images = sorted((i for i in read_karpathy(data / "captions/dataset_ucm.json") if i["split"] == split), key=lambda i: i["filename"])
    names = [i["filename"] for i in images]
    pixels = _read_tar(data / "ucm/ucm.tar", {f"ucm/{name}" for name in names})
    captions = [[caption_text(s["raw"]) for s in i["sentences"]] for i in images]
    return ImageSet(names, [n.split("/")[0] for n in names], [pixels[f"ucm/{n}"] for n in names], captions)


def load_eurosat(data: Path, split: str) -> ImageSet:
    tar = data / "eurosat/eurosat.tar"
    by_class = defaultdict(list)
    with tarfile.open(tar) as archive:
        for name in archive.getnames():
            if name.endswith(".jpg"):
                by_class[name.split("/")[1]].append(name)
    names = [n for c in sorted(by_class) for n in eurosat_split(by_class[c], split)]
    pixels = _read_tar(tar, set(names))
    short = [n.split("/", 1)[1] for n in names]
    return ImageSet(short, [n.split("/")[0] for n in short], [pixels[n] for n in names], [[] for _ in names])


def load_caption_pairs(data: Path) -> tuple[list[list[str]], list[str]]:
    """RSICD's and RSITMD's train captions: for each picture its distinct sentences, and its class ("" where unnamed)."""
    groups, classes = [], []
    for name in ("rsicd", "rsitmd"):
        for image in read_karpathy(data / f"captions/dataset_{name}.json.gz"):
            sentences = sorted({caption_text(s["raw"]) for s in image["sentences"]})
            if image["split"] != "train" or not sentences:
                continue
            stem = image["filename"].rsplit("_", 1)[0]
            groups.append(sentences)
            classes.append("" if stem[0].isdigit() else stem)
    return groups, classes


def _read_tar(path: Path, wanted: set[str]) -> dict[str, Image.Image]:
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name in wanted:
                found[member.name] = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
    if missing := wanted - found.keys():
        raise FileNotFoundError(f"{path}: {len(missing)} pictures that the split names are not in it, {min(missing)} for one")
    return found


def preprocess(image: Image.Image, size: int) -> np.ndarray:
    """OpenCLIP's 'shortest' mode: bicubic (anti-aliased) to the shorter side, centre crop; uint8 [size, size, 3]."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def augment(image: Image.Image, size: int, rng: np.random.Generator, min_area: float = 0.3, colour: float = 1.0) -> np.ndarray:
    """One training view: crop, scale, dihedral, colour, blur, noise and JPEG, each as a flying camera might differ."""
    if rng.random() < 0.05:
        image = _zoom_out(image)
    view = image.resize((size, size), Image.BICUBIC, box=_random_box(*image.size, rng, min_area))
    if rng.random() < 0.15:
        coarse = int(size * rng.uniform(0.35, 0.8))
        view = view.resize((coarse, coarse), Image.BICUBIC).resize((size, size), Image.BICUBIC)
    if rng.random() < 0.1:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.3)))
    if rng.random() < 0.15:
        view = _jpeg(view, int(rng.integers(25, 85)))
    pixels = np.rot90(np.asarray(view), rng.integers(4))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return _colour(pixels, rng, colour)


def _zoom_out(image: Image.Image) -> Image.Image:
    """The picture with its mirror images beside it: the same scene from twice as high."""
    pixels = np.asarray(image)
    pad = [(image.height // 2,) * 2, (image.width // 2,) * 2, (0, 0)]
    return Image.fromarray(np.pad(pixels, pad, mode="symmetric"))


def _random_box(width: int, height: int, rng: np.random.Generator, min_area: float) -> tuple[float, float, float, float]:
    area = 1.0 if rng.random() < 0.3 else rng.uniform(min_area, 1.0)
    ratio = np.exp(rng.uniform(-0.22, 0.22)) if area < 1 else 1.0
    w, h = min(width, width * np.sqrt(area * ratio)), min(height, height * np.sqrt(area / ratio))
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return (x, y, x + w, y + h)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def _colour(pixels: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, contrast, saturation and white balance as one affine map of RGB, then sensor noise."""
    saturation, contrast, brightness = 1 + strength * rng.uniform(-1, 1, size=3) * (0.4, 0.3, 0.25)
    gains = contrast * brightness * (1 + strength * rng.uniform(-0.06, 0.06, size=3))
    matrix = (saturation * np.eye(3) + (1 - saturation) / 3) * gains
    mean = pixels[::4, ::4].mean()
    x = pixels.reshape(-1, 3).astype(np.float32) @ matrix.astype(np.float32) + np.float32(mean * (1 - contrast))
    if rng.random() < 0.12:
        x += rng.standard_normal(x.shape, dtype=np.float32) * np.float32(rng.uniform(2, 8))
    return np.clip(x, 0, 255, out=x).astype(np.uint8).reshape(pixels.shape)

#!/usr/bin/env python3
"""The metrics of PyPI's clip_benchmark on a file of embeddings, as JSON: what `remoteclipd eval` must agree with.

    peer_metrics.py FILE.safetensors

Needs the packages of peer_metrics.txt (numpy below 2.4: clip_benchmark 1.6.2 makes floats of arrays of one value). The
model handed over looks rows up instead of computing them, so that both programs judge the same embeddings.
"""

import json
import sys

import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from safetensors import safe_open


class Rows:
    """An `encode_image` and `encode_text` that are given row numbers."""

    def __init__(self, images, texts):
        self.images, self.texts = images, texts

    def encode_image(self, rows):
        return self.images[rows]

    def encode_text(self, rows):
        return self.texts[rows]


class Batches(list):
    """Batches with the `dataset.classes` that clip_benchmark asks for."""

    def __init__(self, batches, classes):
        super().__init__(batches)
        self.dataset = type("DataSet", (), {"classes": classes})


def batches(count, size=64):
    return [torch.arange(start, min(start + size, count)) for start in range(0, count, size)]


def classification(images, texts, labels):
    templates, classes, width = texts.shape
    # A class name stands for its column; each template is the row that a tokenizer would make of it.
    rows = Rows(images, texts.reshape(-1, width))
    names = [str(c) for c in range(classes)]
    formats = [f"{t} {{c}}" for t in range(templates)]
    number = lambda text: int(text.split()[0]) * classes + int(text.split()[1])
    loader = Batches([(b, labels[b]) for b in batches(len(images))], names)
    return zeroshot_classification.evaluate(rows, loader, lambda t: torch.tensor([number(x) for x in t]), names, formats, "cpu", amp=False)


def retrieval(images, captions, caption_image):
    own = [(caption_image == image).nonzero().flatten().tolist() for image in range(len(images))]
    loader = [(b, [own[i] for i in b.tolist()]) for b in batches(len(images))]
    found = zeroshot_retrieval.evaluate(Rows(images, captions), loader, torch.tensor, "cpu", amp=False, recall_k_list=[1, 5, 10])
    return found | {"mean_recall": sum(found.values()) / len(found)}


def main(path):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    metrics = classification(tensors["image_embeddings"], tensors["text_embeddings"], tensors["labels"])
    if "caption_embeddings" in tensors:
        metrics |= retrieval(tensors["image_embeddings"], tensors["caption_embeddings"], tensors["caption_image"])
    print(json.dumps({name: float(value) for name, value in metrics.items()}))


if __name__ == "__main__":
    main(sys.argv[1])

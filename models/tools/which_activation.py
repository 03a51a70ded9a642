#!/usr/bin/env python3
"""Tell which activation a CLIP checkpoint was trained with.

    which_activation.py --arch ViT-B-32 --checkpoint FILE --golden FILE.safetensors
    which_activation.py --arch ViT-B-32 --checkpoint FILE --airport assets/airport.jpg

Promises: the checkpoint is run with gelu and with quick_gelu. --golden compares its text embeddings with the recorded ones
(`text_embeddings` [T,C,D], `prompts` and `classes` in the metadata): the right activation gives a cosine of 1, the wrong
one visibly less, and the exit code is 1 where neither does. --airport prints RemoteCLIP's README example for both.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from openclip_models import ACTIVATIONS, ModelError, ModelSpec, build_model, load_checkpoint, load_spec, load_tokenizer
from train_data import preprocess

SAME = 0.9995  # the recorded embeddings may have been computed in half precision
QUERIES = (
    "A busy airport with many airplanes.", "Satellite view of Hohai University.", "A building next to a lake.",
    "Many people in a stadium.", "a cute cat",
)


def text_cosine(model, spec: ModelSpec, golden: Path) -> float:
    with safe_open(golden, "pt") as file:
        metadata, recorded = file.metadata(), file.get_tensor("text_embeddings").float()
    prompts, classes = json.loads(metadata["prompts"]), json.loads(metadata["classes"])
    tokenizer = load_tokenizer(spec.config)

    def cosine(end: str) -> float:
        texts = [f"{prompts[0]} {c}{end}" for c in classes]
        return F.cosine_similarity(model.encode_text(tokenizer(texts)), recorded[0]).mean().item()

    # Whether the recorded prompts ended in a full stop is not written down with them.
    return max(cosine(end) for end in ("", "."))


def airport_probabilities(model, spec: ModelSpec, picture: Path) -> list[float]:
    pixels = torch.from_numpy(preprocess(Image.open(picture).convert("RGB"), spec.image_size).copy()).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    image = F.normalize(model.encode_image(((pixels - mean) / std)[None]), dim=-1)
    texts = F.normalize(model.encode_text(load_tokenizer(spec.config)(list(QUERIES))), dim=-1)
    return (100 * image @ texts.T).softmax(dim=-1)[0].tolist()


@torch.no_grad()
def compare(options) -> bool:
    """Print both sides; whether the question is answered."""
    spec, cosines = load_spec(options.arch), {}
    for activation in ACTIVATIONS:
        model = build_model(spec.config, activation)
        load_checkpoint(model, options.checkpoint, spec.name)
        if options.golden:
            cosines[activation] = text_cosine(model, spec, options.golden)
        if options.airport:
            print(f"{activation}:")
            for query, probability in zip(QUERIES, airport_probabilities(model, spec, options.airport)):
                print(f"  {query:<40} {probability * 100:9.5f} %")
    best = max(cosines, key=cosines.get, default=None)
    for activation, cosine in cosines.items():
        mark = "  <- this one" if activation == best and cosine >= SAME else ""
        print(f"{activation:<12} cosine to the recorded text embeddings {cosine:.6f}{mark}")
    return best is None or cosines[best] >= SAME


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", required=True, help="RN50, ViT-B-32 or ViT-L-14")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--golden", type=Path, help="safetensors with recorded text embeddings")
    parser.add_argument("--airport", type=Path, help="assets/airport.jpg of RemoteCLIP's repository")
    options = parser.parse_args(arguments)
    if not (options.golden or options.airport):
        parser.error("give --golden, --airport or both")
    try:
        return 0 if compare(options) else 1
    except ModelError as error:
        print(f"which_activation.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

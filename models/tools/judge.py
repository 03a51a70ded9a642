"""The project's figures on a split of UC Merced and EuroSAT, for anything that embeds pictures and texts.

Promises: the same pictures, prompts and protocol for torch and for the files of a bundle; and nothing but what is asked
for is opened, so that `val` can be looked at as often as one likes and `test` once.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from evaluation import accuracy, normalise, recalls
from openclip_models import encode_text_trimmed
from prompts_text import EUROSAT, EVALUATION_TEMPLATE, HELD_OUT, UCM
from train_batches import to_tensor
from train_data import ImageSet, load_eurosat, load_ucm, preprocess

HEADLINE = ("ucm", "ucm_folder_names", "ucm_held_out_wordings", "eurosat", "mean_recall")


class Judge:
    """Figures on a split, for any pair of functions that embed pictures and texts."""

    def __init__(self, data: Path, split: str, size: int = 128):
        self.size = size
        self.ucm, self.eurosat = load_ucm(data, split), load_eurosat(data, split)

    def thinned(self, eurosat_every: int) -> "Judge":
        """The same with fewer EuroSAT pictures, for a look while training."""
        other = copy.copy(self)
        other.eurosat = self.eurosat.every(eurosat_every)
        return other

    def figures(self, embed_images, embed_texts) -> dict[str, float]:
        ucm, eurosat = (embed_images(self._pixels(s)) for s in (self.ucm, self.eurosat))
        captions = [c for own in self.ucm.captions for c in own]
        owners = np.repeat(np.arange(len(self.ucm)), [len(c) for c in self.ucm.captions])
        return {
            "ucm": self._zero_shot(ucm, self.ucm, UCM, embed_texts, "name"),
            "ucm_folder_names": self._zero_shot(ucm, self.ucm, UCM, embed_texts, "folder"),
            "ucm_held_out_wordings": self._held_out(ucm, embed_texts),
            "eurosat": self._zero_shot(eurosat, self.eurosat, EUROSAT, embed_texts, "name"),
        } | recalls(ucm, embed_texts(captions), owners)

    def _pixels(self, images: ImageSet) -> torch.Tensor:
        return to_tensor([preprocess(image, self.size) for image in images.pixels])

    def _zero_shot(self, embeddings, images, concepts, embed_texts, field) -> float:
        texts = embed_texts([EVALUATION_TEMPLATE.format(getattr(c, field)) for c in concepts])
        folders = [c.folder for c in concepts]
        return accuracy(embeddings, texts, np.array([folders.index(c) for c in images.classes]))

    def _held_out(self, embeddings, embed_texts) -> float:
        """Mean over the held-out wordings of each class, one at a time, without a template."""
        labels = np.array([[c.folder for c in UCM].index(k) for k in self.ucm.classes])
        columns = zip(*(HELD_OUT[c.folder] for c in UCM))
        return float(np.mean([accuracy(embeddings, embed_texts(list(texts)), labels) for texts in columns]))


@torch.no_grad()
def judge_model(model: nn.Module, tokenizer, judge: Judge) -> dict[str, float]:
    def embed_images(pixels):
        return normalise(torch.cat([model.encode_image(part) for part in pixels.split(96)]).numpy())

    def embed_texts(texts):
        parts = tokenizer(texts).split(128)
        return normalise(torch.cat([encode_text_trimmed(model, part) for part in parts]).numpy())

    model.eval()
    return judge.figures(embed_images, embed_texts)

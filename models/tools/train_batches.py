"""What one training step sees: augmented pictures, their captions, wordings of every class, and pairs of sentences.

Promises: everything is drawn from one seeded generator; a batch holds several pictures of each class it draws, so that
captions must tell pictures of one class apart; held-out wordings never appear.
"""

from dataclasses import dataclass

import numpy as np
import torch

from prompts_text import CAPTION_CLASSES, CONCEPTS, EVALUATION_TEMPLATE, TEMPLATES, shares_kin
from train_data import ImageSet, augment

CLASS_INDEX = {c.folder: i for i, c in enumerate(CONCEPTS)}
IMAGES_A_CLASS = 4


@dataclass
class Batch:
    """`images` float [B,3,S,S] normalised; `labels` index CONCEPTS; the first `len(captions)` pictures have captions."""

    images: torch.Tensor
    labels: torch.Tensor
    captions: list[list[str]]


def judged_columns() -> torch.Tensor:
    """bool [C, C]: whether class j's wordings count as wrong (or, on the diagonal, right) for a picture of class i."""
    judged = torch.ones(len(CONCEPTS), len(CONCEPTS), dtype=torch.bool)
    for i, a in enumerate(CONCEPTS):
        for j, b in enumerate(CONCEPTS):
            if a.dataset != b.dataset and shares_kin(a.folder, b.folder):
                judged[i, j] = False
    return judged


def to_tensor(views: list[np.ndarray], mean: float = 0.5, std: float = 0.5) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)  # stays channels-last in memory
    return (pixels.float() / 255 - mean) / std


class ImageSampler:
    """Draws batches of augmented views, EuroSAT's after UC Merced's."""

    def __init__(self, ucm: ImageSet, eurosat: ImageSet, rng: np.random.Generator):
        self.ucm, self.eurosat, self.rng = ucm, eurosat, rng
        self.members = {c: [i for i, k in enumerate(ucm.classes) if k == c] for c in sorted(set(ucm.classes))}

    def draw(self, ucm_count: int, eurosat_count: int, size: int) -> Batch:
        u, e = self._grouped(ucm_count), self.rng.integers(len(self.eurosat), size=eurosat_count).tolist()
        views = [augment(self.ucm.pixels[i], size, self.rng) for i in u]
        # Ten metres a pixel: colour is most of what tells Sentinel's classes apart, so it is moved less.
        views += [augment(self.eurosat.pixels[i], size, self.rng, min_area=0.6, colour=0.4) for i in e]
        classes = [self.ucm.classes[i] for i in u] + [self.eurosat.classes[i] for i in e]
        labels = torch.tensor([CLASS_INDEX[c] for c in classes])
        return Batch(to_tensor(views), labels, [self.ucm.captions[i] for i in u])

    def _grouped(self, count: int) -> list[int]:
        classes = self.rng.permutation(sorted(self.members))[: count // IMAGES_A_CLASS]
        return [int(i) for c in classes for i in self.rng.choice(self.members[c], IMAGES_A_CLASS, replace=False)]


class TextSampler:
    """Draws wordings of every class and pairs of captions of one picture."""

    def __init__(self, groups: list[list[str]], group_classes: list[str], rng: np.random.Generator):
        self.rng = rng
        self.groups = [(g, c) for g, c in zip(groups, group_classes) if len(g) > 1]
        self.lent = {c.folder: [] for c in CONCEPTS}
        for group, c in zip(groups, group_classes):
            if c in CAPTION_CLASSES:
                self.lent[CAPTION_CLASSES[c]].extend(group)

    def wordings(self, per_class: int) -> tuple[list[str], torch.Tensor]:
        """`per_class` texts for each concept, and the concept that each stands for."""
        texts = [self._wording(i) for i in range(len(CONCEPTS)) for _ in range(per_class)]
        return texts, torch.arange(len(CONCEPTS)).repeat_interleave(per_class)

    def _wording(self, index: int) -> str:
        concept, lent, chance = CONCEPTS[index], self.lent[CONCEPTS[index].folder], self.rng.random()
        if lent and chance < 0.12:
            return lent[self.rng.integers(len(lent))]
        if chance < 0.3:
            wording = (concept.name, concept.folder.lower())[int(chance < 0.2)]
        else:
            wording = concept.all_wordings[self.rng.integers(len(concept.all_wordings))]
        template = EVALUATION_TEMPLATE if self.rng.random() < 0.2 else TEMPLATES[self.rng.integers(len(TEMPLATES))]
        return template.format(wording)

    def caption_pairs(self, count: int) -> tuple[list[str], list[str], list[str]]:
        """Two sentences each of `count` pictures, and the pictures' classes ("" where unknown)."""
        chosen = [self.groups[i] for i in self.rng.integers(len(self.groups), size=count)]
        pairs = [self.rng.choice(len(g), 2, replace=False) for g, _ in chosen]
        first = [g[a] for (g, _), (a, _) in zip(chosen, pairs)]
        second = [g[b] for (g, _), (_, b) in zip(chosen, pairs)]
        return first, second, [c for _, c in chosen]


def pick_captions(captions: list[list[str]], per_image: int, rng: np.random.Generator) -> tuple[list[str], torch.Tensor]:
    """Distinct texts, `per_image` of each picture's, and float [images, texts]: 1 where the text is one of the picture's own."""
    texts = sorted({c[k] for c in captions for k in rng.choice(len(c), per_image, replace=False)})
    own = torch.tensor([[text in c for text in texts] for c in captions])
    return texts, own.float()

"""Views that the teacher has answered for, kept to be seen again.

Promises: a view that comes back is turned or mirrored, and its map with it; memory is bounded by `CAPACITY` views (about
80 KiB each).
"""

from dataclasses import dataclass

import numpy as np
import torch

CAPACITY = 16_000
GROUPS = 8  # the older part of a batch is turned in so many groups: eight ways of laying a square down


@dataclass
class TaughtViews:
    """Pictures [B,3,S,S] with the teacher's embeddings [B,D] and feature maps [B,C,s,s]; no captions: an empty list."""

    images: torch.Tensor
    labels: torch.Tensor
    captions: list[list[str]]
    targets: torch.Tensor
    maps: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


class ReplayedViews:
    def __init__(self, rng: np.random.Generator):
        self.rng, self.kept = rng, []

    def with_older(self, fresh: TaughtViews, count: int) -> TaughtViews:
        """`fresh` with up to `count` older views behind it; `fresh` is kept from then on."""
        older = self._draw(count)
        self._keep(fresh)
        parts = [fresh, *older]
        return TaughtViews(
            torch.cat([p.images for p in parts]),
            torch.cat([p.labels for p in parts]),
            [own for p in parts for own in p.captions],
            torch.cat([p.targets for p in parts]),
            torch.cat([p.maps for p in parts]),
        )

    def _keep(self, views: TaughtViews) -> None:
        pixels = ((views.images * 0.5 + 0.5) * 255).round().to(torch.uint8)
        rows = zip(pixels, views.labels, views.captions, views.targets, views.maps.half())
        self.kept.extend(rows)
        del self.kept[:-CAPACITY]

    def _draw(self, count: int) -> list[TaughtViews]:
        if len(self.kept) < count:
            return []
        chosen = self.rng.choice(len(self.kept), count, replace=False)
        return [self._turned([self.kept[i] for i in part], turn) for turn, part in enumerate(np.array_split(chosen, GROUPS))]

    @staticmethod
    def _turned(rows: list[tuple], turn: int) -> TaughtViews:
        pixels, labels, captions, targets, maps = zip(*rows)
        images, maps = torch.stack(pixels).float() / 255 * 2 - 1, torch.stack(maps).float()
        images, maps = (torch.rot90(x, turn % 4, (2, 3)) for x in (images, maps))
        if turn >= 4:
            images, maps = images.flip(3), maps.flip(3)
        return TaughtViews(images, torch.stack(labels), list(captions), torch.stack(targets), maps)

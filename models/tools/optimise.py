"""Muon, the moving average of the weights, and the learning-rate schedule."""

import math
import time
from collections import defaultdict

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal (Newton-Schulz), its size matched to AdamW's; for matrices only.

    torch.optim.Muon computes in bfloat16, which a CPU without that arithmetic emulates; this one stays in float32 and
    takes all matrices of one shape together.
    """

    COEFFICIENTS = (3.4445, -4.7750, 2.0315)

    def __init__(self, params, lr: float, weight_decay: float = 0.1, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                update = self._orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in params]))
                for p, u in zip(params, update):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(u, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _momentum(self, p, momentum):
        buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)

    def _orthogonal(self, x):
        tall = x.shape[1] > x.shape[2]
        x = x.transpose(1, 2) if tall else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        a, b, c = self.COEFFICIENTS
        for _ in range(5):
            gram = x @ x.transpose(1, 2)
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.transpose(1, 2) if tall else x


class MovingAverage:
    """An exponential average of a model's weights, young averages following faster."""

    def __init__(self, model: nn.Module, average: nn.Module, decay: float):
        self.live = [p for p in model.state_dict().values() if p.is_floating_point()]
        self.kept = [p for p in average.state_dict().values() if p.is_floating_point()]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self):
        self.steps += 1
        torch._foreach_lerp_(self.kept, self.live, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)))


class Progress:
    """How far training has come, by steps where they are given, else by the clock (pauses for evaluation left out)."""

    def __init__(self, minutes: float, steps: int | None):
        self.seconds, self.total_steps = minutes * 60, steps
        self.started, self.paused, self.steps = time.monotonic(), 0.0, 0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started - self.paused

    @property
    def fraction(self) -> float:
        return self.steps / self.total_steps if self.total_steps else self.elapsed / self.seconds

    def pause(self, seconds: float) -> None:
        self.paused += seconds


def learning_rate_factor(fraction: float, warm_up: float = 0.04) -> float:
    """A linear warm-up, then a cosine down to nearly nothing."""
    return min(1.0, fraction / warm_up + 0.01) * (0.5 * (1 + math.cos(math.pi * min(1.0, fraction))) + 0.005)

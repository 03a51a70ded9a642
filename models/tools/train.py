#!/usr/bin/env python3
"""Train the shipped models.

    train.py default  --data DIR --seed N --minutes M --out FILE.safetensors
    train.py vit-tiny --data DIR --seed N --minutes M --out FILE.safetensors --teacher default.safetensors

Promises: the checkpoint is one that stock OpenCLIP loads with the config beside this file; nothing is trained or chosen on
a test split; beside the checkpoint stand FILE.json (what was run, and the figures on `val`) and FILE.vocabulary.txt (the
words that the text side was trained on).

`default` trains an open_clip.CLIP whose image tower starts from an ImageNet MobileNet v1. `vit-tiny` trains a pure
transformer image tower into the embedding space of a finished `default`, whose text tower it takes over as it is.
"""

import argparse
import copy
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import mobilenet_teacher
from judge import HEADLINE, Judge, judge_model
from openclip_models import ModelError, build_model, encode_text_trimmed, explicit_attention, load_checkpoint, load_spec, load_tokenizer
from optimise import MovingAverage, Muon, Progress, learning_rate_factor
from prompts_text import CONCEPTS, TEMPLATES
from train_batches import ImageSampler, TextSampler, judged_columns, pick_captions
from train_data import load_caption_pairs, load_eurosat, load_ucm
from train_losses import caption_loss, class_loss, cosine_loss, pair_loss
from train_replay import ReplayedViews, TaughtViews

CONFIGS = Path(__file__).parent / "configs"
TEACHER = "teacher/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
ACTIVATION = "gelu"
IMAGE_SIZE = 128
VOCABULARY_MIN = 3  # occurrences among distinct training texts

# Layers of the MobileNet that stay as ImageNet made them. They see edges and colours, which are the same from above, and
# they are half of the time of a step.
FROZEN_CONVOLUTIONS = 7


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


class Corpus:
    """All that is trained on, loaded once."""

    def __init__(self, data: Path, seed: int):
        self.rng = np.random.default_rng(seed)
        ucm, eurosat = load_ucm(data, "train"), load_eurosat(data, "train")
        groups, classes = load_caption_pairs(data)
        self.images = ImageSampler(ucm, eurosat, self.rng)
        self.texts = TextSampler(groups, classes, self.rng)
        self.all_texts = {c for own in ucm.captions for c in own} | {s for g in groups for s in g}
        self.all_texts |= {t.format(w) for t in TEMPLATES for c in CONCEPTS for w in c.all_wordings}

    def vocabulary(self) -> list[str]:
        """The words that training met often enough for them to mean something."""
        counts = Counter(word for text in self.all_texts for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower()))
        return sorted(word for word, n in counts.items() if n >= VOCABULARY_MIN)


class DefaultTrainer:
    """An open_clip.CLIP from a dequantised ImageNet MobileNet and an untrained text tower."""

    CONFIG = "remoteclipd-default"
    AVERAGE_DECAY = 0.99

    def __init__(self, options, corpus: Corpus):
        self.options, self.corpus = options, corpus
        self.config = load_spec(str(CONFIGS / f"{self.CONFIG}.json")).config
        self.tokenizer = load_tokenizer(self.config)
        self.stock = build_model(self.config, ACTIVATION)
        if options.start:
            load_checkpoint(self.stock, options.start, self.CONFIG)
        else:
            mobilenet_teacher.start_from_teacher(self.stock.visual.trunk, options.data / TEACHER)
        self.model = copy.deepcopy(self.stock)
        mobilenet_teacher.fold_norms(self.model.visual.trunk)
        self.model.visual.to(memory_format=torch.channels_last)
        self._freeze()
        self.average = copy.deepcopy(self.model)
        self.judged = judged_columns()

    def _freeze(self) -> None:
        convolutions = [m for m in self.model.visual.trunk.modules() if isinstance(m, nn.Conv2d)]
        for conv in convolutions[:FROZEN_CONVOLUTIONS]:
            conv.requires_grad_(False)

    def optimisers(self) -> list[torch.optim.Optimizer]:
        trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        trunk = [p for n, p in trained if n.startswith("visual.trunk")]
        matrices = [p for n, p in trained if n.startswith("transformer.resblocks") and p.ndim == 2]
        taken = {id(p) for p in trunk + matrices}
        rest = [p for _, p in trained if id(p) not in taken]
        groups = [
            {"params": [p for p in trunk if p.ndim > 1], "lr": 4e-4, "weight_decay": 0.1},
            {"params": [p for p in trunk if p.ndim == 1], "lr": 4e-4, "weight_decay": 0.0},
            {"params": rest, "lr": 1e-3, "weight_decay": 0.05},
        ]
        return [torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True), Muon(matrices, lr=1e-3)]

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        with self.options.autocast():
            embeddings = encode_text_trimmed(self.model, self.tokenizer(texts))
        return F.normalize(embeddings.float(), dim=-1)

    def loss(self, fraction: float) -> tuple[torch.Tensor, dict[str, float]]:
        corpus, model = self.corpus, self.model
        batch = corpus.images.draw(ucm_count=44, eurosat_count=28, size=IMAGE_SIZE)
        captions, own = pick_captions(batch.captions, 2, corpus.rng)
        wordings, wording_classes = corpus.texts.wordings(per_class=2)
        first, second, pair_classes = corpus.texts.caption_pairs(16)
        with self.options.autocast():
            images = model.encode_image(batch.images)
        images = F.normalize(images.float(), dim=-1)
        sizes = [len(captions), len(wordings), len(first), len(second)]
        captions, wordings, first, second = self.embed_texts(captions + wordings + first + second).split(sizes)
        scale = model.logit_scale.exp().clamp(max=100)
        parts = {
            "caption": caption_loss(images[: len(own)], captions, own, scale),
            "class": class_loss(images, batch.labels, wordings, wording_classes, self.judged, scale),
            "pair": 0.3 * pair_loss(first, second, pair_classes),
        }
        return sum(parts.values()), {name: part.item() for name, part in parts.items()}

    def finished(self) -> nn.Module:
        """The averaged weights in the stock model."""
        state = {k: v for k, v in self.average.state_dict().items() if not k.startswith("visual.trunk")}
        self.stock.load_state_dict(state, strict=False)
        mobilenet_teacher.unfold_norms(self.average.visual.trunk, self.stock.visual.trunk)
        return self.stock


class VitTinyTrainer:
    """A vision transformer that learns to give the teacher's embeddings, and what they are for."""

    CONFIG = "remoteclipd-vit-tiny"
    AVERAGE_DECAY = 0.99
    FRESH = {"ucm_count": 20, "eurosat_count": 12}
    REPLAYED = 96
    # Half of the patches are enough to learn from while there is far to go, at half the time.
    KEPT_PATCHES, KEPT_UNTIL = 0.5, 0.7

    def __init__(self, options, corpus: Corpus):
        self.options, self.corpus = options, corpus
        self.config = load_spec(str(CONFIGS / f"{self.CONFIG}.json")).config
        self.tokenizer = load_tokenizer(self.config)
        self.teacher = self._load_teacher()
        self.model = build_model(self.config, ACTIVATION)
        if options.start:
            load_checkpoint(self.model, options.start, self.CONFIG)
        self._take_text_tower()
        self.average = copy.deepcopy(self.model)
        width = self.config["vision_cfg"]["width"]
        self.dense_head = nn.Linear(width, self.teacher.visual.trunk.num_features)
        self.judged = judged_columns()
        self.text_cache: dict[str, torch.Tensor] = {}
        self.seen = ReplayedViews(corpus.rng)

    def _load_teacher(self) -> nn.Module:
        spec = load_spec(str(CONFIGS / f"{DefaultTrainer.CONFIG}.json"))
        teacher = build_model(spec.config, ACTIVATION)
        load_checkpoint(teacher, self.options.teacher, spec.name)
        mobilenet_teacher.fold_norms(teacher.visual.trunk)
        teacher.visual.to(memory_format=torch.channels_last)
        return teacher.requires_grad_(False)

    def _take_text_tower(self) -> None:
        text = {k: v for k, v in self.teacher.state_dict().items() if not k.startswith("visual.")}
        self.model.load_state_dict(text, strict=False)
        for name, p in self.model.named_parameters():
            p.requires_grad_(name.startswith("visual."))

    def optimisers(self) -> list[torch.optim.Optimizer]:
        trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        matrices = [p for n, p in trained if ".resblocks." in n and p.ndim == 2]
        taken = {id(p) for p in matrices}
        rest = [p for _, p in trained if id(p) not in taken] + list(self.dense_head.parameters())
        return [torch.optim.AdamW(rest, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.02, fused=True), Muon(matrices, lr=2e-3)]

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        """The text tower is frozen, so each text is computed once."""
        if new := sorted(set(texts) - self.text_cache.keys()):
            for part in (new[i : i + 128] for i in range(0, len(new), 128)):
                self.text_cache.update(zip(part, F.normalize(encode_text_trimmed(self.teacher, self.tokenizer(part)), dim=-1)))
        return torch.stack([self.text_cache[t] for t in texts])

    def loss(self, fraction: float) -> tuple[torch.Tensor, dict[str, float]]:
        views = self._views()
        with self.options.autocast():
            pooled, dense, places = self._student(views.images, self.KEPT_PATCHES if fraction < self.KEPT_UNTIL else 1.0)
        pooled, dense = pooled.float(), dense.float()
        images = F.normalize(pooled, dim=-1)
        captioned = [i for i, own in enumerate(views.captions) if own]
        captions, own = pick_captions([views.captions[i] for i in captioned], 2, self.corpus.rng)
        wordings, wording_classes = self.corpus.texts.wordings(per_class=2)
        scale = self.teacher.logit_scale.exp().clamp(max=100)
        under = F.interpolate(views.maps, scale_factor=2.0).flatten(2).transpose(1, 2)[:, places]
        parts = {
            "embedding": 4.0 * cosine_loss(pooled, views.targets),
            "dense": 2.0 * cosine_loss(dense, under),
            "caption": 0.3 * caption_loss(images[captioned], self.embed_texts(captions), own, scale),
            "class": 0.5 * class_loss(images, views.labels, self.embed_texts(wordings), wording_classes, self.judged, scale),
        }
        return sum(parts.values()), {name: part.item() for name, part in parts.items()}

    @torch.no_grad()
    def _views(self) -> "TaughtViews":
        """New views with the teacher's answers, and older ones turned or mirrored: the teacher is a third of a step."""
        batch = self.corpus.images.draw(**self.FRESH, size=IMAGE_SIZE)
        with self.options.autocast():
            maps = self.teacher.visual.trunk.forward_features(batch.images)
        maps = maps.float()
        captions = batch.captions + [[] for _ in range(len(batch.images) - len(batch.captions))]
        fresh = TaughtViews(batch.images, batch.labels, captions, self.teacher.visual.head(maps.mean(dim=(2, 3))), maps)
        return self.seen.with_older(fresh, self.REPLAYED)

    def _student(self, images: torch.Tensor, kept: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The embedding, what the patches say of the teacher's map, and which patches were kept."""
        v = self.model.visual
        x = v.conv1(images).flatten(2).transpose(1, 2) + v.positional_embedding[1:]
        places = torch.randperm(x.shape[1])[: int(x.shape[1] * kept)]
        first = (v.class_embedding + v.positional_embedding[0]).expand(len(x), 1, -1)
        x = v.ln_post(v.transformer(v.ln_pre(torch.cat([first, x[:, places]], dim=1))))
        # The mean of the patches, as the teacher's embedding is the mean of its map: what the dense loss teaches serves both.
        return x[:, 1:].mean(dim=1) @ v.proj, self.dense_head(x[:, 1:]), places

    def finished(self) -> nn.Module:
        return self.average


def train(trainer, judge: Judge, options) -> Progress:
    optimisers = trainer.optimisers()
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    rates = [group["lr"] for group in groups]
    weights = [p for group in groups for p in group["params"]]
    average = MovingAverage(trainer.model, trainer.average, trainer.AVERAGE_DECAY)
    progress, sums, next_report = Progress(options.minutes, options.steps), Counter(), 1
    while progress.fraction < 1:
        for group, rate in zip(groups, rates):
            group["lr"] = rate * learning_rate_factor(progress.fraction)
        loss, parts = trainer.loss(progress.fraction)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        average.update()
        progress.steps += 1
        sums.update(parts)
        sums["steps"] += 1
        if progress.fraction >= next_report / options.reports:
            report(trainer, judge, progress, sums, options)
            sums, next_report = Counter(), next_report + 1
    return progress


def report(trainer, judge: Judge, progress: Progress, sums: Counter, options) -> None:
    began, elapsed, steps = time.monotonic(), progress.elapsed, sums.pop("steps")
    losses = " ".join(f"{name} {value / steps:.3f}" for name, value in sums.items())
    figures = judge_model(trainer.average, trainer.tokenizer, judge)
    shown = " ".join(f"{k} {figures[k]:.1f}" for k in HEADLINE)
    log(f"{elapsed / 60:.1f} min, step {progress.steps}: {losses} | val {shown}")
    save_checkpoint(trainer.finished(), options.out.with_suffix(".partial.safetensors"))
    progress.pause(time.monotonic() - began)


def save_checkpoint(model: nn.Module, path: Path) -> None:
    save_file({k: v.contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}, path)


def write_results(trainer, judge: Judge, progress: Progress, options) -> None:
    model, minutes = trainer.finished(), progress.elapsed / 60
    save_checkpoint(model, options.out)
    figures = judge_model(model, trainer.tokenizer, judge)
    run = {
        "model": trainer.CONFIG,
        "seed": options.seed,
        "started_from": options.start.name if options.start else None,
        "steps": progress.steps,
        "minutes": round(minutes, 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "precision": "bfloat16 towers, float32 weights" if options.bf16 else "float32",
        "val": figures,
    }
    options.out.with_suffix(".json").write_text(json.dumps(run, indent=2) + "\n")
    options.out.with_suffix(".vocabulary.txt").write_text("\n".join(trainer.corpus.vocabulary()) + "\n")
    log(f"wrote {options.out}; val {json.dumps({k: round(v, 2) for k, v in figures.items()})}")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("default", "vit-tiny"))
    parser.add_argument("--data", type=Path, required=True, help="folder with ucm/, eurosat/, captions/ and teacher/")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, .safetensors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20, help="how long to train (evaluation comes on top)")
    parser.add_argument("--steps", type=int, help="train for so many steps instead, whatever the clock says")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint of the same model")
    parser.add_argument("--teacher", type=Path, help="vit-tiny: the finished default checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="compute the towers in bfloat16: faster on a CPU that has it, slower elsewhere")
    parser.add_argument("--reports", type=int, default=2, help="how often to evaluate on val meanwhile")
    options = parser.parse_args(arguments)
    options.autocast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=options.bf16)
    if options.model == "vit-tiny" and options.teacher is None:
        parser.error("vit-tiny needs --teacher, the checkpoint that `train.py default` wrote")
    if not (options.data / "captions/dataset_ucm.json").is_file():
        parser.error(f"--data {options.data}: there is no captions/dataset_ucm.json in it")
    return options


def main() -> int:
    options = parse_arguments(sys.argv[1:])
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    corpus, judge = Corpus(options.data, options.seed), Judge(options.data, "val")
    log(f"{len(corpus.vocabulary())} words, {len(corpus.images.ucm)} + {len(corpus.images.eurosat)} pictures")
    try:
        trainer = (DefaultTrainer if options.model == "default" else VitTinyTrainer)(options, corpus)
    except ModelError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    with explicit_attention():
        progress = train(trainer, judge.thinned(eurosat_every=6), options)
        write_results(trainer, judge, progress, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())

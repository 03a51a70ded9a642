"""OpenCLIP models by name or config, with their checkpoints; what train, export and reference share.

Promises: a model is built by stock `open_clip.CLIP` from a config (OpenCLIP's own for a name, or a JSON file), so that
any checkpoint these tools read or write is one that OpenCLIP reads; a checkpoint that does not belong to the model is
refused in one sentence; the activation is always stated, never guessed.
"""

import contextlib
import gzip
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.modified_resnet import AttentionPool2d
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import nn

ACTIVATIONS = ("gelu", "quick_gelu")


class ModelError(Exception):
    """What the user gave does not fit together; the message names it and the cure."""


@dataclass(frozen=True)
class ModelSpec:
    """A model's name, OpenCLIP's `model_cfg` for it, and the mean and standard deviation its pictures are normalised by."""

    name: str
    config: dict
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def image_size(self) -> int:
        return self.config["vision_cfg"]["image_size"]


def load_spec(arch: str) -> ModelSpec:
    """OpenCLIP's model of that name, or an OpenCLIP config file ({"model_cfg": …, "preprocess_cfg": …})."""
    if not arch.endswith(".json"):
        config = open_clip.get_model_config(arch)
        if config is None:
            raise ModelError(f"--arch {arch}: OpenCLIP has no such model; give RN50, ViT-B-32, ViT-L-14 or a config .json")
        return ModelSpec(arch, config, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    path = Path(arch)
    if not path.is_file():
        raise ModelError(f"--arch {arch}: no such config file")
    file = json.loads(path.read_text())
    if "model_cfg" not in file:
        raise ModelError(f"{path.name}: has no 'model_cfg'; it must be an OpenCLIP config file, as open_clip_config.json is")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD} | file.get("preprocess_cfg", {})
    return ModelSpec(path.stem, file["model_cfg"], tuple(preprocess["mean"]), tuple(preprocess["std"]))


def build_model(config: dict, activation: str) -> CLIP:
    if activation not in ACTIVATIONS:
        raise ModelError(f"activation {activation!r}: must be one of {', '.join(ACTIVATIONS)}")
    fields = {k: v for k, v in config.items() if k not in ("quick_gelu", "custom_text")}
    return CLIP(**fields, quick_gelu=activation == "quick_gelu").eval()


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors or .pt, unwrapped from {'state_dict': …} and freed of a 'module.' prefix."""
    if not path.is_file():
        raise ModelError(f"--checkpoint {path}: no such file")
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
    return {name.removeprefix("module."): tensor.float() for name, tensor in state.items()}


def load_checkpoint(model: CLIP, path: Path, arch: str) -> None:
    """Fill the model from a checkpoint; every weight must be there, with its shape, and nothing may be left over."""
    state = read_state_dict(path)
    wanted = model.state_dict()
    # attn_mask is made, not learnt; the three numbers stand in checkpoints that come from OpenAI's own files.
    optional = {"attn_mask", "input_resolution", "context_length", "vocab_size"} | {k for k in wanted if k.endswith("num_batches_tracked")}
    state = {k: v for k, v in state.items() if k not in optional}
    missing = sorted(wanted.keys() - state.keys() - optional)
    extra = sorted(state.keys() - wanted.keys())
    reshaped = sorted(k for k in state.keys() & wanted.keys() if state[k].shape != wanted[k].shape)
    for what, names in (("lacks", missing), ("has besides", extra), ("has in another shape", reshaped)):
        if names:
            raise ModelError(f"{path.name} is not a checkpoint of {arch}: it {what} {names[0]} and {len(names) - 1} more; check --arch")
    model.load_state_dict(state, strict=False)


def randomise(model: CLIP, seed: int) -> None:
    """Seeded random weights of a trained model's scale, normalisation statistics included, for tests without a checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for name, p in model.named_parameters():
        with torch.no_grad():
            if name == "logit_scale":
                p.fill_(100.0).log_()
            elif p.ndim >= 2:
                p.normal_(0, p[0].numel() ** -0.5 if "embedding" not in name else 0.02, generator=generator)
            elif name.endswith("weight"):
                p.normal_(1, 0.1, generator=generator)
            else:
                p.normal_(0, 0.05, generator=generator)


def merges(vocab_size: int) -> list[str]:
    """The first lines of CLIP's BPE file, as OpenCLIP ships it, that make a vocabulary of that size."""
    with gzip.open(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    return lines[1 : vocab_size - 512 - 2 + 1]  # 256 bytes, 256 bytes that end a word, two special tokens


def load_tokenizer(config: dict) -> SimpleTokenizer:
    """OpenCLIP's own tokenizer, its vocabulary cut to the model's."""
    text = config["text_cfg"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bpe.txt.gz"
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write("\n".join(["#version", *merges(text["vocab_size"])]))
        return SimpleTokenizer(bpe_path=str(path), context_length=text["context_length"])


def _explicit_attention(self: nn.MultiheadAttention, query, key=None, value=None, need_weights=False, attn_mask=None, **_):
    length, width = int(query.shape[1]), int(query.shape[2])
    heads, depth = self.num_heads, width // self.num_heads
    packed = F.linear(query, self.in_proj_weight, self.in_proj_bias)
    q, k, v = (t.reshape(-1, length, heads, depth).transpose(1, 2) for t in packed.split(width, dim=-1))
    scores = (q * depth**-0.5) @ k.transpose(-2, -1)
    if attn_mask is not None:
        scores = scores + attn_mask
    mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(-1, length, width)
    return self.out_proj(mixed), None


def _explicit_attention_pool(self: AttentionPool2d, x):
    width = self.k_proj.in_features
    heads, depth = self.num_heads, width // self.num_heads
    length = self.positional_embedding.shape[0]
    x = x.reshape(-1, width, length - 1).transpose(1, 2)
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
    q = self.q_proj(x[:, :1]).reshape(-1, 1, heads, depth).transpose(1, 2) * depth**-0.5
    k = self.k_proj(x).reshape(-1, length, heads, depth).transpose(1, 2)
    v = self.v_proj(x).reshape(-1, length, heads, depth).transpose(1, 2)
    mixed = ((q @ k.transpose(-2, -1)).softmax(dim=-1) @ v).transpose(1, 2).reshape(-1, width)
    return self.c_proj(mixed)


@contextlib.contextmanager
def explicit_attention():
    """Self-attention spelt out in MatMul and Softmax.

    An exporter then writes just these, with no shape arithmetic between; and torch's fused attention is slow backwards
    on a CPU. The tests compare it with the stock forward.
    """
    saved = nn.MultiheadAttention.forward, AttentionPool2d.forward
    nn.MultiheadAttention.forward, AttentionPool2d.forward = _explicit_attention, _explicit_attention_pool
    try:
        yield
    finally:
        nn.MultiheadAttention.forward, AttentionPool2d.forward = saved


def encode_text_trimmed(model: CLIP, tokens: torch.Tensor, parts: int = 4) -> torch.Tensor:
    """`model.encode_text`, short texts apart from long ones and none computed further than its end.

    The mask is causal, so what follows the end can't matter; most texts are a third as long as the longest.
    """
    order = tokens.argmax(dim=1).argsort()
    encoded = torch.cat([_encode_text_part(model, tokens[rows]) for rows in order.tensor_split(parts) if len(rows)])
    return encoded[order.argsort()]


def _encode_text_part(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    end = tokens.argmax(dim=1)
    length = int(end.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(tokens)), end] @ model.text_projection

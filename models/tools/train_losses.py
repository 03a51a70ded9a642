"""The losses, each a softmax in which some columns are right, some wrong and some not asked about.

Embeddings come in L2-normalised. Targets are spread evenly over what is right.
"""

import torch
import torch.nn.functional as F

PAIR_SCALE = 20.0  # the temperature of sentence pairs: their likeness needn't be as sharp as a picture's to its caption
SMOOTHING = 0.05


def class_loss(images, labels, texts, text_classes, judged, scale):
    """Every picture against wordings of every class; `judged` (bool [C, C]) leaves near classes of other sets out."""
    logits = scale * images @ texts.T
    right = labels[:, None] == text_classes[None, :]
    asked = judged[labels][:, text_classes]
    logits = logits.masked_fill(~asked, float("-inf"))
    target = right / right.sum(1, keepdim=True) * (1 - SMOOTHING) + asked / asked.sum(1, keepdim=True) * SMOOTHING
    return -(F.log_softmax(logits, dim=1).masked_fill(~asked, 0.0) * target).sum(1).mean()


def caption_loss(images, texts, own, scale):
    """Pictures against captions, both ways; a caption that several pictures share is right for each of them."""
    logits = scale * images @ texts.T
    by_image = -(F.log_softmax(logits, dim=1) * own / own.sum(1, keepdim=True)).sum(1).mean()
    by_text = -(F.log_softmax(logits, dim=0) * own / own.sum(0, keepdim=True)).sum(0).mean()
    return (by_image + by_text) / 2


def pair_loss(first, second, classes):
    """Two sentences of one picture find each other among those of pictures of other classes."""
    same = torch.tensor([[a == b and a != "" for b in classes] for a in classes])
    same.fill_diagonal_(False)
    logits = (PAIR_SCALE * first @ second.T).masked_fill(same, float("-inf"))
    target = torch.arange(len(classes))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def cosine_loss(student, teacher):
    return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()

"""The figures that training is judged by: zero-shot accuracy and caption retrieval.

Promises: the project's protocol, on L2-normalised embeddings and nothing else, so that torch, onnxruntime and any other
engine are judged by the same lines.
"""

import numpy as np

RECALL_AT = (1, 5, 10)


def normalise(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def accuracy(images: np.ndarray, texts: np.ndarray, labels: np.ndarray) -> float:
    """Percentage of rows of `images` whose nearest row of `texts` is their label's."""
    return float((np.argmax(images @ texts.T, axis=1) == labels).mean() * 100)


def recalls(images: np.ndarray, captions: np.ndarray, caption_image: np.ndarray) -> dict[str, float]:
    """Image-to-text and text-to-image R@1/5/10 and the mean of the six, in percent."""
    similarity = images @ captions.T
    own = caption_image[None, :] == np.arange(len(images))[:, None]
    by_image = np.take_along_axis(own, np.argsort(-similarity, axis=1, kind="stable"), axis=1)
    by_text = np.take_along_axis(own.T, np.argsort(-similarity.T, axis=1, kind="stable"), axis=1)
    result = {}
    for name, hits in (("image_to_text", by_image), ("text_to_image", by_text)):
        for k in RECALL_AT:
            result[f"{name}_recall@{k}"] = float(hits[:, :k].any(axis=1).mean() * 100)
    return result | {"mean_recall": float(np.mean(list(result.values())))}

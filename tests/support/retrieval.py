"""Small retrieval cases with known answers, and their reports."""

import numpy as np

from image_finder.components.configs import EvaluationConfig
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import report_ranks
from image_finder.components.records.retrieval import EvaluatedOn

IDENTITY = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
CONFIG = EvaluationConfig(ks=(1, 2, 3), bootstrap_samples=200)


def evaluate_retrieval(images, texts, image_of_caption, **options):
    return report_ranks(first_match_ranks(images, texts, image_of_caption), **options)


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_case(seed, n_images=13, n_captions=40, dim=8, noise=1.0):
    """Continuous random vectors (no ties); every image but the last has a caption."""
    rng = np.random.default_rng(seed)
    owners = np.concatenate([np.arange(n_images - 1), rng.integers(n_images - 1, size=n_captions - n_images + 1)])
    rng.shuffle(owners)
    images = unit(rng.standard_normal((n_images, dim)))
    return images, unit(images[owners] + noise * rng.standard_normal((n_captions, dim))), owners


def one_hot_case():
    """Three images on the axes, four captions whose rows are their similarities to x, y, z.

    caption 0, of x: x nearest (rank 1).   caption 1, of y: x, then y (rank 2).
    caption 2, of z: x, y, then z (rank 3). caption 3, of x: y, then x (rank 2).
    image x: caption 0 has 0.9 and 2 more; its own caption 0 is nearest (rank 1).
    image y: by column 1 caption 3 (.8), 1 (.6), 2, 0: own caption 1 second (rank 2).
    image z: by column 2 caption 2 (.4): nearest (rank 1).
    """
    texts = unit([[0.9, 0.3, 0.1], [0.75, 0.6, 0.1], [0.7, 0.55, 0.4], [0.5, 0.8, 0.2]])
    return np.eye(3, dtype=np.float32), texts, np.array([0, 1, 2, 0])

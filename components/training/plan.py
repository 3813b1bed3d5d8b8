"""Epoch plan: which pictures and which of their captions meet in which batch; pure, a function of seed and epoch."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class BatchPlan(NamedTuple):
    """One batch. image_rows: (n_images,); caption_rows: (n_texts,); image_of_text: (n_texts,) position in image_rows."""

    image_rows: IntArray
    caption_rows: IntArray
    image_of_text: IntArray


def plan_epoch(
    image_of_caption: IntArray, *, batch_images: int, captions_per_image: int, seed: int, epoch: int
) -> list[BatchPlan]:
    """Shuffle pictures into batches of nearly equal size; each picture brings captions_per_image of its captions.

    image_of_caption: (n_captions,) row of each caption's picture, every picture has at least one. A picture's captions
    are dealt in a random order of its own and take turns, so that all are used before one comes again; a picture with
    fewer captions brings them all. epoch counts from 0.
    """
    n_images = int(image_of_caption.max()) + 1
    order = np.random.default_rng((seed, epoch)).permutation(n_images)
    dealt = _dealt_captions(image_of_caption, seed)
    counts = np.bincount(image_of_caption, minlength=n_images)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    plans = []
    for image_rows in np.array_split(order, batches_of_epoch(n_images, batch_images)):
        taken = np.minimum(counts[image_rows], captions_per_image)
        image_of_text = np.repeat(np.arange(len(image_rows)), taken)
        turn = np.arange(len(image_of_text)) - np.repeat(np.cumsum(taken) - taken, taken)
        own = image_rows[image_of_text]
        position = (epoch * captions_per_image + turn) % counts[own]
        plans.append(BatchPlan(image_rows, dealt[starts[own] + position], image_of_text))
    return plans


def batches_of_epoch(n_images: int, batch_images: int) -> int:
    """Number of batches in an epoch.

    A batch of one picture has no negatives, so there is none unless there is one picture: with batch_images 2 and an
    odd number of pictures, one batch holds 3.
    """
    return max(1, min(-(-n_images // batch_images), n_images // 2))


def _dealt_captions(image_of_caption: IntArray, seed: int) -> IntArray:
    """Caption rows grouped by picture, in a random order within each picture that stays for the whole training."""
    shuffled = np.random.default_rng((seed, 1 << 32)).permutation(len(image_of_caption))
    return shuffled[np.argsort(image_of_caption[shuffled], kind="stable")]

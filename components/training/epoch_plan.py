"""Epoch plan: which images and which of their captions meet in which batch; pure, a function of seed and epoch."""

from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import IntArray


class BatchPlan(NamedTuple):
    """One batch. image_rows: (n_images,); caption_rows: (n_texts,); image_of_text: (n_texts,) position in image_rows;
    views: (n_images,) int64 which view of each image is seen, see image_finder.components.images.augmentation.
    """

    image_rows: IntArray
    caption_rows: IntArray
    image_of_text: IntArray
    views: IntArray


def plan_epoch(
    image_of_caption: IntArray,
    *,
    batch_images: int,
    captions_per_image: int,
    seed: int,
    epoch: int,
    views: int = 1,
) -> list[BatchPlan]:
    """Shuffle images into batches of nearly equal size; each image brings captions_per_image of its captions.

    image_of_caption: (n_captions,) row of each caption's image, every image has at least one. An image's captions
    are dealt in a random order of its own and take turns, so that all are used before one comes again; an image with
    fewer captions brings them all. epoch counts from 0. views: of each image; it begins with a random one of them, and
    they take turns.
    """
    n_images = int(image_of_caption.max()) + 1
    order = np.random.default_rng((seed, epoch)).permutation(n_images)
    view_of_image = (np.random.default_rng((seed, 1)).integers(views, size=n_images) + epoch) % views
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
        plans.append(BatchPlan(image_rows, dealt[starts[own] + position], image_of_text, view_of_image[image_rows]))
    return plans


class Share(NamedTuple):
    """What one rank takes of a batch. own: as a batch of its own; images, texts: its rows among those of the whole."""

    own: BatchPlan
    images: slice
    texts: slice


def share_of_batch(plan: BatchPlan, rank: int, world: int) -> Share:
    """The share of rank `rank` of `world`: neighbouring images with all their captions, in the batch's order.

    Shares differ by one image at most; a batch of fewer images than ranks leaves some with none.
    """
    n_images = len(plan.image_rows)
    first, end = rank * n_images // world, (rank + 1) * n_images // world
    # plan_epoch lists the captions in the order of their images
    first_text, end_text = np.searchsorted(plan.image_of_text, [first, end]).tolist()
    images, texts = slice(first, end), slice(first_text, end_text)
    own = BatchPlan(
        plan.image_rows[images], plan.caption_rows[texts], plan.image_of_text[texts] - first, plan.views[images]
    )
    return Share(own, images, texts)


def batches_of_epoch(n_images: int, batch_images: int) -> int:
    """Number of batches in an epoch.

    A batch of one image has no negatives, so there is none unless there is one image: with batch_images 2 and an
    odd number of images, one batch holds 3.
    """
    return max(1, min(-(-n_images // batch_images), n_images // 2))


def smallest_batch(n_images: int, batch_images: int) -> int:
    """Images in the smallest batch of an epoch."""
    return n_images // batches_of_epoch(n_images, batch_images)


def _dealt_captions(image_of_caption: IntArray, seed: int) -> IntArray:
    """Caption rows grouped by image, in a random order within each image that stays for the whole training."""
    shuffled = np.random.default_rng((seed, 1 << 32)).permutation(len(image_of_caption))
    return shuffled[np.argsort(image_of_caption[shuffled], kind="stable")]

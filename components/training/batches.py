"""Batches: images and captions of each as a pure function of seed and epoch, and their tensors on the training device."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from image_finder.components.arrays import IntArray
from image_finder.components.configs import TrainingConfig
from image_finder.components.errors import DataError
from image_finder.components.training.sources import DecodedImages, PairedSet, TextInput


class BatchPlan(NamedTuple):
    image_rows: IntArray  # (n_images,)
    caption_rows: IntArray  # (n_texts,)
    image_of_text: IntArray  # (n_texts,) position in image_rows
    views: IntArray  # (n_images,) view of each image, see components/images/augmentation.py


def plan_epoch(
    image_of_caption: IntArray,
    *,
    batch_images: int,
    captions_per_image: int,
    seed: int,
    epoch: int,
    views: int = 1,
) -> list[BatchPlan]:
    """Shuffle images into batches of nearly equal size, with captions_per_image captions each.

    image_of_caption: (n_captions,) row of each caption's image; every image has at least one. Captions rotate over the
    epochs in a random order per image, so that all are used before one repeats. Views rotate likewise, from a random
    one. epoch counts from 0; views: number per image.
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
    """One rank's share of a batch, as a batch (own) and as rows of the whole batch."""

    own: BatchPlan
    images: slice
    texts: slice


def share_of_batch(plan: BatchPlan, rank: int, world: int) -> Share:
    """Share of one of `world` ranks: consecutive images with all their captions.

    Shares differ by at most one image; with fewer images than ranks, some are empty.
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

    A batch of one image has no negatives and is avoided: with batch_images 2 and an odd number of images, one batch
    holds 3.
    """
    return max(1, min(-(-n_images // batch_images), n_images // 2))


def smallest_batch(n_images: int, batch_images: int) -> int:
    return n_images // batches_of_epoch(n_images, batch_images)


def _dealt_captions(image_of_caption: IntArray, seed: int) -> IntArray:
    """Caption rows grouped by image, in random order within each image; the same in every epoch."""
    shuffled = np.random.default_rng((seed, 1 << 32)).permutation(len(image_of_caption))
    return shuffled[np.argsort(image_of_caption[shuffled], kind="stable")]


class Batch(NamedTuple):
    """Loaded images and texts. image_of_text: (n_texts,) int64 row of each text's image."""

    images: Tensor
    texts: TextInput
    image_of_text: Tensor


class PlannedBatches(Dataset["Batch | str"]):
    """Planned batches by number; a str is the reason why a batch could not be read.

    An exception would leave a loader process with its traceback as its message.
    """

    def __init__(self, plans: list[BatchPlan], data: PairedSet) -> None:
        self._plans = plans
        self._data = data

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, number: int) -> Batch | str:
        plan = self._plans[number]
        try:
            return Batch(
                self._data.images.load(plan.image_rows, plan.views),
                self._data.texts.load(plan.caption_rows),
                torch.from_numpy(plan.image_of_text),
            )
        except DataError as error:
            return str(error)


def loaded_batches(
    plans: list[BatchPlan], data: PairedSet, config: TrainingConfig, device: torch.device
) -> Iterator[Batch]:
    """Batches in the order of their plans. Raises DataError for an unreadable image."""
    on_gpu = device.type == "cuda"
    # On the CPU, copying cached features to another process costs more than reading them here.
    workers = config.loader_workers if on_gpu or isinstance(data.images, DecodedImages) else 0
    for batch in DataLoader(PlannedBatches(plans, data), batch_size=None, num_workers=workers, pin_memory=on_gpu):
        if isinstance(batch, str):
            raise DataError(f"{batch}; the image was readable when it was validated; run the pipeline again")
        images, texts, image_of_text = batch
        yield Batch(
            images.to(device, non_blocking=True),
            TextInput(*(part.to(device, non_blocking=True) for part in texts)),
            image_of_text.to(device, non_blocking=True),
        )

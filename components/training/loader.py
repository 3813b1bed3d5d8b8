"""Batch loader: planned batches as tensors on the training device, read by worker processes where that is faster."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from image_finder.components.configs import TrainingConfig
from image_finder.components.errors import DataError
from image_finder.components.training.epoch_plan import BatchPlan
from image_finder.components.training.sources import DecodedImages, PairedSet, TextInput


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

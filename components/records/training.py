"""Records of a training run."""

from typing import ClassVar

from image_finder.components.records.base import Record


class EpochRecord(Record):
    former_names: ClassVar = {"pictures_per_s": "images_per_s"}

    epoch: int  # counted from 1
    loss: float
    head_rate: float
    trunk_rate: float
    logit_scale: float
    images_per_s: float
    seconds: float
    val_recall: dict[str, float]  # t2i_r1, t2i_r5, ... as shares
    val_mean_recall: float

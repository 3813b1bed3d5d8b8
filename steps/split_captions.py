"""Step: split the valid captions into train, val and test."""

from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.captions import splits
from image_finder.components.configs import SplitConfig
from image_finder.components.records.data import ValidationReport
from image_finder.components.validation.expectations import valid_captions
from image_finder.steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def split_captions(
    captions: pd.DataFrame, images: pd.DataFrame, report: ValidationReport, config: SplitConfig
) -> tuple[
    Annotated[pd.DataFrame, "train_captions"],
    Annotated[pd.DataFrame, "val_captions"],
    Annotated[pd.DataFrame, "test_captions"],
]:
    """Split by image, never by caption; quarantined captions are left out."""
    train, val, test = splits.split_captions(valid_captions(captions, report), config, images)
    log_metadata({name: len(table) for name, table in (("train", train), ("val", val), ("test", test))})
    return train, val, test

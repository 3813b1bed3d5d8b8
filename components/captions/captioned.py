"""Captioned images: the captions of a part with its images, for training and measurement; opens no image."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from image_finder.components.arrays import IntArray
from image_finder.components.errors import DataError
from image_finder.components.text import counted


@dataclass(frozen=True)
class CaptionedImages:
    """A captions table, the table of its images, and the folder that file names are relative to."""

    captions: pd.DataFrame
    images: pd.DataFrame
    root: Path

    def first_captions(self, count: int | None) -> "CaptionedImages":
        """The same images with their first `count` captions by id; all captions for None."""
        if count is None:
            return self
        kept = self.captions.sort_values("caption_id", kind="stable").groupby("image_id").head(count)
        return replace(self, captions=self.captions.loc[kept.index.sort_values()].reset_index(drop=True))

    def by_part(self) -> "dict[str, CaptionedImages]":
        """The captioned images of each part, in order of occurrence."""
        parts = self.captions.groupby("part", sort=False)
        return {str(part): replace(self, captions=rows.reset_index(drop=True)) for part, rows in parts}

    def image_ids(self) -> IntArray:
        """Ids of the captioned images, ascending: the row order of everything computed from them."""
        return np.sort(self.captions["image_id"].unique())

    def image_of_caption(self) -> IntArray:
        """Row of each caption's image in image_ids: (n_captions,)."""
        return np.searchsorted(self.image_ids(), self.captions["image_id"].to_numpy())

    def image_rows(self) -> pd.DataFrame:
        """The images table in the order of image_ids. Raises DataError if one is unreadable."""
        rows = self.images.drop_duplicates("image_id").set_index("image_id").reindex(self.image_ids())
        faulty = rows.index[(rows["sha256"].isna()) | (rows["sha256"] == "")]
        if len(faulty):
            n_images = counted(len(faulty), "captioned image")
            raise DataError(f"{n_images} absent or unreadable, first id {faulty[0]}; validate the captions first")
        return rows

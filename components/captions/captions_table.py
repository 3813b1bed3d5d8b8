"""Captions table: a data set in any layout as one table, a row for each caption; opens no image, lists folders.

Columns: image_id int64, caption_id int64, file_name str (POSIX path relative to the data set's root), caption str,
width_px int64, height_px int64 (as annotated; 0 if unknown), license int64 (0 if unknown), part str ("train" | "val" |
"test"). File names are those of the existing files, as captions.file_names resolves the annotated ones. Rows are sorted
by part in that order, image_id and caption_id. Ids are those of the annotations; see `read_captions` for a part of
several files.
"""

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import get_args

import numpy as np
import pandas as pd

from image_finder.components.captions.annotations import Annotations, counted_ids
from image_finder.components.captions.coco_json import read_coco_json
from image_finder.components.captions.file_names import ImageNames
from image_finder.components.captions.hub_table import annotations_of, read_hub, read_parquet
from image_finder.components.configs import DatasetConfig
from image_finder.components.errors import DataError
from image_finder.components.hub import dataset_revision
from image_finder.components.records.base import PartName

logger = logging.getLogger(__name__)

PART_NAMES: tuple[PartName, ...] = get_args(PartName)
_IDS = ["image_id", "caption_id"]


@dataclass(frozen=True)
class PartFile:
    """One annotation file of a part and its image folder. annotations: None for a hub split."""

    name: PartName
    annotations: Path | None
    hub_split: str
    images: str  # POSIX path relative to the root, "" for the root itself

    @property
    def source(self) -> str:
        return str(self.annotations) if self.annotations else f"split '{self.hub_split}'"


def part_files(config: DatasetConfig) -> tuple[PartFile, ...]:
    """The annotation files of a data set, in order. Raises DataError if local files lack a root."""
    if config.layout == "demo":
        named = {"train": [("annotations/captions.json", "images")]}
    else:
        named = {name: [(file.annotations, file.images) for file in files] for name, files in config.parts.items()}
    on_hub = config.layout == "coco2017_table" and config.hub_dataset is not None
    if config.root is None and not on_hub:
        hint = "the demo scenes do not exist yet" if config.layout == "demo" else "set it to the folder of the data"
        raise DataError(f"data set '{config.name}': root is not set; {hint}")
    parts = []
    for name in PART_NAMES:
        for annotations, images in named.get(name, []):
            folder = PurePosixPath(images).as_posix()
            path = None if on_hub or config.root is None else config.root / annotations
            parts.append(PartFile(name, path, annotations, "" if folder == "." else folder))
    return tuple(parts)


def read_captions(config: DatasetConfig) -> pd.DataFrame:
    """Read the captions table (see the module's docstring) of a data set in any layout.

    Images need not exist. A null caption becomes ""; images without captions are dropped and logged. Ids of a further
    file of a part that another file has are shifted above the highest one. Raises DataError for files that are missing
    or malformed, images annotated twice differently, captions of unknown images, and a part without captions.
    """
    frames: dict[PartName, list[pd.DataFrame]] = {}
    for file in part_files(config):
        frames.setdefault(file.name, []).append(_read_file(file, config))
    parts = [_finish(frame, part, config.max_images) for part, frame in _joined(frames).items()]
    return pd.concat(parts, ignore_index=True)


def _joined(frames: dict[PartName, list[pd.DataFrame]]) -> dict[PartName, pd.DataFrame]:
    taken = pd.concat([first[_IDS] for first, *_ in frames.values()])
    joined = {}
    for part, (first, *further) in frames.items():
        apart = [first]
        for frame in further:
            shared = [column for column in _IDS if frame[column].isin(taken[column]).any()]
            raised = {column: frame[column] - frame[column].min() + taken[column].max() + 1 for column in shared}
            apart.append(frame.assign(**raised))
            taken = pd.concat([taken, apart[-1][_IDS]])
        joined[part] = pd.concat(apart)
    return joined


def _read_file(file: PartFile, config: DatasetConfig) -> pd.DataFrame:
    """One row a caption, unsorted, without the column part."""
    if file.annotations is None:
        table = read_hub(str(config.hub_dataset), file.hub_split, dataset_revision(config))
        found = annotations_of(table, file.source)
    elif config.layout == "coco2017_table":
        found = annotations_of(read_parquet(file.annotations), file.source)
    else:
        found = read_coco_json(file.annotations)
    frame = _as_frame(found, ImageNames(config.root, file.images))
    if frame.empty:
        raise DataError(f"{file.source}: no captions for part '{file.name}' of data set '{config.name}'")
    return frame


def _as_frame(found: Annotations, names: ImageNames) -> pd.DataFrame:
    try:
        file_names = names.resolve(found.images.file_names)
    except DataError as error:
        raise DataError(f"{found.source}: {error}") from error
    images = pd.DataFrame(
        {
            "image_id": found.images.ids,
            "file_name": pd.Series(file_names, dtype="str"),
            "width_px": found.images.widths_px,
            "height_px": found.images.heights_px,
            "license": found.images.licenses,
        }
    )
    captions = pd.DataFrame(
        {
            "image_id": found.captions.image_ids,
            "caption_id": found.captions.ids,
            "caption": pd.Series(found.captions.texts, dtype="str"),
        }
    )
    mute = images.loc[~images["image_id"].isin(captions["image_id"]), "image_id"]
    if len(mute):
        logger.warning("%s: skipped %s without a caption", found.source, counted_ids(mute))
    return captions.merge(images, on="image_id", how="inner", validate="many_to_one")


def _finish(frame: pd.DataFrame, part: PartName, max_images: int | None) -> pd.DataFrame:
    frame = frame.sort_values(["image_id", "caption_id"], kind="stable", ignore_index=True)
    if max_images is not None:
        kept = np.unique(frame["image_id"].to_numpy())[:max_images]
        frame = frame[frame["image_id"] <= kept[-1]].reset_index(drop=True)
    order = ["image_id", "caption_id", "file_name", "caption", "width_px", "height_px", "license"]
    return frame[order].assign(part=pd.Series(part, index=frame.index, dtype="str"))

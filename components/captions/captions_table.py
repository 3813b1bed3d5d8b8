"""Captions table: a data set in any layout as one table, a row for each caption; opens no image, lists folders.

Columns: image_id int64, caption_id int64, file_name str (POSIX path relative to the data set's root), caption str,
width_px int64, height_px int64 (as annotated; 0 if unknown), license int64 (0 if unknown), part str ("train" | "val" |
"test", or the name of an extra evaluation set). File names are those of the existing files, as captions.file_names
resolves the annotated ones. Rows are sorted by part in that order, image_id and caption_id. Ids are those of the
annotations; see `read_captions` for a part of several files.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import get_args

import numpy as np
import pandas as pd

from image_finder.components.captions.annotations import Annotations, counted_ids
from image_finder.components.captions.coco_json import read_coco_json
from image_finder.components.captions.file_names import ImageNames
from image_finder.components.captions.hub_table import annotations_of, read_hub, read_parquet
from image_finder.components.configs import DatasetConfig, PartConfig
from image_finder.components.errors import DataError
from image_finder.components.hub import dataset_revision
from image_finder.components.records.base import PartName

logger = logging.getLogger(__name__)

PART_NAMES: tuple[PartName, ...] = get_args(PartName)
NO_SETS: Mapping[str, PartConfig] = MappingProxyType({})
_IDS = ["image_id", "caption_id"]


@dataclass(frozen=True)
class PartFile:
    """One annotation file of a part or extra set, and its image folder. annotations: None for a hub split."""

    name: str
    annotations: Path | None
    hub_split: str
    images: str  # POSIX path relative to the root, "" for the root itself

    @property
    def source(self) -> str:
        return str(self.annotations) if self.annotations else f"split '{self.hub_split}'"


def part_files(config: DatasetConfig, extra_sets: Mapping[str, PartConfig] = NO_SETS) -> tuple[PartFile, ...]:
    """The annotation files of a data set and of extra sets, in order. Raises DataError if local files lack a root."""
    named: dict[str, list[tuple[str, str]]] = {}
    if config.layout == "demo":
        named["train"] = [("annotations/captions.json", "images")]
    for part in PART_NAMES:
        if part in config.parts:
            named[part] = [(file.annotations, file.images) for file in config.parts[part]]
    named.update({name: [(file.annotations, file.images)] for name, file in extra_sets.items()})
    on_hub = config.layout == "coco2017_table" and config.hub_dataset is not None
    if config.root is None and not on_hub:
        hint = "the demo scenes do not exist yet" if config.layout == "demo" else "set it to the folder of the data"
        raise DataError(f"data set '{config.name}': root is not set; {hint}")
    parts = []
    for name, files in named.items():
        for annotations, images in files:
            folder = PurePosixPath(images).as_posix()
            path = None if on_hub or config.root is None else config.root / annotations
            parts.append(PartFile(name, path, annotations, "" if folder == "." else folder))
    return tuple(parts)


def read_captions(config: DatasetConfig, extra_sets: Mapping[str, PartConfig] = NO_SETS) -> pd.DataFrame:
    """Read the captions table (see the module's docstring) of a data set in any layout, and of extra sets.

    Images need not exist. A null caption becomes ""; images without captions are dropped and logged. Ids of an extra set
    or of a further file of a part that another file has are shifted above the highest one. Raises DataError for files
    that are missing or malformed, images annotated twice differently, captions of unknown images, and a part without
    captions.
    """
    frames: dict[str, list[pd.DataFrame]] = {}
    for file in part_files(config, extra_sets):
        frames.setdefault(file.name, []).append(_read_file(file, config))
    parts = [_finish(frame, part, config.max_images) for part, frame in _joined(frames).items()]
    return pd.concat(parts, ignore_index=True)


def _joined(frames: dict[str, list[pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    taken = pd.concat([frames[part][0][_IDS] for part in PART_NAMES if part in frames])
    joined = {}
    for part, files in frames.items():
        kept = 1 if part in PART_NAMES else 0
        apart = files[:kept]
        for frame in files[kept:]:
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


def _finish(frame: pd.DataFrame, part: str, max_images: int | None) -> pd.DataFrame:
    frame = frame.sort_values(["image_id", "caption_id"], kind="stable", ignore_index=True)
    if max_images is not None:
        kept = np.unique(frame["image_id"].to_numpy())[:max_images]
        frame = frame[frame["image_id"] <= kept[-1]].reset_index(drop=True)
    order = ["image_id", "caption_id", "file_name", "caption", "width_px", "height_px", "license"]
    return frame[order].assign(part=pd.Series(part, index=frame.index, dtype="str"))

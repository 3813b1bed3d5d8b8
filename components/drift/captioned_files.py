"""Captioned files: finds the images of a data set with their captions, or images alone; opens no image."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from image_finder.components.captions.captions_table import read_captions
from image_finder.components.captions.layout import detect_layout
from image_finder.components.configs import DatasetConfig
from image_finder.components.errors import DataError
from image_finder.components.images.files import find_images
from image_finder.components.records.base import PartName

_DEMO_CAPTIONS = Path("annotations") / "captions.json"


class CaptionedFile(NamedTuple):
    """An image of a data set. name: stays the same in later versions of the data set."""

    name: str
    path: Path
    captions: tuple[str, ...] = ()


def captioned_files(captions: pd.DataFrame, root: Path) -> list[CaptionedFile]:
    found: dict[str, list[str]] = {}
    for name, caption in zip(captions["file_name"].tolist(), captions["caption"].tolist(), strict=True):
        found.setdefault(name, []).append(caption)
    return [CaptionedFile(name, root / name, tuple(texts)) for name, texts in found.items()]


def find_captioned_files(root: Path, part: PartName | None = None) -> list[CaptionedFile]:
    """Images of a data set in any layout, of one part or of all, with their captions.

    Without annotations: all images below the directory. Raises DataError for no images or an unknown part.
    """
    try:
        dataset = _layout(root)
    except DataError as error:
        names = find_images(root) if root.is_dir() else []
        if not names:
            raise
        if part is not None:
            raise DataError(f"{root} has no part '{part}': it contains images without annotations") from error
        return [CaptionedFile(name.as_posix(), root / name) for name in names]
    captions = read_captions(dataset)
    if part is not None:
        parts = sorted(captions["part"].unique().tolist())
        captions = captions[captions["part"] == part]
        if captions.empty:
            raise DataError(f"{root} has no part '{part}', only {', '.join(parts)}")
    return captioned_files(captions, root)


def _layout(root: Path) -> DatasetConfig:
    if (root / _DEMO_CAPTIONS).is_file():
        return DatasetConfig(name=root.name, layout="demo", root=root)
    return detect_layout(root)

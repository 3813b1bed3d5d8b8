"""Layout: detects the form in which a folder holds captioned images; reads names only."""

import re
from pathlib import Path

from image_finder.components.configs import DatasetConfig, PartConfig
from image_finder.components.errors import DataError

_PART_OF_WORD = {"train": "train", "val": "val", "validation": "val", "dev": "val", "test": "test"}


def detect_layout(root: Path, name: str | None = None) -> DatasetConfig:
    """The data set in a folder: annotations/captions_*.json (COCO) or huggingface/*.parquet, with folders of images.

    A part is named by the word train, val (validation, dev) or test in a file's name; its images are in the folder of
    the same ending (captions_train2017.json: train2017/), else in images/. Raises DataError.
    """
    if not root.is_dir():
        raise DataError(f"no such folder: {root}; name the folder that holds annotations/ and the images")
    name = name or root.resolve().name
    for pattern, layout in (("annotations/captions_*.json", "coco"), ("huggingface/*.parquet", "coco2017_table")):
        parts = {}
        for path in sorted(root.glob(pattern)):
            part = _part_of(path.stem)
            if part and (images := _images_folder(root, path.stem, part)):
                parts[part] = PartConfig(annotations=path.relative_to(root).as_posix(), images=images)
        if parts:
            return DatasetConfig.parse({"name": name, "layout": layout, "root": root, "parts": parts})
    found = sorted(path.name for path in root.iterdir())[:8]
    raise DataError(
        f"no captions in {root}: expected annotations/captions_train*.json (COCO) or "
        f"huggingface/train.parquet with folders of images, found {', '.join(found) or 'nothing'}"
    )


def _part_of(stem: str) -> str | None:
    words = re.findall(r"[a-z]+", stem.lower())
    return next((_PART_OF_WORD[word] for word in words if word in _PART_OF_WORD), None)


def _images_folder(root: Path, stem: str, part: str) -> str | None:
    candidates = [stem.removeprefix("captions_"), f"{part}2017", part, "images"]
    return next((name for name in candidates if (root / name).is_dir()), None)

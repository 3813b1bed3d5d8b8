"""Facts: the properties that the validation checks, computed as columns; knows nothing of limits.

A null fact does not apply, such as the size of an absent image.
"""

import functools
import sys
import unicodedata
from collections.abc import Mapping

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from image_finder.components.errors import DataError
from image_finder.components.records.data import DatasetManifest

CAPTION_COLUMNS = {
    "image_id": "int64",
    "caption_id": "int64",
    "file_name": "text",
    "caption": "text or missing",
    "width_px": "int64",
    "height_px": "int64",
    "license": "int64",
    "part": "text",
}
IMAGE_COLUMNS = {
    "image_id": "int64",
    "file_name": "text",
    "part": "text",
    "sha256": "text",
    "bytes": "int64",
    "width_px": "int64",
    "height_px": "int64",
    "error": "text",
}
IMAGE_KEY = ["part", "image_id"]
_PARTS_AND_FILES = {
    "n_parts": ("part", "nunique"),
    "first_part": ("part", "first"),
    "last_part": ("part", "last"),
    "first_file": ("file_name", "first"),
    "last_file": ("file_name", "last"),
}
SCOPE = "@"  # between a reason and a part


def require_columns(table: str, frame: DataFrame, expected: Mapping[str, str]) -> None:
    """Raise DataError with the missing and unexpected columns of a frame."""
    missing = [column for column in expected if column not in frame.columns]
    unexpected = [str(column) for column in frame.columns if column not in expected]
    if missing or unexpected or len(frame.columns) != len(expected):
        found = f"missing {', '.join(missing) or 'none'}; unexpected {', '.join(unexpected) or 'none'}"
        raise DataError(f"{table} table has wrong columns: {found}; expected exactly {', '.join(expected)}")


def type_facts(captions: DataFrame, images: DataFrame) -> DataFrame:
    """One row for each column of both tables: table, name, type ("right" or the fault)."""
    tables = (("captions", captions, CAPTION_COLUMNS), ("images", images, IMAGE_COLUMNS))
    rows = [
        {"table": table, "name": column, "type": _type_of(frame[column], kind)}
        for table, frame, columns in tables
        for column, kind in columns.items()
    ]
    return DataFrame(rows)


def _type_of(values: Series, kind: str) -> str:
    if values.empty:
        return "right"
    if kind == "int64":
        return "right" if values.dtype == np.int64 else f"{values.dtype} instead of int64"
    n_missing = 0 if kind == "text or missing" else int(values.isna().sum())
    if n_missing:
        return f"{n_missing} missing values instead of text"
    present = values.dropna()
    return "right" if present.empty or pd.api.types.is_string_dtype(present) else f"{values.dtype} instead of text"


def as_typed(frame: DataFrame, columns: Mapping[str, str]) -> DataFrame:
    kinds = {column: kind if kind == "int64" else "object" for column, kind in columns.items()}
    return (frame.astype(kinds) if frame.empty else frame).reset_index(drop=True)


def id_scopes(captions: DataFrame) -> Series:
    """Suffix that makes caption ids unique: "@" and the part if parts share ids, else ""."""
    shared = captions[["part", "caption_id"]].drop_duplicates()["caption_id"].duplicated().any()
    return SCOPE + captions["part"] if shared else Series("", index=captions.index)


def image_facts(captions: DataFrame) -> DataFrame:
    """One row for each image id: its parts, and its most file names in one of them."""
    distinct = captions[["image_id", "part", "file_name"]].drop_duplicates()
    n_files = distinct.groupby(IMAGE_KEY, sort=False).size().groupby("image_id").max()
    images = distinct.sort_values(["image_id", "part", "file_name"]).groupby("image_id")
    return images.agg(**_PARTS_AND_FILES).assign(n_files=n_files).reset_index()


def content_facts(images: DataFrame) -> DataFrame:
    """One row for each distinct content: its parts, and the first and last file with it."""
    present = images[images["sha256"] != ""].sort_values(["part", "file_name"])
    return present.groupby("sha256").agg(**_PARTS_AND_FILES).reset_index()


def id_facts(captions: DataFrame) -> DataFrame:
    """For each caption, how often its id has occurred in its part so far, itself included."""
    occurrence = captions.groupby(["part", "caption_id"], sort=False).cumcount() + 1
    return captions[["caption_id", "caption", "file_name"]].assign(occurrence=occurrence)


def caption_facts(captions: DataFrame, images: DataFrame) -> DataFrame:
    """One row for each caption: characters, tokens (null: empty), and the columns of _image_states."""
    texts = _texts(captions)
    characters = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
    facts = DataFrame(
        {
            "caption_id": captions["caption_id"],
            "file_name": captions["file_name"],
            "caption": texts,
            "characters": characters,
            "tokens": captions["tokens"].where(characters > 0),
        }
    )
    return facts.assign(**_image_states(captions, images))


def _image_states(captions: DataFrame, images: DataFrame) -> dict[str, Series]:
    """image: "present" or the fault; decoding: "readable", the fault, or null if absent; size.

    size is "equal", both sizes, or null. A swapped size is equal, since annotations may be made before the EXIF
    orientation was applied.
    """
    listed = images.drop_duplicates(IMAGE_KEY)[[*IMAGE_KEY, "sha256", "width_px", "height_px", "error"]]
    joined = captions[[*IMAGE_KEY, "width_px", "height_px"]].merge(
        listed, on=IMAGE_KEY, how="left", suffixes=("_annotated", ""), validate="m:1"
    )
    present = joined["sha256"].fillna("") != ""
    errors = joined["error"].fillna("not in the images table").astype(object)
    readable = present & (errors == "")
    comparable = readable & (joined["width_px_annotated"] > 0) & (joined["height_px_annotated"] > 0)
    found = joined[["width_px", "height_px"]].to_numpy(dtype=np.float64)
    annotated = joined[["width_px_annotated", "height_px_annotated"]].to_numpy(dtype=np.float64)
    equal = (np.sort(found, axis=1) == np.sort(annotated, axis=1)).all(axis=1)
    size = Series(None, index=joined.index, dtype=object).mask(comparable & equal, "equal")
    different = np.flatnonzero(comparable & ~equal)
    size.iloc[different] = [
        f"{width:.0f} x {height:.0f} px, annotated {annotated_width:.0f} x {annotated_height:.0f} px"
        for (width, height), (annotated_width, annotated_height) in zip(
            found[different], annotated[different], strict=True
        )
    ]
    return {
        "image": errors.mask(errors == "", "no content").mask(present, "present"),
        "decoding": errors.mask(readable, "readable").where(present, None),
        "size": size,
    }


def rank_facts(captions: DataFrame) -> DataFrame:
    """Rank of each caption among those of its image, from 1, and their number."""
    groups = captions.groupby(IMAGE_KEY, sort=False)["caption_id"]
    return captions[["caption_id", "file_name"]].assign(rank=groups.cumcount() + 1, n_captions=groups.transform("size"))


def part_facts(captions: DataFrame, manifest: DatasetManifest) -> DataFrame:
    """One row for each part of manifest or table: its number of captions."""
    counts = captions["part"].value_counts()
    parts = sorted({*manifest.n_images_of_part, *counts.index})
    return DataFrame({"part": parts, "n_captions": [int(counts.get(part, 0)) for part in parts]})


def text_facts(captions: DataFrame) -> DataFrame:
    """Words of each caption, and how many captions share its text but for case and punctuation."""
    texts = [" ".join(text.lower().translate(_punctuation()).split()) for text in _texts(captions)]
    same = Series(texts, dtype=object).groupby(texts, sort=False).transform("size") if texts else Series(dtype="int64")
    n_words = np.fromiter((text.count(" ") + 1 for text in texts), dtype=np.int64, count=len(texts))
    return captions[["caption_id", "caption"]].assign(n_words=n_words, n_same=same)


def _texts(captions: DataFrame) -> list[str]:
    return [caption.strip() if isinstance(caption, str) else "" for caption in captions["caption"]]


@functools.cache
def _punctuation() -> dict[int, str]:
    """str.translate table from Unicode punctuation to spaces; string.punctuation is ASCII only."""
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")}


def drift_facts(manifest: DatasetManifest, previous: DatasetManifest) -> DataFrame:
    """One row: each count before and now, and its relative change, 0 or more."""
    facts: dict[str, float] = {}
    for key in ("n_images", "n_captions", "mean_caption_characters"):
        before, now = float(getattr(previous, key)), float(getattr(manifest, key))
        change = abs(now - before) / before if before else (float("inf") if now else 0.0)
        facts |= {f"{key}_before": before, f"{key}_now": now, f"{key}_drift": change}
    return DataFrame([facts])

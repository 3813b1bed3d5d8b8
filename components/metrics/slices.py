"""Slices of an evaluation: one label per caption, from the captions table alone; knows nothing of embeddings.

A slice is kept only if it divides the captions and each group is large enough to be measured: with 30 captions, a recall
of one half has a 95 % interval of about 18 points either way. Smaller groups get no label, and a slice with fewer than
two remaining groups is dropped (all photographs of the Flickr8k copy here are square; COCO's are not).
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from image_finder.components.arrays import Mask
from image_finder.components.captions.vocabulary import Vocabulary, words_of
from image_finder.components.configs.slices import CAPTION_COUNT, CAPTION_LENGTH, IMAGE_SHAPE, LICENSE, WORDS
from image_finder.components.errors import DataError

MIN_CAPTIONS = 30
_COLUMNS = ("image_id", "caption", "width_px", "height_px", "license", "part")
_SQUARE_RATIO = 1.05  # an image is square up to this ratio of long to short side


def slice_groups(slices: Mapping[str, Sequence[str]], n_captions: int) -> Iterator[tuple[str, str, Mask]]:
    """Name, value and members of every group, values in natural order.

    Natural order puts "9-13 words" before "14 words or more". Raises DataError if labels do not match the captions.
    """
    for name, labels in slices.items():
        if len(labels) != n_captions:
            raise DataError(f"slice '{name}' has {len(labels)} labels, expected one for each of {n_captions} captions")
        values = np.asarray(labels, dtype=object)
        for value in sorted(set(labels) - {""}, key=_natural_order):
            yield name, value, np.asarray(values == value, dtype=np.bool_)


def _natural_order(label: str) -> tuple[int, str]:
    number = re.search(r"\d+", label)
    return (int(number.group()) if number else 0, label)


def caption_slices(
    captions: pd.DataFrame, vocabulary: Vocabulary | None = None, *, min_captions: int = MIN_CAPTIONS
) -> dict[str, list[str]]:
    """Labels by slice name, one per row of the captions table; "" for rows in no group.

    Names and values are those of components/configs/slices.py, "words" only with the model's vocabulary. In val2017,
    17, 75 and 8 % of the captions are short, medium and long. Images of unknown size or license are in no group.
    Groups below min_captions get no label, and slices with fewer than two groups are left out. Raises DataError.
    """
    missing = [name for name in _COLUMNS if name not in captions.columns]
    if missing:
        raise DataError(f"captions table lacks the columns {', '.join(missing)}, expected {', '.join(_COLUMNS)}")
    siblings = captions.groupby(["part", "image_id"])["caption"].transform("size")
    sizes = zip(captions["width_px"].tolist(), captions["height_px"].tolist(), strict=True)
    slices = {
        CAPTION_LENGTH.name: [_length_label(text) for text in captions["caption"].tolist()],
        IMAGE_SHAPE.name: [_shape_label(width_px, height_px) for width_px, height_px in sizes],
        CAPTION_COUNT.name: [_count_label(count) for count in siblings.tolist()],
        LICENSE.name: [f"{LICENSE.numbered} {number}" if number else "" for number in captions["license"].tolist()],
    }
    if vocabulary is not None:
        known, unknown = WORDS.values
        slices[WORDS.name] = [unknown if vocabulary.unmet(text) else known for text in captions["caption"]]
    kept = {name: _without_small_groups(labels, min_captions) for name, labels in slices.items()}
    return {name: labels for name, labels in kept.items() if len(set(labels) - {""}) >= 2}


def _length_label(caption: str) -> str:
    n_words = len(words_of(caption))
    short, medium, long = CAPTION_LENGTH.values
    if n_words <= 8:
        return short if n_words else ""
    return medium if n_words <= 13 else long


def _shape_label(width_px: int, height_px: int) -> str:
    if width_px <= 0 or height_px <= 0:
        return ""
    landscape, portrait, square = IMAGE_SHAPE.values
    if max(width_px, height_px) <= _SQUARE_RATIO * min(width_px, height_px):
        return square
    return landscape if width_px > height_px else portrait


def _count_label(count: int) -> str:
    few, five, many = CAPTION_COUNT.values
    if count <= 4:
        return few
    return five if count == 5 else many


def _without_small_groups(labels: list[str], min_captions: int) -> list[str]:
    counts = pd.Series(labels, dtype=str).value_counts().to_dict()
    return [label if counts[label] >= min_captions else "" for label in labels]

"""Slices of an evaluation: a label for every caption, from the captions table alone; knows nothing of embeddings.

A slice says where a model is weak only if it divides the captions and each side is large enough to be measured:
30 captions give a recall of one half a 95 % interval of about 18 points either way. Smaller groups get no label, and
a slice with fewer than two groups left is dropped (all photos of Flickr8k here are square, COCO's are not).
"""

import pandas as pd

from image_finder.components.captions.vocabulary import Vocabulary, words_of
from image_finder.components.configs.slices import CAPTION_COUNT, CAPTION_LENGTH, IMAGE_SHAPE, LICENSE, WORDS
from image_finder.components.errors import DataError

MIN_CAPTIONS = 30
_COLUMNS = ("image_id", "caption", "width_px", "height_px", "license", "part")
_SQUARE_RATIO = 1.05  # long side over short; up to it an image counts as square


def caption_slices(
    captions: pd.DataFrame, vocabulary: Vocabulary | None = None, *, min_captions: int = MIN_CAPTIONS
) -> dict[str, list[str]]:
    """Labels by slice name, one for each row of the captions table in its order; "" where a row is in no group.

    Names and values are those of image_finder.components.configs.slices, "words" only when the model's vocabulary is given. Of
    val2017's captions 17, 75 and 8 % are short, middling and long. Images of unknown size or license are in no group.
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
        met, unmet = WORDS.values
        slices[WORDS.name] = [unmet if vocabulary.unmet(text) else met for text in captions["caption"]]
    kept = {name: _without_small_groups(labels, min_captions) for name, labels in slices.items()}
    return {name: labels for name, labels in kept.items() if len(set(labels) - {""}) >= 2}


def _length_label(caption: str) -> str:
    n_words = len(words_of(caption))
    short, middling, long = CAPTION_LENGTH.values
    if n_words <= 8:
        return short if n_words else ""
    return middling if n_words <= 13 else long


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

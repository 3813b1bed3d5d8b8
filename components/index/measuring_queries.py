"""Measuring texts: queries that an approximate index is measured with; knows nothing of vectors.

Texts, not images: the vectors of the two kinds lie apart, and an index that finds an image's neighbours well may find
those of a text badly. What an image of the gallery is captioned with is what people ask for, and few captions answer
exactly; where a gallery has no captions, as a library has none, sentences of the same form stand for them.
"""

import itertools
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

_WHO = (
    *("a brown dog", "two children", "a man in a red shirt", "a black cat", "an old woman in a blue coat"),
    *("a group of people", "a white horse", "a girl with a yellow ball"),
)
_DOES = ("is running", "are sitting", "is playing", "looks at the camera", "is jumping", "stands still")
_WHERE = ("on the beach", "in the snow", "next to a parked car", "in a kitchen", "on a green lawn", "near a lake")
_ROWS_A_TEXT = 4  # rows looked at for each caption wanted: some have none, or one that was drawn before


class MeasuringTexts(NamedTuple):
    """Distinct texts, and where they come from."""

    texts: tuple[str, ...]
    source: Literal["captions", "sentences"]


def measuring_texts(items: pa.Table, n: int, *, seed: int = 0) -> MeasuringTexts:
    """At most n captions of an index's items; made sentences (at most 288) if there are fewer than half of n."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(items.num_rows, min(_ROWS_A_TEXT * n, items.num_rows), replace=False))
    # An array made from a buffer: pa.array() would import pandas, half a second.
    places = pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows.astype(np.int64))])
    captions = [several[0] for several in items["captions"].take(places).to_pylist() if several]
    distinct = list(dict.fromkeys(caption for caption in captions if caption.strip()))
    if len(distinct) >= min(n, items.num_rows) / 2:
        return MeasuringTexts(_drawn(distinct, n, rng), "captions")
    return MeasuringTexts(
        _drawn([" ".join(parts) for parts in itertools.product(_WHO, _DOES, _WHERE)], n, rng), "sentences"
    )


def _drawn(texts: list[str], n: int, rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(texts[place] for place in rng.permutation(len(texts))[:n])

"""Examples: the best and worst caption queries with their nearest images, as row numbers; knows nothing of files."""

from dataclasses import dataclass

import numpy as np

from image_finder.components.arrays import FloatMatrix, IntVector
from image_finder.components.metrics.ranks import MatchRanks, checked_vectors


@dataclass(frozen=True)
class QueryExample:
    """A caption and its nearest images, as rows; hits are ordered nearest first."""

    caption_row: int
    image_row: int
    rank: int
    margin: float
    hit_rows: tuple[int, ...]
    hit_scores: tuple[float, ...]


@dataclass(frozen=True)
class QueryExamples:
    best: tuple[QueryExample, ...]
    worst: tuple[QueryExample, ...]

    @property
    def image_rows(self) -> tuple[int, ...]:
        """Rows of all images that a figure of these examples shows, ascending."""
        rows = {row for example in (*self.best, *self.worst) for row in (example.image_row, *example.hit_rows)}
        return tuple(sorted(rows))


def pick_examples(
    image_embeddings: FloatMatrix,
    text_embeddings: FloatMatrix,
    ranks: MatchRanks,
    *,
    count: int = 4,
    top: int = 5,
) -> QueryExamples:
    """The `count` best and worst caption queries with their `top` nearest images.

    Best: lowest rank, then largest margin. Worst: highest rank, then smallest margin. Then by row. Each image occurs
    once per side, because five captions of one image would fill it. At equal scores wrong images come first, as in
    `first_match_ranks`. Raises DataError.
    """
    images, texts, owners = checked_vectors(image_embeddings, text_embeddings, ranks.image_of_caption)
    rows = np.arange(len(texts))
    gallery = images.astype(np.float64)

    def example(row: int) -> QueryExample:
        scores = (gallery @ texts[row].astype(np.float64)).astype(np.float32)
        is_own = np.arange(len(images)) == owners[row]
        nearest = np.lexsort((is_own, -scores))[:top]
        return QueryExample(
            caption_row=row,
            image_row=int(owners[row]),
            rank=int(ranks.text_to_image[row]),
            margin=float(ranks.margins[row]),
            hit_rows=tuple(nearest.tolist()),
            hit_scores=tuple(scores[nearest].tolist()),
        )

    best = np.lexsort((rows, -ranks.margins, ranks.text_to_image))
    worst = np.lexsort((rows, ranks.margins, -ranks.text_to_image))
    return QueryExamples(
        best=tuple(example(row) for row in _one_per_image(best, owners, count)),
        worst=tuple(example(row) for row in _one_per_image(worst, owners, count)),
    )


def _one_per_image(order: IntVector, owners: IntVector, count: int) -> list[int]:
    first_of_image = np.sort(np.unique(owners[order], return_index=True)[1])
    rows: list[int] = order[first_of_image[:count]].tolist()
    return rows

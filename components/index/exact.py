"""Exact search: the nearest rows of a matrix by one pass over it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import Mask, Rows, Vectors

# 8 MB. All of COCO is one call for one query: between two calls the threads of BLAS wait for each other.
_PRODUCTS_A_CALL = 1 << 21
_SIFTED_ROWS = 8_192
_EXACT_ROWS = 4_096
_ROUNDING = 1e-5  # float32 products of a unit row and a unit query of 512 components are off by some 1e-7


class Neighbours(NamedTuple):
    """Nearest rows, (n_queries, k) int64, and their cosines, float32, descending."""

    scores: Vectors
    rows: Rows


def nearest(vectors: Vectors, queries: Vectors, k: int, masks: Sequence[Mask | None]) -> list[Neighbours]:
    """The k nearest rows of each query, (k,) each; fewer if its mask allows fewer.

    masks: (count,) bool, None for all. One float32 pass selects candidates, float64 ranks them: in float32, scores of
    equal rows differ in the last bit depending on their position. Ties: the lower row first.
    """
    near = [_Contenders(k, _rounding(query)) for query in queries]
    step = max(_PRODUCTS_A_CALL // max(len(queries), 1), 1)
    for start in range(0, len(vectors), step):
        part = queries @ vectors[start : start + step].T
        for found, line, mask in zip(near, part, masks, strict=True):
            found.add(start, line, None if mask is None else mask[start : start + step])
    return [nearest_of(vectors, query, found.rows, k) for query, found in zip(queries, near, strict=True)]


def nearest_among(vectors: Vectors, query: Vectors, rows: Rows, k: int) -> Neighbours:
    near = _Contenders(k, _rounding(query))
    for start in range(0, len(rows), _EXACT_ROWS):
        near.add(start, vectors[rows[start : start + _EXACT_ROWS]] @ query, None)
    return nearest_of(vectors, query, rows[near.rows], k)


def nearest_of(vectors: Vectors, query: Vectors, rows: Rows, k: int) -> Neighbours:
    """The k best of some rows, ascending, by float64 products: (k,) each."""
    exact_query = query.astype(np.float64)
    parts = np.split(rows, range(_EXACT_ROWS, len(rows), _EXACT_ROWS))
    exact = [vectors[part].astype(np.float64) @ exact_query for part in parts]
    scores = np.concatenate(exact).astype(np.float32)
    best = np.argsort(-scores, kind="stable")[:k]
    return Neighbours(scores[best], rows[best])


def stacked(answers: Sequence[Neighbours]) -> Neighbours:
    """Answers of different lengths as one matrix, padded with row -1 and score -inf."""
    width = max((len(answer.rows) for answer in answers), default=0)
    scores = np.full((len(answers), width), -np.inf, np.float32)
    rows = np.full((len(answers), width), -1, np.int64)
    for number, answer in enumerate(answers):
        scores[number, : len(answer.rows)], rows[number, : len(answer.rows)] = answer
    return Neighbours(scores, rows)


def _rounding(query: Vectors) -> float:
    return _ROUNDING * max(1.0, float(np.linalg.norm(query)))


class _Contenders:
    """Rows, ascending, that may be among the k best so far: the best and those within rounding."""

    def __init__(self, k: int, rounding: float) -> None:
        self.rows: Rows = np.empty(0, np.int64)
        self._scores: Vectors = np.empty(0, np.float32)
        self._limit = -np.inf
        self._k = k
        self._rounding = rounding

    def add(self, start: int, scores: Vectors, mask: Mask | None) -> None:
        """Add the scores of the rows from start on, in parts: the first set a limit that most others miss."""
        for at in range(0, len(scores), _SIFTED_ROWS):
            part = slice(at, at + _SIFTED_ROWS)
            self._add_part(start + at, scores[part], None if mask is None else mask[part])

    def _add_part(self, start: int, scores: Vectors, mask: Mask | None) -> None:
        good = scores >= self._limit
        found = np.flatnonzero(good if mask is None else good & mask)
        if not len(found):
            return
        self.rows = np.concatenate([self.rows, start + found])
        self._scores = np.concatenate([self._scores, scores[found]])
        if len(self.rows) > self._k:
            at = len(self.rows) - self._k
            self._limit = float(np.partition(self._scores, at)[at]) - self._rounding
            kept = self._scores >= self._limit
            self.rows, self._scores = self.rows[kept], self._scores[kept]

"""Query encoder: the terms of queries to the vectors that images are ranked by."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np

from image_finder.components.arrays import Rows, Vectors
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.index.index import VectorIndex
from image_finder.components.search.negation import Group, group_of, lowered
from image_finder.components.search.prompts import text_vectors, unit
from image_finder.components.search.query import Query, Term, require_text
from image_finder.components.storage import sha256_of_bytes

_NO_ROWS = np.empty(0, np.int64)


class EncodedQuery(NamedTuple):
    """A query as vectors.

    ranking: (dim,), lowered by the `not` terms; terms: (dim,) unit, without them; own: rows of the index that hold the
    query's only image.
    """

    ranking: Vectors
    terms: Vectors
    own: Rows


class QueryEncoder:
    def __init__(self, index: VectorIndex, encoder: OnnxEncoder) -> None:
        self._index = index
        self._encoder = encoder
        self._group_vectors: dict[Group, Vectors] = {}

    def encode(self, queries: Sequence[Query]) -> list[EncodedQuery]:
        terms = [term for query in queries for term in query.terms]
        terms += [term for query in queries for term in query.not_terms if _group(term) is None]
        texts = text_vectors(self._encoder, {require_text(term.text) for term in terms if term.text is not None})
        return [self._encoded(query, texts) for query in queries]

    def _encoded(self, query: Query, texts: dict[str, Vectors]) -> EncodedQuery:
        found = [self._term(term, texts) for term in query.terms]
        weighted = [vector * np.float32(term.weight) for term, (vector, _) in zip(query.terms, found, strict=True)]
        terms = found[0][0] if len(found) == 1 else unit(np.sum(weighted, axis=0))
        ranking = lowered(terms, [self._not_term(term, texts) for term in query.not_terms])
        own = found[0][1] if len(found) == 1 and not query.not_terms else _NO_ROWS
        return EncodedQuery(ranking, terms, own)

    def _term(self, term: Term, texts: dict[str, Vectors]) -> tuple[Vectors, Rows]:
        """Unit vector of a term, and the rows of the index that hold its image."""
        if term.text is not None:
            return texts[require_text(term.text)], _NO_ROWS
        if term.like is not None:
            row = self._index.row_of_id(term.like)
            return np.array(self._index.vectors[row]), np.array([row])
        data = cast("bytes", term.image)
        own = self._index.rows_of_content(sha256_of_bytes(data))
        if len(own):
            return np.array(self._index.vectors[own[0]]), own
        return self._encoder.encode_image(self._encoder.preprocess.load(data)[None])[0], own

    def _not_term(self, term: Term, texts: dict[str, Vectors]) -> tuple[Vectors, float]:
        """Unit vector and weight of a `not` term; those of its group if it names one."""
        group = _group(term)
        if group is None:
            return self._term(term, texts)[0], term.weight
        if group not in self._group_vectors:  # encoded once: its terms take as long as several queries
            vectors = text_vectors(self._encoder, group.terms)
            self._group_vectors[group] = unit(np.sum([vectors[text] for text in group.terms], axis=0))
        return self._group_vectors[group], term.weight * group.strength


def _group(term: Term) -> Group | None:
    return None if term.text is None else group_of(require_text(term.text))

"""Search engine: queries to hits, through a bundle and an index that belong together."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from image_finder.components import cancellation
from image_finder.components.arrays import Rows, Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import DataError
from image_finder.components.index.arrow import numbers
from image_finder.components.index.duplicates import Hashes, fold
from image_finder.components.index.exact import Neighbours
from image_finder.components.index.index import VectorIndex
from image_finder.components.moments import local
from image_finder.components.records.search import Facets, Hit, IndexedImage, SearchResult, TruncatedText
from image_finder.components.search import filters, matching
from image_finder.components.search.negation import Group, group_of, lowered
from image_finder.components.search.prompts import expand
from image_finder.components.search.query import Query, Term, require_text
from image_finder.components.storage import sha256_of_bytes

_JUDGED = 10  # hits that are looked at to say whether anything matches well
_ROUNDING = 1e-6  # of scores: in float32 an image's cosine with itself comes out as 0.9999999


class EncodedQuery(NamedTuple):
    """A query as vectors. ranking, terms: (dim,), the query with and without its `not` terms, terms of unit
    length; own: rows of the images that the query consists of.
    """

    ranking: Vectors
    terms: Vectors
    own: Rows


class SearchEngine:
    """Answers queries over one index."""

    def __init__(self, index: VectorIndex, encoder: OnnxEncoder) -> None:
        """Raises IndexMismatchError if the index was made with another bundle."""
        index.require_bundle(encoder.bundle.sha256)
        self.index = index
        self.encoder = encoder
        self.scores = encoder.bundle.scores()
        self.vocabulary = encoder.bundle.vocabulary()
        self._group_vectors: dict[Group, Vectors] = {}

    @classmethod
    def open(cls, index_path: Path, bundle_path: Path | None = None, *, threads: int = 0) -> "SearchEngine":
        """Open an index (or published root) and its bundle (None: the one the index names). threads: of ONNX Runtime.

        Raises StorageError, BundleError, IndexMismatchError.
        """
        index = VectorIndex.open(index_path)
        bundle = Bundle.open(bundle_path or Path(index.manifest.bundle_uri))
        return cls(index, OnnxEncoder(bundle, device="cpu", threads=threads))

    def search(self, query: Query | str, k: int = 20) -> SearchResult:
        """Answer one query; a text alone is a query for its k nearest images. Raises QueryError, ImageError."""
        return self.search_many([Query.of_text(query, k=k) if isinstance(query, str) else query])[0]

    def search_many(self, queries: Sequence[Query]) -> list[SearchResult]:
        """Answer several queries with one pass over the vectors. Raises QueryError, ImageError."""
        return self.rank(queries, self.encode(queries))

    # The two stages of a search

    def encode(self, queries: Sequence[Query]) -> list[EncodedQuery]:
        """The vectors of queries. Raises QueryError for an unknown id, ImageError for one that cannot be decoded."""
        terms = [term for query in queries for term in query.terms]
        terms += [term for query in queries for term in query.not_terms if _group(term) is None]
        texts = query_vectors(self.encoder, {require_text(term.text) for term in terms if term.text is not None})
        return [self._encoded(query, texts) for query in queries]

    def rank(self, queries: Sequence[Query], encoded: Sequence[EncodedQuery]) -> list[SearchResult]:
        """The hits of encoded queries. Raises QueryError for a folder that is not in the index."""
        masks = [filters.allowed_rows(self.index.items, query.filters) for query in queries]
        counts = [self.index.manifest.count if mask is None else int(mask.sum()) for mask in masks]
        answers: list[_Ranked | None] = [None] * len(queries)
        depths = [_first_depth(query) for query in queries]
        while waiting := [place for place, answer in enumerate(answers) if answer is None]:
            cancellation.checkpoint()
            near = self.index.search(
                np.stack([encoded[place].ranking for place in waiting]),
                max(depths[place] for place in waiting),
                allowed=[masks[place] for place in waiting],
            )
            for place, rows, scores in zip(waiting, near.rows, near.scores, strict=True):
                found = self._ranked(queries[place], encoded[place], Neighbours(scores, rows), masks[place])
                # Near-duplicates took more places than was thought: look deeper, unless there is nothing deeper.
                enough = found.shown > queries[place].offset + queries[place].k
                if enough or np.sum(rows >= 0) >= counts[place] or _ends_below(scores, queries[place].min_score):
                    answers[place] = found
                depths[place] *= 4
        done = [answer for answer in answers if answer is not None]
        return [self._result(*each) for each in zip(queries, encoded, done, counts, strict=True)]

    # What is known of the images

    def image(self, identity: str) -> IndexedImage:
        """One image by its id. Raises QueryError."""
        return IndexedImage.model_validate(self._facts(self.index.item(self.index.row_of_id(identity))))

    def image_path(self, identity: str) -> Path:
        """Resolved path of an image's file, which may have gone. Raises QueryError for an unknown id, DataError if the
        path leads outside the folders that were indexed.
        """
        path = self.index.file_of(self.index.row_of_id(identity)).resolve()
        if not any(path.is_relative_to(Path(root).resolve()) for root in self.index.manifest.roots):
            raise DataError(f"image {identity} leads outside the folders that were indexed; index them again")
        return path

    def facets(self) -> Facets:
        """What the filters can choose among."""
        return filters.facets(self.index.items)

    def folder_label(self, name: str) -> str:
        """The label of a folder that is named by it or by a path. Raises QueryError if it holds no image."""
        return filters.folder_label(self.index.items, self.index.manifest.roots, name)

    def _encoded(self, query: Query, texts: dict[str, Vectors]) -> EncodedQuery:
        found = [self._term(term, texts) for term in query.terms]
        weighted = [vector * np.float32(term.weight) for term, (vector, _) in zip(query.terms, found, strict=True)]
        terms = found[0][0] if len(found) == 1 else _unit(np.sum(weighted, axis=0))
        ranking = lowered(terms, [self._not_term(term, texts) for term in query.not_terms])
        is_one_image = len(found) == 1 and not query.not_terms
        return EncodedQuery(ranking, terms, found[0][1] if is_one_image else np.empty(0, np.int64))

    def _not_term(self, term: Term, texts: dict[str, Vectors]) -> tuple[Vectors, float]:
        """Unit vector and weight of a `not` term; those of its group if it names one."""
        group = _group(term)
        if group is None:
            return self._term(term, texts)[0], term.weight
        if group not in self._group_vectors:  # encoded once: its terms take as long as several queries
            vectors = query_vectors(self.encoder, group.terms)
            self._group_vectors[group] = _unit(np.sum([vectors[text] for text in group.terms], axis=0))
        return self._group_vectors[group], term.weight * group.strength

    def _term(self, term: Term, texts: dict[str, Vectors]) -> tuple[Vectors, Rows]:
        """Unit vector of a term, and the rows of the index that are the very image it shows."""
        if term.text is not None:
            return texts[require_text(term.text)], np.empty(0, np.int64)
        if term.like is not None:
            row = self.index.row_of_id(term.like)
            return np.array(self.index.vectors[row]), np.array([row])
        data = cast("bytes", term.image)
        own = self.index.rows_of_content(sha256_of_bytes(data))
        if len(own):
            return np.array(self.index.vectors[own[0]]), own
        return self.encoder.encode_image(self.encoder.preprocess.load(data)[None])[0], own

    def _ranked(
        self, query: Query, encoded: EncodedQuery, near: Neighbours, mask: NDArray[np.bool_] | None
    ) -> "_Ranked":
        scores, rows = self._own_first(encoded, near, mask)
        if query.min_score is not None:
            enough = scores >= query.min_score - _ROUNDING
            rows, scores = rows[enough], scores[enough]
        shown_by = (
            fold(self._hashes[rows], self.index.vectors[rows]) if query.duplicates == "fold" else np.arange(len(rows))
        )
        return _Ranked(rows, scores, shown_by)

    def _own_first(self, encoded: EncodedQuery, near: Neighbours, mask: NDArray[np.bool_] | None) -> Neighbours:
        """An image finds itself first, also among more equal ones than were looked for: nothing scores higher."""
        found = near.rows >= 0
        rows, scores = near.rows[found], near.scores[found]
        own = encoded.own if mask is None else encoded.own[mask[encoded.own]]
        others = ~np.isin(rows, own)
        exact = self._cosines(encoded.ranking, own).astype(np.float32)
        return Neighbours(np.concatenate([exact, scores[others]]), np.concatenate([own, rows[others]]))

    def _result(self, query: Query, encoded: EncodedQuery, ranked: "_Ranked", candidates: int) -> SearchResult:
        shown = np.flatnonzero(ranked.shown_by == np.arange(len(ranked.rows)))
        page = shown[query.offset : query.offset + query.k]
        of_texts = all(term.text is not None for term in query.terms)
        best = self._cosines(encoded.terms, ranked.rows[shown[:_JUDGED]]).max(initial=-1)
        n_good = self._count_good(query, encoded, ranked.rows[: page[-1] + 1 if len(page) else 0], candidates)
        items = self.index.items_at(ranked.rows[page])
        hits = tuple(
            Hit(
                rank=query.offset + number,
                score=round(float(ranked.scores[place]), 6),
                good=None if n_good is None else place < n_good,
                duplicates=tuple(self._id(row) for row in ranked.rows[ranked.folded_into(place)]),
                **self._facts(item),
            )
            for number, (place, item) in enumerate(zip(page.tolist(), items, strict=True), start=1)
        )
        return SearchResult(
            hits=hits,
            candidates=candidates,
            more=len(shown) > query.offset + query.k,
            matches_well=self._matches_well(query, best, n_good) if of_texts else None,
            unmet=self.vocabulary.unmet(" ".join(query.texts)) if self.vocabulary else (),
            truncated=tuple(cut for text in query.texts if (cut := self._truncated(text)) is not None),
        )

    def _count_good(self, query: Query, encoded: EncodedQuery, rows: Rows, candidates: int) -> int | None:
        """Number of leading rows that are good matches (image_finder.components.search.matching); None where it cannot be said."""
        models, vocabulary = self.scores.matches, self.vocabulary
        judged = models and vocabulary and vocabulary.counts and candidates >= matching.MIN_IMAGES
        if not judged or models is None or any(term.text is None for term in query.terms):
            return None
        words = self._words(query)
        if words is None or not words.known:
            return 0
        model = matching.model_for(models, words)
        if model is None:
            return None
        unrelated = matching.background((self._sample @ encoded.terms).astype(np.float64))
        ranks = np.arange(1.0, len(rows) + 1)
        cosines = self._cosines(encoded.terms, rows)
        return matching.count_good(model, matching.match_features(cosines, ranks, candidates, unrelated, words))

    def _matches_well(self, query: Query, best: float, n_good: int | None) -> bool:
        """Whether the best hit scores as those of captions that had an answer, and any word of the query is known."""
        unknown = self.vocabulary is not None and self.vocabulary.counts is not None and self._words(query) is None
        return bool(n_good) or (best >= self.scores.good_match and not unknown)

    def _words(self, query: Query) -> matching.QueryWords | None:
        assert self.vocabulary is not None, "only asked where there is one"
        return matching.query_words(" ".join(term.text for term in query.terms if term.text), self.vocabulary)

    @cached_property
    def _sample(self) -> Vectors:
        """Rows of the index, evenly spread, whose cosines with a text are its background."""
        count = self.index.manifest.count
        rows = np.unique(np.linspace(0, count - 1, min(count, matching.SAMPLE_IMAGES)).astype(np.int64))
        return np.array(self.index.vectors[rows])

    def _truncated(self, text: str) -> TruncatedText | None:
        """What the model reads of a text that exceeds its limit; None if it reads all of it."""
        text = require_text(text)
        end = self.encoder.tokenizer.read_characters(text)
        return None if end is None else TruncatedText(used=text[:end].rstrip(), unused=text[end:].lstrip())

    def _cosines(self, vector: Vectors, rows: Rows) -> NDArray[np.float64]:
        cosines: NDArray[np.float64] = self.index.vectors[rows].astype(np.float64) @ vector.astype(np.float64)
        return cosines

    @cached_property
    def _hashes(self) -> Hashes:
        hashes: Hashes = numbers(self.index.items["dhash"], np.dtype(np.uint64))
        return hashes

    def _id(self, row: int) -> str:
        return str(self.index.items["id"][int(row)].as_py())

    def _facts(self, item: dict[str, Any]) -> dict[str, object]:
        uri = self.index.uri_of_item(item)
        modified_at = item["modified_at"] and local(item["modified_at"])
        known = {name: value for name, value in item.items() if name not in {"root", "path", "dhash"}}
        return {"uri": uri, **known, "modified_at": modified_at}


def query_vectors(encoder: OnnxEncoder, texts: Iterable[str]) -> dict[str, Vectors]:
    """Unit vector of each text as a search uses it: of a short one, the mean over its prompts."""
    prompts = {text: expand(text) for text in texts}
    flat = sorted({prompt for several in prompts.values() for prompt in several})
    vectors = dict(zip(flat, encoder.encode_text(flat), strict=True))
    return {text: _unit(np.sum([vectors[prompt] for prompt in several], axis=0)) for text, several in prompts.items()}


class _Ranked(NamedTuple):
    """Images of one query, best first. shown_by: (n,) place of the image each is folded into, itself if shown."""

    rows: Rows
    scores: Vectors
    shown_by: Rows

    @property
    def shown(self) -> int:
        return len(set(self.shown_by.tolist()))

    def folded_into(self, place: int) -> Rows:
        if self.shown_by[place] != place or np.count_nonzero(self.shown_by == place) == 1:
            return np.empty(0, np.int64)
        return np.flatnonzero((self.shown_by == place) & (np.arange(len(self.rows)) != place))


def _group(term: Term) -> Group | None:
    return None if term.text is None else group_of(require_text(term.text))


def _ends_below(scores: Vectors, min_score: float | None) -> bool:
    """Whether falling scores have come to those that are not wanted."""
    return min_score is not None and len(scores) > 0 and bool(scores[-1] < min_score - _ROUNDING)


def _first_depth(query: Query) -> int:
    reach = query.offset + query.k + 1  # one more than is shown, to know whether there is a next page
    return 2 * reach + 16 if query.duplicates == "fold" else reach


def _unit(vector: Vectors) -> Vectors:
    norm = float(np.linalg.norm(vector))
    return (vector / max(norm, 1e-12)).astype(np.float32)

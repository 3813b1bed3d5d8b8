"""Search engine: ranks the images of an index for queries."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_finder.components import cancellation
from image_finder.components.arrays import Rows, Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import DataError
from image_finder.components.images.image_folder import StoredFile, opened_folder
from image_finder.components.index.arrow import numbers
from image_finder.components.index.duplicates import Hashes, fold
from image_finder.components.index.exact import Neighbours
from image_finder.components.index.index import VectorIndex
from image_finder.components.moments import local
from image_finder.components.records.search import BrowsedImages, Hit, IndexedImage, SearchResult, TruncatedText
from image_finder.components.search import filters, matching
from image_finder.components.search.browsing import Cursor, Timeline, TimeOrder, page_of
from image_finder.components.search.query import MAX_SORTED, UNKNOWN_SORTED, Filters, Query, require_text
from image_finder.components.search.query_encoder import EncodedQuery, QueryEncoder

_JUDGED = 10  # leading hits that decide whether anything matches well
_ROUNDING = 1e-6  # of scores: an image's cosine with itself is 0.9999999 in float32


class SearchEngine:
    def __init__(self, index: VectorIndex, encoder: OnnxEncoder) -> None:
        """Raises IndexMismatchError if the index was made with another bundle."""
        index.require_bundle(encoder.bundle.sha256)
        self.index = index
        self.encoder = encoder
        self.scores = encoder.bundle.scores()
        self.vocabulary = encoder.bundle.vocabulary()
        self._query_encoder = QueryEncoder(index, encoder)

    @classmethod
    def open(
        cls, path: Path, bundle: Path | None = None, *, threads: int = 0, opened: OnnxEncoder | None = None
    ) -> "SearchEngine":
        """Open an index, published root or library, and its bundle.

        bundle: None takes the index's. threads: for ONNX Runtime, 0: one per core. opened: used again if its bundle is
        the index's. Raises StorageError, BundleError, IndexMismatchError.
        """
        index = VectorIndex.open(path)
        is_current = opened is not None and opened.bundle.sha256 == index.manifest.bundle_sha256
        if opened is not None and is_current and (bundle or opened.bundle.path.is_dir()):
            return cls(index, opened)
        encoder_bundle = Bundle.open(bundle or Path(index.manifest.bundle_uri))
        return cls(index, OnnxEncoder(encoder_bundle, device="cpu", threads=threads))

    def search(self, query: Query | str, k: int = 20) -> SearchResult:
        """Answer one query, or a text with its k nearest images. Raises QueryError, ImageError."""
        return self.search_many([Query.of_text(query, k=k) if isinstance(query, str) else query])[0]

    def search_many(self, queries: Sequence[Query]) -> list[SearchResult]:
        return self.rank(queries, self.encode(queries))

    # The two stages of a search

    def encode(self, queries: Sequence[Query]) -> list[EncodedQuery]:
        return self._query_encoder.encode(queries)

    def rank(self, queries: Sequence[Query], encoded: Sequence[EncodedQuery]) -> list[SearchResult]:
        """The hits of encoded queries. Raises QueryError for a folder that is not in the index."""
        masks = [filters.allowed_rows(self.index.items, query.filters) for query in queries]
        counts = [self.index.manifest.count if mask is None else int(mask.sum()) for mask in masks]
        answers: list[_Ranked | None] = [None] * len(queries)
        depths = [_first_depth(query) for query in queries]
        while waiting := [row for row, answer in enumerate(answers) if answer is None]:
            cancellation.checkpoint()
            near = self.index.search(
                np.stack([encoded[each].ranking for each in waiting]),
                max(depths[each] for each in waiting),
                allowed=[masks[each] for each in waiting],
            )
            for each, rows, scores in zip(waiting, near.rows, near.scores, strict=True):
                query = queries[each]
                found = self._ranked(query, encoded[each], Neighbours(scores, rows), masks[each])
                # More near-duplicates than expected: search deeper, unless all allowed images are found.
                enough = query.order != "match" or found.shown > query.offset + query.k
                if enough or np.sum(rows >= 0) >= counts[each] or _ends_below(scores, query.min_score):
                    answers[each] = found
                depths[each] *= 4
        done = [answer for answer in answers if answer is not None]
        return [self._result(*each) for each in zip(queries, encoded, done, counts, strict=True)]

    # Images

    def browse(
        self, conditions: Filters, k: int, *, order: TimeOrder = "newest", cursor: str | None = None
    ) -> BrowsedImages:
        """A page of the images that pass the filters, by time. cursor: of the page before. Raises QueryError."""
        after = None if cursor is None else Cursor.parse(cursor)
        allowed = filters.allowed_rows(self.index.items, conditions)
        rows = page_of(self._timeline, allowed, after, order, k)
        return BrowsedImages(
            images=tuple(IndexedImage.model_validate(self._facts(item)) for item in self.index.items_at(rows[:k])),
            candidates=self.index.manifest.count if allowed is None else int(allowed.sum()),
            cursor=str(self._timeline.cursor_at(int(rows[k - 1]))) if len(rows) > k else None,
        )

    def raw_path(self, identity: str) -> bytes:
        """Absolute path of an image byte for byte, or its URI on an object store. Raises QueryError."""
        row = self.index.row_of_id(identity)
        if self.index.store_of(row) is not None:
            return self.index.uri_of_item(self.index.item(row)).encode()
        return os.fsencode(self.index.file_of(row))

    def image(self, identity: str) -> IndexedImage:
        return IndexedImage.model_validate(self._facts(self.index.item(self.index.row_of_id(identity))))

    def image_path(self, identity: str) -> Path:
        """Resolved path of an image's file, which may be missing. Raises QueryError, DataError."""
        row = self.index.row_of_id(identity)
        if self.index.store_of(row) is not None:
            raise DataError(f"image {identity} is on an object store and has no path: {self.image(identity).uri}")
        path = self.index.file_of(row).resolve()
        if not any(path.is_relative_to(Path(root).resolve()) for root in self.index.manifest.roots):
            raise DataError(f"image {identity} is outside the indexed folders; index its folder again")
        return path

    def stored_image(self, identity: str) -> StoredFile | None:
        """An image's file on an object store; None for one on this machine. Raises QueryError, DataError."""
        row = self.index.row_of_id(identity)
        store = self.index.store_of(row)
        if store is None:
            return None
        return StoredFile(opened_folder(store), Path(os.fsdecode(self.index.item(row)["path"])))

    def image_source(self, identity: str) -> Path | bytes:
        """An image's path, or its content if it is on an object store. Raises QueryError, DataError."""
        stored = self.stored_image(identity)
        return self.image_path(identity) if stored is None else stored.content()

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
        """Put the query's own image first: more images than were found may have its score."""
        found = near.rows >= 0
        rows, scores = near.rows[found], near.scores[found]
        own = encoded.own if mask is None else encoded.own[mask[encoded.own]]
        others = ~np.isin(rows, own)
        exact = self._cosines(encoded.ranking, own).astype(np.float32)
        return Neighbours(np.concatenate([exact, scores[others]]), np.concatenate([own, rows[others]]))

    def _result(self, query: Query, encoded: EncodedQuery, ranked: "_Ranked", candidates: int) -> SearchResult:
        shown = np.flatnonzero(ranked.shown_by == np.arange(len(ranked.rows)))
        of_texts = all(term.text is not None for term in query.terms)
        best = self._cosines(encoded.terms, ranked.rows[shown[:_JUDGED]]).max(initial=-1)
        last = shown[: query.offset + query.k] if query.order == "match" else shown
        n_good = self._count_good(query, encoded, ranked.rows[: last[-1] + 1 if len(last) else 0], candidates)
        if query.order != "match":
            shown = self._by_time(query, ranked.rows, shown, n_good)
        page = shown[query.offset : query.offset + query.k]
        items = self.index.items_at(ranked.rows[page])
        hits = tuple(
            Hit(
                rank=query.offset + number,
                score=round(float(ranked.scores[position]), 6),
                good=None if n_good is None else position < n_good,
                duplicates=tuple(self._id(row) for row in ranked.rows[ranked.folded_into(position)]),
                **self._facts(item),
            )
            for number, (position, item) in enumerate(zip(page.tolist(), items, strict=True), start=1)
        )
        return SearchResult(
            hits=hits,
            candidates=candidates,
            more=len(shown) > query.offset + query.k,
            matches_well=self._matches_well(query, best, n_good) if of_texts else None,
            unmet=self.vocabulary.unmet(" ".join(query.texts)) if self.vocabulary else (),
            truncated=tuple(cut for text in query.texts if (cut := self._truncated(text)) is not None),
        )

    def _by_time(self, query: Query, rows: Rows, shown: Rows, n_good: int | None) -> Rows:
        """Of the positions of shown images, best first, those of images that match, by time."""
        if query.min_score is None:
            shown = shown[shown < n_good] if n_good else shown[:UNKNOWN_SORTED]
        assert query.order != "match"
        return shown[self._timeline.sorted(rows[shown], query.order)]

    def _count_good(self, query: Query, encoded: EncodedQuery, rows: Rows, candidates: int) -> int | None:
        """Number of leading rows that are good matches; None if unknown, see search/matching.py."""
        models, vocabulary = self.scores.matches, self.vocabulary
        counted = vocabulary is None or vocabulary.counts is not None
        if models is None or not counted or candidates < matching.MIN_IMAGES:
            return None
        if any(term.text is None for term in query.terms):
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

    def _matches_well(self, query: Query, best: float, n_good: int | None) -> bool | None:
        if self.scores.good_match is None:
            return None
        unknown = self.vocabulary is not None and self.vocabulary.counts is not None and self._words(query) is None
        return bool(n_good) or (best >= self.scores.good_match and not unknown)

    def _words(self, query: Query) -> matching.QueryWords | None:
        return matching.query_words(" ".join(term.text for term in query.terms if term.text), self.vocabulary)

    @cached_property
    def _sample(self) -> Vectors:
        """Evenly spaced vectors of the index, for the background of a text: (n, dim)."""
        count = self.index.manifest.count
        rows = np.unique(np.linspace(0, count - 1, min(count, matching.SAMPLE_IMAGES)).astype(np.int64))
        return np.array(self.index.vectors[rows])

    def _truncated(self, text: str) -> TruncatedText | None:
        """The used and unused part of a text above the model's limit; None if all of it is used."""
        text = require_text(text)
        end = self.encoder.tokenizer.read_characters(text)
        return None if end is None else TruncatedText(used=text[:end].rstrip(), unused=text[end:].lstrip())

    def _cosines(self, vector: Vectors, rows: Rows) -> NDArray[np.float64]:
        cosines: NDArray[np.float64] = self.index.vectors[rows].astype(np.float64) @ vector.astype(np.float64)
        return cosines

    @cached_property
    def _timeline(self) -> Timeline:
        return Timeline.of_items(self.index.items)

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


class _Ranked(NamedTuple):
    """Images of one query, best first.

    shown_by: (n,) position of the image that each is folded into, its own if it is shown.
    """

    rows: Rows
    scores: Vectors
    shown_by: Rows

    @property
    def shown(self) -> int:
        return len(set(self.shown_by.tolist()))

    def folded_into(self, position: int) -> Rows:
        positions = np.flatnonzero(self.shown_by == position)
        others: Rows = positions[positions != position]
        return others


def _ends_below(scores: Vectors, min_score: float | None) -> bool:
    return min_score is not None and len(scores) > 0 and bool(scores[-1] < min_score - _ROUNDING)


def _first_depth(query: Query) -> int:
    if query.order != "match":
        return MAX_SORTED
    reach = query.offset + query.k + 1  # one more than shown, to know whether there is a next page
    return 2 * reach + 16 if query.duplicates == "fold" else reach

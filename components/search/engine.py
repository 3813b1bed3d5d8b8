"""Search engine: queries to hits, through a bundle and an index that belong together."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from components.bundle import Bundle
from components.errors import DataError
from components.moments import local
from components.records import Facets, Hit, Picture, SearchResult
from components.search import filters
from components.search.arrow import numbers
from components.search.duplicates import Hashes, fold
from components.search.exact import Neighbours, Rows, Vectors
from components.search.index import VectorIndex
from components.search.onnx_encoder import OnnxEncoder
from components.search.prompts import expand
from components.search.query import Query, Term, require_text
from components.storage import sha256_of_bytes

_TEXTS_A_CALL = 16
_JUDGED = 10  # hits that are looked at to say whether anything matches well
_ROUNDING = 1e-6  # of scores: in float32 a picture's cosine with itself comes out as 0.9999999


class EncodedQuery(NamedTuple):
    """A query as vectors. ranking: what pictures are ranked by; wanted: (dim,) unit; own: rows of the very pictures."""

    ranking: Vectors
    wanted: Vectors
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

    @classmethod
    def open(cls, index_path: Path, bundle_path: Path | None = None, *, threads: int = 0) -> "SearchEngine":
        """Open an index (or published root) and its bundle (None: the one the index names). threads: of ONNX Runtime.

        Raises StorageError, BundleError, IndexMismatchError.
        """
        index = VectorIndex.open(index_path)
        bundle = Bundle.open(bundle_path or Path(index.manifest.bundle_uri))
        return cls(index, OnnxEncoder(bundle, device="cpu", threads=threads))

    def search(self, query: Query | str, k: int = 20) -> SearchResult:
        """Answer one query; a text alone is a query for its k nearest pictures. Raises QueryError, PictureError."""
        return self.search_many([Query.of_text(query, k=k) if isinstance(query, str) else query])[0]

    def search_many(self, queries: Sequence[Query]) -> list[SearchResult]:
        """Answer several queries with one pass over the vectors. Raises QueryError, PictureError."""
        return self.rank(queries, self.encode(queries))

    # The two stages of a search

    def encode(self, queries: Sequence[Query]) -> list[EncodedQuery]:
        """The vectors of queries. Raises QueryError for an unknown id, PictureError for one that cannot be decoded."""
        terms = [term for query in queries for term in (*query.terms, *query.negatives)]
        texts = self._encode_texts({require_text(term.text) for term in terms if term.text is not None})
        return [self._encoded(query, texts) for query in queries]

    def rank(self, queries: Sequence[Query], encoded: Sequence[EncodedQuery]) -> list[SearchResult]:
        """The hits of encoded queries. Raises QueryError for a folder that is not in the index."""
        masks = [filters.allowed_rows(self.index.items, query.filters) for query in queries]
        counts = [self.index.manifest.count if mask is None else int(mask.sum()) for mask in masks]
        answers: list[_Ranked | None] = [None] * len(queries)
        depths = [_first_depth(query) for query in queries]
        while waiting := [place for place, answer in enumerate(answers) if answer is None]:
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

    # What is known of the pictures

    def picture(self, identity: str) -> Picture:
        """One picture by its id. Raises QueryError."""
        return Picture.model_validate(self._facts(self.index.item(self.index.row_of_id(identity))))

    def picture_path(self, identity: str) -> Path:
        """Resolved path of a picture's file, which may have gone. Raises QueryError for an unknown id, DataError if the
        path leads outside the folders that were indexed.
        """
        path = self.index.file_of(self.index.row_of_id(identity)).resolve()
        if not any(path.is_relative_to(Path(root).resolve()) for root in self.index.manifest.roots):
            raise DataError(f"picture {identity} leads outside the folders that were indexed; index them again")
        return path

    def facets(self) -> Facets:
        """What the filters can choose among."""
        return filters.facets(self.index.items)

    def folder_label(self, name: str) -> str:
        """The label of a folder that is named by it or by a path. Raises QueryError if it holds no picture."""
        return filters.folder_label(self.index.items, self.index.manifest.roots, name)

    def _encode_texts(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """Unit vector of each text; of a short one, the mean over its prompts."""
        prompts = {text: expand(text) for text in texts}
        # By length, so that a call's texts need little padding.
        flat = sorted({prompt for several in prompts.values() for prompt in several}, key=len)
        calls = [flat[at : at + _TEXTS_A_CALL] for at in range(0, len(flat), _TEXTS_A_CALL)]
        vectors = {
            prompt: row for call in calls for prompt, row in zip(call, self.encoder.encode_text(call), strict=True)
        }
        return {
            text: _unit(np.sum([vectors[prompt] for prompt in several], axis=0)) for text, several in prompts.items()
        }

    def _encoded(self, query: Query, texts: dict[str, Vectors]) -> EncodedQuery:
        wanted_terms = [self._term(term, texts) for term in query.terms]
        unwanted_terms = [self._term(term, texts)[0] * np.float32(term.weight) for term in query.negatives]
        weighted = [
            vector * np.float32(term.weight) for term, (vector, _) in zip(query.terms, wanted_terms, strict=True)
        ]
        wanted = wanted_terms[0][0] if len(weighted) == 1 else _unit(np.sum(weighted, axis=0))
        ranking = wanted - np.sum(unwanted_terms, axis=0, dtype=np.float32) if unwanted_terms else wanted
        alone = len(weighted) == 1 and not unwanted_terms
        return EncodedQuery(ranking, wanted, wanted_terms[0][1] if alone else np.empty(0, np.int64))

    def _term(self, term: Term, texts: dict[str, Vectors]) -> tuple[Vectors, Rows]:
        """Unit vector of a term, and the rows of the index that are the very picture it shows."""
        if term.text is not None:
            return texts[require_text(term.text)], np.empty(0, np.int64)
        if term.like is not None:
            row = self.index.row_of_id(term.like)
            return np.array(self.index.vectors[row]), np.array([row])
        data = cast("bytes", term.picture)
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
        shown_by = fold(self._hashes[rows], self.index.vectors[rows]) if query.fold else np.arange(len(rows))
        return _Ranked(rows, scores, shown_by)

    def _own_first(self, encoded: EncodedQuery, near: Neighbours, mask: NDArray[np.bool_] | None) -> Neighbours:
        """A picture finds itself first, also among more equal ones than were looked for: nothing scores higher."""
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
        best = self._cosines(encoded.wanted, ranked.rows[shown[:_JUDGED]]).max(initial=-1)
        cosines = self._cosines(encoded.wanted, ranked.rows[page]).tolist()
        items = self.index.items_at(ranked.rows[page])
        hits = tuple(
            Hit(
                rank=query.offset + number,
                score=round(float(ranked.scores[place]), 6),
                match=round(self.scores.match(cosine), 4) if of_texts else None,
                fit=self.scores.fit(cosine) if of_texts else None,
                duplicates=tuple(self._id(row) for row in ranked.rows[ranked.folded_into(place)]),
                **self._facts(item),
            )
            for number, (place, cosine, item) in enumerate(zip(page.tolist(), cosines, items, strict=True), start=1)
        )
        return SearchResult(
            hits=hits,
            candidates=candidates,
            more=len(shown) > query.offset + query.k,
            matches_well=bool(best >= self.scores.good_match) if of_texts else None,
            threshold=self.scores.good_match if of_texts else None,
            unmet=self._unmet(query),
        )

    def _unmet(self, query: Query) -> tuple[str, ...]:
        texts = [term.text for term in (*query.terms, *query.negatives) if term.text is not None]
        return self.vocabulary.unmet(" ".join(texts)) if self.vocabulary else ()

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


class _Ranked(NamedTuple):
    """Pictures of one query, best first. shown_by: (n,) place of the picture each is folded into, itself if shown."""

    rows: Rows
    scores: Vectors
    shown_by: Rows

    @property
    def shown(self) -> int:
        return len(set(self.shown_by.tolist()))

    def folded_into(self, place: int) -> Rows:
        return np.flatnonzero((self.shown_by == place) & (np.arange(len(self.rows)) != place))


def _ends_below(scores: Vectors, min_score: float | None) -> bool:
    """Whether falling scores have come to those that are not wanted."""
    return min_score is not None and len(scores) > 0 and bool(scores[-1] < min_score - _ROUNDING)


def _first_depth(query: Query) -> int:
    reach = query.offset + query.k + 1  # one more than is shown, to know whether there is a next page
    return 2 * reach + 16 if query.fold else reach


def _unit(vector: Vectors) -> Vectors:
    norm = float(np.linalg.norm(vector))
    return (vector / max(norm, 1e-12)).astype(np.float32)

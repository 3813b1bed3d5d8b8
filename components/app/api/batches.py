"""Searches in batches: whatever waits is answered by one pass over the vectors; a query that fails fails alone."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from image_finder.components.app.api.error_responses import not_found
from image_finder.components.app.api.limits import Batcher, Load
from image_finder.components.app.api.live_finder import LiveFinder
from image_finder.components.app.api.metrics import Metrics
from image_finder.components.app.api.response_models import SearchAnswer
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.error_boundary import EMPTY_LIBRARY
from image_finder.components.errors import QueryError
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.query import Query


class Asked(NamedTuple):
    """A query and the moment it came, by time.perf_counter."""

    query: Query
    at_s: float


class Answered(NamedTuple):
    """An answer as JSON, and what of it goes into the log."""

    body: bytes
    matches_well: bool | None


class SearchLine:
    """Where queries of texts and ids wait. Those with images are answered one by one: decoding takes its time."""

    def __init__(self, live: LiveFinder, metrics: Metrics, settings: Settings) -> None:
        """settings: limits, and whether paths are shown."""
        self.load = Load("searches", settings.waiting)
        self._live = live
        self._metrics = metrics
        self._show_paths = settings.show_paths
        self._batcher: Batcher[Asked, Answered] = Batcher(
            self.load, self.answer, timeout_s=settings.timeout_s, running=settings.searches, largest=settings.batch
        )

    async def ask(self, query: Query) -> Answered:
        """The answer. Raises Fault, FinderError."""
        return await self._batcher.ask(Asked(query, time.perf_counter()))

    def answer(self, asked: Sequence[Asked]) -> list[Answered | Exception]:
        """The answer to each, or why there is none. Runs in a thread; a newer index in the meantime changes nothing."""
        self._metrics.note_batch(len(asked))
        try:
            return self._answer_together(self._live.engine, asked)
        except Exception as error:  # noqa: BLE001 - one query that fails must not fail those it was answered with
            if len(asked) > 1:
                return [self.answer([one])[0] for one in asked]
            return [error]

    def close(self) -> None:
        """Answer no more."""
        self._batcher.close()

    def _answer_together(self, engine: SearchEngine, asked: Sequence[Asked]) -> list[Answered | Exception]:
        queries = [each.query for each in asked]
        started = time.perf_counter()
        require_known(engine, queries)
        encoded = engine.encode(queries)
        encoded_at = time.perf_counter()
        results = engine.rank(queries, encoded)
        ranked_at = time.perf_counter()
        notice = {} if engine.index.manifest.count else {"notice": EMPTY_LIBRARY}
        stages = {"encode": _ms(encoded_at - started), "rank": _ms(ranked_at - encoded_at)}
        answers = [
            SearchAnswer.of(
                result,
                show_paths=self._show_paths,
                took_ms={"wait": _ms(started - each.at_s), **stages, "total": _ms(time.perf_counter() - each.at_s)},
                generation=engine.index.path.name,
                bundle=engine.encoder.bundle.sha256[:16],
                **notice,
            )
            for each, result in zip(asked, results, strict=True)
        ]
        told: list[Answered | Exception] = [
            Answered(answer.model_dump_json(exclude_unset=True).encode(), answer.matches_well) for answer in answers
        ]
        self._metrics.note_stages({**stages, "items": _ms(time.perf_counter() - ranked_at)})
        return told


def require_known(engine: SearchEngine, queries: Sequence[Query]) -> None:
    """Raises Fault 404 if a query names an image that is not in the index."""
    for query in queries:
        for term in (*query.terms, *query.not_terms):
            if term.like is not None:
                row_of(engine, term.like)


def row_of(engine: SearchEngine, identity: str) -> int:
    """Row of an image. Raises Fault 404."""
    try:
        return engine.index.row_of_id(identity)
    except QueryError as error:
        raise not_found(str(error)) from None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)

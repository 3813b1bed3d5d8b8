"""Search queue: answers all queued queries with one pass over the vectors."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from image_finder.components.app.api.error_responses import Fault
from image_finder.components.app.api.limits import Batcher, Load
from image_finder.components.app.api.live_finder import LiveFinder
from image_finder.components.app.api.metrics import Metrics
from image_finder.components.app.api.response_models import SearchAnswer
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.error_boundary import EMPTY_LIBRARY
from image_finder.components.errors import QueryError
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.query import Query


class SearchJob(NamedTuple):
    """A query and the time of its arrival, by time.perf_counter."""

    query: Query
    at_s: float


class SearchReply(NamedTuple):
    """An answer as JSON, and the part of it that is logged."""

    body: bytes
    matches_well: bool | None


class SearchQueue(Batcher[SearchJob, SearchReply]):
    """Queue of queries by text and id. Uploads are decoded elsewhere, as that is slow."""

    def __init__(self, live: LiveFinder, metrics: Metrics, settings: Settings) -> None:
        load = Load("searches", settings.waiting)
        super().__init__(
            load, self.answer, timeout_s=settings.timeout_s, running=settings.searches, largest=settings.batch
        )
        self._live = live
        self._metrics = metrics
        self._show_paths = settings.show_paths

    def answer(self, jobs: Sequence[SearchJob]) -> list[SearchReply | Exception]:
        """The answer to each query, or its exception. All use the same engine."""
        self._metrics.batch.observe(len(jobs))
        try:
            return self._answer_together(self._live.engine, jobs)
        except Exception as error:  # noqa: BLE001 - a failing query must not affect the others of its batch
            if len(jobs) > 1:
                return [self.answer([job])[0] for job in jobs]
            return [error]

    def _answer_together(self, engine: SearchEngine, jobs: Sequence[SearchJob]) -> list[SearchReply | Exception]:
        queries = [job.query for job in jobs]
        started = time.perf_counter()
        require_terms_indexed(engine, queries)
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
                took_ms={"wait": _ms(started - job.at_s), **stages, "total": _ms(time.perf_counter() - job.at_s)},
                generation=engine.index.path.name,
                bundle=engine.encoder.bundle.sha256[:16],
                **notice,
            )
            for job, result in zip(jobs, results, strict=True)
        ]
        replies: list[SearchReply | Exception] = [
            SearchReply(answer.model_dump_json(exclude_unset=True).encode(), answer.matches_well) for answer in answers
        ]
        self._metrics.note_stages({**stages, "items": _ms(time.perf_counter() - ranked_at)})
        return replies


def require_terms_indexed(engine: SearchEngine, queries: Sequence[Query]) -> None:
    for query in queries:
        for term in (*query.terms, *query.not_terms):
            if term.like is not None:
                require_indexed(engine, term.like)


def require_indexed(engine: SearchEngine, identity: str) -> None:
    try:
        engine.index.row_of_id(identity)
    except QueryError as error:
        raise Fault(404, "not_found", str(error)) from None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)

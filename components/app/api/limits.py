"""Limits: a few calls run, some queue up to a timeout, further ones are refused.

Work whose request timed out or whose client disconnected is cancelled: it never starts, or ends at its next checkpoint.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect, Request

from image_finder.components.app.api.error_responses import Fault
from image_finder.components.cancellation import cancellable

_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


@dataclass
class Load:
    """Counts of queued and refused calls of one kind. name: of the kind, in messages and metrics."""

    name: str
    limit: int  # most queued calls
    n_waiting: int = 0
    n_refused: int = 0

    def require_room(self, calls: int = 1) -> None:
        if self.n_waiting + calls > self.limit:
            raise self.refusal(f"server busy ({self.name} queued: {self.n_waiting}); retry shortly")

    def refusal(self, message: str) -> Fault:
        self.n_refused += 1
        return Fault(503, "busy", message, headers={"Retry-After": "1"})

    @contextlib.asynccontextmanager
    async def deadline(self, seconds: float) -> AsyncIterator[None]:
        """Context that raises Fault 503 after a time."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise self.refusal(f"{self.name}: no answer within {seconds:g} s; retry shortly") from None


class Batcher(Generic[_Item, _Answer]):
    """Processes all queued items with one call; meanwhile the next ones accumulate."""

    def __init__(
        self,
        load: Load,
        process: Callable[[list[_Item]], Sequence[_Answer | Exception]],
        *,
        timeout_s: float,
        running: int = 1,
        largest: int = 32,
    ) -> None:
        """process: returns an answer or exception for each of 1 to `largest` items."""
        self.load = load
        self._process = process
        self._timeout_s = timeout_s
        self._idle = running
        self._largest = largest
        self._pool = ThreadPoolExecutor(running, thread_name_prefix=load.name)
        self._queue: list[tuple[_Item, asyncio.Future[_Answer]]] = []

    async def submit(self, item: _Item) -> _Answer:
        """The answer for one item. Raises Fault 503, and the exception that process returned for it."""
        (answer,) = await self.submit_all([item])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def submit_all(self, items: Sequence[_Item]) -> "list[_Answer | BaseException]":
        """The answer or exception for each item; all are queued at once. Raises Fault 503."""
        if not self._idle:
            self.load.require_room(len(items))
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[_Answer]] = [loop.create_future() for _ in items]
        try:
            async with self.load.deadline(self._timeout_s):
                self._queue.extend(zip(items, futures, strict=True))
                self._next()
                return await asyncio.gather(*futures, return_exceptions=True)
        finally:
            if any(future.cancelled() for future in futures):
                self._next()  # removes them from the queue

    def close(self) -> None:
        """Wait for running calls and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> None:
        """Start a call if a thread is idle and items are queued."""
        self._queue = [entry for entry in self._queue if not entry[1].done()]  # without cancelled requests
        if self._idle and self._queue:
            batch, self._queue = self._queue[: self._largest], self._queue[self._largest :]
            self._idle -= 1
            loop = asyncio.get_running_loop()
            done = self._pool.submit(self._run, batch)
            done.add_done_callback(lambda done: _soon(loop, self._deliver, batch, done))
        self.load.n_waiting = len(self._queue)

    def _run(self, batch: list[tuple[_Item, asyncio.Future[_Answer]]]) -> Sequence[_Answer | Exception]:
        with cancellable(lambda: all(future.done() for _, future in batch)):
            return self._process([item for item, _ in batch])

    def _deliver(
        self,
        batch: list[tuple[_Item, asyncio.Future[_Answer]]],
        done: "Future[Sequence[_Answer | Exception]]",
    ) -> None:
        self._idle += 1
        self._next()
        failure = done.exception()
        answers = [failure] * len(batch) if failure else done.result()
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)


class Workers(Batcher[Callable[[], Any], Any]):
    """Thread pool. A call occupies its thread until it ends, even after a timeout."""

    def __init__(self, load: Load, *, running: int, timeout_s: float) -> None:
        """running: threads. timeout_s: for a call, including its time in the queue."""
        super().__init__(
            load, lambda calls: [call() for call in calls], timeout_s=timeout_s, running=running, largest=1
        )

    async def run(self, call: Callable[[], _Answer]) -> _Answer:
        answer: _Answer = await self.submit(call)
        return answer


async def while_connected(request: Request, answer: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Await answer; cancel it and raise ClientDisconnect when the client disconnects.

    Discards the rest of the request's body, which must have been read before.
    """
    work, disconnected = asyncio.ensure_future(answer), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({work, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise ClientDisconnect
    finally:
        work.cancel()
        disconnected.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *values: object) -> None:
    """Schedule a call in the loop; does nothing once the loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *values)

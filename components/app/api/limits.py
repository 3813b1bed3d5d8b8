"""Limits: some calls run, some wait, more are refused at once; nothing waits longer than its time-out.

Work that nobody waits for any more, because its request was answered 503 or its client has gone, never begins; if it has
begun, it ends at its next checkpoint.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from image_finder.components.app.api.error_responses import Fault, busy
from image_finder.components.cancellation import cancellable

_Answer = TypeVar("_Answer")
_Question = TypeVar("_Question")


class Load:
    """How many calls of one kind wait, and how many were refused. limit: those that may wait."""

    def __init__(self, name: str, limit: int) -> None:
        """name: what waits, for messages and metrics."""
        self.name = name
        self.limit = limit
        self.n_waiting = 0
        self.n_refused = 0

    def require_room(self) -> None:
        """Raises Fault 503 when as many wait as may."""
        if self.n_waiting >= self.limit:
            raise self.refusal(f"{self.n_waiting} {self.name} are waiting already; come again in a moment")

    def refusal(self, message: str) -> Fault:
        """A counted 503."""
        self.n_refused += 1
        return busy(message)

    @contextlib.asynccontextmanager
    async def deadline(self, seconds: float) -> AsyncIterator[None]:
        """Turn what takes longer into a 503."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise self.refusal(f"{self.name}: no answer within {seconds:g} s; come again in a moment") from None


class Gate:
    """Lets `running` through at a time."""

    def __init__(self, load: Load, *, running: int) -> None:
        """load: counts those before the gate."""
        self._load = load
        self._free = asyncio.Semaphore(running)

    async def enter(self) -> None:
        """Take a place; whoever has it must call leave. Raises Fault 503 when too many wait."""
        if self._free.locked():
            self._load.require_room()
        self._load.n_waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._load.n_waiting -= 1

    def leave(self) -> None:
        """Give the place back."""
        self._free.release()


class Workers:
    """Threads for calls that compute. A call keeps its place until its thread has ended, whoever still waits for it."""

    def __init__(self, load: Load, *, running: int, timeout_s: float) -> None:
        """running: threads. timeout_s: of a call, its waiting included."""
        self.load = load
        self._gate = Gate(load, running=running)
        self._pool = ThreadPoolExecutor(running, thread_name_prefix=load.name)
        self._timeout_s = timeout_s

    async def run(self, call: Callable[[], _Answer]) -> _Answer:
        """Answer of call, made in a thread. Raises Fault 503, and what call raises."""
        loop = asyncio.get_running_loop()
        abandoned = threading.Event()

        def run() -> _Answer:
            with cancellable(abandoned.is_set):
                return call()

        try:
            async with self.load.deadline(self._timeout_s):
                await self._gate.enter()
                done = self._pool.submit(run)
                done.add_done_callback(lambda _: _soon(loop, self._gate.leave))
                return await asyncio.wrap_future(done)
        finally:
            abandoned.set()

    def close(self) -> None:
        """End the threads when what they do is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Batcher(Generic[_Question, _Answer]):
    """Answers all questions that wait with one call; while that runs, the next ones gather."""

    def __init__(
        self,
        load: Load,
        answer: Callable[[list[_Question]], Sequence[_Answer | Exception]],
        *,
        timeout_s: float,
        running: int = 1,
        largest: int = 32,
    ) -> None:
        """answer: gets 1 to `largest` questions; gives an answer for each, or an exception. running: such calls."""
        self.load = load
        self._answer = answer
        self._timeout_s = timeout_s
        self._idle = running
        self._largest = largest
        self._pool = ThreadPoolExecutor(running, thread_name_prefix=load.name)
        self._line: list[tuple[_Question, asyncio.Future[_Answer]]] = []

    async def ask(self, question: _Question) -> _Answer:
        """The answer to one question. Raises Fault 503, and what was answered as an exception."""
        if not self._idle:
            self.load.require_room()
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        try:
            async with self.load.deadline(self._timeout_s):
                self._line.append((question, future))
                self._next()
                return await future
        finally:
            if future.cancelled():
                self._next()  # takes it out of the line

    def close(self) -> None:
        """End the threads when what they do is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> None:
        """Start a call if a thread is idle and somebody waits."""
        self._line = [entry for entry in self._line if not entry[1].done()]  # who has given up needs no answer
        if self._idle and self._line:
            batch, self._line = self._line[: self._largest], self._line[self._largest :]
            self._idle -= 1
            loop = asyncio.get_running_loop()
            done = self._pool.submit(self._answer_batch, batch)
            done.add_done_callback(lambda done: _soon(loop, self._hand_out, batch, done))
        self.load.n_waiting = len(self._line)

    def _answer_batch(self, batch: list[tuple[_Question, asyncio.Future[_Answer]]]) -> Sequence[_Answer | Exception]:
        with cancellable(lambda: all(future.done() for _, future in batch)):
            return self._answer([question for question, _ in batch])

    def _hand_out(
        self,
        batch: list[tuple[_Question, asyncio.Future[_Answer]]],
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


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *values: object) -> None:
    """Have the loop make a call, unless it has ended, when nobody waits for it any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *values)

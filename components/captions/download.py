"""Download of images by URL: concurrent, resumable, retried, verified; knows nothing of captions.

An image is received into `<file_name>.part`, decoded, synced and only then renamed, so a file under its final name is
complete however a run ended.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from filelock import FileLock, Timeout
from pydantic import Field
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random
from tqdm import tqdm

from image_finder.components.captions import http_responses
from image_finder.components.configs import Config
from image_finder.components.errors import ImageError, StorageError
from image_finder.components.images.decoding import load_rgb
from image_finder.components.progress_bar import progress_bar
from image_finder.components.records.base import Record
from image_finder.components.storage import write_errors
from image_finder.components.system import refused_name
from image_finder.components.text import counted, one_line

_PART = ".part"
_MAX_REDIRECTS = 5
_HEADERS = {
    "User-Agent": "text-guided-image-finder",
    "Accept-Encoding": "identity",  # byte ranges and Content-Length then count the image's own bytes
}

# "refused": the server did not resume, and the part was removed; "proven": one response of known length; "unproven":
# resumed, or of unknown length, so a fresh start may still give a complete image.
_Receipt = Literal["refused", "proven", "unproven"]


class ImageRequest(Record):
    """One image to fetch; name and URL are checked before use."""

    image_id: int
    url: str  # http or https
    file_name: str  # plain name, without folders


class FetchConfig(Config):
    folder: Path = Field(description="folder the images are written to")
    workers: int = Field(16, ge=1, le=256, description="connections at a time")
    timeout_s: float = Field(20, gt=0, description="longest wait for a connection or for the next bytes, seconds")
    attempt_s: float = Field(300, gt=0, description="longest time for one attempt at one image, seconds")
    retries: int = Field(5, ge=0, description="attempts after the first one")
    backoff_s: float = Field(
        0.5, ge=0, description="first wait before a retry, seconds; doubles each time, plus jitter"
    )
    max_backoff_s: float = Field(30, ge=0, description="longest wait of that kind, seconds")
    max_retry_after_s: float = Field(120, ge=0, description="longest Retry-After of a server that is obeyed, seconds")
    max_image_bytes: int = Field(64 << 20, ge=1, description="larger images are refused, bytes")
    max_failures_in_a_row: int = Field(
        64, ge=1, description="images in a row without a response after which the rest is not tried"
    )


class FetchReport(Record):
    """Outcome of one call; fetched, skipped (present) and failed sum to the distinct requests."""

    fetched: int
    skipped: int
    failed: dict[int, str]  # image id: one-line reason
    bytes: int  # received over the network in this call
    seconds: float


def fetch_images(requests: Sequence[ImageRequest], config: FetchConfig, *, progress: bool) -> FetchReport:
    """Fetch the missing images of config.folder; failures are reported and stop no other.

    A `.part` is resumed if the server allows it. Retried are time-outs, connection errors, truncation, 408, 425, 429
    and 5xx. Starts its own event loop. progress: bar on stderr. Raises StorageError.
    """
    started = time.monotonic()
    with write_errors(config.folder):
        config.folder.mkdir(parents=True, exist_ok=True)
    with _alone(config.folder):
        accepted, failed = _check_requests(requests)
        missing = [request for request in accepted if not _size_of(config.folder / request.file_name)]
        run = _Run(config, failed)
        done = len(accepted) - len(missing)
        with progress_bar(total=len(accepted), initial=done, desc="images", unit=" images", shown=progress) as bar:
            try:
                asyncio.run(run.fetch(missing, bar))
            except ExceptionGroup as group:  # the disk is full, which concerns all workers
                raise group.exceptions[0] from None
    return FetchReport(
        fetched=run.fetched,
        skipped=len(accepted) - len(missing),
        failed=dict(sorted(run.failed.items())),
        bytes=run.received_bytes,
        seconds=time.monotonic() - started,
    )


class _Run:
    def __init__(self, config: FetchConfig, failed: dict[int, str]) -> None:
        self.config = config
        self.failed = failed
        self.fetched = 0
        self.received_bytes = 0
        self._failures_in_a_row = 0
        backoff = wait_exponential(multiplier=config.backoff_s, max=config.max_backoff_s)
        self._backoff = backoff + wait_random(0, config.backoff_s)

    async def fetch(self, requests: Sequence[ImageRequest], bar: "tqdm[Any]") -> None:
        limits = httpx.Limits(max_connections=self.config.workers, max_keepalive_connections=self.config.workers)
        async with (
            httpx.AsyncClient(
                headers=_HEADERS,
                limits=limits,
                timeout=httpx.Timeout(self.config.timeout_s),
                follow_redirects=True,  # httpx itself refuses all but http and https
                max_redirects=_MAX_REDIRECTS,
            ) as client,
            asyncio.TaskGroup() as workers,
        ):
            queue = iter(requests)
            for _ in range(min(self.config.workers, len(requests))):
                workers.create_task(self._work(client, queue, bar))

    async def _work(self, client: httpx.AsyncClient, queue: Iterator[ImageRequest], bar: "tqdm[Any]") -> None:
        for request in queue:
            await self._settle(client, request)
            bar.update()

    async def _settle(self, client: httpx.AsyncClient, request: ImageRequest) -> None:
        if self._failures_in_a_row >= self.config.max_failures_in_a_row:
            self.failed[request.image_id] = f"not tried: no response for {self._failures_in_a_row} images in a row"
            return
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.config.retries + 1),
            wait=self._wait_s,
            retry=retry_if_exception_type(http_responses.TransientError),
            reraise=True,
        )
        try:
            await retrying(self._attempt, client, request)
        except http_responses.TransientError as error:
            attempts = self.config.retries + 1
            self.failed[request.image_id] = f"{error} ({counted(attempts, 'attempt')}, {request.url})"
            self._failures_in_a_row += 1
        except http_responses.FinalError as error:
            self.failed[request.image_id] = f"{error} ({request.url})"
            self._failures_in_a_row = 0  # the server responded
        else:
            self.fetched += 1
            self._failures_in_a_row = 0

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        server_s = error.retry_after_s if isinstance(error, http_responses.TransientError) else None
        # The back-off is added to Retry-After, so that workers do not all return at the same moment.
        return min(server_s or 0.0, self.config.max_retry_after_s) + self._backoff(state)

    async def _attempt(self, client: httpx.AsyncClient, request: ImageRequest) -> None:
        target = self.config.folder / request.file_name
        part = target.with_name(target.name + _PART)
        try:
            async with asyncio.timeout(self.config.attempt_s):
                receipt = await self._receive(client, request.url, part)
                if receipt == "refused":  # the part was removed: start at the first byte
                    receipt = await self._receive(client, request.url, part)
        except httpx.TimeoutException as error:
            raise http_responses.TransientError(f"no response within {self.config.timeout_s:g} s") from error
        except TimeoutError as error:
            raise http_responses.TransientError(f"incomplete after {self.config.attempt_s:g} s") from error
        except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
            raise http_responses.TransientError(f"connection failed: {one_line(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise http_responses.FinalError(f"cannot be requested: {one_line(error)}") from error
        await asyncio.to_thread(_put_in_place, part, target, receipt)

    async def _receive(self, client: httpx.AsyncClient, url: str, part: Path) -> _Receipt:
        """Append the body to part, or rewrite part if the server starts at the first byte."""
        offset = _size_of(part)
        async with client.stream("GET", url, headers=http_responses.resume_headers(part, offset)) as response:
            if offset and http_responses.refuses_resumption(response, offset):
                _remove(part)
                return "refused"
            http_responses.check_status(response)
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            start = offset if resumed else 0
            expected = http_responses.expected_size(response, start)
            size = await self._write_body(response, part, start, expected or 0)
        if expected is not None and size != expected:
            raise http_responses.TransientError(f"truncated: {size:,} of {expected:,} bytes")
        return "unproven" if resumed or expected is None else "proven"

    async def _write_body(self, response: httpx.Response, part: Path, start: int, expected: int) -> int:
        size = start
        limit = self.config.max_image_bytes
        if expected <= limit:
            with write_errors(part), part.open("ab" if start else "wb") as stream:
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    self.received_bytes += len(chunk)
                    if size > limit:
                        break
                    stream.write(chunk)
                    stream.flush()  # a killed run resumes after the last received byte
        if max(size, expected) > limit:
            _remove(part)
            raise http_responses.FinalError(f"larger than max_image_bytes ({limit:,})")
        return size


def _check_requests(requests: Sequence[ImageRequest]) -> tuple[list[ImageRequest], dict[int, str]]:
    """Acceptable distinct requests, and the faults of the others by image id."""
    accepted: list[ImageRequest] = []
    failed: dict[int, str] = {}
    owner: dict[str, int] = {}
    for request in dict.fromkeys(requests):
        fault = _name_fault(request.file_name) or _url_fault(request.url)
        if not fault and request.file_name in owner:
            fault = f"file_name {request.file_name!r} already belongs to image {owner[request.file_name]}"
        if fault:
            failed[request.image_id] = fault
        else:
            owner[request.file_name] = request.image_id
            accepted.append(request)
    return accepted, failed


def _name_fault(name: str) -> str:
    plain = PurePosixPath(name).name == name and PureWindowsPath(name).name == name and name.isprintable()
    if refused_name(name):
        return f"file_name {name!r} is not a file name on this system"
    if not name or not plain or name.startswith(".") or name.endswith(_PART) or len(os.fsencode(name)) > 250:
        return f"file_name {name!r} is not a plain file name"
    return ""


def _url_fault(url: str) -> str:
    try:
        parsed = urlsplit(url)
    except ValueError as error:
        return f"address {url!r} is malformed: {one_line(error)}"
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        return f"address {url!r} is not an http or https URL"
    return ""


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _remove(part: Path) -> None:
    with write_errors(part):
        part.unlink(missing_ok=True)


def _put_in_place(part: Path, target: Path, receipt: _Receipt) -> None:
    """Decode part, sync it and rename it to target; a part that is no image is removed."""
    try:
        load_rgb(part)
    except ImageError as error:
        _remove(part)
        reason = one_line(error).removeprefix(f"{part}: ")
        raise (
            http_responses.FinalError(reason) if receipt == "proven" else http_responses.TransientError(reason)
        ) from error
    with write_errors(target):
        with part.open("rb") as stream:
            os.fsync(stream.fileno())  # later calls trust the name, also after a power failure
        part.replace(target)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two fetches would write the same parts. Raises StorageError."""
    lock = FileLock(folder.parent / f".{folder.name}.fetch.lock", timeout=0)
    try:
        with write_errors(folder):
            lock.acquire()
    except Timeout as error:
        raise StorageError(f"another fetch is writing to {folder}; wait until it ends, or stop it") from error
    try:
        yield
    finally:
        lock.release()

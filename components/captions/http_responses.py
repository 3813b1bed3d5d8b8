"""HTTP responses to resumable requests: which are errors, which to retry, how long the image is; sends nothing."""

import email.utils
from datetime import UTC, datetime
from pathlib import Path

import httpx

from image_finder.components.moments import modified_s

_RETRIED_STATUS = {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY, httpx.codes.TOO_MANY_REQUESTS}


class TransientError(Exception):
    """Worth another attempt, after retry_after_s if the server set it."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class FinalError(Exception):
    """Further attempts cannot help."""


def resume_headers(part: Path, offset: int) -> dict[str, str]:
    """Headers that request the bytes after offset of an unchanged image; empty for offset 0."""
    if not offset:
        return {}
    # If the image has changed since the part was written, the server answers 412.
    written = email.utils.formatdate(modified_s(part.stat()), usegmt=True)
    return {"Range": f"bytes={offset}-", "If-Unmodified-Since": written}


def refuses_resumption(response: httpx.Response, offset: int) -> bool:
    """Whether a range request was refused, or answered with other bytes than those after offset."""
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        return not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    return response.status_code in (httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE, httpx.codes.PRECONDITION_FAILED)


def check_status(response: httpx.Response) -> None:
    """Raises TransientError or FinalError unless the response is an image, whole or in part."""
    status = response.status_code
    if status in _RETRIED_STATUS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise TransientError(f"HTTP {status}", _retry_after_s(response.headers.get("Retry-After", "")))
    if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        raise FinalError(f"HTTP {status}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FinalError(f"sent as {response.headers['Content-Encoding']}, although identity was requested")


def _retry_after_s(value: str) -> float | None:
    """Seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None if malformed."""
    if value.strip().isdecimal():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def expected_size(response: httpx.Response, start: int) -> int | None:
    """Size of the image by Content-Range, else Content-Length; None if the response has neither."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if total.isdecimal():
        return int(total)
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None

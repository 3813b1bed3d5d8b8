"""Cut JPEG: completes a truncated JPEG and measures how much of the image is missing; opens no files."""

import os
import re
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from PIL import Image

MOST_MISSING = 0.05  # share of the image; a file that lacks more is refused as damaged

_START, _END = b"\xff\xd8", b"\xff\xd9"
# Any number of 0xFF may precede a marker's code; matched without repetition, a file of 0xFF takes linear time.
_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_END_OF_SCAN = re.compile(
    rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL
)  # stuffed zeros and restart markers are part of a scan
_FRAMES = frozenset(range(0xC0, 0xD0)) - {
    0xC4,
    0xC8,
    0xCC,
}  # tables and an extension, whose codes are among those of frames
_RESTART_INTERVAL, _SCAN = 0xDD, 0xDA
_LAST_BIT = 0.25  # weight of rows that lack one bit of each coefficient, the last scan of most progressive files
_TAIL_BYTES = 64  # if all are zero, the file is searched for its end marker
_COEFFICIENTS = 64  # of a block
_NOISE_SEED = 0
_NOISE_BYTES = 1 << 16
_NOISE_BETWEEN_RESTARTS = 256


def ends_in_zeros(stream: BinaryIO) -> bool:
    """Whether zeros follow an unfinished JPEG, as interrupted copies leave them; libjpeg may decode them."""
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL_BYTES))
    found = False
    if not any(stream.read(_TAIL_BYTES)):
        stream.seek(0)
        content = stream.read()
        found = content.rfind(_END) < content.rfind(bytes((0xFF, _SCAN)))
    stream.seek(position)
    return found


def completed(content: bytes) -> bytes | None:
    """A truncated JPEG with an end marker; None if its last scan has not begun. Trailing zeros are removed."""
    kept = _without_filling(content)
    return kept + _END if kept.startswith(_START) and _last_scan_has_begun(kept) else None


def missing_share(content: bytes, decode: Callable[[bytes], Image.Image]) -> float:
    """Share of the image, 0 to 1, from the first incomplete row to the bottom.

    The file is decoded twice, completed by an end marker and by noise: rows that the file holds are equal. Rows that
    lack only the last bit of their coefficients, as in a progressive file, count as a quarter. decode: any mode.
    """
    kept = _without_filling(content)
    found = np.asarray(decode(kept + _END))
    with_noise = np.asarray(decode(kept + _noise(kept) + _END))
    differing = np.flatnonzero((found != with_noise).reshape(len(found), -1).any(axis=1))
    missing_rows = len(found) - int(differing[0]) if len(differing) else 0
    return missing_rows / len(found) * (_LAST_BIT if _last_scan_refines(kept) else 1)


def _without_filling(content: bytes) -> bytes:
    return content.rstrip(b"\0\xff")  # a lone 0xFF would form a marker with the next byte


def _noise(content: bytes) -> bytes:
    """Random bits for the decoder, between restart markers if the file has some."""
    noise = np.random.default_rng(_NOISE_SEED).integers(0, 0xFF, _NOISE_BYTES, np.uint8).tobytes()  # never 0xFF
    if not any(code == _RESTART_INTERVAL and any(body) for code, body in _segments(content)):
        return noise
    parts = [noise[at : at + _NOISE_BETWEEN_RESTARTS] for at in range(0, _NOISE_BYTES, _NOISE_BETWEEN_RESTARTS)]
    return b"".join(part + bytes((0xFF, 0xD0 + number % 8)) for number, part in enumerate(parts))


def _last_scan_has_begun(content: bytes) -> bool:
    missing_bits: dict[int, list[int]] = {}
    for code, body in _segments(content):
        if code in _FRAMES and len(body) > 5:
            missing_bits = {each: [_COEFFICIENTS] * _COEFFICIENTS for each in body[6::3]}
        elif code == _SCAN and body and len(body) == 4 + 2 * body[0]:
            first, last, bits = body[-3], body[-2], body[-1] & 0x0F
            for component in set(body[1:-3:2]) & missing_bits.keys():
                missing_bits[component][first : last + 1] = [bits] * len(range(first, min(last + 1, _COEFFICIENTS)))
    return bool(missing_bits) and not any(map(any, missing_bits.values()))


def _last_scan_refines(content: bytes) -> bool:
    scans = [body for code, body in _segments(content) if code == _SCAN]
    return bool(scans[-1][-1] >> 4)


def _segments(content: bytes) -> list[tuple[int, bytes]]:
    """Code and body of each complete segment, without the pixels after the head of a scan."""
    found = []
    at = len(_START)
    while (marker := _MARKER.search(content, at)) is not None:
        code, start = content[marker.end() - 1], marker.end()
        if code == _END[1]:
            break
        length = int.from_bytes(content[start : start + 2])
        if length < 2 or start + length > len(content):
            break
        found.append((code, content[start + 2 : start + length]))
        at = start + length
        if code == _SCAN:
            end = _END_OF_SCAN.search(content, at)
            at = end.start() if end is not None else len(content)
    return found

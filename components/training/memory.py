"""Memory of a training process on the CPU: what torch frees stays with the process until the training is over."""

import contextlib
import ctypes
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc's malloc.h
_KEPT_BYTES = 1 << 30
_MOST_MAPPED_BYTES = 32 << 20  # DEFAULT_MMAP_THRESHOLD_MAX


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While it lasts, blocks of up to 1 GB are taken from memory that was freed before; does nothing without glibc.

    glibc maps blocks above 32 MB anew each time, and the system clears them page by page: a step through Lite2's last two
    stages, 128 images of 260 px, took 2.1 times as long on two cores (2.2 s against 1.05 s).
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        yield
        return
    mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    try:
        yield
    finally:
        # Once set, glibc no longer adapts them (mallopt(3)): this is what it arrives at itself when large blocks are freed.
        # With its first 128 kB, embedding in this process afterwards mapped its blocks anew: 300,000 captions took 18 s, not 8.
        mallopt(_MMAP_THRESHOLD, _MOST_MAPPED_BYTES)
        mallopt(_TRIM_THRESHOLD, 2 * _MOST_MAPPED_BYTES)
        trim(0)

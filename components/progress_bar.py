"""Progress bar: a bar on a terminal, a line every 30 s in a log."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

_LOG_S = 30.0
_LOG_FORMAT = "{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed} so far, {remaining} left"
_UNBOUNDED_FORMAT = "{desc}: {n_fmt}{unit}, {elapsed} so far"


def progress_bar(*values: Any, shown: bool = True, unit: str, **options: Any) -> "tqdm[Any]":  # noqa: ANN401 - as tqdm declares it
    """A bar of tqdm, which describes values and options, on standard error. unit: with a blank before it."""
    bar: type[Any] = tqdm
    if not shown or sys.stderr.isatty():
        return bar(*values, disable=not shown, unit=unit, **options)  # type: ignore[no-any-return]
    bounded = options.get("total") is not None or any(hasattr(each, "__len__") for each in values)
    shape = _LOG_FORMAT if bounded else _UNBOUNDED_FORMAT
    options |= {"mininterval": _LOG_S, "maxinterval": _LOG_S, "delay": _LOG_S, "bar_format": shape}
    return bar(*values, file=_Lines(sys.stderr), unit=unit, **options)  # type: ignore[no-any-return]


class _Lines:
    """A stream in which each state of a bar is a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()

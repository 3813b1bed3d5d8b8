"""Progress bar: the progress of a phase; without an account of phases a bar on a terminal, a line every 30 s in a log."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

from image_finder.components.phases import Phase, Progress, running_phase

_LOG_S = 30.0
_LOG_FORMAT = "{desc}: {n_fmt} of {total_fmt}{unit}{postfix}, {elapsed} so far, {remaining} left"
_UNBOUNDED_FORMAT = "{desc}: {n_fmt}{unit}{postfix}, {elapsed} so far"


def progress_bar(*values: Any, shown: bool = True, unit: str, **options: Any) -> "tqdm[Any]":  # noqa: ANN401 - as tqdm declares it
    """A bar of tqdm, which describes values and options, on standard error.

    unit: with a blank before it; "" if description and postfix say how far the work is.
    """
    bar: type[Any] = tqdm
    if shown and (phase := running_phase()) is not None:
        return _PhaseBar(*values, phase=phase, unit=unit, **options)
    if not shown or sys.stderr.isatty():
        return bar(*values, disable=not shown, unit=unit, **options)  # type: ignore[no-any-return]
    bounded = options.get("total") is not None or any(hasattr(each, "__len__") for each in values)
    shape = _LOG_FORMAT if bounded else _UNBOUNDED_FORMAT
    options |= {"mininterval": _LOG_S, "maxinterval": _LOG_S, "delay": _LOG_S, "bar_format": shape}
    return bar(*values, file=_Lines(sys.stderr), unit=unit, **options)  # type: ignore[no-any-return]


class _PhaseBar(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """A bar that draws nothing: the line of a phase shows its progress."""

    def __init__(self, *values: Any, phase: Phase, **options: Any) -> None:  # noqa: ANN401 - as tqdm declares it
        # With gui, tqdm leaves the drawing to `display`.
        super().__init__(*values, gui=True, **options)  # type: ignore[call-overload]
        self._phase = phase
        phase.follow(self._progress)

    def display(self, *_: object, **__: object) -> None: ...

    def close(self) -> None:
        if not self.disable:
            self._phase.follow()
        super().close()

    def _progress(self) -> Progress:
        facts = self.format_dict
        shown = tqdm.format_sizeof if self.unit_scale else "{:,}".format
        counts = " of ".join(shown(number) for number in (self.n, self.total) if number is not None) + self.unit
        said = (self.desc.removesuffix(": "), counts if self.unit else "", facts["postfix"])
        done = self.n - self.initial
        left_s = facts["elapsed"] / done * (self.total - self.n) if self.total and done else None
        return Progress(", ".join(filter(None, said)), left_s)


class _Lines:
    """A stream in which each state of a bar is a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()

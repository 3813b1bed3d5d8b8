"""Text for people: safe paths, one-line messages, counts, aligned columns; knows nothing of commands."""

import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice

# Control characters, bidirectional marks and surrogates (Python represents a byte of a file name that is not UTF-8 as
# U+DC80 to U+DCFF).
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Text in which characters that a terminal acts on are escaped: \n, \t, \x1b, \u202e."""
    return _UNSAFE.sub(lambda found: _escape(found[0]), text)


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path for a terminal: unchanged if harmless, else as $'...', which bash and zsh read.

    Quoted are paths with characters that a terminal acts on, blanks at an end, or an initial $'.
    """
    text = os.fspath(path)
    if text == text.strip() and not text.startswith("$'") and not _UNSAFE.search(text):
        return text
    return "$'" + visible(text.replace("\\", r"\\").replace("'", r"\'")) + "'"


def one_line(message: object, limit: int = 300) -> str:
    """A message in one line of at most `limit` characters; of an exception without message, its type.

    Blanks within a line stay: they may belong to a path.
    """
    text = " ".join(line.strip() for line in str(message).splitlines() if line.strip())
    if not text and isinstance(message, BaseException):
        text = type(message).__name__
    return shortened(text, limit)


def shortened(text: str, limit: int) -> str:
    """Text of at most `limit` characters; a longer one ends in "..."."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def counted(n: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "2,000 images". plural: if it is not noun + s."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """An estimate, rounded: 40 s, 3 min, 2 h."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 100 * 60 else f"{round(seconds / 3600)} h"


def elapsed(seconds: float) -> str:
    """A measured time: 0.4 s, 38 s, 2 min 14 s, 1 h 5 min."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def listed(reasons: Mapping[str, str] | Mapping[int, str], limit: int = 20) -> list[str]:
    """Up to `limit` lines "name: reason", and one for the rest, which commands print with --json."""
    lines = [f"{shown_path(str(name))}: {visible(reason)}" for name, reason in islice(reasons.items(), limit)]
    more = len(reasons) - limit
    return [*lines, f"and {more:,} more; --json lists them all"] if more > 0 else lines


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as left-aligned columns, two spaces apart; control characters are escaped."""
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    # In $'...', bash reads \x85 as a byte and \u0085 as a character.
    return f"\\u{code:04x}" if 0x80 <= code < 0x100 else character.encode("unicode_escape").decode()

"""Hits as lines for a terminal or a pipe: rank, score, id, similar images, caption, and the path last."""

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from image_finder.components.text import aligned, shortened, shown_path, visible

if TYPE_CHECKING:
    from image_finder.components.records.search import Hit

GOOD, LESS_CERTAIN = "Good matches", "Less certain"
_CAPTION = 60  # characters of a caption where no terminal limits the line
_SHORT_CAPTION = 16  # fewer say too little


def terminal_columns() -> int | None:
    """Width of the terminal that standard output is; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def hits_table(hits: Sequence["Hit"], columns: int | None = None) -> str:
    """A heading and a line for each hit, with dividers where good matches are known.

    columns: of the terminal. Captions are shortened to fit, paths never. Good matches are green, for `click.echo`.
    """
    heading, *lines = _lines(hits, columns)
    if hits and hits[0].good is not None:
        n_good = sum(hit.good is True for hit in hits)
        good = [click.style(line, fg="green") for line in lines[:n_good]]
        rest = lines[n_good:]
        lines = [
            *([click.style(GOOD, fg="green", bold=True), *good] if good else []),
            *([click.style(LESS_CERTAIN, bold=True), *rest] if rest else []),
        ]
    return "\n".join([heading, *lines])


def _lines(hits: Sequence["Hit"], columns: int | None) -> list[str]:
    table = {
        "rank": [str(hit.rank) for hit in hits],
        "score": [f"{hit.score:.4f}" for hit in hits],
        "id": [hit.id for hit in hits],
        "similar": [f"+{len(hit.duplicates)} similar" if hit.duplicates else "" for hit in hits],
        "caption": [visible(" ".join(hit.captions[0].split())) if hit.captions else "" for hit in hits],
        "image": [shown_path(hit.uri) for hit in hits],
    }
    for name in ("similar", "caption"):
        if not any(table[name]):
            del table[name]
    if "caption" in table:
        others = sum(2 + max(map(len, [name, *cells])) for name, cells in table.items() if name != "caption")
        room = _CAPTION if columns is None else columns - others
        if room < _SHORT_CAPTION:
            del table["caption"]
        else:
            table["caption"] = [shortened(caption, room) for caption in table["caption"]]
    return aligned([list(table), *zip(*table.values(), strict=True)]).splitlines()

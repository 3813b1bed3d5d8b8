"""Contact sheet: the hits of a search as one HTML page that holds its images."""

import base64
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from PIL import Image

from image_finder.components.errors import FinderError
from image_finder.components.html_report import render_report
from image_finder.components.images.decoding import load_for_display
from image_finder.components.images.encoding import jpeg_bytes
from image_finder.components.records.search import Hit
from image_finder.components.search.engine import SearchEngine
from image_finder.components.text import counted, shown_path, visible

_TILE_PX = 480


class _Tile(NamedTuple):
    """jpeg: base64; empty if the image cannot be read, for which reason then says why."""

    rank: int
    score: float
    caption: str
    path: str
    similar: str
    jpeg: str = ""
    reason: str = ""


def contact_sheet(engine: SearchEngine, hits: tuple[Hit, ...], *, title: str, notes: list[str]) -> str:
    """A page with all hits, good matches first; without scripts, and it loads nothing. notes: lines above them."""
    headings = {True: "Good matches", False: "Less certain", None: ""}
    goods = [bool(hit.good) for hit in hits]
    grouped = goods == sorted(goods, reverse=True)  # not if they are sorted by time
    groups = [
        (headings[good], list(_tiles(engine, tuple(of_kind))))
        for good, of_kind in groupby(hits, lambda hit: hit.good if grouped else None)
    ]
    return render_report("contact_sheet.html", title=title, notes=notes, groups=groups)


def hit_image(engine: SearchEngine, hit: Hit, *, at_most_px: int) -> Image.Image:
    """Upright sRGB image of a hit. Raises ImageError, DataError if its file has gone or cannot be read."""
    return load_for_display(engine.image_source(hit.id), at_most_px=at_most_px)


def _tiles(engine: SearchEngine, hits: tuple[Hit, ...]) -> Iterator[_Tile]:
    for hit in hits:
        tile = _Tile(
            hit.rank,
            hit.score,
            hit.captions[0] if hit.captions else "",
            shown_path(hit.uri),
            counted(len(hit.duplicates), "similar image") if hit.duplicates else "",
        )
        try:
            content = jpeg_bytes(hit_image(engine, hit, at_most_px=_TILE_PX))
        except FinderError as error:
            yield tile._replace(reason=visible(str(error)))
        else:
            yield tile._replace(jpeg=base64.b64encode(content).decode())

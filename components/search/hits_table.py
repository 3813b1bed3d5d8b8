"""Hits as a text table, for terminals."""

from collections.abc import Sequence

from image_finder.components.records.search import Hit
from image_finder.components.text import aligned, shown_path

_OPTIONAL = {"similar", "caption"}


def hits_table(hits: Sequence[Hit]) -> str:
    """Rank, score, id, file, number of similar images and first caption of each hit, with a heading."""
    columns: dict[str, list[str]] = {
        "rank": [str(hit.rank) for hit in hits],
        "score": [f"{hit.score:.4f}" for hit in hits],
        "id": [hit.id for hit in hits],
        "image": [shown_path(hit.uri) for hit in hits],
        "similar": [f"+{len(hit.duplicates)} similar" if hit.duplicates else "" for hit in hits],
        "caption": [" ".join(hit.captions[0].split()) if hit.captions else "" for hit in hits],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells) or name not in _OPTIONAL}
    return aligned([list(shown), *zip(*shown.values(), strict=True)])

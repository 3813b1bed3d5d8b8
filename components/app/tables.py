"""Tables: hits as aligned text."""

from collections.abc import Sequence

from components.records import Hit


def hits_table(hits: Sequence[Hit]) -> str:
    """Rank, score, id, address and first caption of each hit, best first, under a heading."""
    rows = [
        (str(hit.rank), f"{hit.score:.4f}", hit.id, hit.uri, hit.captions[0] if hit.captions else "") for hit in hits
    ]
    return aligned([("rank", "score", "id", "uri", "caption"), *rows])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text columns, left-aligned, two spaces apart; a cell's line breaks become spaces."""
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )

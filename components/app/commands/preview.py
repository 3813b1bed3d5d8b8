"""Preview: the hits of a search as images in the terminal."""

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from textual_image.renderable import Image as TerminalImage

from image_finder.components.app.contact_sheet import hit_image
from image_finder.components.errors import FinderError
from image_finder.components.records.search import Hit
from image_finder.components.search.engine import SearchEngine
from image_finder.components.text import visible

_TILE_COLUMNS = 36  # characters
_TILE_PX = 720  # enough for cells of 20 pixels


def show_preview(engine: SearchEngine, hits: Sequence[Hit], columns: int) -> None:
    """Print the images in rows, each above its rank and name.

    By the Kitty graphics protocol or Sixel where the terminal answers that it knows one of them, else as half blocks in
    colour. columns: width of the terminal.
    """
    console = Console(width=columns, no_color=False, highlight=False)  # NO_COLOR is about text
    per_row = max(1, min(columns // _TILE_COLUMNS, len(hits)))
    width = columns // per_row - 2
    for start in range(0, len(hits), per_row):
        row = hits[start : start + per_row]
        grid = Table.grid(padding=(0, 1))
        for _ in row:
            grid.add_column(width=width, vertical="bottom")
        grid.add_row(*(_image(engine, hit, width) for hit in row))
        grid.add_row(*(Text(f"{hit.rank}  {visible(hit.name)}", overflow="ellipsis", no_wrap=True) for hit in row))
        console.print(grid)


def _image(engine: SearchEngine, hit: Hit, width: int) -> RenderableType:
    try:
        image = hit_image(engine, hit, at_most_px=_TILE_PX)
    except FinderError as error:
        return Text(visible(str(error)))
    # In a fixed box, so that portraits do not fill the screen.
    box = (image.width, max(1, image.width * 3 // 4))
    if image.height > box[1]:
        width = max(1, width * box[1] // image.height)
    return TerminalImage(image, width=width, height="auto")

"""Figures with images: the similarity heat map and the best and worst queries; knows nothing of models or files.

Equal inputs give equal pixels. A dollar sign in a caption starts no formula, and a character that the font lacks becomes
U+FFFD.
"""

import functools
import math
import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from image_finder.components.arrays import FloatMatrix
from image_finder.components.errors import DataError
from image_finder.components.evaluation.drawing import FAINT, INK, add_axes, add_title, new_figure
from image_finder.components.metrics.examples import QueryExample, QueryExamples
from image_finder.components.text import counted

_RIGHT, _OTHER = "#1a9641", "#c8c8c8"
_LOOSE_MARK = re.compile(r" ([.,;:!?])")  # tokenised captions end in " .", which would wrap to a separate line
_THUMBNAIL_PX = 224
_TILE_IN, _CAPTION_IN = 1.2, 2.9  # query examples: side of an image, width of a caption
_OWN_IN = 0.15 + _CAPTION_IN + 0.2
_FIRST_HIT_IN = _OWN_IN + _TILE_IN + 0.35


def similarity_heat_map(similarity: FloatMatrix, thumbnails: Sequence[Image.Image], captions: Sequence[str]) -> Figure:
    """Draw cosine similarities of n captions (rows) and images (columns), right pairs framed.

    similarity: (n, n), row i is caption i against every image; caption i belongs to image i. Raises DataError.
    """
    values, n = np.asarray(similarity), len(captions)
    if n == 0 or values.shape != (n, n) or len(thumbnails) != n or not np.isfinite(values).all():
        raise DataError(
            f"similarity has shape {values.shape} and {np.count_nonzero(~np.isfinite(values))} values that are not finite, "
            f"with {counted(len(thumbnails), 'thumbnail')} and {counted(n, 'caption')}; expected (n, n), 0, n and n, n >= 1"
        )
    cell_in, left_in, top_in = min(1.25, max(0.55, 9 / n)), 3.3, 0.62
    side_in = n * cell_in
    figure = new_figure(left_in + side_in + 1.0, top_in + cell_in + side_in + 0.2)
    axes = add_axes(figure, left_in, top_in + cell_in, side_in, side_in)
    colors = axes.imshow(values, cmap="viridis", aspect="auto")
    _write_cells(axes, values, font_size=max(6.0, min(12.0, 10.5 * cell_in)))
    for row, (caption, thumbnail) in enumerate(zip(captions, thumbnails, strict=True)):
        label = add_axes(figure, 0.15, top_in + (row + 1) * cell_in, left_in - 0.3, cell_in)
        n_lines = max(1, int(cell_in / 0.165))
        _write(label, 1, 0.5, _wrapped(caption, 40, n_lines), ha="right", va="center", fontsize=9.5)
        column = add_axes(figure, left_in + row * cell_in + 0.04, top_in, cell_in - 0.08, cell_in - 0.06)
        _show(column, thumbnail, None)
    bar = figure.colorbar(colors, cax=add_axes(figure, left_in + side_in + 0.15, top_in + cell_in, 0.16, side_in))
    bar.ax.tick_params(labelsize=8)
    add_title(figure, "Cosine similarity of captions and images", "right pairs framed")
    return figure


def query_examples(
    examples: QueryExamples, thumbnails: Mapping[int, Image.Image], captions: Sequence[str], *, gallery_size: int
) -> Figure:
    """Draw the best and worst caption queries with their nearest images and scores.

    thumbnails: by row, all of examples.image_rows. captions: by caption row. The caption's own image always has a
    green frame. Raises DataError without examples or if an image is missing.
    """
    missing = [row for row in examples.image_rows if row not in thumbnails]
    groups = [("Answered best", examples.best), ("Answered worst", examples.worst)]
    groups = [(name, members) for name, members in groups if members]
    n_rows = sum(len(members) for _, members in groups)
    if missing or not n_rows:
        raise DataError(
            f"{counted(n_rows, 'query', 'queries')} to draw and {counted(len(missing), 'thumbnail')} missing (rows "
            f"{missing[:5]}); expected at least 1 query and all of examples.image_rows"
        )
    n_hits = max(len(example.hit_rows) for _, members in groups for example in members)
    top_in, head_in, row_in = 0.62, 0.42, _TILE_IN + 0.32
    figure = new_figure(
        _FIRST_HIT_IN + n_hits * _TILE_IN + 0.15, top_in + len(groups) * head_in + n_rows * row_in + 0.1
    )
    for name, members in groups:
        _write_heads(figure, top_in, head_in, name)
        top_in += head_in
        for example in members:
            caption = captions[example.caption_row]
            _draw_query(figure, top_in, example, thumbnails, caption=caption, gallery_size=gallery_size)
            top_in += row_in
    add_title(
        figure, "Caption queries answered best and worst", f"{gallery_size:,} images searched, own image in green"
    )
    return figure


def _write_cells(axes: Axes, values: FloatMatrix, *, font_size: float) -> None:
    axes.set(xticks=[], yticks=[])
    lowest, highest = float(values.min()), float(values.max())
    for (row, column), value in np.ndenumerate(values):
        on_light = value > lowest + 0.6 * (highest - lowest)  # viridis is light in its upper part
        axes.text(
            column,
            row,
            f"{value:z.2f}",
            ha="center",
            va="center",
            fontsize=font_size,
            color="black" if on_light else "white",
            fontweight="bold" if row == column else "normal",
        )
    for row in range(len(values)):
        corner = (row - 0.47, row - 0.47)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor="white", linewidth=2))


def _write_heads(figure: Figure, top_in: float, height_in: float, name: str) -> None:
    title = add_axes(figure, 0.15, top_in, _CAPTION_IN, height_in)
    _write(title, 0, 0.3, name, va="center", fontsize=11, fontweight="bold")
    for left_in, text in ((_OWN_IN, "its image"), (_FIRST_HIT_IN, "nearest images, cosine")):
        head = add_axes(figure, left_in, top_in, _TILE_IN, height_in)
        _write(head, 0, 0.3, text, va="center", fontsize=9, color=FAINT)


def _draw_query(
    figure: Figure,
    top_in: float,
    example: QueryExample,
    thumbnails: Mapping[int, Image.Image],
    *,
    caption: str,
    gallery_size: int,
) -> None:
    side_in = _TILE_IN - 0.08
    label = add_axes(figure, 0.15, top_in, _CAPTION_IN, side_in)
    _write(label, 0, 0.97, _wrapped(caption, 38, 4), va="top", fontsize=9.5)
    margin = f", margin {example.margin:+.3f}" if math.isfinite(example.margin) else ""
    _write(label, 0, 0.1, f"rank {example.rank:,} of {gallery_size:,}{margin}", va="center", fontsize=8.5, color=FAINT)
    _show(add_axes(figure, _OWN_IN, top_in, side_in, side_in), thumbnails[example.image_row], _RIGHT)
    for column, (row, score) in enumerate(zip(example.hit_rows, example.hit_scores, strict=True)):
        hit = add_axes(figure, _FIRST_HIT_IN + column * _TILE_IN, top_in, side_in, side_in)
        _show(hit, thumbnails[row], _RIGHT if row == example.image_row else _OTHER)
        hit.set_xlabel(f"{column + 1}.  {score:.3f}", fontsize=8, labelpad=3, color=INK)


def _show(axes: Axes, thumbnail: Image.Image, frame: str | None) -> None:
    """Draw a whole, undistorted image in the middle of square axes. frame: its colour."""
    image = thumbnail.convert("RGB")
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    axes.imshow(np.asarray(image))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        spine.set(edgecolor=frame or _OTHER, linewidth=3.5 if frame == _RIGHT else 1)


def _write(axes: Axes, x: float, y: float, text: str, **style: object) -> None:
    """Write text at (x, y), 0 to 1, into axes that contain nothing else."""
    axes.set_axis_off()
    axes.text(x, y, text, transform=axes.transAxes, parse_math=False, **({"color": INK} | style))  # type: ignore[arg-type]


def _wrapped(caption: str, width: int, max_lines: int) -> str:
    tidy = _LOOSE_MARK.sub(r"\1", " ".join(caption.split()))
    drawable = "".join(sign if ord(sign) in _drawable() else "\ufffd" for sign in tidy)
    return "\n".join(textwrap.wrap(drawable, width, max_lines=max_lines, placeholder=" \u2026"))


@functools.cache
def _drawable() -> frozenset[int]:
    """Code points of matplotlib's default font; for others it warns and draws an empty box."""
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())

"""Figures of an evaluation: numbers and thumbnails in, matplotlib figures out; knows nothing of models or files.

Every figure is an object of its own (no pyplot, no global state), so steps may draw in any thread, and equal inputs
give equal pixels. A dollar sign in a caption starts no formula, and a sign that the font lacks becomes U+FFFD.
"""

import functools
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from PIL import Image

from image_finder.components.arrays import FloatMatrix
from image_finder.components.errors import DataError
from image_finder.components.metrics.examples import QueryExample, QueryExamples
from image_finder.components.metrics.ranks import MatchRanks
from image_finder.components.metrics.recall import random_recall_at_k, recall_at_k
from image_finder.components.records.training import EpochRecord
from image_finder.components.storage import write_bytes_atomically

_RIGHT, _OTHER, _INK, _FAINT = "#1a9641", "#c8c8c8", "#222222", "#777777"
_TEXT_TO_IMAGE, _IMAGE_TO_TEXT = "#0b62a4", "#d1600a"
_LOOSE_MARK = re.compile(r" ([.,;:!?])")  # tokenised captions end in " .", which would wrap to a line of its own
_THUMBNAIL_PX = 224
_DPI = 110
_LONGEST_K = 100
_TILE_IN, _CAPTION_IN = 1.2, 2.9  # query examples: an image's place, the caption's width
_OWN_IN = 0.15 + _CAPTION_IN + 0.2
_FIRST_HIT_IN = _OWN_IN + _TILE_IN + 0.35


def similarity_heat_map(similarity: FloatMatrix, thumbnails: Sequence[Image.Image], captions: Sequence[str]) -> Figure:
    """Cosine similarities of n captions (rows) and n images (columns), values in the cells, right pairs framed.

    similarity: (n, n), row i is caption i against every image; caption i belongs to image i. Raises DataError.
    """
    values, n = np.asarray(similarity), len(captions)
    if n == 0 or values.shape != (n, n) or len(thumbnails) != n or not np.isfinite(values).all():
        raise DataError(
            f"similarity has shape {values.shape} and {np.count_nonzero(~np.isfinite(values))} values that are not finite, "
            f"with {len(thumbnails)} thumbnails and {n} captions; expected (n, n), 0, n and n, n at least 1"
        )
    cell_in, left_in, top_in = min(1.25, max(0.55, 9 / n)), 3.3, 0.62
    side_in = n * cell_in
    figure = _figure(left_in + side_in + 1.0, top_in + cell_in + side_in + 0.2)
    box = _Boxes(figure)
    axes = figure.add_axes(box(left_in, top_in + cell_in, side_in, side_in))
    colors = axes.imshow(values, cmap="viridis", aspect="auto")
    _write_cells(axes, values, font_size=max(6.0, min(12.0, 10.5 * cell_in)))
    for place, (caption, thumbnail) in enumerate(zip(captions, thumbnails, strict=True)):
        label = figure.add_axes(box(0.15, top_in + (place + 1) * cell_in, left_in - 0.3, cell_in))
        n_lines = max(1, int(cell_in / 0.165))
        _write(label, 1, 0.5, _wrapped(caption, 40, n_lines), ha="right", va="center", fontsize=9.5)
        column = figure.add_axes(box(left_in + place * cell_in + 0.04, top_in, cell_in - 0.08, cell_in - 0.06))
        _show(column, thumbnail, None)
    bar = figure.colorbar(colors, cax=figure.add_axes(box(left_in + side_in + 0.15, top_in + cell_in, 0.16, side_in)))
    bar.ax.tick_params(labelsize=8)
    _title(figure, "Cosine similarity of captions and images", "right pairs framed")
    return figure


def query_examples(
    examples: QueryExamples, thumbnails: Mapping[int, Image.Image], captions: Sequence[str], *, gallery_size: int
) -> Figure:
    """Best and worst caption queries: caption, rank, its own image, then the nearest images with their scores.

    thumbnails: images by row, all of examples.image_rows. captions: by caption row. The caption's own image has a
    green frame wherever it stands. Raises DataError for no examples or a missing image.
    """
    missing = [row for row in examples.image_rows if row not in thumbnails]
    groups = [("Answered best", examples.best), ("Answered worst", examples.worst)]
    groups = [(name, members) for name, members in groups if members]
    n_rows = sum(len(members) for _, members in groups)
    if missing or not n_rows:
        raise DataError(
            f"{n_rows} queries to draw and {len(missing)} of their images missing (rows {missing[:5]}), expected at "
            "least 1 query and all of examples.image_rows"
        )
    n_hits = max(len(example.hit_rows) for _, members in groups for example in members)
    top_in, head_in, row_in = 0.62, 0.42, _TILE_IN + 0.32
    figure = _figure(_FIRST_HIT_IN + n_hits * _TILE_IN + 0.15, top_in + len(groups) * head_in + n_rows * row_in + 0.1)
    for name, members in groups:
        _write_heads(figure, top_in, head_in, name)
        top_in += head_in
        for example in members:
            caption = captions[example.caption_row]
            _draw_query(figure, top_in, example, thumbnails, caption=caption, gallery_size=gallery_size)
            top_in += row_in
    _title(figure, "Caption queries answered best and worst", f"{gallery_size:,} images searched, own image in green")
    return figure


def recall_curve(ranks: MatchRanks) -> Figure:
    """Recall@k for k = 1 to 100 in both directions on a logarithmic axis, with the random baseline of each dashed."""
    ks = np.arange(1, _LONGEST_K + 1)
    own_captions = np.unique(ranks.image_of_caption, return_counts=True)[1]
    directions = [
        ("text to image", _TEXT_TO_IMAGE, ranks.text_to_image, ranks.n_images, np.ones(1, np.int64)),
        ("image to text", _IMAGE_TO_TEXT, ranks.image_to_text, ranks.n_captions, own_captions),
    ]
    figure = _figure(7.2, 4.6)
    axes = figure.add_axes(_Boxes(figure)(0.75, 0.62, 6.2, 3.35))
    for name, color, values, gallery_size, n_right in directions:
        recalls = [100 * recall_at_k(values, int(k)) for k in ks]
        label = f"{name}, {len(values):,} queries in {gallery_size:,}"
        axes.plot(ks, recalls, color=color, linewidth=2, label=label)
        by_chance = [100 * random_recall_at_k(gallery_size, n_right, int(k)) for k in ks]
        axes.plot(ks, by_chance, color=color, linewidth=1.2, linestyle=(0, (4, 3)), label=f"{name}, random order")
    axes.set_xscale("log")
    axes.set(xlim=(1, _LONGEST_K), ylim=(0, 102), xticks=[1, 2, 5, 10, 20, 50, 100])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    _dress(axes, "k, results looked at", "recall@k, %")
    axes.legend(fontsize=8, frameon=False, loc="best")
    _title(figure, "Share of queries with a right item among the first k", "")
    return figure


def training_curves(history: Sequence[EpochRecord]) -> Figure:
    """Loss, learning rates, logit scale and recall on val by epoch. Raises DataError for an empty history."""
    if not history:
        raise DataError("history has 0 epochs, expected at least 1: nothing to draw")
    figure = _figure(10.9, 6.3)
    box = _Boxes(figure)
    loss, recall, rates, scale = (
        figure.add_axes(box(0.8 + 4.6 * column, 0.75 + 2.8 * row, 3.7, 2.1)) for row in (0, 1) for column in (0, 1)
    )
    _plot(loss, history, [record.loss for record in history])
    _plot(scale, history, [record.logit_scale for record in history])
    _plot(rates, history, [record.head_rate for record in history], color=_TEXT_TO_IMAGE, label="heads")
    if any(record.trunk_rate for record in history):
        _plot(rates, history, [record.trunk_rate for record in history], color=_IMAGE_TO_TEXT, label="trunks")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rates.yaxis.get_offset_text().set_fontsize(8)
    rates.legend(fontsize=8, frameon=False, loc="best")
    _plot_recalls(recall, history)
    recall.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.03))
    names = {loss: "training loss", recall: "recall on val, %", rates: "learning rate", scale: "logit scale, exp(t)"}
    for axes, name in names.items():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _dress(axes, "epoch", name)
    _title(figure, f"Training, {len(history)} epoch{'' if len(history) == 1 else 's'}", "")
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write figure to path as PNG, whole or not at all; equal figures give equal bytes. Raises StorageError."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    write_bytes_atomically(path, buffer.getvalue())


class _Boxes:
    """Places of axes given in inches from the top left corner, as matplotlib wants them: shares from the bottom left."""

    def __init__(self, figure: Figure) -> None:
        self._width_in, self._height_in = figure.get_size_inches()

    def __call__(
        self, left_in: float, top_in: float, width_in: float, height_in: float
    ) -> tuple[float, float, float, float]:
        bottom_in = self._height_in - top_in - height_in
        return (
            left_in / self._width_in,
            bottom_in / self._height_in,
            width_in / self._width_in,
            height_in / self._height_in,
        )


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _title(figure: Figure, text: str, detail: str) -> None:
    width_in, height_in = figure.get_size_inches()
    figure.text(0.15 / width_in, 1 - 0.3 / height_in, text, fontsize=13, fontweight="bold", va="center", color=_INK)
    figure.text(1 - 0.15 / width_in, 1 - 0.3 / height_in, detail, fontsize=9, va="center", ha="right", color=_FAINT)


def _dress(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=9, color=_INK)
    axes.set_ylabel(y_label, fontsize=9, color=_INK)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _write_cells(axes: Axes, values: FloatMatrix, *, font_size: float) -> None:
    """The value of every cell, readable on its colour, and a frame around the diagonal."""
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
    for place in range(len(values)):
        corner = (place - 0.47, place - 0.47)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor="white", linewidth=2))


def _write_heads(figure: Figure, top_in: float, height_in: float, name: str) -> None:
    box = _Boxes(figure)
    title = figure.add_axes(box(0.15, top_in, _CAPTION_IN, height_in))
    _write(title, 0, 0.3, name, va="center", fontsize=11, fontweight="bold")
    for left_in, text in ((_OWN_IN, "its image"), (_FIRST_HIT_IN, "nearest images, cosine")):
        head = figure.add_axes(box(left_in, top_in, _TILE_IN, height_in))
        _write(head, 0, 0.3, text, va="center", fontsize=9, color=_FAINT)


def _draw_query(
    figure: Figure,
    top_in: float,
    example: QueryExample,
    thumbnails: Mapping[int, Image.Image],
    *,
    caption: str,
    gallery_size: int,
) -> None:
    box, side_in = _Boxes(figure), _TILE_IN - 0.08
    label = figure.add_axes(box(0.15, top_in, _CAPTION_IN, side_in))
    _write(label, 0, 0.97, _wrapped(caption, 38, 4), va="top", fontsize=9.5)
    margin = f", margin {example.margin:+.3f}" if math.isfinite(example.margin) else ""
    _write(label, 0, 0.1, f"rank {example.rank:,} of {gallery_size:,}{margin}", va="center", fontsize=8.5, color=_FAINT)
    _show(figure.add_axes(box(_OWN_IN, top_in, side_in, side_in)), thumbnails[example.image_row], _RIGHT)
    for place, (row, score) in enumerate(zip(example.hit_rows, example.hit_scores, strict=True)):
        hit = figure.add_axes(box(_FIRST_HIT_IN + place * _TILE_IN, top_in, side_in, side_in))
        _show(hit, thumbnails[row], _RIGHT if row == example.image_row else _OTHER)
        hit.set_xlabel(f"{place + 1}.  {score:.3f}", fontsize=8, labelpad=3, color=_INK)


def _plot(
    axes: Axes, history: Sequence[EpochRecord], values: list[float], *, color: str = _INK, label: str | None = None
) -> None:
    axes.plot([record.epoch for record in history], values, color=color, marker="o", markersize=3, label=label)


def _plot_recalls(axes: Axes, history: Sequence[EpochRecord]) -> None:
    """One line for each name in val_recall (t2i_r1, ...), the stronger the larger its k, and their mean."""
    names = list(history[0].val_recall)
    ks = sorted({int(name.rpartition("_r")[2]) for name in names})
    for name in names:
        direction, _, k = name.rpartition("_r")
        color, words = {"t2i": (_TEXT_TO_IMAGE, "text to image"), "i2t": (_IMAGE_TO_TEXT, "image to text")}[direction]
        strength = 0.35 + 0.65 * (ks.index(int(k)) + 1) / len(ks)
        values = [100 * record.val_recall.get(name, math.nan) for record in history]
        _plot(axes, history, values, color=to_hex(_faded(color, strength)), label=f"{words} @{k}")
    _plot(axes, history, [100 * record.val_mean_recall for record in history], label="mean recall")


def _faded(color: str, strength: float) -> tuple[float, float, float]:
    """Colour mixed with white, so that lines that cross do not add up as transparent ones do."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue


def _show(axes: Axes, thumbnail: Image.Image, frame: str | None) -> None:
    """Draw an image, whole and undistorted, in the middle of its square place, with a frame of that colour."""
    image = thumbnail.convert("RGB")
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    axes.imshow(np.asarray(image))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        spine.set(edgecolor=frame or _OTHER, linewidth=3.5 if frame == _RIGHT else 1)


def _write(axes: Axes, x: float, y: float, text: str, **style: object) -> None:
    """Text alone at (x, y) of its axes, 0 to 1."""
    axes.set_axis_off()
    axes.text(x, y, text, transform=axes.transAxes, parse_math=False, **({"color": _INK} | style))  # type: ignore[arg-type]


def _wrapped(caption: str, width: int, max_lines: int) -> str:
    tidy = _LOOSE_MARK.sub(r"\1", " ".join(caption.split()))
    drawable = "".join(sign if ord(sign) in _drawable() else "\ufffd" for sign in tidy)
    return "\n".join(textwrap.wrap(drawable, width, max_lines=max_lines, placeholder=" \u2026"))


@functools.cache
def _drawable() -> frozenset[int]:
    """Code points of the font that matplotlib brings along; it warns of others and draws an empty box."""
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())

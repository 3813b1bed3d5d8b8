"""Curves: recall over k and the course of a training; knows nothing of models or files."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from image_finder.components.errors import DataError
from image_finder.components.evaluation.drawing import INK, add_axes, add_title, label_axes, new_figure
from image_finder.components.metrics.ranks import MatchRanks
from image_finder.components.metrics.recall import random_recall_at_k, recall_at_k
from image_finder.components.records.training import EpochRecord
from image_finder.components.text import counted

_TEXT_TO_IMAGE, _IMAGE_TO_TEXT = "#0b62a4", "#d1600a"
_LONGEST_K = 100


def recall_curve(ranks: MatchRanks) -> Figure:
    """Draw recall@k for k = 1 to 100 in both directions, random baselines dashed."""
    ks = np.arange(1, _LONGEST_K + 1)
    own_captions = np.unique(ranks.image_of_caption, return_counts=True)[1]
    directions = [
        ("text to image", _TEXT_TO_IMAGE, ranks.text_to_image, ranks.n_images, np.ones(1, np.int64)),
        ("image to text", _IMAGE_TO_TEXT, ranks.image_to_text, ranks.n_captions, own_captions),
    ]
    figure = new_figure(7.2, 4.6)
    axes = add_axes(figure, 0.75, 0.62, 6.2, 3.35)
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
    label_axes(axes, "k, number of results", "recall@k, %")
    axes.legend(fontsize=8, frameon=False, loc="best")
    add_title(figure, "Share of queries with a right item among the first k", "")
    return figure


def training_curves(history: Sequence[EpochRecord]) -> Figure:
    """Loss, rates, logit scale and recall on val by epoch. Raises DataError for an empty history."""
    if not history:
        raise DataError("history has 0 epochs, expected at least 1")
    figure = new_figure(10.9, 6.3)
    loss, recall, rates, scale = (
        add_axes(figure, 0.8 + 4.6 * column, 0.75 + 2.8 * row, 3.7, 2.1) for row in (0, 1) for column in (0, 1)
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
        label_axes(axes, "epoch", name)
    add_title(figure, f"Training, {counted(len(history), 'epoch')}", "")
    return figure


def _plot(
    axes: Axes, history: Sequence[EpochRecord], values: list[float], *, color: str = INK, label: str | None = None
) -> None:
    axes.plot([record.epoch for record in history], values, color=color, marker="o", markersize=3, label=label)


def _plot_recalls(axes: Axes, history: Sequence[EpochRecord]) -> None:
    """Draw one line per name in val_recall (t2i_r1, ...), darker for larger k, and their mean."""
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
    """Mix a colour with white; crossing transparent lines would add up."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue

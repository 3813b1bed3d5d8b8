"""Page and figure of a drift report: records and samples in, HTML text and a matplotlib figure out."""

import base64

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from image_finder.components.drift.drift import ComparedSample
from image_finder.components.drift.permutation import Values
from image_finder.components.drift.report import DriftReport, compared_text, verdict
from image_finder.components.drift.sample import ImageSample
from image_finder.components.evaluation.drawing import INK, label_axes, new_figure, png_bytes
from image_finder.components.html_report import render_report

_TRAINING, _NOW = "#9a9a9a", "#0b62a4"
_BINS = 30
_POINTS = 500  # per side in the map of the vectors


def report_html(report: DriftReport, figure: Figure | None = None) -> str:
    return render_report(
        "drift.html",
        title=f"Drift of {report.dataset or 'searches'}",
        report=report,
        verdict=verdict(report),
        compared=compared_text(report),
        figure=base64.b64encode(png_bytes(figure)).decode() if figure else "",
    )


def drift_figure(compared: ComparedSample) -> Figure:
    """Histograms of captions, sizes and brightness on both sides, and a map of the vectors."""
    figure = new_figure(10.9, 6.6)
    before, now = compared.reference.sample, compared.sample
    axes = figure.subplots(2, 2)
    _histogram(axes[0, 0], _lengths(before), _lengths(now), "words per caption", whole=True)
    _histogram(axes[0, 1], _sides(before), _sides(now), "geometric mean of the sides, px (log2)")
    _histogram(axes[1, 0], before.brightness, now.brightness, "brightness, black 0 to white 1")
    _map(axes[1, 1], before, now)
    axes[0, 0].legend(fontsize=8, frameon=False)
    name = compared.name or "the images"
    figure.suptitle(f"{name} compared with the training images of {' '.join(compared.origin)}", fontsize=12, color=INK)
    figure.tight_layout()
    return figure


def _lengths(sample: ImageSample) -> Values:
    return np.array([length for image in sample.words for length in image.lengths], np.float64)


def _sides(sample: ImageSample) -> Values:
    octaves: Values = np.log2(sample.sizes_px.astype(np.float64)).mean(axis=1)
    return octaves


def _histogram(
    axes: Axes, before: NDArray[np.floating], now: NDArray[np.floating], label: str, *, whole: bool = False
) -> None:
    both = np.concatenate([before, now]).astype(np.float64)
    if len(both):
        low, high = float(both.min()), float(both.max())
        edges = np.arange(low, high + 2) - 0.5 if whole else np.linspace(low - 1e-3, high + 1e-3, _BINS + 1)
        for values, colour, name in ((before, _TRAINING, "training"), (now, _NOW, "now")):
            shares = np.histogram(values, edges)[0] / max(1, len(values))
            axes.stairs(
                shares, edges, color=colour, label=name, fill=name == "training", alpha=0.7 if name == "now" else 0.4
            )
    label_axes(axes, label, "share")


def _map(axes: Axes, before: ImageSample, now: ImageSample) -> None:
    """Plot both sides on the two principal directions of the training vectors."""
    centre = before.vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(before.vectors - centre, full_matrices=False)
    for sample, colour in ((before, _TRAINING), (now, _NOW)):
        points = (sample.vectors[:_POINTS] - centre) @ directions[:2].T
        if points.shape[1] == 2:
            axes.scatter(points[:, 0], points[:, 1], s=6, color=colour, alpha=0.6, linewidths=0)
    label_axes(axes, "embeddings: first principal direction of the training images", "second direction")

"""Page and figure of a drift report: records and samples in, HTML text and a matplotlib figure out."""

import base64
import io
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from image_finder.components.drift.divisions import Values
from image_finder.components.drift.drift import Compared
from image_finder.components.drift.report import DriftReport, DriftRow, compared_text, verdict
from image_finder.components.drift.sample import ImageSample
from image_finder.components.validation.report_page import STYLE

_BEFORE, _NOW, _INK = "#9a9a9a", "#0b62a4", "#222222"
_DPI = 110
_BINS = 30
_POINTS = 500  # of each side in the map of the vectors


def report_html(report: DriftReport, figure: Figure | None = None) -> str:
    """A self-contained page (no scripts, nothing loaded) of report and figure; every text of the data is escaped."""
    title = f"Drift of {escape(report.dataset or 'searches')}"
    headings = ("Result", "Row", "Measured", "Limit", "Chance", "p", "Detail")
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    rows = "\n".join(map(_row, report.rows))
    style = "bad" if report.drifted else "good" if report.rows else "warn"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>\n{STYLE}\nimg {{ max-width: 100%; }}\n</style>\n</head>\n<body>",
            f"<h1>{title}</h1>",
            f'<div class="verdict {style}" role="status">\n<strong>{escape(verdict(report))}</strong>',
            f"<p>{escape(compared_text(report))}</p>\n</div>",
            f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>',
            f"<p><small>{escape(_explained(report))}</small></p>",
            _image(figure) if figure else "",
            "</body>\n</html>\n",
        ]
    )


def drift_figure(compared: Compared) -> Figure:
    """Caption lengths, sizes and brightness of both sides as histograms, and both sides' vectors on one plane."""
    figure = Figure(figsize=(10.9, 6.6), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    before, now = compared.reference.sample, compared.sample
    axes = figure.subplots(2, 2)
    _histogram(axes[0, 0], _lengths(before), _lengths(now), "words a caption", whole=True)
    _histogram(axes[0, 1], _sides(before), _sides(now), "geometric mean of the sides, px (log2)")
    _histogram(axes[1, 0], before.brightness, now.brightness, "brightness, black 0 to white 1")
    _map(axes[1, 1], before, now)
    axes[0, 0].legend(fontsize=8, frameon=False)
    name = compared.name or "the images"
    figure.suptitle(f"{name} against the training images of {' '.join(compared.origin)}", fontsize=12, color=_INK)
    figure.tight_layout()
    return figure


def _row(row: DriftRow) -> str:
    word, style = ("drifted", "bad") if row.drifted else ("not measured", "warn")
    if row.measured is not None and not row.drifted:
        word, style = "steady", "good"
    numbers = (row.measured, row.limit, row.chance, row.p_value)
    cells = "".join(f'<td class="number">{"" if number is None else f"{number:.3g}"}</td>' for number in numbers)
    return (
        f'<tr><td class="word {style}">{word}</td><td class="name">{escape(row.what)}<br><small>{escape(row.unit)}'
        f'</small></td>{cells}<td class="text">{escape(row.detail)}</td></tr>'
    )


def _explained(report: DriftReport) -> str:
    return (
        "A row drifted when it is above its limit, which says what matters, and above what chance does in "
        f"{report.permutations:,} random re-divisions of the images, at a rate of false alarms of "
        f"{report.false_alarm_rate:g} for the whole report. Seed {report.seed}."
    )


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="Distributions of both sides" src="data:image/png;base64,{data}">'


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
        for values, colour, name in ((before, _BEFORE, "training"), (now, _NOW, "now")):
            shares = np.histogram(values, edges)[0] / max(1, len(values))
            axes.stairs(
                shares, edges, color=colour, label=name, fill=name == "training", alpha=0.7 if name == "now" else 0.4
            )
    _dress(axes, label, "share")


def _map(axes: Axes, before: ImageSample, now: ImageSample) -> None:
    """Both sides on the two directions in which the training vectors vary most."""
    centre = before.vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(before.vectors - centre, full_matrices=False)
    for sample, colour in ((before, _BEFORE), (now, _NOW)):
        places = (sample.vectors[:_POINTS] - centre) @ directions[:2].T
        if places.shape[1] == 2:
            axes.scatter(places[:, 0], places[:, 1], s=6, color=colour, alpha=0.6, linewidths=0)
    _dress(axes, "embeddings: first direction of the training's", "second direction")


def _dress(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=9, color=_INK)
    axes.set_ylabel(y_label, fontsize=9, color=_INK)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

"""Drawing: what all figures share, without pyplot and its global state, so that figures can be drawn in any thread."""

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#222222", "#777777"
_DPI = 110


def add_axes(figure: Figure, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
    """Add axes at a position in inches from the top left; matplotlib takes shares from the bottom left."""
    figure_width_in, figure_height_in = figure.get_size_inches()
    left, width = left_in / figure_width_in, width_in / figure_width_in
    bottom, height = 1 - (top_in + height_in) / figure_height_in, height_in / figure_height_in
    return figure.add_axes((left, bottom, width, height))


def new_figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_title(figure: Figure, text: str, detail: str) -> None:
    width_in, height_in = figure.get_size_inches()
    figure.text(0.15 / width_in, 1 - 0.3 / height_in, text, fontsize=13, fontweight="bold", va="center", color=INK)
    figure.text(1 - 0.15 / width_in, 1 - 0.3 / height_in, detail, fontsize=9, va="center", ha="right", color=FAINT)


def label_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=9, color=INK)
    axes.set_ylabel(y_label, fontsize=9, color=INK)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()

"""Backgrounds of the demo scenes: how each is painted and described; knows nothing of the objects in front."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

_OVERSAMPLING = 2  # Pillow draws hard edges; halving a larger image smooths them
_SKY = ("#7db9e8", "#d6ecfa")


class Canvas:
    """A drawing surface: positions are fractions of width and height, colours vary randomly."""

    def __init__(self, width_px: int, height_px: int, rng: np.random.Generator) -> None:
        self.image = Image.new("RGB", (width_px * _OVERSAMPLING, height_px * _OVERSAMPLING))
        self.rng = rng
        self._draw = ImageDraw.Draw(self.image)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def shade(self, colour: str, spread: int = 10) -> tuple[int, int, int]:
        """The colour (#rrggbb) with each channel changed randomly by at most spread."""
        channels = [int(colour[i : i + 2], 16) + int(self.rng.integers(-spread, spread + 1)) for i in (1, 3, 5)]
        red, green, blue = (min(max(channel, 0), 255) for channel in channels)
        return red, green, blue

    def gradient(self, top: str, bottom: str, low: float, high: float) -> None:
        width, height = self.image.width, max(1, round((high - low) * self.image.height))
        mask = Image.linear_gradient("L").resize((width, height))
        band = Image.composite(
            Image.new("RGB", (width, height), self.shade(bottom)),
            Image.new("RGB", (width, height), self.shade(top)),
            mask,
        )
        self.image.paste(band, (0, round(low * self.image.height)))

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._draw.rectangle(self._points([(left, top), (right, bottom)]), fill=self.shade(colour, 6))

    def oval(self, x: float, y: float, radius_x: float, radius_y: float, colour: str) -> None:
        corners = self._points([(x - radius_x, y - radius_y), (x + radius_x, y + radius_y)])
        self._draw.ellipse(corners, fill=self.shade(colour, 6))

    def shape(self, points: list[tuple[float, float]], colour: str) -> None:
        self._draw.polygon(self._points(points), fill=self.shade(colour, 6))

    def dots(self, number: int, low: float, high: float, radius: float, colours: tuple[str, ...]) -> None:
        stretch = self.image.width / self.image.height
        for x, y, size, pick in self.rng.random((number, 4)):
            length = radius * (0.5 + float(size))
            self.oval(
                float(x), low + (high - low) * float(y), length, length * stretch, colours[int(pick * len(colours))]
            )

    def _points(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * self.image.width, y * self.image.height) for x, y in points]


@dataclass(frozen=True)
class Background:
    """What is behind the objects: noun with article, phrases for objects, kinds of objects that do not fit."""

    noun: str
    on: tuple[str, ...]
    over: tuple[str, ...]
    anywhere: tuple[str, ...]  # suits both
    refuses: frozenset[str]
    brush: Callable[[Canvas], None]

    def paint(self, width_px: int, height_px: int, rng: np.random.Generator) -> Image.Image:
        canvas = Canvas(width_px, height_px, rng)
        self.brush(canvas)
        return canvas.image.reduce(_OVERSAMPLING)


def _beach(canvas: Canvas) -> None:
    horizon = canvas.between(0.36, 0.46)
    shore = horizon + canvas.between(0.12, 0.2)
    canvas.gradient(*_SKY, 0, horizon)
    canvas.gradient("#2f86b5", "#63c3d1", horizon, shore + 0.06)
    wave = [(x / 8, shore + 0.025 * float(np.sin(x * 1.7))) for x in range(9)]
    canvas.shape([*wave, (1, 1), (0, 1)], "#fbfdf8")
    canvas.shape([*((x, y + 0.025) for x, y in wave), (1, 1), (0, 1)], "#eed9a0")
    canvas.dots(120, shore + 0.06, 1, 0.003, ("#d6bd7f", "#c9ae72", "#f7e8bd"))


def _meadow(canvas: Canvas) -> None:
    horizon = canvas.between(0.45, 0.55)
    canvas.gradient(*_SKY, 0, 0.6)
    canvas.oval(canvas.between(0, 0.4), horizon + 0.12, 0.6, 0.22, "#8cc067")
    canvas.oval(canvas.between(0.6, 1), horizon + 0.14, 0.6, 0.2, "#7db65b")
    canvas.gradient("#79b850", "#5a9a3a", horizon + 0.05, 1)
    canvas.dots(60, horizon + 0.08, 1, 0.006, ("#4d8a30", "#93cc66"))
    canvas.dots(18, horizon + 0.12, 1, 0.009, ("#ffffff", "#ffd94a", "#f08ab0"))


def _snow(canvas: Canvas) -> None:
    horizon = canvas.between(0.45, 0.58)
    canvas.gradient("#9fb4c8", "#d5e0ea", 0, 0.7)
    canvas.oval(canvas.between(0, 0.35), horizon + 0.2, 0.7, 0.27, "#e3ebf3")
    canvas.oval(canvas.between(0.65, 1), horizon + 0.24, 0.7, 0.27, "#edf2f8")
    canvas.gradient("#f1f5fa", "#dde7f1", horizon + 0.15, 1)
    canvas.dots(70, 0, 1, 0.007, ("#ffffff", "#fafcff"))


def _night(canvas: Canvas) -> None:
    canvas.gradient("#0a1033", "#2b3a78", 0, 1)
    canvas.dots(90, 0, 0.9, 0.004, ("#ffffff", "#fff3c4", "#cfd8ff"))
    canvas.oval(canvas.between(0.1, 0.9), 1.12, 0.9, canvas.between(0.2, 0.3), "#1d3a3c")


def _street(canvas: Canvas) -> None:
    kerb = canvas.between(0.6, 0.66)
    canvas.gradient(*_SKY, 0, kerb)
    left = 0.0
    while left < 1:
        width, top = canvas.between(0.16, 0.26), canvas.between(0.08, 0.3)
        wall = ("#b98d74", "#a7adb5", "#c9b79a", "#8f9bb0", "#b77a6d")[int(canvas.rng.integers(5))]
        canvas.box(left, top, left + width, kerb, wall)
        for row in np.arange(top + 0.04, kerb - 0.08, 0.1):
            for column in (0.15, 0.6):
                window = left + width * column
                canvas.box(window, float(row), window + width * 0.24, float(row) + 0.06, "#e9f0d2")
        left += width
    canvas.box(0, kerb, 1, kerb + 0.07, "#c4c4c0")
    canvas.gradient("#6d7076", "#55585e", kerb + 0.07, 1)
    for start in np.arange(canvas.between(-0.2, 0), 1, 0.25):
        canvas.box(float(start), kerb + 0.2, float(start) + 0.13, kerb + 0.225, "#f2f2ea")


def _kitchen_table(canvas: Canvas) -> None:
    edge = canvas.between(0.4, 0.5)
    canvas.gradient("#eef1e6", "#dfe6dc", 0, edge)
    for line in np.arange(0, 1, 0.125):
        canvas.box(float(line), 0, float(line) + 0.006, edge, "#c8d2c9")
    for line in np.arange(edge % 0.125, edge, 0.125):
        canvas.box(0, float(line), 1, float(line) + 0.006, "#c8d2c9")
    canvas.gradient("#b47d4a", "#94602f", edge, 1)
    for line in np.arange(edge, 1, canvas.between(0.1, 0.14)):
        canvas.box(0, float(line), 1, float(line) + 0.008, "#7f5127")


def _desert(canvas: Canvas) -> None:
    horizon = canvas.between(0.45, 0.55)
    canvas.gradient("#f5b56b", "#fbe6b9", 0, 0.7)
    canvas.oval(canvas.between(0, 0.3), horizon + 0.25, 0.5, 0.3, "#d9954f")
    canvas.oval(canvas.between(0.7, 1), horizon + 0.28, 0.55, 0.34, "#cf8843")
    canvas.oval(canvas.between(0.3, 0.7), 1, 0.9, 0.9 - horizon, "#e2a45c")
    canvas.dots(12, horizon + 0.2, 1, 0.007, ("#b9793a", "#a86c33"))


def _forest(canvas: Canvas) -> None:
    ground = canvas.between(0.6, 0.7)
    canvas.gradient("#a9c9b2", "#6f9a7e", 0, ground)
    for crown in ("#3f7a55", "#2d6644", "#1f5236"):
        for x in np.arange(canvas.between(-0.1, 0), 1.1, 0.2):
            foot, top = ground + canvas.between(-0.02, 0.04), canvas.between(0.02, 0.22)
            canvas.box(float(x) - 0.015, foot - 0.1, float(x) + 0.015, foot, "#5a3d28")
            for tier in range(3):
                low, half = foot - 0.06 - tier * 0.13, 0.12 - tier * 0.025
                canvas.shape([(float(x) - half, low), (float(x), max(top, low - 0.26)), (float(x) + half, low)], crown)
    canvas.gradient("#6b6a3a", "#4c4f2a", ground, 1)
    canvas.dots(40, ground + 0.02, 1, 0.008, ("#8a7a3e", "#3f4a24", "#9a6b35"))


def _living_room(canvas: Canvas) -> None:
    skirting = canvas.between(0.6, 0.68)
    wall = ("#e8cfc0", "#cfdccb", "#d5d3e6")[int(canvas.rng.integers(3))]
    canvas.gradient(wall, wall, 0, skirting)
    x = canvas.between(0.1, 0.6)
    canvas.box(x, 0.1, x + 0.3, 0.45, "#ffffff")
    for left, top in ((0.015, 0.12), (0.155, 0.12), (0.015, 0.285), (0.155, 0.285)):
        canvas.box(x + left, top, x + left + 0.13, top + 0.145, "#a8d4ee")
    canvas.gradient("#c48a55", "#a86f3e", skirting, 1)
    for index in range(-2, 13):
        foot = 0.5 + (index / 10 - 0.5) * 1.8
        canvas.shape([(index / 10, skirting), (index / 10 + 0.004, skirting), (foot + 0.01, 1), (foot, 1)], "#8c5a30")
    canvas.box(0, skirting - 0.02, 1, skirting + 0.01, "#f6f1e8")


_BIG = frozenset({"animal", "sea animal", "bird", "vehicle", "piece of furniture", "building", "snow figure", "tool"})
_OUTDOORS = frozenset({"vehicle", "building", "snow figure", "sea animal", "thing in the sky"})
_BRUSHES = {
    "a sandy beach": (_beach, frozenset()),
    "a green meadow": (_meadow, frozenset()),
    "a snowy landscape": (_snow, frozenset()),
    "a starry night sky": (_night, frozenset()),
    "a city street": (_street, frozenset({"building", "sea animal"})),
    "a wooden kitchen table": (_kitchen_table, _BIG | {"thing in the sky"}),
    "a sandy desert": (_desert, frozenset({"sea animal"})),
    "a pine forest": (_forest, frozenset({"sea animal"})),
    "a living room": (_living_room, _OUTDOORS),
}
# Noun; phrases for objects on it; over it; anywhere.
_PHRASES = """
a sandy beach; on a sandy beach | on the sand by the sea; over a sandy beach | above the beach;
    at the beach | at the seaside | by the sea
a green meadow; on the green grass | in a green meadow; over a green meadow | above the grass;
    in a meadow | in a grassy field | in the green countryside
a snowy landscape; on the snow | on snowy ground; over a snowy landscape | above the snow;
    in a snowy landscape | on a snowy day | in winter weather
a starry night sky; under a starry sky | on a hill at night; in the starry night sky | among the stars;
    at night | on a starry night | against a dark night sky
a city street; on a city street | on the road; over a city street | above the road;
    in the city | in front of tall buildings | in town
a wooden kitchen table; on a wooden table | on the kitchen table; above a wooden table | over the kitchen table;
    at a kitchen table | in a tiled kitchen | in the kitchen
a sandy desert; on the hot desert sand | on a sand dune; over the desert | above the dunes;
    in the desert | in a dry desert | among sand dunes
a pine forest; on the forest floor | on the ground of a forest; over the forest floor | in front of the treetops;
    in the forest | in the woods | among pine trees
a living room; on a wooden floor | on the living room floor; over a wooden floor | high up in a living room;
    in a living room | indoors, by a window | in a room with a window
"""


def _painted(line: str) -> Background:
    noun, *phrases = (part.strip() for part in line.split(";"))
    brush, refuses = _BRUSHES[noun]
    on, over, anywhere = (tuple(several.split(" | ")) for several in phrases)
    return Background(noun, on, over, anywhere, refuses, brush)


def _plain(name: str, colour: str) -> Background:
    return Background(
        noun=f"a plain {name} background",
        on=(f"on a plain {name} background", f"on {name} ground"),
        over=(f"over a plain {name} background",),
        anywhere=(f"in front of a plain {name} wall", f"against a {name} backdrop", f"with nothing but {name} around"),
        refuses=frozenset(),
        brush=lambda canvas: canvas.gradient(colour, colour, 0, 1),
    )


BACKGROUNDS = (
    *map(_painted, _PHRASES.strip().replace(";\n", ";").splitlines()),
    _plain("pink", "#f4b6c8"),
    _plain("yellow", "#f6e28b"),
    _plain("turquoise", "#8fd8cf"),
)

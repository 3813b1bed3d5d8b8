"""Explanation: where the image tower looked, laid over the picture as colour; knows nothing of queries.

The weights are those of the attention pooling over the trunk's grid (7 x 7 for 224 px), the mean over its heads: how
much of each place went into the picture's vector. They depend on the picture alone, since the image tower never sees
the query: every query that finds a picture shares its map. They do not outline things either; each place of the grid
has seen most of the picture already, so a background can carry what was known of the thing before it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from components.data.images import load_for_display
from components.search.onnx_encoder import OnnxEncoder

Attention = NDArray[np.float32]

# Matplotlib's "inferno" (S. van der Walt, N. Smith, CC0) at 0, 1/8, ..., 1: brightness rises evenly, so it reads the
# same to every kind of colour blindness and in print.
_HEAT = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    np.float32,
)
_HEAT_SHARE = 0.55  # of the colour in the result; the rest is the picture in grey, whose own colours would mislead
_CUT_PERCENT = 0.5  # of the darkest and brightest pixels, when greys are stretched: night and snow stay legible


def explain(encoder: OnnxEncoder, source: Path | bytes, *, at_most_px: int = 1600) -> Image.Image:
    """A picture (file or bytes) under the heat of its attention-pooling weights: RGB, upright, within at_most_px.

    The weights are those of the pixels that are indexed. Raises PictureError.
    """
    attention = encoder.attention(encoder.preprocess.load(source)[None])[0]
    return heat_overlay(load_for_display(source, at_most_px=at_most_px), attention)


def heat_overlay(picture: Image.Image, attention: Attention) -> Image.Image:
    """An RGB picture in grey under the colour of its weights, dark where they are 0 and yellow where they are largest.

    attention: (h, w) float32, at least 0; it is scaled by its maximum and drawn out smoothly to the picture's size. Only
    the largest weight of the same picture is a measure: nothing can be read from comparing two pictures.
    """
    peak = float(attention.max(initial=0.0))
    shares = np.clip(attention / peak if peak > 0 else attention, 0.0, 1.0).astype(np.float32)
    heat = Image.fromarray(shares).resize(picture.size, Image.Resampling.BICUBIC)
    colours = _coloured(np.clip(np.asarray(heat), 0.0, 1.0))
    grey = ImageOps.autocontrast(picture.convert("L"), cutoff=_CUT_PERCENT).convert("RGB")
    return Image.blend(grey, Image.fromarray(colours), _HEAT_SHARE)


def _coloured(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours of shares 0 to 1, (h, w): (h, w, 3) uint8."""
    table = np.stack(
        [np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(_HEAT)), channel) for channel in _HEAT.T], axis=1
    )
    colours: NDArray[np.uint8] = np.rint(table).astype(np.uint8)[np.rint(shares * 255).astype(np.uint8)]
    return colours

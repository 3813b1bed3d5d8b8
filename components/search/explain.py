"""Explanation: colours the regions of an image that raise its score for a query; knows nothing of indexes.

The expert view shows the weights of the attention pooling instead: the share of each region of the trunk's grid in the
image's vector. They are equal for every query, since the image tower does not see the query.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.images.decoding import load_for_display
from image_finder.components.search.contributions import Contributions, contributions

Shares = NDArray[np.float32]

# The upper part of matplotlib's "inferno" (S. van der Walt, N. Smith, CC0): brightness rises evenly, so that it is readable
# with colour blindness and in print. The page's legend (viewer.css) shows the first, the last and two more of these colours.
HEAT = np.array(
    [(136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)], np.float32
)
_OPACITY = 0.75  # of the largest share; the image shows through everywhere
_BRIGHTEST_GREY = 190  # of the image, so that the brightest colours are brighter than its white


class Explanation(NamedTuple):
    """Contributions of an image's regions to its score, and an RGB overlay of the positive ones."""

    contributions: Contributions
    overlay: Image.Image


def explain(encoder: OnnxEncoder, source: Path | bytes, query: Vectors, *, at_most_px: int = 1600) -> Explanation:
    """Contributions of an image's regions to its cosine with a query, (dim,), and their overlay. Raises ImageError."""
    found = contributions(encoder, encoder.preprocess.load(source), query)
    return Explanation(found, heat_overlay(load_for_display(source, at_most_px=at_most_px), found.shares))


def explain_pooling(encoder: OnnxEncoder, source: Path | bytes, *, at_most_px: int = 1600) -> Image.Image:
    """Overlay of the attention pooling's weights for an image. Raises ImageError."""
    weights = encoder.attention(encoder.preprocess.load(source)[None])[0]
    peak = weights.max(initial=0.0)
    shares = weights / peak if peak > 0 else weights
    return heat_overlay(load_for_display(source, at_most_px=at_most_px), shares)


def heat_overlay(image: Image.Image, shares: Shares) -> Image.Image:
    """The image in grey, coloured from purple to yellow where shares, (h, w) from 0 to 1, are positive: RGB."""
    heat = Image.fromarray(shares.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
    levels = np.rint(np.clip(np.asarray(heat), 0.0, 1.0) * 255).astype(np.uint8)
    grey = ImageOps.autocontrast(image.convert("L")).point(lambda value: value * _BRIGHTEST_GREY // 255).convert("RGB")
    alpha = Image.fromarray(np.rint(levels * _OPACITY).astype(np.uint8))
    return Image.composite(Image.fromarray(_COLOURS[levels]), grey, alpha)


def _colours() -> NDArray[np.uint8]:
    at = np.linspace(0, 1, 256)
    return np.stack(
        [np.rint(np.interp(at, np.linspace(0, 1, len(HEAT)), channel)) for channel in HEAT.T], axis=1
    ).astype(np.uint8)


_COLOURS = _colours()

"""Contributions: how much each region of an image adds to its score for a query; knows nothing of files and of colour.

The image is cut into 7 x 7 regions and encoded 60 times, each time with another half of them hidden under the image's mean
colour. A region's contribution is the mean score of the 30 images that show it minus that of the 30 that hide it. The 60
subsets are a Plackett-Burman design (Biometrika 33, 1946): any two regions are hidden together in 15 images and shown
together in 15, so that no region's contribution leaks into another's. Hiding one region at a time misses what several
regions show each. The design has room for 59 regions; the 10 that do not exist measure the noise.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.images.preprocess import Pixels

GRID = 7
_REGIONS = GRID * GRID
_RUNS = 60  # 59, one less, is prime and 3 modulo 4, so that its quadratic residues make the design
_LEAST = 0.005  # cosine: a region that adds less changes no order of hits
_ERRORS = 2  # standard errors that a contribution must exceed to count


class Contributions(NamedTuple):
    """cells: (7, 7) float32, cosine, below 0 where a region lowers the score. noise: their standard error, cosine."""

    cells: NDArray[np.float32]
    noise: float

    @property
    def peak(self) -> float:
        """Largest contribution that rises above the noise, cosine; 0 if none does."""
        largest = float(self.cells.max())
        return largest if largest > self._least else 0.0

    @property
    def shares(self) -> NDArray[np.float32]:
        """What rises above the noise, as shares of the largest: (7, 7) float32, 0 to 1; all 0 if nothing does."""
        rise: NDArray[np.float32] = np.maximum(self.cells - np.float32(self._least), np.float32(0))
        shares: NDArray[np.float32] = rise / rise.max() if self.peak else rise
        return shares

    @property
    def _least(self) -> float:
        return max(_ERRORS * self.noise, _LEAST)


def contributions(encoder: OnnxEncoder, pixels: Pixels, query: Vectors) -> Contributions:
    """Contributions of an image's regions to its cosine with a query, while another half of the image is hidden.

    pixels: (px, px, 3) uint8, preprocessed; query: (dim,) unit float32. Can be cancelled, see components/cancellation.py.
    """
    region = np.arange(len(pixels)) * GRID // len(pixels)
    mean_colour = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)  # a blur would leave "red" or "snow" in sight
    hidden = _DESIGN[:, :_REGIONS].reshape(-1, GRID, GRID)
    masks = hidden[:, region[:, None], region[None, :], None]
    scores = (encoder.encode_image(np.where(masks, mean_colour, pixels)) @ query).astype(np.float64)
    effects = (1.0 - 2.0 * _DESIGN).T @ scores / (_RUNS / 2)
    noise = float(np.sqrt(np.mean(np.square(effects[_REGIONS:]))))
    return Contributions(effects[:_REGIONS].reshape(GRID, GRID).astype(np.float32), noise)


def _plackett_burman() -> NDArray[np.bool_]:
    """(60, 59): which regions are hidden in which image. Rows are shifts of the first, but the last, which hides none."""
    size = _RUNS - 1
    residues = {number * number % size for number in range(size)}  # 0 included: a row hides 30
    first = np.array([number in residues for number in range(size)])
    return np.stack([*(np.roll(first, shift) for shift in range(size)), np.zeros(size, np.bool_)])


_DESIGN = _plackett_burman()

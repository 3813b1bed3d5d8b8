"""Contributions: how much each region of an image adds to its score for a query; knows nothing of files or overlays.

The image is divided into 7 x 7 regions and encoded 60 times, each time with a different half of them replaced by the
image's mean colour. A region's contribution is the mean score of the 30 images that show it minus that of the 30 that hide
it. The 60 subsets are a Plackett-Burman design (Biometrika 33, 1946): any two regions are hidden together in 15 images and
shown together in 15, so that contributions do not mix. Hiding one region at a time would miss things that several regions
show. The design has 59 columns; the 10 without a region measure the noise.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.images.preprocess import Pixels

GRID = 7
_REGIONS = GRID * GRID
_RUNS = 60  # 59 is prime and 3 modulo 4, so that its quadratic residues give the design
_LEAST = 0.005  # cosine: smaller contributions do not change the order of hits
_ERRORS = 2  # standard errors that a contribution must exceed to count


class Contributions(NamedTuple):
    """Contributions of regions to a score: cosines, (7, 7) float32, and their standard error.

    A region that lowers the score has a negative contribution.
    """

    cells: NDArray[np.float32]
    noise: float

    @property
    def peak(self) -> float:
        """Largest contribution above the noise, cosine; 0 if there is none."""
        largest = float(self.cells.max())
        return largest if largest > self._least else 0.0

    @property
    def shares(self) -> NDArray[np.float32]:
        """Contributions above the noise as shares of the largest: (7, 7) float32, 0 to 1."""
        rise: NDArray[np.float32] = np.maximum(self.cells - np.float32(self._least), np.float32(0))
        shares: NDArray[np.float32] = rise / rise.max() if self.peak else rise
        return shares

    @property
    def _least(self) -> float:
        return max(_ERRORS * self.noise, _LEAST)


def contributions(encoder: OnnxEncoder, pixels: Pixels, query: Vectors) -> Contributions:
    """Contributions of an image's regions to its cosine with a query.

    pixels: (px, px, 3) uint8, preprocessed; query: (dim,) unit float32. Can be cancelled, see components/cancellation.py.
    """
    region = np.arange(len(pixels)) * GRID // len(pixels)
    mean_colour = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)  # a blur would still show "red" or "snow"
    hidden = _DESIGN[:, :_REGIONS].reshape(-1, GRID, GRID)
    masks = hidden[:, region[:, None], region[None, :], None]
    scores = (encoder.encode_image(np.where(masks, mean_colour, pixels)) @ query).astype(np.float64)
    effects = (1.0 - 2.0 * _DESIGN).T @ scores / (_RUNS / 2)
    noise = float(np.sqrt(np.mean(np.square(effects[_REGIONS:]))))
    return Contributions(effects[:_REGIONS].reshape(GRID, GRID).astype(np.float32), noise)


def _plackett_burman() -> NDArray[np.bool_]:
    """Which regions are hidden in which image: (60, 59). Rows are shifts of the first; the last hides none."""
    size = _RUNS - 1
    residues = {number * number % size for number in range(size)}  # with 0, so that a row hides 30
    first = np.array([number in residues for number in range(size)])
    return np.stack([*(np.roll(first, shift) for shift in range(size)), np.zeros(size, np.bool_)])


_DESIGN = _plackett_burman()

"""Preprocessing: an image to the uint8 pixels that a model reads; the only definition of size and resampling.

The image tower and its ONNX graph normalise (mean, standard deviation), so that pixels travel as bytes and every
runtime sees the same numbers.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_finder.components.images.decoding import OnCut, accept_cut, load_rgb
from image_finder.components.records.base import Record

Pixels = NDArray[np.uint8]

PIXELS_VERSION = 3  # part of the key of feature caches; raise it when a file gives other pixels

# A JPEG may be decoded at half its size if that leaves this share of input_px: a photograph of 640 x 427 is then decoded
# at 320 x 214 in 3.1 instead of 3.9 ms. Its vector differs no more than with other half-size decodes.
_DECODED_SHARE = 0.9


class Preprocess(Record):
    """How an image becomes model input; stored as preprocess.json in checkpoint and bundle.

    The image is squashed to a square, not cropped, so that its margins can be found too.
    """

    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def pixels(self, image: Image.Image) -> Pixels:
        """Pixels of an upright RGB image: (input_px, input_px, 3) uint8, bilinear, antialiased.

        Bicubic, as in the trunks' training, costs 0.5 ms more a photograph (tests/benchmarks/bench_embedding.py).
        """
        size = (self.input_px, self.input_px)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(image)

    def load(self, source: Path | bytes, *, on_cut: OnCut | None = accept_cut) -> Pixels:
        """Decode and preprocess one image: (input_px, input_px, 3) uint8. on_cut: see load_rgb. Raises ImageError."""
        return self.pixels(load_rgb(source, at_least_px=int(_DECODED_SHARE * self.input_px), on_cut=on_cut))

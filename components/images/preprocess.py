"""Preprocessing: an image to the uint8 pixels a model reads; the one place where size and resampling are applied.

Normalisation (mean, standard deviation) is inside the image tower and its ONNX graph, so that pixels travel as bytes
and every runtime sees the same numbers.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_finder.components.images.decoding import OnCut, accept_cut, load_rgb
from image_finder.components.records.base import Record

Pixels = NDArray[np.uint8]

PIXELS_VERSION = 3  # raise it when the same file and config give other pixels: caches of features are keyed by it

# A JPEG may be decoded at half its size when that leaves so much of input_px: 640 x 427, a usual photograph, is then
# 320 x 214 and costs 3.1 instead of 3.9 ms. The vectors differ by no more than those of other half-size decodes do.
_DECODED_SHARE = 0.9


class Preprocess(Record):
    """How an image becomes model input; stored as preprocess.json in checkpoint and bundle.

    The image is squashed to a square, not cropped: what stands at its edges can be searched too.
    """

    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def pixels(self, image: Image.Image) -> Pixels:
        """RGB pixels of an upright RGB image: (input_px, input_px, 3) uint8, bilinear with antialiasing.

        Bicubic, what the trunks were trained with, costs 0.5 ms more a photograph (tests/benchmarks/bench_embedding.py).
        """
        size = (self.input_px, self.input_px)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(image)

    def load(self, source: Path | bytes, *, on_cut: OnCut | None = accept_cut) -> Pixels:
        """Decode and preprocess one image: (input_px, input_px, 3) uint8. Raises ImageError.

        on_cut: called if the file is a JPEG whose end is missing; None refuses such a file. See load_rgb.
        """
        return self.pixels(load_rgb(source, at_least_px=int(_DECODED_SHARE * self.input_px), on_cut=on_cut))

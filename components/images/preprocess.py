"""Preprocessing: an image to the uint8 pixels that a model reads; the only definition of size and resampling.

The image tower and its ONNX graph normalise (mean, standard deviation), so that pixels travel as bytes and every
runtime sees the same numbers.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from image_finder.components.images.decoding import OnCut, accept_cut, load_rgb
from image_finder.components.records.base import Record

Pixels = NDArray[np.uint8]

PIXELS_VERSION = 3  # part of the key of feature caches; raise it when a file gives other pixels

# A JPEG may be decoded at half its size if that leaves this share of input_px: a photograph of 640 x 427 is then decoded
# at 320 x 214 in 3.1 instead of 3.9 ms. Its vector differs no more than with other half-size decodes.
_DECODED_SHARE = 0.9


class Resize(Record):
    """How an imported model was trained to resize: files are then decoded at full size.

    short_edge_px: the shorter side gets this length, and a square of input_px is cut from the middle; None: the image is
    squashed. crop_offset: how half a pixel is rounded, which Pillow-based and torchvision-based libraries do differently.
    """

    short_edge_px: int | None = None
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    crop_offset: Literal["down", "even"] = "down"


class Preprocess(Record):
    """How an image becomes model input; stored as preprocess.json in checkpoint and bundle.

    Without `resize`, the image is squashed to a square, not cropped, so that its margins can be found too.
    """

    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Resize | None = Field(None, exclude_if=lambda resize: resize is None)  # so hashes of older models stay

    def pixels(self, image: Image.Image) -> Pixels:
        """Pixels of an upright RGB image: (input_px, input_px, 3) uint8, antialiased, bilinear unless `resize` differs.

        Bicubic, as in the trunks' training, costs 0.5 ms more a photograph (tests/benchmarks/bench_embedding.py).
        """
        if self.resize is not None:
            return _resized(image, self.input_px, self.resize)
        size = (self.input_px, self.input_px)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(image)

    def load(self, source: Path | bytes, *, on_cut: OnCut | None = accept_cut) -> Pixels:
        """Decode and preprocess one image: (input_px, input_px, 3) uint8. on_cut: see load_rgb. Raises ImageError."""
        at_least_px = int(_DECODED_SHARE * self.input_px) if self.resize is None else None
        return self.pixels(load_rgb(source, at_least_px=at_least_px, on_cut=on_cut))


def _resized(image: Image.Image, input_px: int, resize: Resize) -> Pixels:
    """The model's square of an image, (input_px, input_px, 3) uint8, as its own library computes it."""
    resample = Image.Resampling[resize.resample.upper()]
    if resize.short_edge_px is None:
        return np.asarray(image.resize((input_px, input_px), resample))
    short = min(image.size)
    size = tuple(
        resize.short_edge_px if side == short else int(resize.short_edge_px * side / short) for side in image.size
    )
    image = image if image.size == size else image.resize((size[0], size[1]), resample)
    spare = [side - input_px for side in size]
    left, top = (each // 2 if resize.crop_offset == "down" else round(each / 2) for each in spare)
    return np.asarray(image.crop((left, top, left + input_px, top + input_px)))

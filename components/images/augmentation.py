"""Augmentation: random crops of an image to train on, fixed by its content and the number of the view.

Crops as torchvision's RandomResizedCrop makes them (Szegedy et al. 2015), but milder: a caption describes the whole
image, so at least half of it is kept.
"""

import math
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from image_finder.components.images.decoding import load_rgb
from image_finder.components.images.files import read_image
from image_finder.components.images.preprocess import Pixels, Preprocess

VIEWS_VERSION = 1  # raise it when the same file, size and number give other pixels
_LEAST_AREA = 0.5
_MOST_STRETCH = math.log(1.25)
_JITTER = 0.2  # largest change of brightness, contrast and colour, as a share
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class View:
    """One augmented view of every image, as model input; number 0 is the image itself."""

    def __init__(self, preprocess: Preprocess, number: int) -> None:
        self.preprocess = preprocess
        self.number = number

    def load(self, source: Path | bytes) -> Pixels:
        """One view: (input_px, input_px, 3) uint8; truncated images are refused. Raises ImageError, OSError."""
        if not self.number:
            return self.preprocess.load(source, on_cut=None)
        content = source if isinstance(source, bytes) else read_image(source)
        size = self.preprocess.input_px
        image = load_rgb(content, at_least_px=math.ceil(size / math.sqrt(_LEAST_AREA)))
        return np.asarray(_random_view(image, size, np.random.default_rng((zlib.crc32(content), self.number))))


def _random_view(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    area, stretch = rng.uniform(_LEAST_AREA, 1), math.exp(rng.uniform(-_MOST_STRETCH, _MOST_STRETCH))
    shares = np.minimum(1, [math.sqrt(area * stretch), math.sqrt(area / stretch)])
    left, top = rng.uniform(0, 1 - shares) * image.size
    width, height = shares * image.size
    view = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in _ENHANCERS:
        view = enhancer(view).enhance(rng.uniform(1 - _JITTER, 1 + _JITTER))
    return view

"""Original: a dual encoder as its own library loads it, with what a bundle needs to answer as it does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from image_finder.components.arrays import FloatMatrix, IntArray, Vectors
from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.records.calibration import Scores

Features = Callable[..., Tensor]


class Reference(Protocol):
    """The original library's own computation; it pads and batches in its own way."""

    def pixels(self, image: Image.Image) -> FloatMatrix:
        """Normalised pixels of an image: (3, px, px) float32."""

    def ids(self, texts: Sequence[str]) -> IntArray:
        """Padded rows of tokens: (n, length) int64."""

    def images(self, images: Sequence[Image.Image]) -> Vectors:
        """Unit vectors of images: (n, dim) float32."""

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts: (n, dim) float32."""


@dataclass(frozen=True, eq=False)
class Original:
    """image_tower, text_tower: see ImageTower and TextTower; architecture: its name in the library."""

    architecture: str
    library: str
    image_tower: "ImageTower"
    text_tower: "TextTower"
    preprocess: Preprocess
    tokenizer: Tokenizer
    scores: Scores
    reference: Reference
    parameters: int


class ImageTower(nn.Module):
    """Normalisation, the original's image encoder, L2 norm."""

    def __init__(self, model: nn.Module, features: Features, preprocess: Preprocess) -> None:
        """features: of normalised pixels, (n, 3, px, px) float32 to (n, dim)."""
        super().__init__()
        self.model = model
        self._features = features
        self.mean = nn.Buffer(torch.tensor(preprocess.mean).view(3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(preprocess.std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Unit vectors (n, dim) of (n, px, px, 3) uint8 pixels."""
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        return functional.normalize(self._features((scaled - self.mean) / self.std), dim=-1)


class TextTower(nn.Module):
    """The original's text encoder and L2 norm."""

    def __init__(self, model: nn.Module, features: Features, *, masked: bool) -> None:
        """features: of ids, and of the mask if masked, (n, length) int64 to (n, dim)."""
        super().__init__()
        self.model = model
        self._features = features
        self._masked = masked

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (n, dim) of ids under mask, both (n, length) int64."""
        features = self._features(ids, mask) if self._masked else self._features(ids)
        return functional.normalize(features, dim=-1)

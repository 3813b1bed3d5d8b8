"""Hubness correction: lowers the scores of images that are similar to every text, within the vectors themselves.

In high dimensions a few images are among the nearest of far too many texts (Radovanovic et al. 2010). As in query-bank
normalisation (Bogolin et al. 2022), the similarity h of an image v to a bank of texts is subtracted from its score with
a text q:

    score = q . v - strength * (h(v) - mean h),    h(v) = log(sum_j w_j exp(sharpness * c_j . v)) / sharpness

with centres c_j of the bank and their weights w_j. Two extra dimensions carry the correction, so that rows remain unit
vectors and scores inner products, and code that stores, searches or compares vectors needs no change:

    image (g v, s, sqrt(1 - g^2 - s^2)),    text (a q, b, 0),    s = -strength * (h(v) - mean h) * a * g / b

The product of an image and a text is a * g times the score; the product of two images is nearly g^2 v . v' plus a constant.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from image_finder.components.configs import HubnessConfig

EXTRA_DIMS = HubnessConfig.EXTRA_DIMS
_IMAGE_SHARE = math.sqrt(0.95)  # g: allows |s| up to 0.22, 3.6 standard deviations on photographs
_TEXT_SHARE = math.sqrt(0.7)  # a
_TEXT_OFFSET = math.sqrt(0.3)  # b
_MAX_S = 0.999 * math.sqrt(1 - _IMAGE_SHARE**2)
SCALE = _IMAGE_SHARE * _TEXT_SHARE  # ratio of products of corrected vectors to those of plain ones
_ROUNDS = 20


class HubnessCorrection(nn.Module):
    """Corrects unit image vectors: (N, dim) to (N, dim + 2); no correction before `fit`."""

    def __init__(self, dim: int, config: HubnessConfig) -> None:
        super().__init__()
        self.config = config
        self.centres: Tensor
        self.log_weights: Tensor
        self.mean: Tensor
        self.register_buffer("centres", torch.zeros(config.centres, dim))
        self.register_buffer("log_weights", torch.full((config.centres,), -math.log(config.centres)))
        self.register_buffer("mean", torch.zeros(()))

    def bank_similarity(self, vectors: Tensor) -> Tensor:
        """Similarity h of plain image vectors (N, dim) to the bank, as a cosine: (N, 1)."""
        logits = self.config.sharpness * vectors @ self.centres.t() + self.log_weights
        return logits.logsumexp(dim=1, keepdim=True) / self.config.sharpness

    def forward(self, vectors: Tensor) -> Tensor:
        """Corrected unit vectors (N, dim + 2) of plain ones (N, dim)."""
        penalty = self.config.strength * (self.bank_similarity(vectors) - self.mean)
        s = (-penalty * SCALE / _TEXT_OFFSET).clamp(-_MAX_S, _MAX_S)
        rest = (1 - _IMAGE_SHARE**2 - s * s).sqrt()
        return torch.cat([_IMAGE_SHARE * vectors, s, rest], dim=1)

    @torch.no_grad()
    def fit(self, texts: Tensor, images: Tensor) -> None:
        """Fit to plain training vectors: texts (n, dim), which are the bank, and images (m, dim).

        The bank is reduced to k-means centres. A centre's weight is its number of texts, times the factor by which
        their variance raises the mean of their exponentials.
        """
        k = min(len(self.centres), len(texts))
        centres, own = _k_means(texts, k)
        spread = (texts - centres[own]).square().sum(dim=1) / texts.shape[1]  # variance in any one direction
        counts = torch.bincount(own, minlength=k)
        variance = torch.zeros(k).index_add_(0, own, spread) / counts.clamp(min=1)
        self.centres[:k] = centres
        self.log_weights.fill_(-torch.inf)  # unused centres have weight zero
        self.log_weights[:k] = (counts / len(texts)).log() + self.config.sharpness**2 * variance / 2
        self.mean.copy_(self.bank_similarity(images).mean())


def with_extra_dims(vectors: Tensor) -> Tensor:
    """Unit text vectors (N, dim + 2) to compare with corrected images, from plain ones (N, dim)."""
    scaled = functional.pad(_TEXT_SHARE * vectors, (0, 1), value=_TEXT_OFFSET)
    return functional.pad(scaled, (0, 1))


def plain_vectors(vectors: Tensor) -> Tensor:
    """Plain unit vectors (N, dim) of images or texts with the extra dimensions (N, dim + 2)."""
    return functional.normalize(vectors[:, :-EXTRA_DIMS], dim=1)


def _k_means(vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Lloyd's centres (k, dim) and the centre of each row; deterministic."""
    generator = torch.Generator().manual_seed(0)
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:k]].clone()
    for _ in range(_ROUNDS):
        own = _nearest(vectors, centres)
        counts = torch.bincount(own, minlength=len(centres)).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, own, vectors)
        # a centre without rows does not move
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres, _nearest(vectors, centres)


def _nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    return (vectors @ centres.t() - centres.square().sum(dim=1) / 2).argmax(dim=1)

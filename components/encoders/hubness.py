"""Hub correction: images that are near to every text stand back, in the vectors themselves.

In high dimensions a few images are among the nearest of far too many texts (Radovanovic et al. 2010). As in query-bank
normalisation (Bogolin et al. 2022), a bank of texts tells how near an image v is to texts in general, and that is taken
off its score with a text q:

    score = q . v - strength * (h(v) - mean h),    h(v) = log(sum_j w_j exp(sharpness * c_j . v)) / sharpness

with centres c_j of the bank and their weights w_j. Two more dimensions carry the correction, so that rows stay unit
vectors, scores stay inner products, and whatever stores, searches or compares vectors need not know of it:

    image (g v, s, sqrt(1 - g^2 - s^2)),    text (a q, b, 0),    s = -strength * (h(v) - mean h) * a * g / b

Their product is a * g times the score above. Two images' product is g^2 v . v' and nearly constant besides.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from image_finder.components.configs import HubnessConfig

EXTRA_DIMS = HubnessConfig.EXTRA_DIMS
_IMAGE_SHARE = math.sqrt(0.95)  # g: leaves |s| up to 0.22, 3.6 of its deviations on photographs
_TEXT_SHARE = math.sqrt(0.7)  # a
_TEXT_OFFSET = math.sqrt(0.3)  # b
_MOST = 0.999 * math.sqrt(1 - _IMAGE_SHARE**2)
SCALE = _IMAGE_SHARE * _TEXT_SHARE  # of the products of corrected vectors to those of plain ones
_ROUNDS = 20


class HubnessCorrection(nn.Module):
    """Unit vectors of images (N, dim) to corrected ones (N, dim + 2); corrects nothing before `fit`."""

    def __init__(self, dim: int, config: HubnessConfig) -> None:
        """dim: of the plain vectors."""
        super().__init__()
        self.config = config
        self.centres: Tensor
        self.log_weights: Tensor
        self.mean: Tensor
        self.register_buffer("centres", torch.zeros(config.centres, dim))
        self.register_buffer("log_weights", torch.full((config.centres,), -math.log(config.centres)))
        self.register_buffer("mean", torch.zeros(()))

    def bank_similarity(self, vectors: Tensor) -> Tensor:
        """Nearness h to the bank of plain image vectors (N, dim): (N, 1), in cosines."""
        logits = self.config.sharpness * vectors @ self.centres.t() + self.log_weights
        return logits.logsumexp(dim=1, keepdim=True) / self.config.sharpness

    def forward(self, vectors: Tensor) -> Tensor:
        """Corrected image vectors (N, dim + 2) of plain ones (N, dim), both of unit length."""
        off = self.config.strength * (self.bank_similarity(vectors) - self.mean)
        s = (-off * SCALE / _TEXT_OFFSET).clamp(-_MOST, _MOST)
        rest = (1 - _IMAGE_SHARE**2 - s * s).sqrt()
        return torch.cat([_IMAGE_SHARE * vectors, s, rest], dim=1)

    @torch.no_grad()
    def fit(self, texts: Tensor, images: Tensor) -> None:
        """Learn from a bank of plain text vectors (n, dim) and from plain image vectors (m, dim) of the training part.

        The bank is condensed to its k-means centres; a centre's weight is the number of texts it stands for, raised by
        what their spread adds to the mean of their exponentials.
        """
        k = min(len(self.centres), len(texts))
        centres, own = _k_means(texts, k)
        spread = (texts - centres[own]).square().sum(dim=1) / texts.shape[1]  # variance in any one direction
        counts = torch.bincount(own, minlength=k)
        variance = torch.zeros(k).index_add_(0, own, spread) / counts.clamp(min=1)
        self.centres[:k] = centres
        self.log_weights.fill_(-torch.inf)  # of centres that stand for nothing
        self.log_weights[:k] = (counts / len(texts)).log() + self.config.sharpness**2 * variance / 2
        self.mean.copy_(self.bank_similarity(images).mean())


def lifted_texts(vectors: Tensor) -> Tensor:
    """Unit text vectors (N, dim) as they meet corrected images: (N, dim + 2)."""
    scaled = functional.pad(_TEXT_SHARE * vectors, (0, 1), value=_TEXT_OFFSET)
    return functional.pad(scaled, (0, 1))


def plain_vectors(lifted: Tensor) -> Tensor:
    """The unit vectors (N, dim) that corrected or lifted ones (N, dim + 2) were made of."""
    return functional.normalize(lifted[:, :-EXTRA_DIMS], dim=1)


def _k_means(vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Lloyd's centres (k, dim) and the centre of each row; deterministic. A centre that loses all its rows stays put."""
    generator = torch.Generator().manual_seed(0)
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:k]].clone()
    for _ in range(_ROUNDS):
        own = _nearest(vectors, centres)
        counts = torch.bincount(own, minlength=len(centres)).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, own, vectors)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres, _nearest(vectors, centres)


def _nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    return (vectors @ centres.t() - centres.square().sum(dim=1) / 2).argmax(dim=1)

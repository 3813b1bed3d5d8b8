"""Image tower: uint8 pixels to unit vectors through an EfficientNet trunk, attention pooling and a projection.

The trunk is cut in two: a frozen `stem`, whose output is computed once and cached, and a trainable tail, the last
stages (none if only the heads learn). Ensemble heads share one tail or have one each.

A trained tower can average the vectors of several variants of an image (test-time augmentation, as Krizhevsky et al.
2012 did with crops and mirrored images), which reduces errors.
"""

from copy import deepcopy
from typing import NamedTuple, cast

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.concepts import ImageConcepts, joined
from image_finder.components.encoders.heads import ImageHead, concatenated
from image_finder.components.encoders.hubness import HubnessCorrection

_CENTRE = 0.7  # share of the side; chosen from 0.6 to 0.9 on Flickr8k's val, where 0.7 to 0.85 gain equally


class ImageStem(nn.Module):
    """Frozen first stages: uint8 pixels (N, H, W, 3) to features (N, h, w, C)."""

    def __init__(self, layers: nn.Sequential, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """mean, std: per channel, of pixels in 0..1."""
        super().__init__()
        self.layers = layers
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", -(torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2).to(self.scale.dtype)
        x = x * self.scale + self.shift
        return cast("Tensor", self.layers(x)).permute(0, 2, 3, 1)


class Branch(NamedTuple):
    """Outputs of a tail: unit vectors (N, head_dim) and attention (N, h', w') of each head."""

    vectors: list[Tensor]
    attention: list[Tensor]


class ImageTower(nn.Module):
    """Frozen stem, trainable tails, concatenated ensemble heads, concept branch, hubness correction."""

    def __init__(
        self, trunk: EfficientNet, mean: tuple[float, ...], std: tuple[float, ...], config: ModelConfig
    ) -> None:
        super().__init__()
        image = config.image
        blocks = list(trunk.blocks)
        learned = len(blocks) if image.trained_stages == "all" else min(image.trained_stages, len(blocks))
        cut = len(blocks) - learned
        head: list[nn.Module] = [trunk.conv_head, trunk.bn2]
        first: list[nn.Module] = [trunk.conv_stem, trunk.bn1]
        stem = [*first, *blocks[:cut], *([] if learned else head)]
        self.learns_whole_trunk = image.trained_stages == "all"
        self.tta = image.tta
        self.stem = ImageStem(nn.Sequential(*([] if self.learns_whole_trunk else stem)), mean, std)
        tail = nn.Sequential(
            *(stem if self.learns_whole_trunk else []), *(blocks[cut:] if learned else []), *(head if learned else [])
        )
        self.tails = nn.ModuleList(deepcopy(tail) for _ in range(config.ensemble_heads if image.own_tails else 1))
        channels = int(trunk.num_features)
        positions = _grid_positions(trunk, image.input_px)
        self.heads = nn.ModuleList(ImageHead(channels, positions, config) for _ in range(config.ensemble_heads))
        self.concept_weight = config.concepts.weight
        self.concepts = (
            ImageConcepts(deepcopy(tail), cast("nn.Linear", trunk.classifier), config.concepts)
            if config.concepts.dims
            else None
        )
        self.hubness = HubnessCorrection(config.plain_dim, config.hubness) if config.hubness.centres else None
        self.stem.requires_grad_(False)

    def features(self, pixels: Tensor) -> Tensor:
        """Stem features (N, h, w, C) of uint8 pixels (N, H, W, 3)."""
        return cast("Tensor", self.stem(pixels))

    def embed_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors (N, embedding_dim) and attention (N, h', w') of stem features (N, h, w, C)."""
        branches = [self.branch(features, tail) for tail in range(len(self.tails))]
        vectors = concatenated([vectors for branch in branches for vectors in branch.vectors])
        attention = torch.stack([each for branch in branches for each in branch.attention]).mean(dim=0)
        if self.concepts is not None:
            vectors = joined(vectors, self.concepts(features), self.concept_weight)
        return vectors if self.hubness is None else self.hubness(vectors), attention

    def branch(self, features: Tensor, tail: int) -> Branch:
        """Outputs of a tail and its heads for stem features (N, h, w, C)."""
        x = self.tails[tail](features.permute(0, 3, 1, 2))
        tokens = x.flatten(2).transpose(1, 2)
        vectors, attention = zip(*(self.heads[head](tokens) for head in self.heads_of(tail)), strict=True)
        return Branch(list(vectors), [each.unflatten(1, x.shape[2:]) for each in attention])

    def heads_of(self, tail: int) -> range:
        n = len(self.heads) // len(self.tails)
        return range(tail * n, (tail + 1) * n)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors (N, embedding_dim) and attention (N, h', w') of (N, H, W, 3) uint8 pixels.

        Vectors are averaged over the test-time variants; attention is that of the whole image.
        """
        if self.tta == ("whole",):
            return self.embed_features(self.features(pixels))
        seen = torch.cat([variant_of(pixels, variant) for variant in self.tta])
        vectors, attention = self.embed_features(self.features(seen))
        by_variant = (len(self.tta), -1)
        mean = vectors.unflatten(0, by_variant).mean(dim=0)
        return functional.normalize(mean, dim=1), attention.unflatten(0, by_variant)[0]

    def train(self, mode: bool = True) -> "ImageTower":
        """Batch norms keep the pre-trained statistics of cached features unless the whole trunk learns."""
        super().train(mode)
        self.stem.eval()
        if not self.learns_whole_trunk:
            self.tails.eval()
        return self


def variant_of(pixels: Tensor, variant: str) -> Tensor:
    """A test-time variant of uint8 pixels (N, H, W, 3): same shape and range, float32."""
    if variant == "mirrored":
        return pixels.flip(2).float()
    if variant == "centre":
        height, width = pixels.shape[1:3]
        top, left = (round(side * (1 - _CENTRE) / 2) for side in (height, width))
        middle = pixels[:, top : height - top, left : width - left].permute(0, 3, 1, 2).float()
        return functional.interpolate(middle, size=(height, width), mode="bilinear").permute(0, 2, 3, 1)
    return pixels.float()


def _grid_positions(trunk: EfficientNet, input_px: int) -> int:
    reduction = int(trunk.feature_info[-1]["reduction"])
    side = -(-input_px // reduction)
    return side * side

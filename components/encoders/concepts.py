"""Concept branch: what the image trunk's own classifier recognises, compared with texts by the names of its classes.

The classifier knows a thousand things that a few thousand captions never name, and the text trunk knows what words
mean. A convex combination of semantic embeddings (ConSE; Norouzi et al. 2013) connects both without captioned images:

    image  c = normalise(sum_k p_k (t_k - m) P),    p = softmax(class logits / temperature)
    text   q = normalise((t - m) P)

t is the mean of the text trunk's hidden states, t_k that of "a photo of a NAME" averaged over the names of class k, m the
mean of all t_k, and P holds the first principal components of t_k - m.

Class logits are those of the packaged trunk: of its last stages, which the branch keeps as they were beside the trained
ones. Stages that learn to match captions forget classes that no caption names.
"""

import math

import torch
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.configs import ConceptsConfig
from image_finder.components.errors import ConfigError

_TEXTS = 128  # class names in one pass through the text trunk


class ImageConcepts(nn.Module):
    """Classes of a trunk as unit vectors of dims dimensions; all zero before `fit_concepts`."""

    def __init__(self, stages: nn.Module, classifier: nn.Linear, config: ConceptsConfig) -> None:
        """stages: packaged stages from stem features (N, C, h, w) to the grid (N, C', h', w') of the classifier."""
        super().__init__()
        self.stages = stages.requires_grad_(False)
        self.classifier = classifier.requires_grad_(False)
        self.stride = math.prod(each.stride[0] for each in stages.modules() if isinstance(each, nn.Conv2d))
        self.temperature = config.temperature
        self.names: Tensor
        self.register_buffer("names", torch.zeros(classifier.out_features, config.dims))

    def forward(self, features: Tensor) -> Tensor:
        """Unit vectors (N, dims) of stem features (N, h, w, C).

        Leaves out the last row and column if the stages would pad them: 8 x 8 instead of 9 x 9 cells of a grid of 17 x 17
        cost a fifth less and cover 94 % of each side.
        """
        height, width = (side // self.stride * self.stride or side for side in features.shape[1:3])
        grid = self.stages(features[:, :height, :width].permute(0, 3, 1, 2))
        return self.of_classes(self.classifier(grid.mean(dim=(2, 3))))

    def of_classes(self, logits: Tensor) -> Tensor:
        """Unit vectors (N, dims) of class logits (N, classes)."""
        return functional.normalize((logits / self.temperature).softmax(dim=1) @ self.names, dim=1)

    def train(self, mode: bool = True) -> "ImageConcepts":
        """Batch norms keep the packaged statistics."""
        super().train(mode)
        self.stages.eval()
        return self


class TextConcepts(nn.Module):
    """Texts as unit vectors of dims dimensions; all zero before `fit_concepts`."""

    def __init__(self, channels: int, config: ConceptsConfig) -> None:
        super().__init__()
        self.mean: Tensor
        self.axes: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("axes", torch.zeros(channels, config.dims))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (N, dims) of hidden states (N, T, C) under mask (N, T)."""
        return functional.normalize((mean_state(features, mask) - self.mean) @ self.axes, dim=1)


def mean_state(features: Tensor, mask: Tensor) -> Tensor:
    """Normalised mean (N, C) of hidden states (N, T, C) under mask (N, T), as sentence-transformers pools MiniLM."""
    keep = mask.unsqueeze(-1).to(features.dtype)
    return functional.normalize((features * keep).sum(dim=1), dim=1)


def joined(learned: Tensor, concepts: Tensor, weight: float) -> Tensor:
    """Unit vectors of the trained heads (N, D) and of concepts (N, dims) as unit vectors (N, D + dims).

    Their products are (learned + weight * concepts) / (1 + weight).
    """
    share = weight / (1 + weight)
    return torch.cat([(1 - share) ** 0.5 * learned, share**0.5 * concepts], dim=1)


def class_names(trunk: EfficientNet) -> list[list[str]]:
    """Names of each class of a trunk's classifier, the most common first. Raises ConfigError if they are not known."""
    subset = infer_imagenet_subset(trunk)
    if subset is None:
        raise ConfigError(
            f"the names of the {trunk.num_classes} classes of this image trunk are not known; set concepts.dims to 0"
        )
    info = ImageNetInfo(subset)
    return [
        [name.strip() for name in info.index_to_description(index, detailed=False).split(",")]
        for index in range(trunk.num_classes)
    ]


@torch.no_grad()
def fit_concepts(
    image: ImageConcepts, text: TextConcepts, names: list[list[str]], stem: nn.Module, tokenizer: Tokenizer
) -> None:
    """Compute the vectors of the classes, their mean and principal components. stem: a TextStem."""
    numbers, flat = zip(*((number, name) for number, of_class in enumerate(names) for name in of_class), strict=True)
    states = []
    for start in range(0, len(flat), _TEXTS):
        tokens = tokenizer([f"a photo of a {name}" for name in flat[start : start + _TEXTS]])
        ids, mask = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask)
        states.append(mean_state(stem(ids, mask), mask))
    classes = torch.tensor(numbers)
    sums = torch.zeros(len(names), len(text.mean)).index_add_(0, classes, torch.cat(states))
    vectors = sums / torch.bincount(classes, minlength=len(names)).unsqueeze(1)
    text.mean.copy_(vectors.mean(dim=0))
    _, _, components = torch.linalg.svd(vectors - text.mean, full_matrices=False)
    dims = image.names.shape[1]
    text.axes.copy_(components[:dims].T)
    image.names.copy_((vectors - text.mean) @ text.axes)

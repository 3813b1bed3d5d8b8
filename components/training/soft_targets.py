"""Soft targets: a loss towards the similarities that teachers give to the images and texts of a batch.

As in CLIP distillation (affinity mimicking of TinyCLIP, Wu et al. 2023; Hinton et al. 2015); it is added to the
contrastive loss.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Teacher(NamedTuple):
    """Vectors of a train set by teachers: images (n_images, dim), texts (n_texts, dim); their products are mean logits."""

    images: Tensor
    texts: Tensor

    def of_batch(self, image_rows: Tensor, text_rows: Tensor, device: torch.device) -> "Teacher":
        return Teacher(self.images[image_rows].float().to(device), self.texts[text_rows].float().to(device))


def distillation_share(
    scale: Tensor,
    vectors: tuple[Tensor, Tensor],
    teacher: Teacher,
    rows: tuple[slice, slice],
) -> Tensor:
    """Share of some images and texts in the mean divergence of a batch from its teacher, over both directions.

    vectors: unit vectors of the batch's images (n_images, dim) and texts (n_texts, dim); rows: those of this share.
    """
    images, texts = vectors
    own_images, own_texts = rows
    of_texts = _divergence(scale * texts[own_texts] @ images.t(), teacher.texts[own_texts] @ teacher.images.t())
    of_images = _divergence(scale * images[own_images] @ texts.t(), teacher.images[own_images] @ teacher.texts.t())
    return (of_texts / len(texts) + of_images / len(images)) / 2


def _divergence(logits: Tensor, targets: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the targets' probabilities from those of the logits, summed over the rows."""
    return functional.kl_div(logits.log_softmax(dim=1), targets.log_softmax(dim=1), reduction="sum", log_target=True)

"""Contrastive loss: symmetric cross-entropy over a batch of images with one or more captions each.

With one caption per image this is CLIP's loss (Radford et al. 2021, figure 3). With several, captions of the same image
are not each other's negatives: they are left out of the denominator.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_LOGIT_SCALE = 100.0
# The largest float32 below ln(100), which float32 would round up to a scale of 100.00001.
_MAX_T = float(np.nextafter(np.float32(math.log(MAX_LOGIT_SCALE)), np.float32(0)))


class LogitScale(nn.Module):
    """Learned factor exp(t) of cosines: starts at 1/0.07, at most 100 (Radford et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self) -> Tensor:
        """Scale, a scalar in (0, 100] if clamp_ follows every optimizer step."""
        # No clamp here: its gradient at the limit is zero (torch 2.14), so a scale of 100 could never fall again.
        return self.t.exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        self.t.clamp_(max=_MAX_T)


def contrastive_loss(logits: Tensor, image_of_text: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean of text-to-image and image-to-text cross-entropy, a scalar.

    logits: (n_images, n_texts) scaled similarities; image_of_text: (n_texts,) int64 row of each text's image; every
    image has at least one text. label_smoothing: share of a text's target that is spread over all images.
    """
    n_images, n_texts = logits.shape
    text_to_image = functional.cross_entropy(logits.t(), image_of_text, label_smoothing=label_smoothing)
    image_to_text = _image_to_text(logits, image_of_text, slice(0, n_images), slice(0, n_texts)) / n_images
    return (text_to_image + image_to_text) / 2


def contrastive_share(
    scale: Tensor,
    vectors: tuple[Tensor, Tensor],
    image_of_text: Tensor,
    rows: tuple[slice, slice],
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Share of some images and their texts in the contrastive_loss of a batch; shares add up.

    vectors: unit vectors of the batch's images (n_images, dim) and texts (n_texts, dim); rows: the images of this share
    and all their texts. Cost falls with the size of the share, as in open_clip's local loss (Ilharco et al. 2021), but
    with the counts of the whole batch.
    """
    images, texts = vectors
    own_images, own_texts = rows
    text_logits = scale * texts[own_texts] @ images.t()
    text_to_image = functional.cross_entropy(
        text_logits, image_of_text[own_texts], label_smoothing=label_smoothing, reduction="sum"
    )
    image_logits = scale * images[own_images] @ texts.t()
    image_to_text = _image_to_text(image_logits, image_of_text, own_images, own_texts)
    return (text_to_image / len(texts) + image_to_text / len(images)) / 2


def _image_to_text(logits: Tensor, image_of_text: Tensor, own_images: slice, own_texts: slice) -> Tensor:
    """Sum of the image-to-text cross-entropies of some images.

    logits: (n_own_images, n_texts); own_images, own_texts: rows of these images and of their texts in the batch.
    """
    device = logits.device
    own = image_of_text.unsqueeze(0) == torch.arange(own_images.start, own_images.stop, device=device).unsqueeze(1)
    negatives = logits.masked_fill(own, -torch.inf).logsumexp(dim=1)  # (n_own_images,); -inf if there are none
    row_of_text = image_of_text[own_texts] - own_images.start  # (n_own_texts,)
    positives = logits[row_of_text, torch.arange(own_texts.start, own_texts.stop, device=device)]  # (n_own_texts,)
    # -log(e^p / (e^p + sum of e^n)) = softplus(log sum e^n - p)
    pair_loss = functional.softplus(negatives[row_of_text] - positives)
    weight = 1 / own.sum(dim=1)[row_of_text]  # each image has the same weight, regardless of its captions
    return (pair_loss * weight).sum()

"""Contrastive loss: symmetric cross-entropy over a batch of pictures and captions with several captions a picture.

CLIP's loss (Radford et al. 2021, figure 3) when each picture has one caption. With several, a picture's other
captions are taken out of its denominator: two captions of one picture are never each other's negatives.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_LOGIT_SCALE = 100.0


class LogitScale(nn.Module):
    """Learned temperature: exp(t), t starts at ln(1/0.07), exp(t) is kept at most 100 (Radford et al. 2021, 2.5)."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self) -> Tensor:
        """Scale, a scalar in (0, 100]."""
        return self.t.clamp(max=math.log(MAX_LOGIT_SCALE)).exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Pull t back into range after an optimizer step, so that its gradient does not vanish beyond the limit."""
        self.t.clamp_(max=math.log(MAX_LOGIT_SCALE))


def contrastive_loss(logits: Tensor, image_of_text: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean of the text-to-image and the image-to-text cross-entropy, a scalar.

    logits: (n_images, n_texts), scaled similarities; image_of_text: (n_texts,) int64 row of each text's picture.
    Every picture has at least one text. label_smoothing spreads that share of a text's target over all pictures.
    """
    n_images, n_texts = logits.shape
    text_to_image = functional.cross_entropy(logits.t(), image_of_text, label_smoothing=label_smoothing)
    own = image_of_text.unsqueeze(0) == torch.arange(n_images, device=logits.device).unsqueeze(1)
    negatives = logits.masked_fill(own, -torch.inf).logsumexp(dim=1)  # (n_images,); -inf if there are none
    positives = logits[image_of_text, torch.arange(n_texts, device=logits.device)]  # (n_texts,)
    # -log(e^p / (e^p + sum of e^n)) = softplus(log sum e^n - p)
    pair_loss = functional.softplus(negatives[image_of_text] - positives)
    weight = 1 / own.sum(dim=1)[image_of_text]  # each picture counts once, however many captions it has
    image_to_text = (pair_loss * weight).sum() / n_images
    return (text_to_image + image_to_text) / 2

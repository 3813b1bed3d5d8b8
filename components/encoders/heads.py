"""Ensemble heads of both towers: trunk features to unit vectors through attention pooling and a projection.

Image pooling is as in CLIP's AttentionPool2d (Radford et al. 2021, section 2.3; openai/CLIP model.py): flatten, prepend
the mean token, add learned positions, then one multi-head attention with the first token as query and all 1 + HW tokens
as keys and values.

With a single query, the key and value maps need not be applied to every token: q . (K x) = (K^T q) . x, and the
weighted sum of V x is V applied to the weighted sum of x. For 50 tokens of 1280 into 512 with 8 heads this takes 2.3 M
multiplications instead of 65.5 M. There is no key bias, since it would add the same number to all scores of a query.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from image_finder.components.configs import ModelConfig

_ATTENTION_HEADS = 8


class AttentionPool(nn.Module):
    """Pool (N, HW, C) tokens into (N, width)."""

    def __init__(self, channels: int, n_positions: int, width: int, heads: int) -> None:
        """channels: C of the trunk; n_positions: HW; width: output width, a multiple of heads."""
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(torch.randn(n_positions + 1, channels) * channels**-0.5)
        self.query = nn.Linear(channels, width)
        self.key = nn.Linear(channels, width, bias=False)
        self.value = nn.Linear(channels, width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled vectors (N, width) and mean attention of the heads (N, HW) of tokens (N, HW, C).

        A row of the attention sums to at most 1; the rest is the weight of the mean token.
        """
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.positions
        query = self.query(tokens[:, 0]).view(-1, self.heads, self.query.out_features // self.heads)  # (N, heads, d)
        key = self.key.weight.view(self.heads, -1, tokens.shape[-1])  # (heads, d, C)
        reading = torch.einsum("nhd,hdc->nhc", query * query.shape[-1] ** -0.5, key)
        weights = (reading @ tokens.transpose(1, 2)).softmax(dim=-1)  # (N, heads, 1 + HW)
        value = self.value.weight.view(self.heads, -1, tokens.shape[-1])
        pooled = torch.einsum("nhc,hdc->nhd", weights @ tokens, value).flatten(1) + self.value.bias
        projected: Tensor = self.out(pooled)
        return projected, weights[:, :, 1:].mean(dim=1)


class TokenAttention(nn.Module):
    """Learned multi-head attention pooling of tokens (Lin et al. 2017; GELU instead of tanh)."""

    def __init__(self, channels: int) -> None:
        """channels: C of the trunk, a multiple of 8."""
        super().__init__()
        self.score = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, _ATTENTION_HEADS))
        self.value = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pooled (N, C) of tokens (N, T, C) under mask (N, T)."""
        n, length, channels = tokens.shape
        # 2-D input: only then do the exported weights keep their names, by which the quantiser excludes them
        flat = tokens.reshape(n * length, channels)
        scores = self.score(flat).view(n, length, _ATTENTION_HEADS)
        weights = scores.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).softmax(dim=1)
        values = self.value(flat).view(n, length, _ATTENTION_HEADS, channels // _ATTENTION_HEADS)
        pooled: Tensor = (weights.unsqueeze(-1) * values).sum(dim=1).flatten(1)
        return pooled


class Projection(nn.Module):
    """Linear map, for kind "mlp" plus a two-layer perceptron."""

    def __init__(self, width_in: int, width_out: int, *, kind: Literal["linear", "mlp"], dropout: float) -> None:
        """dropout: before the maps, in training."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width_in, width_out)
        self.mlp = (
            nn.Sequential(
                nn.Linear(width_in, 2 * width_out), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width_out, width_out)
            )
            if kind == "mlp"
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in) to (N, width_out), not normalised."""
        x = self.dropout(x)
        projected: Tensor = self.linear(x)
        return projected if self.mlp is None else projected + self.mlp(x)


class ImageHead(nn.Module):
    """Attention pooling, LayerNorm, projection, L2 norm: grid tokens to a unit vector."""

    def __init__(self, channels: int, positions: int, config: ModelConfig) -> None:
        super().__init__()
        image = config.image
        self.pool = AttentionPool(channels, positions, image.pool_width, image.pool_heads)
        self.residual = nn.Linear(channels, image.pool_width) if image.mean_residual else None
        self.norm = nn.LayerNorm(image.pool_width)
        self.projection = Projection(image.pool_width, config.head_dim, kind=config.projection, dropout=config.dropout)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors (N, head_dim) and attention (N, HW) of tokens (N, HW, C)."""
        pooled, attention = self.pool(tokens)
        if self.residual is not None:
            pooled = pooled + self.residual(tokens.mean(dim=1))
        return functional.normalize(self.projection(self.norm(pooled)), dim=-1), attention


class TextHead(nn.Module):
    """LayerNorm, pooling, projection, L2 norm: hidden states of a trunk to a unit vector."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.pooling = config.text.pooling
        self.token_dropout = config.text.token_dropout
        self.attention = TokenAttention(channels) if self.pooling == "attention" else None
        pooled = channels * {"end": 1, "mean": 1, "mean_end": 2, "attention": 3}[self.pooling]
        self.projection = Projection(pooled, config.head_dim, kind=config.projection, dropout=config.dropout)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (N, head_dim) of hidden states (N, T, C) under mask (N, T)."""
        x = self.norm(features)
        # the end-of-text token is the last one under the mask
        last = (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)
        seen = self._with_dropout(mask, last) if self.training and self.token_dropout else mask
        parts = []
        if self.pooling != "end":
            keep = seen.unsqueeze(-1).to(x.dtype)
            parts.append((x * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1))
        if self.pooling != "mean":
            parts.append(x.gather(1, last.unsqueeze(-1).expand(-1, 1, x.shape[-1])).squeeze(1))
        if self.attention is not None:
            parts.append(self.attention(x, seen))
        return functional.normalize(self.projection(torch.cat(parts, dim=-1)), dim=-1)

    def _with_dropout(self, mask: Tensor, last: Tensor) -> Tensor:
        """The mask (N, T) without some random tokens; the first and the last, (N, 1), remain."""
        kept = torch.rand(mask.shape, device=mask.device) >= self.token_dropout
        kept[:, 0] = True
        return mask * kept.scatter(1, last, value=True)


def concatenated(vectors: Sequence[Tensor]) -> Tensor:
    """Unit vectors (N, heads * head_dim) of heads (N, head_dim); products are means over heads."""
    scale: float = len(vectors) ** -0.5
    return scale * torch.cat(list(vectors), dim=-1)

"""Attention pooling: reduces a grid of trunk features to one vector, with attention weights.

As in CLIP's AttentionPool2d (Radford et al. 2021, section 2.3; openai/CLIP model.py): flatten, prepend the mean
token, add learned positions, then one multi-head attention with the first token as query and all 1 + HW tokens as keys
and values.

With a single query, the key and value maps need not be applied to every token: q . (K x) = (K^T q) . x, and the
weighted sum of V x is V applied to the weighted sum of x. For 50 tokens of 1280 into 512 with 8 heads this takes 2.3 M
multiplications instead of 65.5 M. There is no key bias, since it would add the same number to all scores of a query.
"""

import torch
from torch import Tensor, nn


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

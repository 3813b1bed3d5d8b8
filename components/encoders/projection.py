"""Projection of pooled vectors into the shared space, and concatenation of ensemble heads."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


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


def concatenated(vectors: Sequence[Tensor]) -> Tensor:
    """Unit vectors (N, heads * head_dim) of heads (N, head_dim); products are means over heads."""
    scale: float = len(vectors) ** -0.5
    return scale * torch.cat(list(vectors), dim=-1)

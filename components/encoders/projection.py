"""Projection: a head's pooled vector into its part of the shared space, and the parts put together."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """Linear map, optionally plus a two-layer perceptron (a residual branch): (N, width_in) to (N, width_out)."""

    def __init__(self, width_in: int, width_out: int, *, kind: Literal["linear", "mlp"], dropout: float) -> None:
        """dropout: in front of the maps, while training."""
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
        """x: (N, width_in). Returns (N, width_out), not normalised."""
        x = self.dropout(x)
        projected: Tensor = self.linear(x)
        return projected if self.mlp is None else projected + self.mlp(x)


def side_by_side(vectors: Sequence[Tensor]) -> Tensor:
    """One unit vector (N, heads * head_dim) of the heads' (N, head_dim): its products are the means of theirs."""
    scale: float = len(vectors) ** -0.5
    return scale * torch.cat(list(vectors), dim=-1)

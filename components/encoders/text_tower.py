"""Text tower: token ids to unit vectors through a BERT-like trunk, LayerNorm, pooling and a projection."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from components.configs import ModelConfig
from components.encoders.hubs import EXTRA_DIMS, lifted_texts
from components.encoders.projection import Projection


class TextStem(nn.Module):
    """The trunk as a plain function of ids and mask: (N, T) int64 to (N, T, C) hidden states."""

    def __init__(self, trunk: PreTrainedModel) -> None:
        """trunk: a transformers BertModel or DistilBertModel without pooler."""
        super().__init__()
        self.trunk = trunk

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask: (N, T) int64. Returns (N, T, C) float; rows under padding are not defined."""
        return cast("Tensor", self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state)


class TextTower(nn.Module):
    """Trunk, LayerNorm, pooling, projection, L2 norm."""

    def __init__(self, trunk: PreTrainedModel, config: ModelConfig) -> None:
        """trunk: a transformers BertModel or DistilBertModel without pooler."""
        super().__init__()
        channels = int(trunk.config.hidden_size)
        self.stem = TextStem(trunk)
        self.norm = nn.LayerNorm(channels)
        self.pooling = config.text.pooling
        pooled = channels * (2 if self.pooling == "mean_end" else 1)
        self.lifts = config.hubs.centres > 0
        width = config.embedding_dim - (EXTRA_DIMS if self.lifts else 0)
        self.projection = Projection(pooled, width, kind=config.projection, dropout=config.dropout)
        self.trained_layers = config.text.trained_layers
        self._freeze(trunk)

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of the trunk, what is cached when it is frozen: (N, T, C)."""
        return cast("Tensor", self.stem(ids, mask))

    def embed_features(self, features: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (N, embedding_dim) of hidden states (N, T, C) under mask (N, T)."""
        x = self.norm(features)
        keep = mask.unsqueeze(-1).to(x.dtype)
        # The end-of-text token is the last one under the mask, whatever its id.
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        end = x.gather(1, last.view(-1, 1, 1).expand(-1, 1, x.shape[-1])).squeeze(1)
        mean = (x * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1)
        pooled = {"end": end, "mean": mean, "mean_end": torch.cat([mean, end], dim=-1)}[self.pooling]
        vectors = functional.normalize(self.projection(pooled), dim=-1)
        return lifted_texts(vectors) if self.lifts else vectors

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (N, embedding_dim) of token ids under mask, both (N, T) int64."""
        return self.embed_features(self.features(ids, mask), mask)

    def train(self, mode: bool = True) -> "TextTower":
        """A frozen trunk stays in evaluation mode: its dropout would change what was cached."""
        super().train(mode)
        if self.trained_layers == 0:
            self.stem.eval()
        return self

    def _freeze(self, trunk: PreTrainedModel) -> None:
        layers = _transformer_layers(trunk)
        learned = len(layers) if self.trained_layers == "all" else min(self.trained_layers, len(layers))
        trunk.requires_grad_(self.trained_layers == "all")
        for layer in layers[len(layers) - learned :]:
            layer.requires_grad_(True)


def _transformer_layers(trunk: PreTrainedModel) -> nn.ModuleList:
    stack = getattr(trunk, "encoder", None) or getattr(trunk, "transformer", None)
    return cast("nn.ModuleList", cast("nn.Module", stack).layer)

"""Text tower: token ids to unit vectors through a BERT-like trunk, LayerNorm, pooling and a projection."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.hubness import with_extra_dims
from image_finder.components.encoders.projection import Projection, concatenated

_ATTENTION_HEADS = 8


class TextStem(nn.Module):
    """The trunk as a plain function of ids and mask: (N, T) int64 to (N, T, C) hidden states."""

    def __init__(self, trunk: PreTrainedModel) -> None:
        """trunk: a transformers BertModel or DistilBertModel without pooler."""
        super().__init__()
        self.trunk = trunk

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (N, T, C) of ids under mask, both (N, T) int64; undefined under padding."""
        return cast("Tensor", self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state)


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


class TextTower(nn.Module):
    def __init__(self, trunk: PreTrainedModel, config: ModelConfig) -> None:
        super().__init__()
        channels = int(trunk.config.hidden_size)
        self.stem = TextStem(trunk)
        self.heads = nn.ModuleList(TextHead(channels, config) for _ in range(config.ensemble_heads))
        self.corrects_hubness = config.hubness.centres > 0
        self.trained_layers = config.text.trained_layers
        self._freeze(trunk)

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of the trunk (N, T, C); cached if it is frozen."""
        return cast("Tensor", self.stem(ids, mask))

    def embed_features(self, features: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (N, embedding_dim) of hidden states (N, T, C) under mask (N, T)."""
        vectors = concatenated(self.head_vectors(features, mask, range(len(self.heads))))
        return with_extra_dims(vectors) if self.corrects_hubness else vectors

    def head_vectors(self, features: Tensor, mask: Tensor, heads: range) -> list[Tensor]:
        """Unit vectors (N, head_dim) of some heads; features: (N, T, C), mask: (N, T)."""
        return [self.heads[head](features, mask) for head in heads]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.embed_features(self.features(ids, mask), mask)

    def train(self, mode: bool = True) -> "TextTower":
        """Set the mode; a frozen trunk stays in evaluation mode, as its features are cached."""
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

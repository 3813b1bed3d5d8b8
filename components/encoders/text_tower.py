"""Text tower: token ids to unit vectors through a BERT-like trunk, LayerNorm, pooling and a projection."""

from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.concepts import TextConcepts, joined
from image_finder.components.encoders.heads import TextHead, concatenated
from image_finder.components.encoders.hubness import with_extra_dims


class TextStem(nn.Module):
    """The trunk as a plain function of ids and mask: (N, T) int64 to (N, T, C) hidden states."""

    def __init__(self, trunk: PreTrainedModel) -> None:
        """trunk: a transformers BertModel or DistilBertModel without pooler."""
        super().__init__()
        self.trunk = trunk

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (N, T, C) of ids under mask, both (N, T) int64; undefined under padding."""
        return cast("Tensor", self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state)


class TextTower(nn.Module):
    def __init__(self, trunk: PreTrainedModel, config: ModelConfig) -> None:
        super().__init__()
        channels = int(trunk.config.hidden_size)
        self.stem = TextStem(trunk)
        self.heads = nn.ModuleList(TextHead(channels, config) for _ in range(config.ensemble_heads))
        self.concept_weight = config.concepts.weight
        self.concepts = TextConcepts(channels, config.concepts) if config.concepts.dims else None
        self.corrects_hubness = config.hubness.centres > 0
        self.trained_layers = config.text.trained_layers
        self._freeze(trunk)

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of the trunk (N, T, C); cached if it is frozen."""
        return cast("Tensor", self.stem(ids, mask))

    def embed_features(self, features: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (N, embedding_dim) of hidden states (N, T, C) under mask (N, T)."""
        vectors = concatenated(self.head_vectors(features, mask, range(len(self.heads))))
        if self.concepts is not None:
            vectors = joined(vectors, self.concepts(features, mask), self.concept_weight)
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

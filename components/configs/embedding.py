"""Configurations of a gallery, its index and its embedding."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from image_finder.components.configs.base import Config, Share


class GalleryConfig(Config):
    """Images to embed into a vector index."""

    root: Path | None = Field(
        None, description="folder whose images, at any depth, are embedded; None: the images of the data set"
    )
    uri: str = Field(
        "",
        pattern=r"^([a-z][a-z0-9+.-]*://.*)?$",
        description="images on an object store (s3://, gs://, abfs://, hdfs:// or file://) instead of root",
    )
    annotations: str | None = Field(
        None, description="COCO captions JSON, relative to root; its captions are stored in the index"
    )
    images: str = Field(".", description="folder of the images, relative to root")
    max_failed_share: Share = Field(
        0.01, description="largest share of images that cannot be decoded; above it the run fails"
    )

    @model_validator(mode="after")
    def _one_location(self) -> Self:
        if self.uri and (self.root is not None or self.annotations is not None):
            raise ValueError(f"uri ({self.uri}) excludes root and annotations, which are local files")
        if ":" in self.uri.partition("://")[2].partition("/")[0].rpartition("@")[0]:
            raise ValueError("uri must contain no password, since it is logged; set it in the environment of the nodes")
        return self


class IndexTierConfig(Config):
    """How an index is searched: exactly, or by an approximate file (extra `faiss`)."""

    kind: Literal["auto", "exact", "hnsw", "ivfpq"] = Field(
        "auto",
        description="auto: exact up to exact_rows, above it hnsw if it fits the memory budget, else ivfpq; fewer than "
        "4,096 rows are always searched exactly",
    )
    exact_rows: int = Field(1_000_000, ge=0, description="auto: largest number of rows that is searched exactly")
    memory_budget_mb: int = Field(4096, ge=1, description="auto: largest size of the file in memory, 10^6 bytes")
    links: int = Field(
        16, ge=4, le=64, description="hnsw: links of a row on the upper levels (M); twice as many on the lowest"
    )
    ef_construction: int = Field(80, ge=8, le=2000, description="hnsw: rows examined to link a new one")
    ef_search: int = Field(128, ge=16, le=8192, description="hnsw: fewest candidate rows of a query")
    lists: int = Field(0, ge=0, le=1 << 20, description="ivfpq: clusters of rows; 0: about 2 sqrt(rows)")
    nprobe: int = Field(16, ge=1, le=1 << 20, description="ivfpq: fewest clusters that a query examines")
    pq_bytes: int = Field(
        64, ge=1, le=1024, description="ivfpq: most bytes per row; the nearest divisor of embedding_dim is used"
    )
    min_recall_at_10: Share = Field(
        0.95,
        description="recall@10 against exact search, with texts: ef_search or nprobe is doubled until it is reached; if "
        "64 times the value is not enough, auto keeps the index exact and a named kind is refused",
    )
    measured_texts: int = Field(200, ge=10, le=10_000, description="texts used to measure this recall")
    build_threads: int = Field(
        1, ge=0, description="1: reproducible; more, or 0 for one per core: the links of hnsw vary"
    )
    seed: int = Field(0, ge=0, description="of the training rows, k-means and the levels of hnsw")


class EmbeddingConfig(Config):
    """How a gallery is embedded."""

    former_names: ClassVar = {"self_check_pictures": "self_check_images", "ray_shard_pictures": "ray_shard_images"}

    batch_images: int = Field(32, ge=1)
    threads: int = Field(0, ge=0, description="ONNX Runtime threads; 0: one per core; engine ray: see ray_actor_cpus")
    decode_threads: int = Field(2, ge=1, description="threads that decode images; engine ray: per actor")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    self_check_images: int = Field(200, ge=1, description="sampled images that must rank first for their own vector")
    tier: IndexTierConfig = Field(default_factory=IndexTierConfig, description="exact or approximate search")
    engine: Literal["local", "ray"] = Field(
        "local",
        description="local: threads of this process; ray: actors on Ray Data, here or on a cluster (extra `ray`)",
    )
    ray_address: str = Field(
        "",
        pattern=r"^(auto|[^\s/]+:\d{1,5})?$",
        description='"": start Ray here for the run; "auto": the cluster of this machine; or host:port of a cluster',
    )
    ray_actors: int = Field(0, ge=0, description="actors; 0: as many as the CPUs (or GPUs) allow")
    ray_actor_cpus: int = Field(1, ge=1, description="CPUs and ONNX Runtime threads per actor")
    ray_shards: str = Field(
        "", description="folder or URI that all nodes can access, for Parquet shards; empty: below the cache folder"
    )
    ray_shard_images: int = Field(
        1024, ge=1, description="most images per shard; the shard of a lost actor is recomputed"
    )
    ray_stall_s: float = Field(
        300.0,
        ge=1,
        description="seconds without a finished shard after which actors are restarted; above the time per shard",
    )

"""Configurations of a gallery, of its index, and of how it is embedded."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from image_finder.components.configs.base import Config


class GalleryConfig(Config):
    """Images to embed into a vector index."""

    root: Path | None = Field(
        None, description="folder of images, searched below for the known endings; None: the data set's images"
    )
    uri: str = Field(
        "",
        pattern=r"^([a-z][a-z0-9+.-]*://.*)?$",
        description="in place of root, images on an object store: s3://, gs://, abfs://, hdfs:// or file://; needs engine ray",
    )
    annotations: str | None = Field(
        None, description="COCO captions JSON relative to root whose captions go with the index"
    )
    images: str = Field(".", description="folder of the images, relative to root")
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="share of images that may fail to decode before the run fails"
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
    decode_threads: int = Field(2, ge=1, description="threads that decode images; engine ray: of each actor")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    self_check_images: int = Field(200, ge=1, description="images that must find themselves first")
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
    ray_shard_images: int = Field(
        1024, ge=1, description="most images of a shard; a lost actor's shard is computed again"
    )
    ray_stall_s: float = Field(
        300.0,
        ge=1,
        description="seconds without a finished shard after which actors are started anew; s a shard is below",
    )

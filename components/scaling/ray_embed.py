"""Embedding on Ray Data: a gallery of images to Parquet shards by actors on many machines, and one index of them.

Two streams. First every file is hashed, then each content that no shard holds is embedded by an actor, which writes
shards. So equal content is computed once, a second run embeds what is new, and one that was stopped goes on where it
was. Names and hashes travel through Ray; images and vectors do not.

A worker that is lost is started again by Ray, and its shard is computed again. When its node is gone and no other has
room for it, Ray waits for ever: after `ray_stall_s` without a finished shard the stream is broken off, and what is
missing is embedded by as many actors as there is room for then.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import ConfigError, StorageError
from image_finder.components.index.embed import (
    EmbeddedImages,
    ImageContent,
    require_images,
    require_readable,
    write_gallery_index,
)
from image_finder.components.index.gallery import Gallery
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.vector_cache import vector_maker
from image_finder.components.scaling.ray_session import ray_session, reason_of, told_by_worker, worker_was_lost
from image_finder.components.scaling.ray_worker import FILES, NEW, ImageEmbedder, Job, hash_files
from image_finder.components.scaling.shards import Shards

logger = logging.getLogger(__name__)

_FILES_A_CALL = 2048
_CALLS_AN_ACTOR = 4  # at least so many when there is work for them, so that all end at about the same time
_ROWS_A_STREAM = 1_000_000  # of names in Ray's store: 100 MB
_MOST_RETRIES = 3  # of one shard whose worker is lost each time, in one stream
_FRUITLESS_STREAMS = 3


def embed_gallery_on_ray(
    bundle: Bundle,
    gallery: Gallery,
    path: Path,
    config: EmbeddingConfig,
    *,
    cache_dir: Path,
    max_failed_share: float,
    progress: bool = False,
) -> VectorIndex:
    """`embed_gallery` with actors on Ray Data: the same arguments, the same index, the same errors.

    All nodes must reach the bundle, the images and the shards (config.ray_shards, else below cache_dir) by the same
    paths. Vectors equal those of the local engine to the bit when both give a call of ONNX Runtime the same number of
    threads on the same kind of processor, else to some 1e-7. Raises besides ConfigError if no node has room for an
    actor, StorageError if workers are lost again and again or Ray fails.
    """
    require_images(gallery)
    place = config.ray_shards or str(cache_dir.resolve())
    shards = Shards(place, maker=vector_maker(bundle), dim=bundle.manifest.embedding_dim)
    with ray_session(config.ray_address, cpus=_cpus_here(config)):
        known = _Known(gallery, shards)
        _hash_all(known, gallery, title="hashed" if progress else "")
        job = _job(bundle, gallery, place, config)
        _embed_missing(known, job, title="images" if progress else "")
    return write_gallery_index(bundle, gallery, known.embedded(max_failed_share), path, config)


class _Known:
    """What is known of each row of a gallery so far."""

    def __init__(self, gallery: Gallery, shards: Shards) -> None:
        self.shards = shards
        self.paths = [os.fsencode(item.path.as_posix()) for item in gallery.items]
        self._gallery = gallery
        self._sha256 = [""] * len(self.paths)
        self._bytes = [0] * len(self.paths)
        self._modified_s = [0] * len(self.paths)
        self._unreadable: dict[int, str] = {}  # by row
        self._undecodable: dict[str, str] = {}  # by content
        self._embedded: set[str] = set()

    def hashed(self, table: pa.Table) -> None:
        """Take what `hash_files` gave."""
        for row, sha256, n_bytes, modified_s, failure in zip(
            *map(pa.ChunkedArray.to_pylist, table.columns), strict=True
        ):
            self._sha256[row], self._bytes[row], self._modified_s[row] = sha256, n_bytes, modified_s
            if failure:
                self._unreadable[row] = failure

    def done(self, table: pa.Table) -> None:
        """Take what an actor gave."""
        for row, sha256, failure, _ in zip(*map(pa.ChunkedArray.to_pylist, table.columns), strict=True):
            if failure:
                self._undecodable[self._sha256[row]] = failure
            else:  # another content than before if the file changed meanwhile
                self._sha256[row] = sha256
                self._embedded.add(sha256)

    def look_again(self) -> None:
        """Take up shards that are there, also those of which no actor could tell any more."""
        self._embedded = self.shards.all_keys()

    def missing(self) -> list[int]:
        """A row of each content that is still to be embedded, ascending."""
        first: dict[str, int] = {}
        for row, sha256 in enumerate(self._sha256):
            if row not in self._unreadable:
                first.setdefault(sha256, row)
        settled = self._embedded | self._undecodable.keys()
        return [row for sha256, row in first.items() if sha256 not in settled]

    def new_files(self, rows: Sequence[int]) -> pa.Table:
        columns = {
            "row": rows,
            "path": [self.paths[row] for row in rows],
            "sha256": [self._sha256[row] for row in rows],
        }
        return pa.table(columns, schema=NEW)

    def embedded(self, max_failed_share: float) -> EmbeddedImages:
        """Everything, from the shards. Raises DataError, StorageError."""
        items = self._gallery.items
        reasons = {row: self._undecodable[key] for row, key in enumerate(self._sha256) if key in self._undecodable}
        reasons |= self._unreadable
        failures: Mapping[Path, str] = {items[row].path: reasons[row] for row in sorted(reasons)}
        require_readable(self._gallery, failures, max_failed_share)
        rows = [row for row in range(len(items)) if row not in reasons]
        found = self.shards.collect([self._sha256[row] for row in rows])
        contents = [
            ImageContent(self._sha256[row], self._bytes[row], self._modified_s[row], facts)
            for row, facts in zip(rows, found.facts, strict=True)
        ]
        return EmbeddedImages([items[row] for row in rows], contents, found.vectors, found.hashes, failures)


def _hash_all(known: _Known, gallery: Gallery, *, title: str) -> None:
    import ray.data

    numbered = pa.table({"row": range(len(known.paths)), "path": known.paths}, schema=FILES)
    for start in range(0, len(known.paths), _ROWS_A_STREAM):
        blocks = _blocks(numbered.slice(start, _ROWS_A_STREAM), _FILES_A_CALL)
        data = ray.data.from_arrow(blocks).map_batches(
            hash_files,  # type: ignore[arg-type]  # Ray's type knows nothing of fn_kwargs
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"images": gallery.place},
            num_cpus=1,
        )
        with tqdm(total=sum(map(len, blocks)), desc=title, unit="pic", disable=not title) as bar:
            for table in _results(data):
                known.hashed(table)
                bar.update(len(table))


def _embed_missing(known: _Known, job: Job, *, title: str) -> None:
    """Run streams until every content is in a shard or known to be unreadable. Raises FinderError."""
    known.look_again()
    fruitless, most = 0, job.config.ray_shard_images
    with tqdm(total=len(known.missing()), desc=title, unit="pic", disable=not title) as bar:
        while rows := known.missing()[:_ROWS_A_STREAM]:
            fault = _embed(known, rows, job, most=most, patience=2**fruitless, bar=bar)
            if not fault:
                continue
            known.look_again()
            if len(known.missing()) < len(rows):
                fruitless = 0
            else:
                fruitless, most = fruitless + 1, max(1, most // 4)  # narrows down which image ends its worker
            logger.warning("workers on Ray were lost (%s); %d images are embedded anew", fault, len(known.missing()))
            if fruitless == _FRUITLESS_STREAMS:
                first = os.fsdecode(known.paths[rows[0]])
                raise StorageError(
                    f"workers on Ray were lost {fruitless} times without one finished shard ({fault}); {len(rows)} images "
                    f"are missing, the first is {first}: look at the nodes' memory and at that image, then run again"
                )


def _embed(known: _Known, rows: Sequence[int], job: Job, *, most: int, patience: int, bar: Any) -> str:  # noqa: ANN401 - tqdm's
    """One stream of shards of at most so many images; why it broke off, "" if it did not."""
    import ray.data

    room = _room(job.config)
    wanted = job.config.ray_actors or room
    size = max(1, min(most, -(-len(rows) // (_CALLS_AN_ACTOR * min(room, wanted)))))
    blocks = _blocks(known.new_files(rows), size)
    data = ray.data.from_arrow(blocks).map_batches(
        ImageEmbedder,
        batch_size=size,
        batch_format="pyarrow",
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(min_size=min(room, wanted, len(blocks)), max_size=min(wanted, len(blocks))),
        num_cpus=job.config.ray_actor_cpus,
        num_gpus=1 if job.config.device == "cuda" else None,
        max_task_retries=_MOST_RETRIES,
    )
    data.context.execution_no_progress_timeout_s = patience * job.config.ray_stall_s
    try:
        for table in _results(data):
            known.done(table)
            bar.update(len(table))
    except Exception as error:
        if told_by_worker(error) is not None or not worker_was_lost(error):
            raise
        return reason_of(error)
    return ""


def _results(data: Any) -> Iterator[pa.Table]:  # noqa: ANN401 - ray.data.Dataset, imported when it is needed
    data.context.enable_progress_bars = False
    data.context.print_on_execution_start = False
    data.context.raise_original_map_exception = True
    yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _blocks(table: pa.Table, size: int) -> list[pa.Table]:
    # Ray would keep the whole table for each slice of it.
    return [table.slice(start, size).combine_chunks() for start in range(0, len(table), size)]


def _job(bundle: Bundle, gallery: Gallery, place: str, config: EmbeddingConfig) -> Job:
    import ray

    device = config.device
    if device == "auto":
        device = "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu"
    own = config.model_copy(update={"device": device, "threads": config.ray_actor_cpus})
    return Job(str(bundle.path.resolve()), gallery.place, place, vector_maker(bundle), own)


def _room(config: EmbeddingConfig) -> int:
    """How many actors the nodes that are alive have room for. Raises ConfigError for none."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(resources.get("CPU", 0)) for resources in nodes]
    room = [n // config.ray_actor_cpus for n in cpus]
    if config.device == "cuda":
        room = [min(n, int(resources.get("GPU", 0))) for n, resources in zip(room, nodes, strict=True)]
    if not any(room):
        kind = " and a GPU" if config.device == "cuda" else ""
        raise ConfigError(
            f"no node of Ray has room for an actor of {config.ray_actor_cpus} CPUs{kind} (the nodes have {cpus} CPUs): "
            "set embedding.ray_actor_cpus lower, or add nodes"
        )
    return sum(room)


def _cpus_here(config: EmbeddingConfig) -> int:
    """CPUs of a Ray that is started on this machine."""
    return max(len(os.sched_getaffinity(0)), max(config.ray_actors, 1) * config.ray_actor_cpus)

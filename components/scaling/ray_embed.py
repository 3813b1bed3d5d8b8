"""Embedding on Ray Data: images to Parquet shards by actors on many machines, and from there to the vector cache.

There are two streams. The first hashes every file. In the second, actors embed each content that is neither in the cache
nor in a shard, and write shards. So equal content is embedded once, a second run embeds only new content, and a stopped
run resumes. Ray transfers names and hashes, but no images and no vectors.

Ray restarts a lost worker, and its shard is computed again. If its node is gone and no other node has room, Ray waits
for ever: after `ray_stall_s` without a finished shard the stream is stopped, and a new one embeds the rest with as many
actors as there is room for.
"""

import logging
import os
from collections.abc import Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import ConfigError, StorageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.exif import ImageFacts
from image_finder.components.index.vector_cache import joined_rows, vector_maker
from image_finder.components.library.engine import Batch, Engine, embed_here
from image_finder.components.progress_bar import progress_bar
from image_finder.components.scaling.ray_session import error_of_worker, ray_session, reason_of, worker_was_lost
from image_finder.components.scaling.ray_worker import FILES, NEW, ImageEmbedder, Job, hash_files
from image_finder.components.scaling.shards import Shards
from image_finder.components.system import available_cores
from image_finder.components.text import counted

logger = logging.getLogger(__name__)

_FILES_A_CALL = 2048
_ROWS_AT_ONCE = 100_000  # of vectors, from the shards to the cache
_CALLS_AN_ACTOR = 4  # at least, so that all actors end at about the same time
_ROWS_A_STREAM = 1_000_000  # of names in Ray's store: 100 MB
_MOST_RETRIES = 3  # of one shard whose worker is lost each time, in one stream
_FRUITLESS_STREAMS = 3


def embedding_engine(config: EmbeddingConfig, *, cache_dir: Path, progress: bool = False) -> Engine:
    """`embed_here` or `embed_on_ray`. cache_dir: for Ray's shards, unless ray_shards is set."""
    if config.engine == "ray":
        return partial(embed_on_ray, shards=config.ray_shards or str(cache_dir.resolve()), progress=progress)
    return embed_here


def embed_on_ray(batch: Batch, *, shards: str, progress: bool) -> None:
    """Embed with actors on Ray Data: an `Engine`. shards: folder or URI for the shards.

    All nodes must reach the bundle, the images and the shards by the same paths. Vectors equal those of the local
    engine bit by bit with the same number of ONNX Runtime threads on the same kind of processor, otherwise within about
    1e-7. Also raises ConfigError if no node has room for an actor, StorageError if workers are lost repeatedly or Ray
    fails.
    """
    bundle, config = batch.bundle, batch.config
    written = Shards(shards, maker=vector_maker(bundle), dim=bundle.manifest.embedding_dim)
    cpus = max(available_cores(), max(config.ray_actors, 1) * config.ray_actor_cpus)
    with ray_session(config.ray_address, cpus=cpus):
        known = _Known(batch.paths, written, batch.cache)
        _hash_all(known, batch.folder, title="hashed" if progress else "")
        _embed_missing(known, _job(batch, shards), title="images" if progress else "")
    facts = _fill(batch.cache, known)
    for path, sha256, failure in known.found():
        batch.on_file(path, sha256, failure, facts.get(sha256))


def _fill(cache: ContentCache, known: "_Known") -> dict[str, ImageFacts]:
    """Copy new vectors from the shards to the cache; returns image facts by content."""
    keys = [key for key in dict.fromkeys(sha256 for _, sha256, _ in known.found()) if key and key not in cache]
    facts: dict[str, ImageFacts] = {}
    with cache:
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            found = known.shards.collect(keys[start : start + _ROWS_AT_ONCE])
            cache.append(found.keys, list(joined_rows(found.vectors, found.hashes)[:, None, :]))
            facts.update(zip(found.keys, found.facts, strict=True))
    return facts


class _Known:
    def __init__(self, paths: Sequence[Path], shards: Shards, cache: Container[str]) -> None:
        self.shards = shards
        self.paths = [os.fsencode(path.as_posix()) for path in paths]
        self._cache = cache
        self._sha256 = [""] * len(self.paths)
        self._unreadable: dict[int, str] = {}  # by row
        self._undecodable: dict[str, str] = {}  # by content
        self._embedded: set[str] = set()

    def hashed(self, table: pa.Table) -> None:
        for row, sha256, failure in _rows(table):
            self._sha256[row] = sha256
            if failure:
                self._unreadable[row] = failure

    def done(self, table: pa.Table) -> None:
        for row, sha256, failure, _ in _rows(table):
            if failure:
                self._undecodable[self._sha256[row]] = failure
            else:  # differs if the file changed meanwhile
                self._sha256[row] = sha256
                self._embedded.add(sha256)

    def look_again(self) -> None:
        self._embedded = self.shards.all_keys()

    def missing(self) -> list[int]:
        """One row for each content to embed, ascending."""
        first: dict[str, int] = {}
        for row, sha256 in enumerate(self._sha256):
            if row not in self._unreadable:
                first.setdefault(sha256, row)
        settled = self._embedded | self._undecodable.keys()
        return [row for sha256, row in first.items() if sha256 not in settled and sha256 not in self._cache]

    def new_files(self, rows: Sequence[int]) -> pa.Table:
        columns = {
            "row": rows,
            "path": [self.paths[row] for row in rows],
            "sha256": [self._sha256[row] for row in rows],
        }
        return pa.table(columns, schema=NEW)

    def found(self) -> Iterator[tuple[Path, str, str]]:
        """Each file with its content hash and "", or "" and the reason why it cannot be read."""
        for row, (path, sha256) in enumerate(zip(self.paths, self._sha256, strict=True)):
            failure = self._unreadable.get(row) or self._undecodable.get(sha256, "")
            yield Path(os.fsdecode(path)), "" if failure else sha256, failure


def _hash_all(known: _Known, folder: str, *, title: str) -> None:
    import ray.data

    numbered = pa.table({"row": range(len(known.paths)), "path": known.paths}, schema=FILES)
    for start in range(0, len(known.paths), _ROWS_A_STREAM):
        blocks = _blocks(numbered.slice(start, _ROWS_A_STREAM), _FILES_A_CALL)
        data = ray.data.from_arrow(blocks).map_batches(
            hash_files,  # type: ignore[arg-type]  # Ray's type hint ignores fn_kwargs
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"images": folder},
            num_cpus=1,
        )
        with progress_bar(total=sum(map(len, blocks)), desc=title, unit=" images", shown=bool(title)) as bar:
            for table in _results(data):
                known.hashed(table)
                bar.update(len(table))


def _embed_missing(known: _Known, job: Job, *, title: str) -> None:
    """Run streams until each content is in a shard or unreadable. Raises FinderError."""
    known.look_again()
    fruitless, most = 0, job.config.ray_shard_images
    with progress_bar(total=len(known.missing()), desc=title, unit=" images", shown=bool(title)) as bar:
        while rows := known.missing()[:_ROWS_A_STREAM]:
            fault = _embed(known, rows, job, most=most, patience=2**fruitless, bar=bar)
            if not fault:
                continue
            known.look_again()
            if len(known.missing()) < len(rows):
                fruitless = 0
            else:
                fruitless, most = fruitless + 1, max(1, most // 4)  # narrows down the image that ends its worker
            logger.warning("workers on Ray were lost (%s); %d images are embedded again", fault, len(known.missing()))
            if fruitless == _FRUITLESS_STREAMS:
                first = os.fsdecode(known.paths[rows[0]])
                raise StorageError(
                    f"workers on Ray were lost {fruitless} times without one finished shard ({fault}); missing: "
                    f"{counted(len(rows), 'image')}, the first is {first}: look at the nodes' memory and at that image, then run again"
                )


def _embed(known: _Known, rows: Sequence[int], job: Job, *, most: int, patience: int, bar: Any) -> str:  # noqa: ANN401 - tqdm's
    """Run one stream with shards of at most `most` images; returns why it stopped, "" if it completed."""
    import ray.data

    room = _room(job.config)
    n_actors = job.config.ray_actors or room
    size = max(1, min(most, -(-len(rows) // (_CALLS_AN_ACTOR * min(room, n_actors)))))
    blocks = _blocks(known.new_files(rows), size)
    data = ray.data.from_arrow(blocks).map_batches(
        ImageEmbedder,
        batch_size=size,
        batch_format="pyarrow",
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(
            min_size=min(room, n_actors, len(blocks)), max_size=min(n_actors, len(blocks))
        ),
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
        if error_of_worker(error) is not None or not worker_was_lost(error):
            raise
        return reason_of(error)
    return ""


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _results(data: Any) -> Iterator[pa.Table]:  # noqa: ANN401 - ray.data.Dataset, imported when it is needed
    data.context.enable_progress_bars = False
    data.context.print_on_execution_start = False
    data.context.raise_original_map_exception = True
    yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _blocks(table: pa.Table, size: int) -> list[pa.Table]:
    # Ray would store the whole table with each slice.
    return [table.slice(start, size).combine_chunks() for start in range(0, len(table), size)]


def _job(batch: Batch, shards: str) -> Job:
    import ray

    config, device = batch.config, batch.config.device
    if device == "auto":
        device = "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu"
    own = config.model_copy(update={"device": device, "threads": config.ray_actor_cpus})
    return Job(str(batch.bundle.path.resolve()), batch.folder, shards, vector_maker(batch.bundle), own)


def _room(config: EmbeddingConfig) -> int:
    """Number of actors that fit on the nodes that are alive. Raises ConfigError if none fits."""
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

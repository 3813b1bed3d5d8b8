"""Ray workers: functions that run on the nodes, to hash files and embed images; imports no Ray.

Ray gives each call a block of rows as an Arrow table and takes one back; a call may run twice, and then does the same.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import BundleError, FinderError, ImageError
from image_finder.components.features.image_features import unreadable
from image_finder.components.images.exif import ImageFacts
from image_finder.components.images.image_folder import ImageFolder, is_uri
from image_finder.components.index.vector_cache import cache_vectors, split_rows, throughput_encoder, vector_maker
from image_finder.components.library.engine import known_facts
from image_finder.components.scaling.shards import ShardRows, Shards, shard_name
from image_finder.components.storage import sha256_of_bytes

FILES = pa.schema([("row", pa.int64()), ("path", pa.binary())])
HASHED = pa.schema([("row", pa.int64()), ("sha256", pa.string()), ("failure", pa.string())])
NEW = pa.schema([("row", pa.int64()), ("path", pa.binary()), ("sha256", pa.string())])
DONE = pa.schema([("row", pa.int64()), ("sha256", pa.string()), ("failure", pa.string()), ("shard", pa.string())])

_REQUESTS = 16  # concurrent requests to an object store


@dataclass(frozen=True)
class Job:
    """Arguments of an actor: paths or URIs that all nodes can reach."""

    bundle: str
    images: str
    shards: str
    maker: str
    config: EmbeddingConfig  # device and threads are the actor's own


def hash_files(files: pa.Table, *, images: str) -> pa.Table:
    """Hash the content of files, or report why they cannot be read: FILES to HASHED."""
    folder = ImageFolder(images)
    paths = [_path(each) for each in files["path"].to_pylist()]
    with ThreadPoolExecutor(_REQUESTS if is_uri(images) else 1) as pool:
        found = list(pool.map(lambda path: _hashed(folder, path), paths))
    columns = {
        "row": files["row"],
        "sha256": [sha256 for sha256, _ in found],
        "failure": [failure for _, failure in found],
    }
    return pa.table(columns, schema=HASHED)


def _hashed(folder: ImageFolder, path: Path) -> tuple[str, str]:
    try:
        return sha256_of_bytes(folder.read(path)), ""
    except ImageError as error:
        return "", str(error)
    except (OSError, MemoryError) as error:
        return "", unreadable(error)


class ImageEmbedder:
    """An actor: embeds a block of files of distinct content per call and writes it as a shard."""

    def __init__(self, job: Job) -> None:
        """Raises nothing, since Ray treats a failed start as a lost worker; the first call raises."""
        self._job = job
        self._fault: FinderError | None = None
        try:
            self._open(Bundle.open(Path(job.bundle)))
        except FinderError as error:
            self._fault = error

    def _open(self, bundle: Bundle) -> None:
        if vector_maker(bundle) != self._job.maker:
            raise BundleError(f"{bundle.path}, or the program, is another one on this node; give all nodes the same")
        self._folder = ImageFolder(self._job.images)
        self._shards = Shards(self._job.shards, maker=self._job.maker, dim=bundle.manifest.embedding_dim)
        self._encoder = throughput_encoder(bundle, self._job.config)

    def __call__(self, files: pa.Table) -> pa.Table:
        """Embed files, or report why they cannot be embedded: NEW to DONE. Raises FinderError."""
        if self._fault is not None:
            raise self._fault
        keys: list[str] = files["sha256"].to_pylist()
        paths = [_path(each) for each in files["path"].to_pylist()]
        name = shard_name(keys)
        kept = set(self._shards.keys_of(name))  # by an earlier attempt whose worker was lost
        memory, facts = _Memory(), dict[Path, ImageFacts]()

        def read(path: Path) -> bytes:
            content = self._folder.read(path)
            facts[path] = known_facts(content)
            return content

        todo = [path for path, key in zip(paths, keys, strict=True) if key not in kept]
        found = cache_vectors(self._encoder, todo, memory, self._job.config, read=read)
        if memory:
            if kept:  # a file has changed since; the existing shard stays
                name = shard_name(list(memory))
            self._shards.write(name, _shard_rows(memory, {found.keys[path]: facts[path] for path in found.keys}))
        columns = {
            "row": files["row"],
            "sha256": [key if key in kept else found.keys.get(path, "") for path, key in zip(paths, keys, strict=True)],
            "failure": [found.failures.get(path, "") for path in paths],
            "shard": [name] * len(paths),
        }
        return pa.table(columns, schema=DONE)


def _path(stored: bytes) -> Path:
    return Path(os.fsdecode(stored))


def _shard_rows(memory: "_Memory", facts: dict[str, ImageFacts]) -> ShardRows:
    vectors, hashes = split_rows(np.concatenate(list(memory.values())))
    return ShardRows(list(memory), vectors, hashes, [facts[key] for key in memory])


class _Memory(dict[str, NDArray[Any]]):
    """In place of a ContentCache."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def append(self, keys: Sequence[str], entries: Sequence[NDArray[Any]]) -> None:
        self.update(zip(keys, entries, strict=True))

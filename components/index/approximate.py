"""Approximate search: builds and reads the file beside an index that names candidates. The one file that knows FAISS.

FAISS is imported when it is needed first, a tenth of a second; an index that is searched exactly never needs it.
"""

import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from image_finder.components.arrays import Mask, Rows, Vectors
from image_finder.components.errors import ConfigError, StorageError
from image_finder.components.index.tiers import Hnsw, IvfPq, exact_is_cheaper, reach_for
from image_finder.components.text import one_line

if TYPE_CHECKING:
    import faiss

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 65_536  # read from the mapped vectors at once: 134 MB at 512
_ROWS_A_LIST = 40  # k-means wants 39
_CODEBOOK_ROWS = 65_536  # 256 for each of 256 codewords
_TRAINING_BYTES = 1_000_000_000
_EXTRA = "pip install 'text-guided-image-finder[faiss]'"


def is_installed() -> bool:
    """Whether FAISS is there; imports nothing."""
    return importlib.util.find_spec("faiss") is not None


def library_version() -> str:
    """FAISS and its version; it reads files of older ones. Raises ConfigError without it."""
    return f"faiss {_faiss().__version__}"


def write_approximate(
    path: Path, vectors: Vectors, parameters: Hnsw | IvfPq, *, seed: int = 0, threads: int = 1
) -> None:
    """Build the file of unit rows, (n, dim), which may be mapped.

    threads: 0 takes one a core. With one, the same rows, parameters and seed give the same bytes. Memory: the size of
    the file, a block of rows, and for ivfpq at most 1 GB of rows that are trained on. Raises ConfigError without
    FAISS, StorageError if the file cannot be written.
    """
    faiss = _faiss()
    with _threads(faiss, threads):
        index = _trained(faiss, vectors, parameters, seed)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            index.add(np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS]))
    try:
        faiss.write_index(index, os.fspath(path))
    except RuntimeError as error:
        raise StorageError(f"cannot write {path}: {_reason(error)}; check its folder and the free space") from error


class Approximate:
    """An opened file. Any method may be called from any number of threads at a time."""

    def __init__(self, index: "faiss.Index", parameters: Hnsw | IvfPq) -> None:
        """Use Approximate.open."""
        self._index = index
        self.parameters = parameters
        self._count: int = index.ntotal

    @classmethod
    def open(cls, path: Path, parameters: Hnsw | IvfPq, *, count: int, dim: int) -> "Approximate":
        """Map the file of count rows. Its hash must have been compared: FAISS believes what it reads.

        Raises ConfigError without FAISS, StorageError for a file that is not what it should be.
        """
        faiss = _faiss()
        # A graph is mapped by the newer way of FAISS, the lists of an inverted file by the older one.
        flag = faiss.IO_FLAG_MMAP_IFC if isinstance(parameters, Hnsw) else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        try:
            index = faiss.read_index(os.fspath(path), flag)
        except RuntimeError as error:
            raise StorageError(f"{path.name} cannot be read: {_reason(error)}") from error
        expected = faiss.IndexHNSWSQ if isinstance(parameters, Hnsw) else faiss.IndexIVFPQ
        if not isinstance(index, expected) or (index.ntotal, index.d) != (count, dim):
            found = f"{type(index).__name__} of {index.ntotal} x {index.d}"
            raise StorageError(f"{path.name} holds {found}, expected {expected.__name__} of {count} x {dim}")
        if isinstance(parameters, IvfPq):
            # By default 32 threads are started for each query, to read the parts from the disk.
            faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
        return cls(index, parameters)

    def with_parameters(self, parameters: Hnsw | IvfPq) -> "Approximate":
        """The same file, searched with another effort."""
        return Approximate(self._index, parameters)

    def candidates(self, queries: Vectors, k: int, masks: Sequence[Mask | None]) -> list[Rows | None]:
        """For each query, (dim,), rows among which its k nearest are, as far as they are found: ascending, each allowed.

        At least k of them, or as many as are allowed; None where that was not reached or an exact pass is cheaper.
        """
        reach = reach_for(k)
        answers: list[Rows | None] = [None] * len(queries)
        if reach is None:
            return answers
        allowed = [self._count if mask is None else int(np.count_nonzero(mask)) for mask in masks]
        able = [
            place
            for place, n in enumerate(allowed)
            if not exact_is_cheaper(self.parameters, reach, allowed=n, count=self._count)
        ]
        free = [place for place in able if masks[place] is None]
        for places in ([free] if free else []) + [[place] for place in able if masks[place] is not None]:
            found = self._named(queries[places], reach, masks[places[0]], allowed[places[0]])
            for place, named in zip(places, found, strict=True):
                rows = np.sort(named[named >= 0])
                answers[place] = rows if len(rows) >= min(k, allowed[place]) else None
        return answers

    def _named(self, queries: Vectors, reach: int, mask: Mask | None, allowed: int) -> Rows:
        """Rows, (n, reach), -1 where there are no more. The fewer are allowed, the farther it looks for them."""
        faiss = _faiss()
        more = self._count / allowed
        values: dict[str, Any] = {}
        if mask is not None:
            values["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if isinstance(self.parameters, Hnsw):
            effort = max(self.parameters.ef_search, reach) * more
            chosen = faiss.SearchParametersHNSW(efSearch=round(effort), **values)
        else:
            probes = self.parameters.probes(reach, self._count) * more
            chosen = faiss.IVFPQSearchParameters(nprobe=min(round(probes), self.parameters.lists), **values)
        rows: Rows = self._index.search(np.ascontiguousarray(queries), reach, params=chosen)[1]
        return rows


def _trained(faiss: Any, vectors: Vectors, parameters: Hnsw | IvfPq, seed: int) -> Any:  # noqa: ANN401
    """An empty index of FAISS that rows can be added to."""
    dim = vectors.shape[1]
    metric = faiss.METRIC_INNER_PRODUCT  # of unit rows the same order as by distance, whatever a query's length
    if isinstance(parameters, Hnsw):
        graph = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, parameters.links, metric)
        graph.hnsw.efConstruction = parameters.ef_construction
        graph.hnsw.rng = faiss.RandomGenerator(seed)
        graph.train(_sample(vectors, _CODEBOOK_ROWS, seed))  # the range of each component
        return graph
    inverted = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, parameters.lists, parameters.pq_bytes, 8, metric)
    for clustering in (inverted.cp, inverted.pq.cp):
        clustering.seed = seed
        clustering.min_points_per_centroid = 1  # fewer than 39 are only warned of, on stderr
    most = max(_TRAINING_BYTES // (4 * dim), parameters.lists)
    inverted.train(_sample(vectors, min(max(_ROWS_A_LIST * parameters.lists, _CODEBOOK_ROWS), most), seed))
    return inverted


def _sample(vectors: Vectors, n: int, seed: int) -> Vectors:
    """At most n rows, drawn and in their order: from a mapped file they are read from front to back."""
    chosen = np.random.default_rng(seed).choice(len(vectors), min(n, len(vectors)), replace=False)
    rows: Vectors = np.ascontiguousarray(vectors[np.sort(chosen)])
    return rows


@contextmanager
def _threads(faiss: Any, n: int) -> Iterator[None]:  # noqa: ANN401
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n or os.cpu_count() or 1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _faiss() -> Any:  # noqa: ANN401
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(f"an approximate index needs FAISS, which is not installed: {_EXTRA}") from error
    return faiss


def _reason(error: RuntimeError) -> str:
    """FAISS says where it failed, at length, and then why."""
    return one_line(error, 5000)[-160:]

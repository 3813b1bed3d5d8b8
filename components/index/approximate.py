"""Approximate search: builds and searches the FAISS file of an index.

The only module that knows FAISS, which is imported on first use (0.1 s); an exact index never needs it.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

_BLOCK_ROWS = 65_536  # read from the mapped vectors at once: 134 MB at dim 512
_ROWS_A_LIST = 40  # k-means needs 39
_CODEBOOK_ROWS = 65_536  # 256 for each of 256 codewords
_TRAINING_BYTES = 1_000_000_000
_EXTRA = "pip install 'text-guided-image-finder[faiss]'"


def library_version() -> str:
    """FAISS and its version. Raises ConfigError if it is not installed."""
    return f"faiss {_faiss().__version__}"


def write_approximate(
    path: Path, vectors: Vectors, parameters: Hnsw | IvfPq, *, seed: int = 0, threads: int = 1
) -> None:
    """Build the file of unit rows, (n, dim), which may be mapped.

    threads: 0: one per core. With one thread, equal rows, parameters and seed give equal bytes. Memory: the size of the
    file, a block of rows, and for ivfpq at most 1 GB of training rows. Raises ConfigError without FAISS, StorageError if
    the file cannot be written.
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


@dataclass(frozen=True, eq=False)
class Approximate:
    """An opened file. Thread-safe. Use Approximate.open."""

    index: "faiss.Index"
    parameters: Hnsw | IvfPq

    @classmethod
    def open(cls, path: Path, parameters: Hnsw | IvfPq, *, count: int, dim: int) -> "Approximate":
        """Map the file of count rows; verify its hash first, since FAISS does not validate it.

        Raises ConfigError without FAISS, StorageError for an unreadable file or another number of rows.
        """
        faiss = _faiss()
        # FAISS maps a graph by its newer interface, the lists of an inverted file by the older one.
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
            # By default FAISS starts 32 threads per query to read the lists from the disk.
            faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
        return cls(index, parameters)

    def candidates(self, queries: Vectors, k: int, masks: Sequence[Mask | None]) -> list[Rows | None]:
        """Candidates for the k nearest rows of each query, (dim,): allowed rows, ascending.

        At least k, or all that are allowed; None where fewer are found or an exact pass is cheaper.
        """
        reach = reach_for(k)
        answers: list[Rows | None] = [None] * len(queries)
        if reach is None:
            return answers
        allowed = [self.index.ntotal if mask is None else int(np.count_nonzero(mask)) for mask in masks]
        numbers = [
            number
            for number, n in enumerate(allowed)
            if not exact_is_cheaper(self.parameters, reach, allowed=n, count=self.index.ntotal)
        ]
        unfiltered = [number for number in numbers if masks[number] is None]
        filtered = [[number] for number in numbers if masks[number] is not None]
        for together in [unfiltered, *filtered] if unfiltered else filtered:
            found = self._search(queries[together], reach, masks[together[0]], allowed[together[0]])
            for number, candidates in zip(together, found, strict=True):
                rows = np.sort(candidates[candidates >= 0])
                answers[number] = rows if len(rows) >= min(k, allowed[number]) else None
        return answers

    def _search(self, queries: Vectors, reach: int, mask: Mask | None, allowed: int) -> Rows:
        """Rows, (n, reach), -1 where fewer are found; the effort grows as fewer are allowed."""
        faiss = _faiss()
        effort = self.index.ntotal / allowed
        values: dict[str, Any] = {}
        if mask is not None:
            values["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if isinstance(self.parameters, Hnsw):
            ef_search = max(self.parameters.ef_search, reach) * effort
            chosen = faiss.SearchParametersHNSW(efSearch=round(ef_search), **values)
        else:
            probes = self.parameters.probes(reach, self.index.ntotal) * effort
            chosen = faiss.IVFPQSearchParameters(nprobe=min(round(probes), self.parameters.lists), **values)
        rows: Rows = self.index.search(np.ascontiguousarray(queries), reach, params=chosen)[1]
        return rows


def _trained(faiss: Any, vectors: Vectors, parameters: Hnsw | IvfPq, seed: int) -> Any:  # noqa: ANN401
    dim = vectors.shape[1]
    metric = faiss.METRIC_INNER_PRODUCT  # for unit rows the order by distance, for queries of any length
    if isinstance(parameters, Hnsw):
        graph = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, parameters.links, metric)
        graph.hnsw.efConstruction = parameters.ef_construction
        graph.hnsw.rng = faiss.RandomGenerator(seed)
        graph.train(_sample(vectors, _CODEBOOK_ROWS, seed))  # the range of each component
        return graph
    inverted = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, parameters.lists, parameters.pq_bytes, 8, metric)
    for clustering in (inverted.cp, inverted.pq.cp):
        clustering.seed = seed
        clustering.min_points_per_centroid = 1  # FAISS warns on stderr of fewer than 39
    most = max(_TRAINING_BYTES // (4 * dim), parameters.lists)
    inverted.train(_sample(vectors, min(max(_ROWS_A_LIST * parameters.lists, _CODEBOOK_ROWS), most), seed))
    return inverted


def _sample(vectors: Vectors, n: int, seed: int) -> Vectors:
    """Up to n random rows, ascending, so that a mapped file is read from front to back."""
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
    """The end of a FAISS message: it starts with a long source location."""
    return one_line(error, 5000)[-160:]

"""Tiers: chooses the kind of index for a number of rows and a memory budget; pure arithmetic.

exact  compares a query with every row: reads 4 dim bytes per row
hnsw   a graph over rows of one byte per component: a query walks from neighbour to neighbour
ivfpq  rows of a few bytes in lists around centroids: a query reads the nearest lists

An approximate search finds candidates, a few times as many as requested, and compares these exactly, by their float32 rows
in vectors.npy. So hits have the scores and the order of an exact search, but some may be missing. vectors.npy, 20.5 GB at
10 million x 512, is mapped, and a query reads only its candidates. float16 would halve it and round the scores.
"""

import math
from typing import Annotated, Literal, NamedTuple, Self, TypeAlias

from pydantic import Field

from image_finder.components.configs import IndexTierConfig
from image_finder.components.records.base import Record

MIN_ROWS = 4_096
_REACHES = (128, 1_024, 8_192)
_SPARE = 2  # candidates per requested hit: the last candidates are found less reliably than the first
_MOST_EFFORT = 64  # times the initial effort
_CODES_A_CANDIDATE = 8  # codes read per candidate; with fewer, some candidates are far
_WALKED_ROW = 3  # a row visited in a graph costs about three of a pass: memory access is random
_MB = 1_000_000


class Hnsw(Record):
    """A graph; Malkov and Yashunin 2016, arXiv:1603.09320. `harder` doubles the search effort."""

    kind: Literal["hnsw"] = "hnsw"
    links: int  # M
    ef_construction: int
    ef_search: int

    def harder(self) -> Self:
        return self.model_copy(update={"ef_search": 2 * self.ef_search})

    def bytes_of(self, count: int, dim: int) -> int:
        """Size of the file: 656 bytes per row at dim 512 and M = 16.

        Codes of dim, 2M links of 4, M more on each higher level, which one row in M reaches, 12 for level and offset.
        """
        above = 4 * self.links / (self.links - 1)
        return math.ceil(count * (dim + 8 * self.links + above + 12))

    def cost(self, reach: int, count: int) -> float:
        """Cost of a search in rows of an exact pass: half of a row's 2M links were visited before."""
        return float(_WALKED_ROW * max(self.ef_search, reach) * self.links)


class IvfPq(Record):
    """An inverted file of product codes; Jegou et al. 2011, doi:10.1109/TPAMI.2010.57."""

    kind: Literal["ivfpq"] = "ivfpq"
    lists: int
    pq_bytes: int
    nprobe: int

    def harder(self) -> Self:
        return self.model_copy(update={"nprobe": min(2 * self.nprobe, self.lists)})

    def bytes_of(self, count: int, dim: int) -> int:
        """Size of the file, 72 bytes per row: codes, row numbers of 8, centroids, 256 codewords per part."""
        return count * (self.pq_bytes + 8) + 4 * dim * (self.lists + 256)

    def cost(self, reach: int, count: int) -> float:
        """Cost of a search for `reach` candidates, in rows of an exact pass: centroids and codes."""
        return self.lists + self.probes(reach, count) * count / self.lists

    def probes(self, reach: int, count: int) -> int:
        enough = math.ceil(_CODES_A_CANDIDATE * reach * self.lists / max(count, 1))
        return min(max(self.nprobe, enough), self.lists)


Parameters: TypeAlias = Annotated[Hnsw | IvfPq, Field(discriminator="kind")]


class Tier(NamedTuple):
    """A kind of index. memory_mb: 10^6 bytes, in memory for a fast search."""

    kind: Literal["exact", "hnsw", "ivfpq"]
    parameters: Hnsw | IvfPq | None
    memory_mb: float


def tier_for(count: int, dim: int, config: IndexTierConfig) -> Tier:
    """The tier for count rows of dim components.

    With the defaults at dim 512, in 10^6 bytes; config.memory_budget_mb (4,096) limits hnsw:
        rows         exact, 2,048 per row  hnsw, 656 per row  ivfpq, 72 per row    auto chooses
        1 million                   2,048                656                 77    exact
        6 million                  12,288              3,938                441    hnsw
        10 million                 20,480              6,563                737    ivfpq
        100 million               204,800             65,627              7,234    ivfpq, beyond the budget
    Files are mapped, so an index beyond the budget is searched at the speed of the disk. The exact tier has no limit: a
    pass over a million rows reads 2 GB, 0.1 s in memory.
    """
    exact = Tier("exact", None, 4 * dim * count / _MB)
    hnsw = _tier(
        Hnsw(links=config.links, ef_construction=config.ef_construction, ef_search=config.ef_search), count, dim
    )
    pq_bytes = max(part for part in range(1, min(config.pq_bytes, dim) + 1) if dim % part == 0)
    lists = min(config.lists or lists_for(count), max(count // 39, 1))  # k-means needs 39 rows per centroid
    ivfpq = _tier(IvfPq(lists=lists, pq_bytes=pq_bytes, nprobe=min(config.nprobe, lists)), count, dim)
    if count < MIN_ROWS or config.kind == "exact" or (config.kind == "auto" and count <= config.exact_rows):
        return exact
    if config.kind == "auto":
        return hnsw if hnsw.memory_mb <= config.memory_budget_mb else ivfpq
    return hnsw if config.kind == "hnsw" else ivfpq


def lists_for(count: int) -> int:
    """Number of lists of an inverted file: the power of two nearest to 2 sqrt(count).

    At most 65,536. A query reads the centroids and then nprobe lists of count / lists rows: with 16 probes the sum is
    smallest at 4 sqrt(count) lists. Half as many are trained in a quarter of the time.
    """
    return int(min(2 ** round(math.log2(2 * math.sqrt(max(count, 1)))), 65_536))


def efforts(parameters: Hnsw | IvfPq) -> list[Hnsw | IvfPq]:
    """The parameters with 1, 2, 4, ... 64 times the search effort, until it has no effect."""
    ladder = [parameters]
    for _ in range(int(math.log2(_MOST_EFFORT))):
        harder = ladder[-1].harder()
        if harder == ladder[-1]:
            break
        ladder.append(harder)
    return ladder


def reach_for(k: int) -> int | None:
    """Candidates for the k best, equal for ranges of k, so that pages agree; None if k is too large."""
    return next((reach for reach in _REACHES if reach >= _SPARE * k), None)


def exact_is_cheaper(parameters: Hnsw | IvfPq, reach: int, *, allowed: int, count: int) -> bool:
    """Whether a pass over the allowed rows costs no more than an approximate search.

    A share s = allowed / count of the visited rows is allowed, so a search must visit 1 / s times as many: cost / s
    rows against s x count rows of a pass. Both are equal at allowed = sqrt(cost x count): with hnsw, M = 16 and ef =
    128, 78,000 of 1 million rows and 250,000 of 10 million.
    """
    return allowed * allowed <= parameters.cost(reach, count) * count


def _tier(parameters: Hnsw | IvfPq, count: int, dim: int) -> Tier:
    return Tier(parameters.kind, parameters, parameters.bytes_of(count, dim) / _MB)

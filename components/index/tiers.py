"""Tiers: which kind of index serves so many rows within so much memory, and when a search is exact; pure arithmetic.

exact  every row is compared: 4 dim bytes a row are read for a query
hnsw   a graph over rows of one byte a component: a query walks from neighbour to neighbour
ivfpq  rows of a few bytes in parts around centroids: a query reads the nearest parts

An approximate search names candidates, a few times as many as are asked for, and these are compared exactly by their
float32 rows in vectors.npy, which stays. So what is found has the scores and the order of an exact search; what can
happen is that something is not found. vectors.npy is 20.5 GB at 10 million x 512. As float16 it would be half of that,
but scores would then be those of rounded rows; it is on disk, mapped, and a query reads but its candidates of it.
"""

import math
from typing import Annotated, Literal, NamedTuple, Self, TypeAlias

from pydantic import Field

from image_finder.components.configs import IndexTierConfig
from image_finder.components.records.base import Record

MIN_ROWS = 4_096
_REACHES = (128, 1_024, 8_192)
_SPARE = 2  # candidates for each hit asked for: the last of them are found less surely than the first
_MOST_EFFORT = 64  # times the effort of the beginning
_CODES_A_CANDIDATE = 8  # codes read for each candidate; fewer, and the list of candidates is not full of near ones
_WALKED_ROW = 3  # a row met on a walk costs about three of a pass: it lies anywhere in memory
_MB = 1_000_000


class Hnsw(Record):
    """Parameters of a graph; Malkov and Yashunin 2016, arXiv:1603.09320."""

    kind: Literal["hnsw"] = "hnsw"
    links: int  # M
    ef_construction: int
    ef_search: int

    def harder(self) -> Self:
        """The same with twice the effort of a search."""
        return self.model_copy(update={"ef_search": 2 * self.ef_search})

    def bytes_of(self, count: int, dim: int) -> int:
        """Size for count rows: dim of codes, 2M links of 4 on the ground, M on each level above, which one row in M
        reaches, 4 for its level and 8 for the place of its links. 656 bytes a row at 512 and M = 16.
        """
        above = 4 * self.links / (self.links - 1)
        return math.ceil(count * (dim + 8 * self.links + above + 12))

    def cost(self, reach: int, count: int) -> float:
        """Of a search for so many candidates, in rows of an exact pass. Each row in view has 2M links, about half of
        which were met before.
        """
        return float(_WALKED_ROW * max(self.ef_search, reach) * self.links)


class IvfPq(Record):
    """Parameters of an inverted file of product codes; Jegou et al. 2011, doi:10.1109/TPAMI.2010.57."""

    kind: Literal["ivfpq"] = "ivfpq"
    lists: int
    pq_bytes: int
    nprobe: int

    def harder(self) -> Self:
        """The same with twice the effort of a search."""
        return self.model_copy(update={"nprobe": min(2 * self.nprobe, self.lists)})

    def bytes_of(self, count: int, dim: int) -> int:
        """Size for count rows: pq_bytes and 8 for its number a row, the centroids, 256 codewords a part of a row.
        72 bytes a row.
        """
        return count * (self.pq_bytes + 8) + 4 * dim * (self.lists + 256)

    def cost(self, reach: int, count: int) -> float:
        """Of a search for so many candidates, in rows of an exact pass: the centroids and the codes that are read."""
        return self.lists + self.probes(reach, count) * count / self.lists

    def probes(self, reach: int, count: int) -> int:
        """Parts to read for so many candidates."""
        enough = math.ceil(_CODES_A_CANDIDATE * reach * self.lists / max(count, 1))
        return min(max(self.nprobe, enough), self.lists)


Parameters: TypeAlias = Annotated[Hnsw | IvfPq, Field(discriminator="kind")]


class Tier(NamedTuple):
    """A choice. parameters: None for exact; memory_mb: 10^6 bytes that a fast search wants to have in memory."""

    kind: Literal["exact", "hnsw", "ivfpq"]
    parameters: Hnsw | IvfPq | None
    memory_mb: float


def tier_for(count: int, dim: int, config: IndexTierConfig) -> Tier:
    """The tier of count rows of dim components.

    With the defaults at dim 512, in 10^6 bytes, of which config.memory_budget_mb (4,096) bounds hnsw:
        rows           exact, 2,048 a row    hnsw, 656 a row    ivfpq, 72 a row    auto takes
        1 million                   2,048                656                 77    exact
        6 million                  12,288              3,938                441    hnsw
        10 million                 20,480              6,563                737    ivfpq
        100 million               204,800             65,627              7,234    ivfpq, beyond the budget
    Files are mapped, so one beyond the budget can be searched, at the speed of the disk: 100 million rows are two
    indexes on two machines. The exact tier is not bounded: below a million rows a pass is 2 GB, 0.1 s in memory.
    """
    exact = Tier("exact", None, 4 * dim * count / _MB)
    hnsw = _tier(
        Hnsw(links=config.links, ef_construction=config.ef_construction, ef_search=config.ef_search), count, dim
    )
    pq_bytes = max(part for part in range(1, min(config.pq_bytes, dim) + 1) if dim % part == 0)
    lists = min(config.lists or lists_for(count), max(count // 39, 1))  # k-means wants 39 rows a centroid
    ivfpq = _tier(IvfPq(lists=lists, pq_bytes=pq_bytes, nprobe=min(config.nprobe, lists)), count, dim)
    if count < MIN_ROWS or config.kind == "exact" or (config.kind == "auto" and count <= config.exact_rows):
        return exact
    if config.kind == "auto":
        return hnsw if hnsw.memory_mb <= config.memory_budget_mb else ivfpq
    return hnsw if config.kind == "hnsw" else ivfpq


def lists_for(count: int) -> int:
    """Parts for an inverted file: the power of two nearest to 2 sqrt(count), at most 65,536.

    A query reads the centroids and then nprobe parts of count / lists rows: with 16 probes both together are fewest at
    4 sqrt(count). Half as many are trained in a quarter of the time.
    """
    return int(min(2 ** round(math.log2(2 * math.sqrt(max(count, 1)))), 65_536))


def efforts(parameters: Hnsw | IvfPq) -> list[Hnsw | IvfPq]:
    """The same parameters with 1, 2, 4, ... up to 64 times the effort of a search, as far as more is more."""
    ladder = [parameters]
    for _ in range(int(math.log2(_MOST_EFFORT))):
        harder = ladder[-1].harder()
        if harder == ladder[-1]:
            break
        ladder.append(harder)
    return ladder


def reach_for(k: int) -> int | None:
    """Candidates to name for the k best: the same number for many k, so that pages follow each other; None: too many."""
    return next((reach for reach in _REACHES if reach >= _SPARE * k), None)


def exact_is_cheaper(parameters: Hnsw | IvfPq, reach: int, *, allowed: int, count: int) -> bool:
    """Whether a pass over the allowed rows costs no more than an approximate search among them.

    A share s = allowed / count of what an approximate search meets is allowed, so it must meet 1 / s as much:
    cost / s rows of a pass against allowed = s x count rows. Both are equal at allowed = sqrt(cost x count): with
    hnsw's M = 16 and ef = 128 78,000 of 1 million rows, 250,000 of 10 million.
    """
    return allowed * allowed <= parameters.cost(reach, count) * count


def _tier(parameters: Hnsw | IvfPq, count: int, dim: int) -> Tier:
    return Tier(parameters.kind, parameters, parameters.bytes_of(count, dim) / _MB)

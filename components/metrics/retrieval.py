"""Retrieval metrics: unit vectors in, ranks, recall@k and intervals out; knows nothing of models, files or images.

Recall@k here is the hit rate of the CLIP papers: a query counts 1 if any right item is among its k nearest, so a
image with five captions needs one of them (Radford et al. 2021, https://arxiv.org/abs/2103.00020; CLIP_benchmark's
README explains how "recall" of an information-retrieval library differs).

Ties are counted against the query: a wrong item as near as the right one stands before it. A model that gives every
image the same score therefore gets rank n, never rank 1, and results depend on neither row order nor chunk size.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import FloatMatrix, FloatVector, IntVector, Mask
from image_finder.components.configs import EvaluationConfig
from image_finder.components.errors import ConfigError, DataError, QualityError
from image_finder.components.records.base import PartName, Record
from image_finder.components.records.retrieval import DirectionReport, Interval, RetrievalReport, SliceReport

UNIT_TOLERANCE = 1e-3  # float16 rows of 512 components stay within it, rows that nobody normalised do not
TILE_SCORES = 4_000_000  # scores held at a time: 32 MB in float64 and 16 MB in float32
_SAMPLES_AT_A_TIME = 100  # bootstrap weights held at a time: 100 x 5,000 images are 4 MB
_GATE_K = 10


class EvaluatedOn(Record):
    """What a report was measured on."""

    dataset: str
    data_version: str
    split: PartName


@dataclass(frozen=True)
class MatchRanks:
    """Where each query found its first right item.

    text_to_image: (n_captions,) rank of the caption's own image, 1 to n_images.
    image_to_text: (n_captioned,) best rank of any own caption, 1 to n_captions, in the order of captioned_images.
    margins: (n_captions,) score of the own image minus that of the best other one; infinite in a gallery of one.
    image_of_caption: (n_captions,) row of each caption's image. captioned_images: rows of images with a caption.
    """

    n_images: int
    image_of_caption: IntVector
    captioned_images: IntVector
    text_to_image: IntVector
    image_to_text: IntVector
    margins: FloatVector

    @property
    def n_captions(self) -> int:
        """Number of captions: queries of one direction, gallery of the other."""
        return len(self.image_of_caption)


@dataclass(frozen=True)
class QueryExample:
    """One caption and its nearest images, as rows; hits are nearest first."""

    caption_row: int
    image_row: int
    rank: int
    margin: float
    hit_rows: tuple[int, ...]
    hit_scores: tuple[float, ...]


@dataclass(frozen=True)
class QueryExamples:
    """The queries answered best and worst, the most extreme first."""

    best: tuple[QueryExample, ...]
    worst: tuple[QueryExample, ...]

    @property
    def image_rows(self) -> tuple[int, ...]:
        """Rows of all images that a figure of these examples shows, ascending."""
        rows = {row for example in (*self.best, *self.worst) for row in (example.image_row, *example.hit_rows)}
        return tuple(sorted(rows))


def first_match_ranks(
    image_embeddings: FloatMatrix,
    text_embeddings: FloatMatrix,
    image_of_caption: IntVector,
    *,
    chunk_rows: int | None = None,
) -> MatchRanks:
    """Rank of the first right item for every caption among all images and every captioned image among all captions.

    image_embeddings: (n_images, dim), text_embeddings: (n_captions, dim), unit rows. image_of_caption: (n_captions,)
    rows into image_embeddings. chunk_rows: captions scored at a time; by default as many as make 4 million scores.
    Both directions share one product. It runs in float64 and is rounded to float32 before anything is compared, since
    BLAS sums in an order that depends on the chunk's shape: in float32 alone, chunks of 1 and 777 captions gave 2,043
    of 6,000 captions other ranks in a gallery that held every image twice. Raises DataError.
    """
    images, texts, owners = checked_vectors(image_embeddings, text_embeddings, image_of_caption)
    if chunk_rows is not None and chunk_rows < 1:
        raise DataError(f"chunk_rows is {chunk_rows}, expected at least 1")
    rows = chunk_rows or max(1, TILE_SCORES // len(images))
    gallery = images.astype(np.float64)
    own = np.empty(len(texts), np.float32)
    for part in chunks(len(texts), rows):
        own[part] = np.einsum("ij,ij->i", texts[part].astype(np.float64), gallery[owners[part]])
    best_own = np.full(len(images), -np.inf, np.float32)
    np.maximum.at(best_own, owners, own)
    text_to_image, nearest_other = np.empty(len(texts), np.int64), np.empty(len(texts), np.float32)
    not_behind = np.zeros(len(images), np.int64)
    for part in chunks(len(texts), rows):
        scores = (texts[part].astype(np.float64) @ gallery.T).astype(np.float32)
        scores[np.arange(len(scores)), owners[part]] = -np.inf  # what is left are the wrong pairs of both directions
        text_to_image[part] = 1 + np.count_nonzero(scores >= own[part, None], axis=1)
        nearest_other[part] = scores.max(axis=1)
        not_behind += np.count_nonzero(scores >= best_own, axis=0)
    captioned = np.unique(owners)
    return MatchRanks(
        n_images=len(images),
        image_of_caption=owners,
        captioned_images=captioned,
        text_to_image=text_to_image,
        image_to_text=1 + not_behind[captioned],
        margins=own - nearest_other,
    )


def recall_at_k(ranks: IntVector, k: int) -> float:
    """Share of queries whose first right item is among the k nearest, 0 to 1. ranks: (n_queries,), counted from 1.

    A k above the size of the gallery gives 1. Raises DataError for no queries or k below 1.
    """
    if len(ranks) == 0:
        raise DataError("recall@k of 0 queries is not defined, expected at least 1")
    if k < 1:
        raise DataError(f"recall@k with k = {k}, expected k of at least 1")
    return int(np.count_nonzero(ranks <= k)) / len(ranks)


def random_recall_at_k(gallery_size: int, n_right: IntVector, k: int) -> float:
    """Expected recall@k of a random order of the gallery, exact. n_right: (n_queries,) right items of each query.

    With c right items among n a query misses with C(n - c, k) / C(n, k) = C(n - k, c) / C(n, c); with one right item
    the hit rate is k / n. Whole numbers until the division, so that nothing is lost between near-equal terms.
    """
    sizes, counts = np.unique(n_right, return_counts=True)
    hits = 0.0
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        orders = math.comb(gallery_size, size)
        hits += count * ((orders - math.comb(max(gallery_size - k, 0), size)) / orders)
    return hits / int(counts.sum())


def bootstrap_recalls(
    hits: NDArray[np.float64], queries: NDArray[np.float64], *, samples: int, seed: int
) -> NDArray[np.float64]:
    """Recalls of `samples` resamplings of the images with replacement: (samples, n_measures).

    hits, queries: (n_captioned, n_measures) hits and queries that each image brings to each measure. Captions of a
    image succeed and fail together, so they come along as a cluster; drawn one by one they would make the interval
    too narrow (Davison and Hinkley 1997, section 3.8). The gallery stays as it is. All measures share the draws, so
    their mean may be taken draw by draw. A measure that has no query in a draw is NaN there.
    """
    rng = np.random.default_rng(seed)
    n_captioned = len(hits)
    draws = []
    for part in chunks(samples, _SAMPLES_AT_A_TIME):
        n_draws = part.stop - part.start
        picks = rng.integers(n_captioned, size=(n_draws, n_captioned)) + n_captioned * np.arange(n_draws)[:, None]
        weights = np.bincount(picks.ravel(), minlength=n_draws * n_captioned).reshape(n_draws, n_captioned)
        weights = weights.astype(np.float64)  # integers would bypass BLAS
        denominator = weights @ queries
        draws.append(
            np.divide(weights @ hits, denominator, where=denominator > 0, out=np.full_like(denominator, np.nan))
        )
    return np.concatenate(draws)


def percentile_interval(draws: FloatVector) -> Interval:
    """The middle 95 % of bootstrap draws; NaN draws are left out."""
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(low=float(low), high=float(high))


def named_recalls(ranks: MatchRanks, ks: Sequence[int]) -> dict[str, float]:
    """Recall@k in both directions under the names t2i_r1, ..., i2t_r1, ... (shares)."""
    directions = {"t2i": ranks.text_to_image, "i2t": ranks.image_to_text}
    return {f"{name}_r{k}": recall_at_k(values, k) for name, values in directions.items() for k in ks}


def evaluate_retrieval(
    image_embeddings: FloatMatrix,
    text_embeddings: FloatMatrix,
    image_of_caption: IntVector,
    *,
    config: EvaluationConfig,
    identity: EvaluatedOn,
    slices: Mapping[str, Sequence[str]] | None = None,
) -> RetrievalReport:
    """Recall@k both ways with denominators, random baseline and 95 % intervals; `first_match_ranks`, then the report.

    Arguments as in `first_match_ranks` and `report_ranks`. Raises DataError, ConfigError.
    """
    ranks = first_match_ranks(image_embeddings, text_embeddings, image_of_caption)
    return report_ranks(ranks, config=config, identity=identity, slices=slices)


def report_ranks(
    ranks: MatchRanks,
    *,
    config: EvaluationConfig,
    identity: EvaluatedOn,
    slices: Mapping[str, Sequence[str]] | None = None,
) -> RetrievalReport:
    """The report of ranks found before. slices: by name one label for each caption; "" puts a caption in no slice.

    mean_recall is the mean over both directions and all ks. Images without captions are in the gallery of
    text-to-image but ask nothing. Raises ConfigError for ks, DataError for labels that do not fit the captions.
    """
    ks = _checked_ks(config.ks)
    groups = list(slice_groups(slices or {}, ranks.n_captions))
    measures = _measure(ranks, ks, [members for _, _, members in groups], config)
    one_each = np.ones(1, np.int64)
    own_captions = np.unique(ranks.image_of_caption, return_counts=True)[1]
    return RetrievalReport(
        dataset=identity.dataset,
        data_version=identity.data_version,
        split=identity.split,
        n_images=ranks.n_images,
        n_captions=ranks.n_captions,
        text_to_image=_direction(measures.text_to_image, ranks.text_to_image, ranks.n_images, one_each),
        image_to_text=_direction(measures.image_to_text, ranks.image_to_text, ranks.n_captions, own_captions),
        mean_recall=measures.mean_recall,
        mean_recall_interval=measures.mean_recall_interval,
        slices=tuple(
            SliceReport(
                slice=name,
                value=value,
                n_queries=measured.n_queries,
                recall=measured.recall,
                interval=measured.interval,
            )
            for (name, value, _), measured in zip(groups, measures.groups, strict=True)
        ),
        bootstrap_samples=config.bootstrap_samples,
        seed=config.seed,
    )


def require_quality(report: RetrievalReport, config: EvaluationConfig) -> None:
    """Pass if text-to-image recall@10 reaches both floors of config, else raise QualityError with what was measured.

    A value at its floor passes; a missing or NaN value never does.
    """
    direction = report.text_to_image
    recall = direction.recall.get(_GATE_K, float("nan"))
    random_recall = direction.random_recall.get(_GATE_K, float("nan"))
    where = f"text-to-image recall@{_GATE_K} on {report.dataset} {report.split} ({direction.gallery_size:,} images)"
    if math.isnan(recall) or math.isnan(random_recall):
        raise QualityError(f"{where} was not measured, expected a number: let evaluation.ks hold {_GATE_K}")
    faults = []
    if not recall >= config.min_recall_at_10:
        faults.append(f"below min_recall_at_10 {config.min_recall_at_10:.4f}")
    floor = config.min_times_random * random_recall
    if not recall >= floor - 1e-12:
        times = recall / random_recall
        hint = "; the gallery is too small to pass" if floor > 1 else ""
        faults.append(
            f"{times:.2f} times random ({random_recall:.4f}), below min_times_random {config.min_times_random}{hint}"
        )
    if faults:
        raise QualityError(f"{where} is {recall:.4f}: {', and '.join(faults)}; train longer or change the floor")


def pick_examples(
    image_embeddings: FloatMatrix,
    text_embeddings: FloatMatrix,
    ranks: MatchRanks,
    *,
    count: int = 4,
    top: int = 5,
) -> QueryExamples:
    """The count best and worst caption queries with their top nearest images.

    Best: lowest rank, then largest margin; worst: highest rank, then smallest margin; then by row. Each image is
    asked for once on a side, else five captions of one image would fill it. Hits at equal scores stand as in
    `first_match_ranks`: wrong images first. Raises DataError.
    """
    images, texts, owners = checked_vectors(image_embeddings, text_embeddings, ranks.image_of_caption)
    rows = np.arange(len(texts))
    gallery = images.astype(np.float64)

    def example(row: int) -> QueryExample:
        scores = (gallery @ texts[row].astype(np.float64)).astype(np.float32)
        is_own = np.arange(len(images)) == owners[row]
        nearest = np.lexsort((is_own, -scores))[:top]
        return QueryExample(
            caption_row=row,
            image_row=int(owners[row]),
            rank=int(ranks.text_to_image[row]),
            margin=float(ranks.margins[row]),
            hit_rows=tuple(nearest.tolist()),
            hit_scores=tuple(scores[nearest].tolist()),
        )

    best = np.lexsort((rows, -ranks.margins, ranks.text_to_image))
    worst = np.lexsort((rows, ranks.margins, -ranks.text_to_image))
    return QueryExamples(
        best=tuple(example(row) for row in _one_per_image(best, owners, count)),
        worst=tuple(example(row) for row in _one_per_image(worst, owners, count)),
    )


@dataclass(frozen=True)
class _Measured:
    n_queries: int
    recall: dict[int, float]
    interval: dict[int, Interval]


@dataclass(frozen=True)
class _Measures:
    text_to_image: _Measured
    image_to_text: _Measured
    groups: list[_Measured]
    mean_recall: float
    mean_recall_interval: Interval


def _measure(
    ranks: MatchRanks, ks: tuple[int, ...], members_of_group: list[Mask], config: EvaluationConfig
) -> _Measures:
    """Recalls and intervals of both directions and all groups from one bootstrap, ks side by side for each."""
    n_captioned = len(ranks.captioned_images)
    row_of_caption = np.searchsorted(ranks.captioned_images, ranks.image_of_caption)
    asked = [(ranks.text_to_image, row_of_caption), (ranks.image_to_text, np.arange(n_captioned))]
    asked += [(ranks.text_to_image[members], row_of_caption[members]) for members in members_of_group]
    hits = np.stack([_per_image(image, n_captioned, rank <= k) for rank, image in asked for k in ks], axis=1)
    queries = np.stack([_per_image(image, n_captioned) for _, image in asked for _ in ks], axis=1)
    recalls = hits.sum(axis=0) / queries.sum(axis=0)
    draws = bootstrap_recalls(hits, queries, samples=config.bootstrap_samples, seed=config.seed)
    measured = []
    for first, (rank, _) in enumerate(asked):
        columns = dict(zip(ks, range(first * len(ks), (first + 1) * len(ks)), strict=True))
        measured.append(
            _Measured(
                n_queries=len(rank),
                recall={k: float(recalls[column]) for k, column in columns.items()},
                interval={k: percentile_interval(draws[:, column]) for k, column in columns.items()},
            )
        )
    both = slice(2 * len(ks))
    return _Measures(
        text_to_image=measured[0],
        image_to_text=measured[1],
        groups=measured[2:],
        mean_recall=float(recalls[both].mean()),
        mean_recall_interval=percentile_interval(draws[:, both].mean(axis=1)),
    )


def _per_image(image: IntVector, n_captioned: int, weights: Mask | None = None) -> NDArray[np.float64]:
    counts = np.bincount(image, weights=weights, minlength=n_captioned)
    return counts.astype(np.float64)


def _direction(measured: _Measured, ranks: IntVector, gallery_size: int, n_right: IntVector) -> DirectionReport:
    return DirectionReport(
        n_queries=measured.n_queries,
        gallery_size=gallery_size,
        recall=measured.recall,
        interval=measured.interval,
        random_recall={k: random_recall_at_k(gallery_size, n_right, k) for k in measured.recall},
        median_rank=float(np.median(ranks)),
    )


def slice_groups(slices: Mapping[str, Sequence[str]], n_captions: int) -> Iterator[tuple[str, str, Mask]]:
    """Name, value and members of every group, values in natural order ("9-13 words" before "14 words or more").

    Raises DataError for labels that do not fit the captions.
    """
    for name, labels in slices.items():
        if len(labels) != n_captions:
            raise DataError(f"slice '{name}' has {len(labels)} labels, expected one for each of {n_captions} captions")
        values = np.asarray(labels, dtype=object)
        for value in sorted(set(labels) - {""}, key=_natural_order):
            yield name, value, np.asarray(values == value, dtype=np.bool_)


def _natural_order(label: str) -> tuple[int, str]:
    number = re.search(r"\d+", label)
    return (int(number.group()) if number else 0, label)


def _one_per_image(order: IntVector, owners: IntVector, count: int) -> list[int]:
    """The first rows of order that belong to different images, at most count."""
    first_of_image = np.sort(np.unique(owners[order], return_index=True)[1])
    rows: list[int] = order[first_of_image[:count]].tolist()
    return rows


def chunks(n_rows: int, chunk_rows: int) -> Iterator[slice]:
    """Slices of at most chunk_rows rows that cover n_rows, in order."""
    return (slice(start, min(start + chunk_rows, n_rows)) for start in range(0, n_rows, chunk_rows))


def _checked_ks(ks: tuple[int, ...]) -> tuple[int, ...]:
    if not ks or min(ks) < 1 or len(set(ks)) != len(ks):
        raise ConfigError(f"EvaluationConfig: ks is {ks}, expected at least one k, each 1 or more and only once")
    return ks


def checked_vectors(
    image_embeddings: FloatMatrix, text_embeddings: FloatMatrix, image_of_caption: IntVector
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    """The three arrays of `first_match_ranks`, float32 and checked: unit rows, owners that exist. Raises DataError."""
    images = _unit_rows("image_embeddings", image_embeddings)
    texts = _unit_rows("text_embeddings", text_embeddings)
    if images.shape[1] != texts.shape[1]:
        raise DataError(
            f"image_embeddings have {images.shape[1]} components and text_embeddings {texts.shape[1]}, expected the "
            "same: encode both with one model"
        )
    owners = np.asarray(image_of_caption)
    if owners.shape != (len(texts),) or not np.issubdtype(owners.dtype, np.integer):
        raise DataError(
            f"image_of_caption has shape {owners.shape} and type {owners.dtype}, expected ({len(texts)},) integers: "
            "one image row for each caption"
        )
    if owners.min() < 0 or owners.max() >= len(images):
        raise DataError(
            f"image_of_caption goes from {owners.min()} to {owners.max()}, expected rows 0 to {len(images) - 1}"
        )
    return images, texts, owners.astype(np.intp)


def _unit_rows(name: str, rows: FloatMatrix) -> NDArray[np.float32]:
    matrix = np.asarray(rows)
    if matrix.ndim != 2 or 0 in matrix.shape or not np.issubdtype(matrix.dtype, np.floating):
        raise DataError(
            f"{name} has shape {matrix.shape} and type {matrix.dtype}, expected a non-empty table of floats (rows, dim)"
        )
    matrix = matrix.astype(np.float32, copy=False)
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    broken = np.flatnonzero(~np.isfinite(lengths))
    if len(broken):
        raise DataError(
            f"{name}: {len(broken)} of {len(matrix)} rows hold NaN or infinity, expected none (first: row {broken[0]})"
        )
    worst = int(np.argmax(np.abs(lengths - 1)))
    if abs(lengths[worst] - 1) > UNIT_TOLERANCE:
        raise DataError(
            f"{name} row {worst} has length {lengths[worst]:.4f}, expected 1 within {UNIT_TOLERANCE}: normalise the rows"
        )
    return matrix

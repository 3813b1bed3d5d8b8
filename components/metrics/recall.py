"""Recall: ranks in, recall@k with intervals and the quality gate out; knows nothing of models, files or images.

Recall@k is the hit rate of the CLIP papers: a query counts 1 if any right item is among its k nearest, so an image with
five captions needs one of them (Radford et al. 2021, https://arxiv.org/abs/2103.00020; CLIP_benchmark's README explains
how the recall of information retrieval differs).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import IntVector, Mask
from image_finder.components.configs import EvaluationConfig, ExtraSetConfig
from image_finder.components.errors import ConfigError, DataError, QualityError
from image_finder.components.metrics.bootstrap import bootstrap_recalls, per_image, percentile_interval, row_of_caption
from image_finder.components.metrics.ranks import MatchRanks
from image_finder.components.metrics.slices import slice_groups
from image_finder.components.records.retrieval import (
    DirectionReport,
    EvaluatedOn,
    Interval,
    RetrievalReport,
    SliceReport,
)

_GATE_K = 10


def recall_at_k(ranks: IntVector, k: int) -> float:
    """Share of queries whose first right item is among the k nearest.

    ranks: (n_queries,), counted from 1. A k above the gallery size gives 1. Raises DataError for no queries or k below
    1.
    """
    if len(ranks) == 0:
        raise DataError("recall@k of 0 queries is undefined, expected at least 1 query")
    if k < 1:
        raise DataError(f"recall@k with k = {k}, expected k of at least 1")
    return int(np.count_nonzero(ranks <= k)) / len(ranks)


def random_recall_at_k(gallery_size: int, n_right: IntVector, k: int) -> float:
    """Expected recall@k of a random order of the gallery, exact.

    n_right: (n_queries,) right items of each query. With c right items among n, a query misses with probability C(n -
    c, k) / C(n, k) = C(n - k, c) / C(n, c). Integers until the division avoid cancellation between near-equal terms.
    """
    sizes, counts = np.unique(n_right, return_counts=True)
    hits = 0.0
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        orders = math.comb(gallery_size, size)
        hits += count * ((orders - math.comb(max(gallery_size - k, 0), size)) / orders)
    return hits / int(counts.sum())


def named_recalls(ranks: MatchRanks, ks: Sequence[int]) -> dict[str, float]:
    """Recall@k in both directions as t2i_r1, ..., i2t_r1, ..."""
    directions = {"t2i": ranks.text_to_image, "i2t": ranks.image_to_text}
    return {f"{name}_r{k}": recall_at_k(values, k) for name, values in directions.items() for k in ks}


def report_ranks(
    ranks: MatchRanks,
    *,
    config: EvaluationConfig,
    identity: EvaluatedOn,
    slices: Mapping[str, Sequence[str]] | None = None,
) -> RetrievalReport:
    """Recall@k in both directions and by slice, with random baseline and 95 % intervals.

    slices: for each name one label per caption, "" for captions in no slice. mean_recall is the mean over both
    directions and all k. Images without captions are in the gallery of text-to-image but are not queries. Raises
    ConfigError for invalid ks, DataError if labels do not match the captions.
    """
    ks = config.ks
    if not ks or min(ks) < 1 or len(set(ks)) != len(ks):
        raise ConfigError(f"EvaluationConfig: ks is {ks}, expected at least one k, each 1 or more and no k twice")
    groups = list(slice_groups(slices or {}, ranks.n_captions))
    measured = _measure(ranks, ks, [members for _, _, members in groups], config)
    one_each = np.ones(1, np.int64)
    own_captions = np.unique(ranks.image_of_caption, return_counts=True)[1]
    return RetrievalReport(
        **identity.model_dump(),
        n_images=ranks.n_images,
        n_captions=ranks.n_captions,
        text_to_image=_direction(measured.parts[0], ranks.text_to_image, ranks.n_images, one_each),
        image_to_text=_direction(measured.parts[1], ranks.image_to_text, ranks.n_captions, own_captions),
        mean_recall=measured.mean_recall,
        mean_recall_interval=measured.mean_recall_interval,
        slices=tuple(
            SliceReport(slice=name, value=value, **part._asdict())
            for (name, value, _), part in zip(groups, measured.parts[2:], strict=True)
        ),
        bootstrap_samples=config.bootstrap_samples,
        seed=config.seed,
    )


def require_quality(report: RetrievalReport, config: EvaluationConfig) -> None:
    """Raise QualityError unless text-to-image recall@10 and every extra set reach the floors of config.

    A value equal to its floor passes; a missing or NaN value fails.
    """
    faults = [_main_fault(report, config)]
    faults += [_set_fault(name, report.extra_sets.get(name), floors) for name, floors in config.extra_sets.items()]
    if found := [fault for fault in faults if fault]:
        raise QualityError(f"{'; '.join(found)}; train longer or lower the floor")


def _main_fault(report: RetrievalReport, config: EvaluationConfig) -> str:
    direction = report.text_to_image
    recall = direction.recall.get(_GATE_K, math.nan)
    random_recall = direction.random_recall.get(_GATE_K, math.nan)
    where = f"text-to-image recall@{_GATE_K} on {report.dataset} {report.split} ({direction.gallery_size:,} images)"
    if math.isnan(recall) or math.isnan(random_recall):
        raise QualityError(f"{where} was not measured: add {_GATE_K} to evaluation.ks")
    faults = []
    if not recall >= config.min_recall_at_10:
        faults.append(f"below min_recall_at_10 {config.min_recall_at_10:.4f}")
    floor = config.min_times_random * random_recall
    if not recall >= floor - 1e-12:
        times = recall / random_recall
        hint = "; no model can pass with so small a gallery" if floor > 1 else ""
        faults.append(
            f"{times:.2f} times random ({random_recall:.4f}), below min_times_random {config.min_times_random}{hint}"
        )
    return f"{where} is {recall:.4f}: {', and '.join(faults)}" if faults else ""


def _set_fault(name: str, report: RetrievalReport | None, floors: ExtraSetConfig) -> str:
    if report is None:
        return f"evaluation set '{name}' was not measured"
    measured = (
        (f"text-to-image recall@{_GATE_K}", report.text_to_image.recall.get(_GATE_K, math.nan), "min_recall_at_10"),
        ("mean recall", report.mean_recall, "min_mean_recall"),
    )
    faults = [
        f"{what} is {value:.4f}, below {floor} {getattr(floors, floor):.4f}"
        for what, value, floor in measured
        if not value >= getattr(floors, floor)
    ]
    return f"evaluation set '{name}' ({report.n_images:,} images): {', and '.join(faults)}" if faults else ""


class _Part(NamedTuple):
    n_queries: int
    recall: dict[int, float]
    interval: dict[int, Interval]


class _Measured(NamedTuple):
    """parts: text to image, image to text, then the slices."""

    parts: list[_Part]
    mean_recall: float
    mean_recall_interval: Interval


def _measure(ranks: MatchRanks, ks: Sequence[int], slices: Sequence[Mask], config: EvaluationConfig) -> _Measured:
    """Both directions and all slices with one bootstrap, whose columns are the ks of each part in turn."""
    n_captioned = len(ranks.captioned_images)
    rows = row_of_caption(ranks)
    parts = [(ranks.text_to_image, rows), (ranks.image_to_text, np.arange(n_captioned))]
    parts += [(ranks.text_to_image[members], rows[members]) for members in slices]
    hits = np.stack([per_image(image, n_captioned, rank <= k) for rank, image in parts for k in ks], axis=1)
    queries = np.stack([per_image(image, n_captioned) for _, image in parts for _ in ks], axis=1)
    recalls = hits.sum(axis=0) / queries.sum(axis=0)
    draws = bootstrap_recalls(hits, queries, samples=config.bootstrap_samples, seed=config.seed)
    measured = []
    for number, (rank, _) in enumerate(parts):
        columns = {k: number * len(ks) + column for column, k in enumerate(ks)}
        measured.append(
            _Part(
                n_queries=len(rank),
                recall={k: float(recalls[column]) for k, column in columns.items()},
                interval={k: percentile_interval(draws[:, column]) for k, column in columns.items()},
            )
        )
    both = slice(2 * len(ks))
    return _Measured(measured, float(recalls[both].mean()), percentile_interval(draws[:, both].mean(axis=1)))


def _direction(part: _Part, ranks: IntVector, gallery_size: int, n_right: IntVector) -> DirectionReport:
    return DirectionReport(
        **part._asdict(),
        gallery_size=gallery_size,
        random_recall={k: random_recall_at_k(gallery_size, n_right, k) for k in part.recall},
        median_rank=float(np.median(ranks)),
    )

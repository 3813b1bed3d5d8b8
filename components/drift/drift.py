"""Drift: how far images, captions and searches are from those a model was trained on, and whether that matters.

Two questions are asked of each row, and both must be answered with yes before it drifts:

- Does it matter? The distance, in a unit a person understands, is above the limit of the config. With thousands of
  captions every test rejects: differences without consequence are significant too.
- Is it more than chance? The distance is above the threshold that random re-divisions of the images exceed with the
  chance of the config. With few images every distance is large: chance alone passes any limit.

The chance of a false alarm holds for one whole report: it is shared out evenly among DRIFT_ROWS rows (Bonferroni), which
is valid however they depend on each other. It is not shared out among the reports of a year: each is about data of its
own, and a false alarm costs a look at a page; at 0.01 and twelve reports a year it comes once in eight years or less.
Images that are on both sides make the test stricter, never looser.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import FloatMatrix
from image_finder.components.configs import DRIFT_ROWS, DriftConfig
from image_finder.components.drift import distances
from image_finder.components.drift.caption_words import (
    ImageWords,
    commonest_words,
    length_histograms,
    unseen_shares,
    word_frequencies,
)
from image_finder.components.drift.divisions import Chance, Statistic, compare_with_chance
from image_finder.components.drift.reference import DriftReference
from image_finder.components.drift.report import DriftOrigin, DriftReport, DriftRow
from image_finder.components.drift.sample import ImageSample
from image_finder.components.drift.search_log import SearchLog
from image_finder.components.errors import DataError

_WORDS = 1000  # columns of the word frequencies; all rarer words together are one more
_SHOWN_WORDS = 4


@dataclass(frozen=True)
class Compared:
    """A sample beside its reference. name, version: of the data set the sample is from."""

    reference: DriftReference
    origin: tuple[str, str]  # registered model and version
    sample: ImageSample
    name: str
    version: str


def report_drift(
    compared: Compared | None, log: SearchLog | None, config: DriftConfig, *, note: str = ""
) -> DriftReport:
    """The report on images and captions (compared), on searches (log), or on both. note: why something is left out.

    Raises DataError if the vectors of the two sides are not of one width.
    """
    rows = [*(_image_rows(compared, config) if compared else ()), *(_log_rows(log, config) if log else ())]
    return DriftReport(
        reference=_origin(compared) if compared else None,
        dataset=compared.name if compared else "",
        data_version=compared.version if compared else "",
        images=config.images,
        n_images=compared.sample.drawn_from if compared else 0,
        n_compared=len(compared.sample.vectors) if compared else 0,
        n_known=sum(key in compared.reference.contents for key in compared.sample.contents) if compared else 0,
        n_unreadable=compared.sample.unreadable if compared else 0,
        rows=tuple(rows),
        note=note,
        permutations=config.permutations,
        false_alarm_rate=config.false_alarm_rate,
        seed=config.seed,
    )


def _origin(compared: Compared) -> DriftOrigin:
    manifest = compared.reference.manifest
    return DriftOrigin(
        model=compared.origin[0],
        version=compared.origin[1],
        dataset=manifest.dataset,
        data_version=manifest.data_version,
        bundle_sha256=manifest.bundle_sha256,
        n_images=manifest.n_training_images,
        n_compared=manifest.n_images,
    )


# Rows


class _Row(NamedTuple):
    """What a row is called, its unit, and the field of the config that limits it."""

    what: str
    unit: str
    limit: str


_LENGTH = _Row("caption length", "words", "max_length")
_VOCABULARY = _Row("vocabulary", "bits", "max_vocabulary")
_NEW_WORDS = _Row("new words", "share", "max_new_words")
_SIZE = _Row("image size", "octaves", "max_size")
_SHAPE = _Row("image shape", "octaves", "max_shape")
_BRIGHTNESS = _Row("brightness", "of white", "max_brightness")
_EMBEDDING = _Row("embeddings", "of largest", "max_embedding")
_UNMATCHED = _Row("unmatched queries", "share", "max_unmatched")
_UNMATCHED_RISE = _Row("rise of unmatched queries", "share", "max_unmatched_rise")
_OF_CAPTIONS = (_LENGTH, _VOCABULARY, _NEW_WORDS)
_OF_IMAGES = (_SIZE, _SHAPE, _BRIGHTNESS, _EMBEDDING)


def _image_rows(compared: Compared, config: DriftConfig) -> list[DriftRow]:
    before, now = compared.reference.sample, compared.sample
    if before.vectors.shape[1:] != now.vectors.shape[1:]:
        raise DataError(
            f"vectors of the sample are {now.vectors.shape[1]} wide, those of the reference {before.vectors.shape[1]}: "
            "both must be made by the reference's own model"
        )
    captioned = [tuple(image for image in side.words if image.lengths) for side in (before, now)]
    rows = []
    if reason := _too_few([len(side) for side in captioned], "images with captions", config):
        rows += [_not_measured(row, config, reason) for row in _OF_CAPTIONS]
    else:
        rows += _caption_rows(captioned[0], captioned[1], compared.reference.images_of_word, config)
    if reason := _too_few([len(before.vectors), len(now.vectors)], "images", config):
        return rows + [_not_measured(row, config, reason) for row in _OF_IMAGES]
    return rows + _pixel_rows(before, now, config)


def _caption_rows(
    before: Sequence[ImageWords],
    now: Sequence[ImageWords],
    images_of_word: Mapping[str, int],
    config: DriftConfig,
) -> list[DriftRow]:
    sizes, both = (len(before), len(now)), [*before, *now]
    words = commonest_words(both, _WORDS)
    shares = word_frequencies(both, words)
    unseen_before = unseen_shares(before, images_of_word, counted_themselves=True)
    unseen_now = unseen_shares(now, images_of_word, counted_themselves=False)

    def judged(row: _Row, statistic: Statistic, detail: str, *, above_chance: bool = False) -> DriftRow:
        return _judged(row, config, _chance(statistic, sizes, config), detail, above_chance=above_chance)

    return [
        judged(
            _LENGTH,
            distances.wasserstein_of_counts(length_histograms(both)),
            f"{_lengths_text(now)} words, {_lengths_text(before)} in training",
        ),
        judged(
            _VOCABULARY,
            distances.jensen_shannon(shares),
            _moved_words(shares, len(before), words),
            above_chance=True,
        ),
        judged(
            _NEW_WORDS,
            distances.rise_of_mean(np.concatenate([unseen_before, unseen_now])),
            f"{unseen_now.mean():.2%} of the words are in no other training caption, {unseen_before.mean():.2%} in training",
        ),
    ]


def _pixel_rows(before: ImageSample, now: ImageSample, config: DriftConfig) -> list[DriftRow]:
    sizes = (len(before.vectors), len(now.vectors))
    octaves = np.log2(np.concatenate([before.sizes_px, now.sizes_px]).astype(np.float64))
    sides = [octaves[: sizes[0]], octaves[sizes[0] :]]
    side_now, side_before = (f"{2 ** np.median(side.mean(axis=1)):.0f} px" for side in reversed(sides))
    shape_now, shape_before = (f"{2 ** np.median(side[:, 0] - side[:, 1]):.2f}" for side in reversed(sides))
    brightness = np.concatenate([before.brightness, now.brightness]).astype(np.float64)

    def judged(row: _Row, statistic: Statistic, detail: str) -> DriftRow:
        return _judged(row, config, _chance(statistic, sizes, config), detail)

    return [
        judged(
            _SIZE, distances.wasserstein(octaves.mean(axis=1)), f"median side {side_now}, {side_before} in training"
        ),
        judged(
            _SHAPE,
            distances.wasserstein(octaves[:, 0] - octaves[:, 1]),
            f"median width over height {shape_now}, {shape_before} in training",
        ),
        judged(
            _BRIGHTNESS,
            distances.wasserstein(brightness),
            f"mean {now.brightness.mean():.3f}, {before.brightness.mean():.3f} in training",
        ),
        judged(
            _EMBEDDING,
            distances.energy(np.concatenate([before.vectors, now.vectors])),
            f"{sizes[1]:,} images against {sizes[0]:,} of the training",
        ),
    ]


def _log_rows(log: SearchLog, config: DriftConfig) -> list[DriftRow]:
    """The share now against its limit, and its rise over the days before.

    Divided are whole days: the queries of one day come from the same few people and the same events. So a rise needs
    about a week on either side before it is more than chance.
    """
    total = int(log.queries.sum())
    broken = f"; {log.broken_lines:,} broken lines" if log.broken_lines else ""
    if total == 0:
        reason = f"the log holds no answered text queries{broken}"
        return [_not_measured(row, config, reason) for row in (_UNMATCHED, _UNMATCHED_RISE)]
    first_day = log.days[-1] - timedelta(days=config.recent_days - 1)
    n_before = sum(day < first_day for day in log.days)  # days are in order: those before come first
    unmatched, queries = (
        [int(side.sum()) for side in np.split(each, [n_before])] for each in (log.unmatched, log.queries)
    )
    period = f"{queries[1]:,} text queries in {config.recent_days} days up to {log.days[-1]}{broken}"
    if queries[1] < config.min_queries:
        reason = f"{period}, {config.min_queries:,} needed"
        return [_not_measured(row, config, reason) for row in (_UNMATCHED, _UNMATCHED_RISE)]
    now = _share_row(unmatched[1], queries[1], config, period)
    if queries[0] < config.min_queries:
        reason = f"{queries[0]:,} text queries in the days before, {config.min_queries:,} needed"
        return [now, _not_measured(_UNMATCHED_RISE, config, reason)]
    statistic = distances.rise_of_share(log.unmatched, log.queries)
    found = _chance(statistic, (n_before, len(log.days) - n_before), config)
    shares = [of_side / n_queries for of_side, n_queries in zip(unmatched, queries, strict=True)]
    detail = f"{shares[1]:.1%} now, {shares[0]:.1%} of {queries[0]:,} text queries in {n_before} days before"
    return [now, _judged(_UNMATCHED_RISE, config, found, detail)]


def _share_row(unmatched: int, total: int, config: DriftConfig, period: str) -> DriftRow:
    """A share against a fixed limit: it drifted if chance alone would seldom bring a true share at the limit so high.

    threshold: the limit plus the normal approximation of the binomial's spread there.
    """
    limit = config.max_unmatched
    score = NormalDist().inv_cdf(1 - config.false_alarm_rate / DRIFT_ROWS)
    chance = limit + score * math.sqrt(limit * (1 - limit) / total)
    found = Chance(measured=unmatched / total, threshold=chance, mean=limit, p_value=math.nan)
    return _judged(_UNMATCHED, config, found, period)


def _too_few(sizes: Sequence[int], items: str, config: DriftConfig) -> str:
    if min(sizes) >= config.min_images:
        return ""
    return f"{sizes[1]:,} {items}, {sizes[0]:,} in training, {config.min_images:,} needed"


def _chance(statistic: Statistic, sizes: tuple[int, int], config: DriftConfig) -> Chance:
    rate = config.false_alarm_rate / DRIFT_ROWS
    return compare_with_chance(statistic, sizes, permutations=config.permutations, rate=rate, seed=config.seed)


def _judged(row: _Row, config: DriftConfig, found: Chance, detail: str, *, above_chance: bool = False) -> DriftRow:
    """above_chance: the mean over random divisions is taken away, for a distance that is far above 0 by chance."""
    base = found.mean if above_chance else 0.0
    limit: float = getattr(config, row.limit)
    measured, chance = found.measured - base, found.threshold - base
    return DriftRow(
        what=row.what,
        unit=row.unit,
        measured=measured,
        threshold=max(limit, chance),
        limit=limit,
        chance=chance,
        p_value=None if math.isnan(found.p_value) else found.p_value,
        drifted=measured > max(limit, chance),
        detail=detail,
    )


def _not_measured(row: _Row, config: DriftConfig, reason: str) -> DriftRow:
    return DriftRow(
        what=row.what,
        unit=row.unit,
        measured=None,
        threshold=None,
        limit=getattr(config, row.limit),
        chance=None,
        p_value=None,
        drifted=False,
        detail=reason,
    )


def _lengths_text(images: Sequence[ImageWords]) -> str:
    """Mean and standard deviation: two sides may have the same mean and yet be far apart."""
    lengths = [length for image in images for length in image.lengths]
    return f"{np.mean(lengths):.1f} \u00b1 {np.std(lengths):.1f}"


def _moved_words(shares: FloatMatrix, n_before: int, words: Sequence[str]) -> str:
    """The words whose share rose and fell most."""
    rise = shares[n_before:].mean(axis=0)[:-1] - shares[:n_before].mean(axis=0)[:-1]
    order = np.argsort(rise, kind="stable")
    more = ", ".join(words[place] for place in order[::-1][:_SHOWN_WORDS] if rise[place] > 0)
    fewer = ", ".join(words[place] for place in order[:_SHOWN_WORDS] if rise[place] < 0)
    return f"more: {more or 'none'}; fewer: {fewer or 'none'}"

"""Drift: how far images, captions and searches are from those a model was trained on, and whether that matters.

A row drifts only if both conditions hold:

- The distance is above its limit in the configuration, so the difference matters. With thousands of captions even
  differences without consequence are statistically significant.
- The distance is above the threshold of the permutation test, so it is not due to chance. With few images every distance
  is large, and chance alone exceeds any limit.

The false alarm rate applies to a whole report: it is divided evenly among DRIFT_ROWS rows (Bonferroni), which is valid
whatever their dependence. It is not divided among the reports of a year, because each is about different data and a
false alarm costs one look at a page: at 0.01 and twelve reports per year, one in eight years or fewer. Images on both
sides make the test stricter, never more lenient.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import FloatMatrix
from image_finder.components.configs import DRIFT_ROWS, DriftConfig
from image_finder.components.drift import caption_words, distances
from image_finder.components.drift.caption_words import ImageWords
from image_finder.components.drift.permutation import Chance, Statistic, Values, compare_with_chance
from image_finder.components.drift.reference import DriftReference
from image_finder.components.drift.report import DriftOrigin, DriftReport, DriftRow
from image_finder.components.drift.sample import ImageSample
from image_finder.components.drift.search_log import SearchLog
from image_finder.components.errors import DataError
from image_finder.components.text import counted

_WORDS = 1000  # columns of the word frequencies, before one for all rarer words
_SHOWN_WORDS = 4


@dataclass(frozen=True)
class ComparedSample:
    """A sample and its reference.

    origin: registered model and version; name, version: data set of the sample.
    """

    reference: DriftReference
    origin: tuple[str, str]
    sample: ImageSample
    name: str
    version: str


def report_drift(
    compared: ComparedSample | None, log: SearchLog | None, config: DriftConfig, *, note: str = ""
) -> DriftReport:
    """Report on images and captions (compared), on searches (log), or on both. note: why something is missing."""
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


def _origin(compared: ComparedSample) -> DriftOrigin:
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
    """limit: field of the configuration; above_chance: subtract the mean of random divisions."""

    name: str
    unit: str
    limit: str
    above_chance: bool = False


_LENGTH = _Row("caption length", "words", "max_length")
_VOCABULARY = _Row("vocabulary", "bits", "max_vocabulary", above_chance=True)
_NEW_WORDS = _Row("new words", "share", "max_new_words")
_SIZE = _Row("image size", "octaves", "max_size")
_SHAPE = _Row("image shape", "octaves", "max_shape")
_BRIGHTNESS = _Row("brightness", "luma, 0 to 1", "max_brightness")
_EMBEDDING = _Row("embeddings", "share of maximum", "max_embedding")
_UNMATCHED = _Row("unmatched queries", "share", "max_unmatched")
_UNMATCHED_RISE = _Row("rise of unmatched queries", "share", "max_unmatched_rise")
_OF_CAPTIONS = (_LENGTH, _VOCABULARY, _NEW_WORDS)
_OF_IMAGES = (_SIZE, _SHAPE, _BRIGHTNESS, _EMBEDDING)

_Measure = tuple[_Row, Statistic, str]  # the string is the detail of the row


def _image_rows(compared: ComparedSample, config: DriftConfig) -> Iterator[DriftRow]:
    before, now = compared.reference.sample, compared.sample
    if before.vectors.shape[1:] != now.vectors.shape[1:]:
        raise DataError(
            f"vectors of the sample have {now.vectors.shape[1]} components, those of the reference "
            f"{before.vectors.shape[1]}: both must come from the reference's model"
        )
    words_before, words_now = ([image for image in side.words if image.lengths] for side in (before, now))
    measures = _caption_measures(words_before, words_now, compared.reference.images_of_word)
    yield from _judge(_OF_CAPTIONS, measures, (len(words_before), len(words_now)), "images with captions", config)
    sizes = len(before.vectors), len(now.vectors)
    yield from _judge(_OF_IMAGES, _image_measures(before, now), sizes, "images", config)


def _judge(
    rows: Sequence[_Row], measures: Iterator[_Measure], sizes: tuple[int, int], items: str, config: DriftConfig
) -> Iterator[DriftRow]:
    """Judge the measures, which are computed only if both sides have enough items."""
    if min(sizes) < config.min_images:
        reason = f"{sizes[1]:,} {items}, {sizes[0]:,} in training, {config.min_images:,} needed"
        yield from (_not_measured(row, config, reason) for row in rows)
        return
    for row, statistic, detail in measures:
        yield _judged(row, config, _chance(statistic, sizes, config), detail)


def _caption_measures(
    before: Sequence[ImageWords], now: Sequence[ImageWords], images_of_word: Mapping[str, int]
) -> Iterator[_Measure]:
    both = [*before, *now]
    words = caption_words.commonest_words(both, _WORDS)
    shares = caption_words.word_frequencies(both, words)
    unseen_before = caption_words.unseen_shares(before, images_of_word, counted_themselves=True)
    unseen_now = caption_words.unseen_shares(now, images_of_word, counted_themselves=False)
    lengths = f"{_lengths_text(now)} words, {_lengths_text(before)} in training"
    yield _LENGTH, distances.wasserstein_of_counts(caption_words.length_histograms(both)), lengths
    yield _VOCABULARY, distances.jensen_shannon(shares), _moved_words(shares, len(before), words)
    unseen = (
        f"{unseen_now.mean():.2%} of the words occur in no other training image, {unseen_before.mean():.2%} in training"
    )
    yield _NEW_WORDS, distances.rise_of_mean(np.concatenate([unseen_before, unseen_now])), unseen


def _image_measures(before: ImageSample, now: ImageSample) -> Iterator[_Measure]:
    n_before = len(before.vectors)
    octaves = np.log2(np.concatenate([before.sizes_px, now.sizes_px]).astype(np.float64))
    sizes, shapes = octaves.mean(axis=1), octaves[:, 0] - octaves[:, 1]

    def medians(values: Values) -> list[float]:
        return [float(2 ** np.median(side)) for side in (values[n_before:], values[:n_before])]

    side_now, side_before = medians(sizes)
    yield _SIZE, distances.wasserstein(sizes), f"median side {side_now:.0f} px, {side_before:.0f} px in training"
    shape_now, shape_before = medians(shapes)
    shape = f"median width over height {shape_now:.2f}, {shape_before:.2f} in training"
    yield _SHAPE, distances.wasserstein(shapes), shape
    brightness = np.concatenate([before.brightness, now.brightness]).astype(np.float64)
    means = f"mean {now.brightness.mean():.3f}, {before.brightness.mean():.3f} in training"
    yield _BRIGHTNESS, distances.wasserstein(brightness), means
    compared = f"{counted(len(now.vectors), 'image')} and {n_before:,} training images"
    yield _EMBEDDING, distances.energy(np.concatenate([before.vectors, now.vectors])), compared


def _log_rows(log: SearchLog, config: DriftConfig) -> list[DriftRow]:
    """The current share against its limit, and its rise over the days before.

    Whole days are divided, because the queries of one day come from the same few people and events. So a rise needs
    about a week on either side to exceed chance.
    """
    total = int(log.queries.sum())
    broken = f"; {counted(log.broken_lines, 'broken line')}" if log.broken_lines else ""
    if total == 0:
        reason = f"the log contains no answered text query{broken}"
        return [_not_measured(row, config, reason) for row in (_UNMATCHED, _UNMATCHED_RISE)]
    first_day = log.days[-1] - timedelta(days=config.recent_days - 1)
    n_before = sum(day < first_day for day in log.days)  # days are in ascending order
    unmatched, queries = (
        [int(side.sum()) for side in np.split(each, [n_before])] for each in (log.unmatched, log.queries)
    )
    days = counted(config.recent_days, "day")
    period = f"{counted(queries[1], 'text query', 'text queries')} in {days} up to {log.days[-1]}{broken}"
    if queries[1] < config.min_queries:
        reason = f"{period}, {config.min_queries:,} needed"
        return [_not_measured(row, config, reason) for row in (_UNMATCHED, _UNMATCHED_RISE)]
    now = _share_row(unmatched[1], queries[1], config, period)
    if queries[0] < config.min_queries:
        earlier = counted(queries[0], "text query", "text queries")
        reason = f"{earlier} in the days before, {config.min_queries:,} needed"
        return [now, _not_measured(_UNMATCHED_RISE, config, reason)]
    statistic = distances.rise_of_share(log.unmatched, log.queries)
    found = _chance(statistic, (n_before, len(log.days) - n_before), config)
    share_before, share_now = (n / n_queries for n, n_queries in zip(unmatched, queries, strict=True))
    days_before = counted(n_before, "day")
    detail = f"{share_now:.1%} now, {share_before:.1%} of {queries[0]:,} text queries in {days_before} before"
    return [now, _judged(_UNMATCHED_RISE, config, found, detail)]


def _share_row(unmatched: int, total: int, config: DriftConfig, period: str) -> DriftRow:
    """A share drifts if it is higher than chance would make a true share equal to its limit.

    threshold: normal approximation of the binomial distribution at the limit.
    """
    limit = config.max_unmatched
    score = NormalDist().inv_cdf(1 - config.false_alarm_rate / DRIFT_ROWS)
    chance = limit + score * math.sqrt(limit * (1 - limit) / total)
    found = Chance(measured=unmatched / total, threshold=chance, mean=limit, p_value=math.nan)
    return _judged(_UNMATCHED, config, found, period)


def _chance(statistic: Statistic, sizes: tuple[int, int], config: DriftConfig) -> Chance:
    rate = config.false_alarm_rate / DRIFT_ROWS
    return compare_with_chance(statistic, sizes, permutations=config.permutations, rate=rate, seed=config.seed)


def _judged(row: _Row, config: DriftConfig, found: Chance, detail: str) -> DriftRow:
    base = found.mean if row.above_chance else 0.0
    limit: float = getattr(config, row.limit)
    measured, chance = found.measured - base, found.threshold - base
    return DriftRow(
        name=row.name,
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
    return DriftRow(name=row.name, unit=row.unit, limit=getattr(config, row.limit), detail=reason)


def _lengths_text(images: Sequence[ImageWords]) -> str:
    """Mean and standard deviation: sides with equal means can still be far apart."""
    lengths = [length for image in images for length in image.lengths]
    return f"{np.mean(lengths):.1f} \u00b1 {np.std(lengths):.1f}"


def _moved_words(shares: FloatMatrix, n_before: int, words: Sequence[str]) -> str:
    rise = shares[n_before:].mean(axis=0)[:-1] - shares[:n_before].mean(axis=0)[:-1]
    order = np.argsort(rise, kind="stable")
    more = ", ".join(words[column] for column in order[::-1][:_SHOWN_WORDS] if rise[column] > 0)
    fewer = ", ".join(words[column] for column in order[:_SHOWN_WORDS] if rise[column] < 0)
    return f"more: {more or 'none'}; fewer: {fewer or 'none'}"

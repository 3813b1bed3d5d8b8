"""Comparison: two models' ranks on the same queries in, the gain with its interval out; knows nothing of models or images.

Differences are taken query by query and then resampled: what makes a query hard is hard for both models and cancels out,
so the interval of the gain is much narrower than the two models' own intervals suggest. Images are resampled with all
their captions and both directions at once, as in `bootstrap_recalls`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from image_finder.components.arrays import FloatVector, IntVector, Mask
from image_finder.components.configs.slices import DIRECTION
from image_finder.components.errors import DataError
from image_finder.components.former_names import SliceName
from image_finder.components.metrics.bootstrap import bootstrap_recalls, per_image, percentile_interval, row_of_caption
from image_finder.components.metrics.ranks import MatchRanks
from image_finder.components.metrics.slices import slice_groups
from image_finder.components.records.base import Record
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.promotion import Comparison, SetDifference, SliceDifference


class RankedQueries(NamedTuple):
    """Ranks of a model on one evaluation set; slices: for each name one label per caption."""

    ranks: MatchRanks
    slices: Mapping[str, Sequence[str]]


class MeasuredBundle(NamedTuple):
    """A measurement with ranks and slices, and those of the extra evaluation sets by name."""

    measurement: BundleMeasurement
    ranks: MatchRanks
    slices: Mapping[str, Sequence[str]]
    extra_sets: Mapping[str, RankedQueries] = MappingProxyType({})


class StoredQueries(Record):
    """RankedQueries as JSON, without the margins, which no comparison reads."""

    image_of_caption: tuple[int, ...]
    text_to_image: tuple[int, ...]
    image_to_text: tuple[int, ...]
    slices: dict[SliceName, tuple[SliceName, ...]]

    @classmethod
    def of_queries(cls, queries: RankedQueries, **others: object) -> Self:
        ranks = queries.ranks
        return cls.model_validate(
            {
                "image_of_caption": tuple(ranks.image_of_caption.tolist()),
                "text_to_image": tuple(ranks.text_to_image.tolist()),
                "image_to_text": tuple(ranks.image_to_text.tolist()),
                "slices": {name: tuple(labels) for name, labels in queries.slices.items()},
                **others,
            }
        )

    def queries(self, n_images: int) -> RankedQueries:
        """Restore the ranks; their margins are NaN."""
        owners = np.array(self.image_of_caption, np.int64)
        ranks = MatchRanks(
            n_images=n_images,
            image_of_caption=owners,
            captioned_images=np.unique(owners),
            text_to_image=np.array(self.text_to_image, np.int64),
            image_to_text=np.array(self.image_to_text, np.int64),
            margins=np.full(len(owners), np.nan, np.float32),
        )
        return RankedQueries(ranks, self.slices)


class StoredMeasurement(StoredQueries):
    """A MeasuredBundle as JSON."""

    measurement: BundleMeasurement
    extra_sets: dict[str, StoredQueries] = Field(default_factory=dict, exclude_if=lambda sets: not sets)

    @classmethod
    def of(cls, measured: MeasuredBundle) -> "StoredMeasurement":
        return cls.of_queries(
            RankedQueries(measured.ranks, measured.slices),
            measurement=measured.measurement,
            extra_sets={name: StoredQueries.of_queries(each) for name, each in measured.extra_sets.items()},
        )

    def measured(self) -> MeasuredBundle:
        report = self.measurement.report
        sets = {name: each.queries(report.extra_sets[name].n_images) for name, each in self.extra_sets.items()}
        return MeasuredBundle(self.measurement, *self.queries(report.n_images), sets)


def compare_bundles(challenger: MeasuredBundle, champion: MeasuredBundle) -> Comparison:
    """Compare with the cut-offs, samples and seed of the challenger's report.

    The gain is the mean over the evaluation sets; a set counts as much as another, whatever its size. Images of different
    sets are drawn independently. Raises DataError unless both were measured on the same sets.
    """
    report = challenger.measurement.report
    if set(challenger.extra_sets) != set(champion.extra_sets):
        sets = [", ".join(each.extra_sets) or "none" for each in (challenger, champion)]
        raise DataError(f"extra evaluation sets are {sets[0]} and {sets[1]}: measure both models on the same sets")
    pairs = {"": (RankedQueries(challenger.ranks, challenger.slices), champion.ranks)}
    pairs |= {name: (ours, champion.extra_sets[name].ranks) for name, ours in challenger.extra_sets.items()}
    found = [
        _compare(
            *(ours.ranks, theirs, sorted(report.text_to_image.recall)),
            slices=ours.slices,
            samples=report.bootstrap_samples,
            seed=report.seed + number,
            of_set=name,
        )
        for number, (name, (ours, theirs)) in enumerate(pairs.items())
    ]
    main = found[0].comparison
    if len(found) == 1:
        return main
    return Comparison(
        gain=sum(each.comparison.gain for each in found) / len(found),
        interval=percentile_interval(np.mean([each.draws for each in found], axis=0)),
        slices=tuple(part for each in found for part in each.comparison.slices),
        n_images=sum(each.comparison.n_images for each in found),
        bootstrap_samples=main.bootstrap_samples,
        sets=tuple(
            SetDifference(name=name or report.split, difference=each.comparison.gain, interval=each.comparison.interval)
            for name, each in zip(pairs, found, strict=True)
        ),
    )


def compare_ranks(
    challenger: MatchRanks,
    champion: MatchRanks,
    ks: Sequence[int],
    *,
    slices: Mapping[str, Sequence[str]],
    samples: int,
    seed: int,
) -> Comparison:
    """Challenger minus champion: mean recall, and the mean over ks of every slice.

    Mean recall is the mean over both directions and all ks. slices: for each name one label per caption, "" for none.
    Both directions are slices too, so that a loss in one cannot hide behind a gain in the other. Equal ranks give
    exactly 0. Raises DataError unless both models were measured on the same captions and images.
    """
    return _compare(challenger, champion, ks, slices=slices, samples=samples, seed=seed).comparison


class _Compared(NamedTuple):
    comparison: Comparison
    draws: FloatVector  # (samples,) gain in each resampling


def _compare(
    challenger: MatchRanks,
    champion: MatchRanks,
    ks: Sequence[int],
    *,
    slices: Mapping[str, Sequence[str]],
    samples: int,
    seed: int,
    of_set: str = "",
) -> _Compared:
    _require_same_queries(challenger, champion)
    n_captioned = len(challenger.captioned_images)
    rows = row_of_caption(challenger)
    to_image = _hits(challenger.text_to_image, ks) - _hits(champion.text_to_image, ks)
    to_text = _hits(challenger.image_to_text, ks) - _hits(champion.image_to_text, ks)
    names = [(DIRECTION.name, value) for value in DIRECTION.values]
    changes_of = [(to_image, rows), (to_text, np.arange(n_captioned))]
    for name, value, members in slice_groups(slices, challenger.n_captions):
        names.append((name, value))
        changes_of.append((to_image[members], rows[members]))
    changes = np.stack([per_image(image, n_captioned, change) for change, image in changes_of], axis=1)
    # Hits are counted over all k, so each query has len(ks) trials; sums of integers stay exact until the one division.
    trials = np.stack([per_image(image, n_captioned) for _, image in changes_of], axis=1) * len(ks)
    differences = changes.sum(axis=0) / trials.sum(axis=0)
    draws = bootstrap_recalls(changes, trials, samples=samples, seed=seed)
    gains: FloatVector = draws[:, :2].mean(axis=1)
    comparison = Comparison(
        gain=float(differences[:2].mean()),
        interval=percentile_interval(gains),
        slices=tuple(
            SliceDifference(
                slice=name,
                value=value,
                n_queries=len(changes_of[column][0]),
                difference=float(differences[column]),
                interval=percentile_interval(draws[:, column]),
                of_set=of_set,
            )
            for column, (name, value) in enumerate(names)
        ),
        n_images=n_captioned,
        bootstrap_samples=samples,
    )
    return _Compared(comparison, gains)


def _hits(ranks: IntVector, ks: Sequence[int]) -> NDArray[np.int64]:
    """(n_queries,) number of cut-offs within which each query has its right item."""
    within: Mask = ranks[:, None] <= np.asarray(ks)
    hits: NDArray[np.int64] = np.count_nonzero(within, axis=1)
    return hits


def _require_same_queries(challenger: MatchRanks, champion: MatchRanks) -> None:
    if challenger.n_images != champion.n_images or not np.array_equal(
        challenger.image_of_caption, champion.image_of_caption
    ):
        raise DataError(
            f"ranks of {challenger.n_captions} captions among {challenger.n_images} images cannot be paired with those "
            f"of {champion.n_captions} among {champion.n_images}: measure both models on the same captions and images"
        )

"""Comparison: two models' ranks on the same queries in, the gain with its interval out; knows nothing of models or images.

Differences are taken query by query and then resampled: what makes a query hard is hard for both models and cancels out,
so the interval of the gain is much narrower than the two models' own intervals suggest. Images are resampled with all
their captions and both directions at once, as in `bootstrap_recalls`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import IntVector, Mask
from image_finder.components.configs.slices import DIRECTION
from image_finder.components.errors import DataError
from image_finder.components.former_names import SliceName
from image_finder.components.metrics.bootstrap import bootstrap_recalls, per_image, percentile_interval, row_of_caption
from image_finder.components.metrics.ranks import MatchRanks
from image_finder.components.metrics.slices import slice_groups
from image_finder.components.records.base import Record
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.promotion import Comparison, SliceDifference


class MeasuredBundle(NamedTuple):
    """A measurement with ranks and slices; slices: for each name one label per caption."""

    measurement: BundleMeasurement
    ranks: MatchRanks
    slices: Mapping[str, Sequence[str]]


class StoredMeasurement(Record):
    """A MeasuredBundle as JSON, without the margins, which no comparison reads."""

    measurement: BundleMeasurement
    image_of_caption: tuple[int, ...]
    text_to_image: tuple[int, ...]
    image_to_text: tuple[int, ...]
    slices: dict[SliceName, tuple[SliceName, ...]]

    @classmethod
    def of(cls, measured: MeasuredBundle) -> "StoredMeasurement":
        return cls(
            measurement=measured.measurement,
            image_of_caption=tuple(measured.ranks.image_of_caption.tolist()),
            text_to_image=tuple(measured.ranks.text_to_image.tolist()),
            image_to_text=tuple(measured.ranks.image_to_text.tolist()),
            slices={name: tuple(labels) for name, labels in measured.slices.items()},
        )

    def measured(self) -> MeasuredBundle:
        """Restore the measurement; its margins are NaN."""
        owners = np.array(self.image_of_caption, np.int64)
        ranks = MatchRanks(
            n_images=self.measurement.report.n_images,
            image_of_caption=owners,
            captioned_images=np.unique(owners),
            text_to_image=np.array(self.text_to_image, np.int64),
            image_to_text=np.array(self.image_to_text, np.int64),
            margins=np.full(len(owners), np.nan, np.float32),
        )
        return MeasuredBundle(self.measurement, ranks, self.slices)


def compare_bundles(challenger: MeasuredBundle, champion: MeasuredBundle) -> Comparison:
    """Compare with the cut-offs, samples and seed of the challenger's report. Raises DataError."""
    report = challenger.measurement.report
    return compare_ranks(
        challenger.ranks,
        champion.ranks,
        sorted(report.text_to_image.recall),
        slices=challenger.slices,
        samples=report.bootstrap_samples,
        seed=report.seed,
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
    return Comparison(
        gain=float(differences[:2].mean()),
        interval=percentile_interval(draws[:, :2].mean(axis=1)),
        slices=tuple(
            SliceDifference(
                slice=name,
                value=value,
                n_queries=len(changes_of[column][0]),
                difference=float(differences[column]),
                interval=percentile_interval(draws[:, column]),
            )
            for column, (name, value) in enumerate(names)
        ),
        n_images=n_captioned,
        bootstrap_samples=samples,
    )


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

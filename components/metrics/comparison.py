"""Comparison: two models' ranks on the same queries to a gain with its interval; knows nothing of models or images.

Both models answered the same queries, so the differences are taken query by query and resampled as such: what makes a
query hard is hard for both and falls out, and the interval of the gain is much narrower than the two models' own
intervals would let one think. Images are what is drawn, with all their captions and both directions at once, as in
`bootstrap_recalls`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import IntVector, Mask
from image_finder.components.configs.slices import DIRECTION
from image_finder.components.errors import DataError
from image_finder.components.former_names import SliceName
from image_finder.components.metrics.retrieval import MatchRanks, bootstrap_recalls, percentile_interval, slice_groups
from image_finder.components.records.base import Record
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.promotion import Comparison, SliceDifference


class MeasuredBundle(NamedTuple):
    """A measurement, and what a paired comparison needs beside it. slices: by name one label for each caption."""

    measurement: BundleMeasurement
    ranks: MatchRanks
    slices: Mapping[str, Sequence[str]]


class StoredMeasurement(Record):
    """The same as JSON, to be compared on another day; ranks without their margins, which no comparison reads."""

    measurement: BundleMeasurement
    image_of_caption: tuple[int, ...]
    text_to_image: tuple[int, ...]
    image_to_text: tuple[int, ...]
    slices: dict[SliceName, tuple[SliceName, ...]]

    @classmethod
    def of(cls, measured: MeasuredBundle) -> "StoredMeasurement":
        """What is kept of a measurement."""
        return cls(
            measurement=measured.measurement,
            image_of_caption=tuple(measured.ranks.image_of_caption.tolist()),
            text_to_image=tuple(measured.ranks.text_to_image.tolist()),
            image_to_text=tuple(measured.ranks.image_to_text.tolist()),
            slices={name: tuple(labels) for name, labels in measured.slices.items()},
        )

    def measured(self) -> MeasuredBundle:
        """What was kept, its margins NaN."""
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


def compare_bundles(candidate: MeasuredBundle, champion: MeasuredBundle) -> Comparison:
    """Candidate minus champion, by the cut-offs and draws of the candidate's report. Raises DataError as compare_ranks."""
    report = candidate.measurement.report
    return compare_ranks(
        candidate.ranks,
        champion.ranks,
        sorted(report.text_to_image.recall),
        slices=candidate.slices,
        samples=report.bootstrap_samples,
        seed=report.seed,
    )


def compare_ranks(
    candidate: MatchRanks,
    champion: MatchRanks,
    ks: Sequence[int],
    *,
    slices: Mapping[str, Sequence[str]],
    samples: int,
    seed: int,
) -> Comparison:
    """Candidate minus champion: mean recall over both directions and all ks, and the mean over ks of every slice.

    slices: by name one label for each caption, "" for none; the two directions are slices too, so that a fall in one
    cannot hide behind a rise in the other. Equal ranks give exactly 0. Raises DataError unless both were asked the
    same captions in a gallery of the same images.
    """
    _require_same_queries(candidate, champion)
    n_captioned = len(candidate.captioned_images)
    row_of_caption = np.searchsorted(candidate.captioned_images, candidate.image_of_caption)
    to_image = _hits(candidate.text_to_image, ks) - _hits(champion.text_to_image, ks)
    to_text = _hits(candidate.image_to_text, ks) - _hits(champion.image_to_text, ks)
    named: list[tuple[str, str]] = [(DIRECTION.name, value) for value in DIRECTION.values]
    asked: list[tuple[IntVector, IntVector]] = [(to_image, row_of_caption), (to_text, np.arange(n_captioned))]
    for name, value, members in slice_groups(slices, candidate.n_captions):
        named.append((name, value))
        asked.append((to_image[members], row_of_caption[members]))
    changes = np.stack([_sums(image, n_captioned, weights) for weights, image in asked], axis=1)
    # A query of k cut-offs is k questions: sums of whole numbers stay exact until the one division.
    questions = np.stack([_sums(image, n_captioned) for _, image in asked], axis=1) * len(ks)
    differences = changes.sum(axis=0) / questions.sum(axis=0)
    draws = bootstrap_recalls(changes, questions, samples=samples, seed=seed)
    return Comparison(
        gain=float(differences[:2].mean()),
        interval=percentile_interval(draws[:, :2].mean(axis=1)),
        slices=tuple(
            SliceDifference(
                slice=name,
                value=value,
                n_queries=len(asked[column][0]),
                difference=float(differences[column]),
                interval=percentile_interval(draws[:, column]),
            )
            for column, (name, value) in enumerate(named)
        ),
        n_images=n_captioned,
        bootstrap_samples=samples,
    )


def _hits(ranks: IntVector, ks: Sequence[int]) -> NDArray[np.int64]:
    """(n_queries,) number of cut-offs that a query's rank is within."""
    within: Mask = ranks[:, None] <= np.asarray(ks)
    hits: NDArray[np.int64] = np.count_nonzero(within, axis=1)
    return hits


def _sums(image: IntVector, n_captioned: int, weights: IntVector | None = None) -> NDArray[np.float64]:
    """(n_captioned,) sum of the weights, or number, of each image's queries."""
    return np.bincount(image, weights=weights, minlength=n_captioned).astype(np.float64)


def _require_same_queries(candidate: MatchRanks, champion: MatchRanks) -> None:
    if candidate.n_images != champion.n_images or not np.array_equal(
        candidate.image_of_caption, champion.image_of_caption
    ):
        raise DataError(
            f"ranks of {candidate.n_captions} captions among {candidate.n_images} images cannot be paired with those of "
            f"{champion.n_captions} among {champion.n_images}: measure both models on the same captions and images"
        )

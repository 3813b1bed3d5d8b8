"""Paired comparison of ranks against hand-worked and brute-force computations."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import SLICES, EvaluationConfig, RegistryConfig
from image_finder.components.errors import DataError
from image_finder.components.metrics.comparison import (
    MeasuredBundle,
    RankedQueries,
    StoredMeasurement,
    compare_bundles,
    compare_ranks,
)
from image_finder.components.metrics.ranks import MatchRanks
from image_finder.components.metrics.recall import report_ranks
from image_finder.components.metrics.slices import caption_slices
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.retrieval import EvaluatedOn, Interval

KS = (1, 5, 10)


def ranks_of(owners, text_to_image, image_to_text, n_images=None):
    owners = np.asarray(owners)
    captioned = np.unique(owners)
    return MatchRanks(
        n_images=n_images or int(captioned[-1]) + 1,
        image_of_caption=owners,
        captioned_images=captioned,
        text_to_image=np.asarray(text_to_image),
        image_to_text=np.asarray(image_to_text),
        margins=np.zeros(len(owners)),
    )


def drawn_pair(seed, n_images=40, better=0.0):
    """Ranks of two models on images that are hard or easy for both; 0 to 5 captions each."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(n_images), rng.integers(0, 6, n_images))
    rng.shuffle(owners)
    hard = rng.normal(1.5, 1.0, n_images)
    captioned = np.unique(owners)

    def drawn(images, shift):
        noise = rng.normal(0, 0.5, len(images))
        return np.maximum(1, np.exp(hard[images] + noise - shift)).astype(np.int64)

    return tuple(ranks_of(owners, drawn(owners, shift), drawn(captioned, shift), n_images) for shift in (better, 0.0))


def by_brute_force(challenger, champion, ks, samples, seed):
    """Gain and interval, query by query and draw by draw."""

    def mean_recall(ranks, images):
        recalls = []
        for k in ks:
            own = [rank <= k for p in images for rank in ranks.text_to_image[ranks.image_of_caption == p]]
            recalls.append(sum(own) / len(own))
        for k in ks:
            own = [ranks.image_to_text[np.flatnonzero(ranks.captioned_images == p)[0]] <= k for p in images]
            recalls.append(sum(own) / len(own))
        return sum(recalls) / len(recalls)

    images = challenger.captioned_images
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(samples):
        drawn = images[rng.integers(len(images), size=len(images))]
        draws.append(mean_recall(challenger, drawn) - mean_recall(champion, drawn))
    low, high = np.percentile(draws, [2.5, 97.5])
    return mean_recall(challenger, images) - mean_recall(champion, images), low, high


def compared(challenger, champion, ks=KS, *, slices=None, samples=300, seed=0):
    return compare_ranks(challenger, champion, ks, slices=slices or {}, samples=samples, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_gain_and_interval_are_those_of_a_resampling_of_images_done_by_hand(seed):
    challenger, champion = drawn_pair(seed, n_images=15, better=0.3)
    found = compared(challenger, champion, samples=100, seed=seed)
    gain, low, high = by_brute_force(challenger, champion, KS, 100, seed)
    assert found.gain == pytest.approx(gain, abs=1e-12)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=1e-12)
    assert (found.n_images, found.bootstrap_samples) == (len(challenger.captioned_images), 100)


def test_differences_of_a_hand_worked_table():
    # Images 0, 1, 2 with captions 0 | 1, 2 | 3. Hits at 1 and 5, challenger minus champion, caption by caption:
    # rank 1 against 3: +1, 0; 9 against 2: 0, -1; 4 against 4: 0, 0; 5 against 6: 0, +1. Sum 1 of 8 questions.
    # Images: 1 against 1, 2 against 9 (0, +1), 7 against 1 (-1, -1). Sum -1 of 6.
    owners = [0, 1, 1, 2]
    challenger = ranks_of(owners, [1, 9, 4, 5], [1, 2, 7])
    champion = ranks_of(owners, [3, 2, 4, 6], [1, 9, 1])
    slices = {"caption length": ["short", "short", "long", ""], "license": ["", "", "", "license 1"]}
    found = compared(challenger, champion, (1, 5), slices=slices)
    assert found.gain == pytest.approx((1 / 8 - 1 / 6) / 2)
    assert [(each.slice, each.value, each.n_queries, each.difference) for each in found.slices] == [
        ("direction", "text to image", 4, 1 / 8),
        ("direction", "image to text", 3, pytest.approx(-1 / 6)),
        ("caption length", "long", 1, 0.0),
        ("caption length", "short", 2, 0.0),
        ("license", "license 1", 1, 0.5),
    ]


@given(seed=st.integers(0, 10_000), better=st.floats(-1, 1))
@settings(max_examples=25)
def test_the_gain_is_the_difference_of_the_reports_and_turns_with_the_order(seed, better):
    pair = drawn_pair(seed, better=better)
    config = EvaluationConfig(ks=KS, bootstrap_samples=100)
    identity = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
    ours, theirs = (report_ranks(ranks, config=config, identity=identity) for ranks in pair)
    found = compared(*pair, samples=100)
    back = compared(*reversed(pair), samples=100)
    assert found.gain == pytest.approx(ours.mean_recall - theirs.mean_recall, abs=1e-12)
    assert back.gain == -found.gain
    assert (back.interval.low, back.interval.high) == pytest.approx((-found.interval.high, -found.interval.low))
    assert found.interval.low - 1e-12 <= found.gain <= found.interval.high + 1e-12


def test_a_model_compared_with_itself_differs_by_exactly_zero():
    same, _ = drawn_pair(5)
    found = compared(same, same, slices={"caption length": ["1-8 words"] * same.n_captions})
    assert (found.gain, found.interval) == (0.0, Interval(low=0.0, high=0.0))
    assert {(each.difference, each.interval.low, each.interval.high) for each in found.slices} == {(0.0, 0.0, 0.0)}


def test_the_paired_interval_is_narrower_than_that_of_either_model_alone():
    challenger, champion = drawn_pair(1, n_images=300, better=0.2)
    found = compared(challenger, champion)
    identity = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
    alone = report_ranks(champion, config=EvaluationConfig(ks=KS, bootstrap_samples=300), identity=identity)
    width = alone.mean_recall_interval.high - alone.mean_recall_interval.low
    assert found.interval.high - found.interval.low < 0.7 * width


def test_on_300_images_a_gain_of_seven_points_exceeds_chance_and_equal_models_show_none():
    better = [compared(*drawn_pair(seed, n_images=300, better=0.25)) for seed in range(10)]
    assert np.mean([each.gain for each in better]) == pytest.approx(0.07, abs=0.01)
    assert all(each.interval.low > 0 for each in better)
    alike = [compared(*drawn_pair(seed, n_images=300)) for seed in range(40)]
    # 2.5 % by chance are 1 of 40; 5 or more have a chance of 0.4 %, and the seeds are fixed
    assert sum(each.interval.low > 0 for each in alike) <= 4


def test_ranks_of_other_captions_or_another_gallery_cannot_be_paired():
    challenger, champion = drawn_pair(2)
    other = ranks_of(champion.image_of_caption[::-1], champion.text_to_image, champion.image_to_text, 40)
    with pytest.raises(DataError, match="cannot be paired"):
        compared(challenger, other)
    with pytest.raises(DataError, match="among 40 images cannot be paired with those of .* among 41"):
        compared(challenger, dataclasses.replace(champion, n_images=41))


def alternating(first, second, ranks):
    return [first if row % 2 else second for row in range(ranks.n_captions)]


def measured_bundle(ranks, config, identity, slices):
    measurement = BundleMeasurement(
        report=report_ranks(ranks, config=config, identity=identity, slices=slices),
        text_ms=1.0,
        image_ms=1.0,
        bundle_mb=1.0,
        embedding_dim=8,
        device="cpu",
        threads=1,
        test_sha256="t",
        code_sha256="c",
    )
    return MeasuredBundle(measurement, ranks, slices)


def test_a_measurement_that_was_stored_compares_as_it_did():
    pair = drawn_pair(3, better=0.2)
    config = EvaluationConfig(ks=KS, bootstrap_samples=200, seed=4)
    identity = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
    slices = {"caption length": alternating("1-8 words", "9-13 words", pair[0])}
    measured = [measured_bundle(ranks, config, identity, slices) for ranks in pair]
    stored = [
        StoredMeasurement.model_validate_json(StoredMeasurement.of(each).model_dump_json()).measured()
        for each in measured
    ]
    assert compare_bundles(*stored) == compare_bundles(*measured) == compared(*pair, slices=slices, samples=200, seed=4)


def with_set(measured, ranks, config, identity):
    slices = {"caption length": alternating("1-8 words", "9-13 words", ranks)}
    report = report_ranks(ranks, config=config, identity=identity.of_set("coco"), slices=slices)
    main = measured.measurement.report.model_copy(update={"extra_sets": {"coco": report}})
    measurement = measured.measurement.model_copy(update={"report": main})
    return measured._replace(measurement=measurement, extra_sets={"coco": RankedQueries(ranks, slices)})


def test_the_gain_over_several_sets_is_the_mean_and_each_set_counts_as_much_as_another():
    config = EvaluationConfig(ks=KS, bootstrap_samples=300, seed=4)
    identity = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
    main, extra = drawn_pair(3, n_images=200, better=0.2), drawn_pair(8, n_images=40, better=0.4)
    alone = [measured_bundle(ranks, config, identity, {}) for ranks in main]
    both = [with_set(each, ranks, config, identity) for each, ranks in zip(alone, extra, strict=True)]
    found = compare_bundles(*both)
    on_main, on_extra = compare_bundles(*alone), compared(*extra, samples=300, seed=5)
    assert found.gain == (on_main.gain + on_extra.gain) / 2
    ours, theirs = (each.measurement.report.mean_over_sets for each in both)
    assert found.gain == pytest.approx(ours - theirs, abs=1e-12)
    sets = [(each.name, each.difference, each.interval) for each in found.sets]
    assert sets == [("val", on_main.gain, on_main.interval), ("coco", on_extra.gain, on_extra.interval)]
    halves = [(each.interval.high - each.interval.low) / 4 for each in (on_main, on_extra)]
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(math.hypot(*halves), rel=0.15)  # independent
    assert found.n_images == on_main.n_images + on_extra.n_images
    assert {(each.of_set, each.slice) for each in found.slices} == {
        ("", "direction"),
        ("coco", "direction"),
        ("coco", "caption length"),
    }
    stored = [
        StoredMeasurement.model_validate_json(StoredMeasurement.of(each).model_dump_json()).measured() for each in both
    ]
    assert compare_bundles(*stored) == found
    assert on_main.sets == ()


def test_measurements_on_other_sets_cannot_be_compared():
    config = EvaluationConfig(ks=KS, bootstrap_samples=100)
    identity = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
    alone = [measured_bundle(ranks, config, identity, {}) for ranks in drawn_pair(3)]
    with pytest.raises(DataError, match="extra evaluation sets are coco and none"):
        compare_bundles(with_set(alone[0], drawn_pair(4)[0], config, identity), alone[1])


def test_a_measurement_that_was_stored_without_sets_is_read():
    config = EvaluationConfig(ks=KS, bootstrap_samples=100)
    identity = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
    pair = drawn_pair(3)
    stored = StoredMeasurement.of(measured_bundle(pair[0], config, identity, {}))
    former = stored.model_dump()
    assert set(former) == {"measurement", "image_of_caption", "text_to_image", "image_to_text", "slices"}
    assert StoredMeasurement.model_validate(former).measured().extra_sets == {}
    found = compared(*pair)
    assert set(found.model_dump()) == {"gain", "interval", "slices", "n_images", "bootstrap_samples"}
    assert set(found.slices[0].model_dump()) == {"slice", "value", "n_queries", "difference", "interval"}


def test_slices_that_were_stored_under_former_names_are_paired_with_the_current_ones():
    pair = drawn_pair(3, better=0.2)
    config = EvaluationConfig(ks=KS, bootstrap_samples=100)
    identity = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
    slices = {
        "image shape": alternating("portrait", "square", pair[0]),
        "captions of the image": alternating("1-4", "5", pair[0]),
    }
    stored = StoredMeasurement.of(measured_bundle(pair[0], config, identity, slices))
    former = stored.model_dump_json().replace("image shape", "picture shape")
    former = former.replace("captions of the image", "captions of the picture")
    assert StoredMeasurement.model_validate_json(former) == stored
    found = compared(*pair, slices=slices)
    former = found.model_dump_json().replace("text to image", "text to picture")
    former = former.replace("image to text", "picture to text").replace("image shape", "picture shape")
    assert type(found).model_validate_json(former) == found
    allowances = {"picture shape: portrait": 0.1, "direction: text to picture": 0.2, "captions of the picture": 0.3}
    parsed = RegistryConfig.parse({"promotion": {"slice_allowances": allowances}})
    assert parsed.promotion.slice_allowances == {
        "image shape: portrait": 0.1,
        "direction: text to image": 0.2,
        "captions of the image": 0.3,
    }


def test_every_slice_that_is_measured_can_be_given_an_allowance():
    rows = 60
    table = pd.DataFrame(
        {
            "image_id": [
                row // 4 if row < 20 else 100 + row // 5 if row < 40 else 200 + row // 10 for row in range(rows)
            ],
            "caption": [("a dog " if row % 2 else "an emu ") * (1 + row % 3 * 4) for row in range(rows)],
            "width_px": [100, 200, 100] * 20,
            "height_px": [200, 100, 100] * 20,
            "license": [1, 2] * 30,
            "part": "val",
        }
    )
    measured = caption_slices(table, Vocabulary.of(["a dog"] * 2), min_captions=1)
    pair = ranks_of(range(60), [1] * 60, [1] * 60), ranks_of(range(60), [1] * 60, [1] * 60)
    found = compare_ranks(*pair, KS, slices=measured, samples=100, seed=0).slices
    assert {each.slice for each in found} == set(SLICES)
    values = {name: {each.value for each in found if each.slice == name} for name in SLICES}
    assert all(values[name] == set(SLICES[name].values) for name in SLICES if name != "license")
    allowances = dict.fromkeys(SLICES, 0.1) | {f"{each.slice}: {each.value}": 0.1 for each in found}
    parsed = RegistryConfig.parse({"promotion": {"slice_allowances": allowances}})
    assert parsed.promotion.slice_allowances == allowances

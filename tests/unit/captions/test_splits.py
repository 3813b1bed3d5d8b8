"""Splits: by image, stable, and never one image on two sides."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.captions.splits import split_captions
from image_finder.components.configs import SplitConfig
from image_finder.components.errors import DataError


def captions_of(image_ids, part="train", per_image=2, first_caption=0):
    ids = np.repeat(np.asarray(sorted(image_ids), dtype=np.int64), per_image)
    return pd.DataFrame(
        {
            "image_id": ids,
            "caption_id": np.arange(first_caption, first_caption + len(ids), dtype=np.int64),
            "file_name": [f"{part}/{image_id}.jpg" for image_id in ids],
            "caption": [f"caption {number}" for number in range(len(ids))],
            "part": part,
        }
    )


def images_of(hashes, part="train"):
    return pd.DataFrame({"image_id": list(hashes), "part": part, "sha256": list(hashes.values())})


def sides_of(parts):
    return {
        int(image_id): side
        for side, part in zip(("train", "val", "test"), parts, strict=True)
        for image_id in part["image_id"].unique()
    }


image_ids = st.sets(st.integers(0, 2**62), min_size=60, max_size=120)
configs = st.builds(
    SplitConfig,
    seed=st.integers(0, 1000),
    val_fraction=st.floats(0.2, 0.4),
    test_fraction=st.sampled_from([0.0, 0.2, 0.3]),
)


@settings(deadline=None)
@given(image_ids, configs, st.integers(1, 5))
def test_no_image_is_in_two_splits_and_no_caption_is_lost(ids, config, per_image):
    captions = captions_of(ids, per_image=per_image)
    parts = split_captions(captions, config)
    together = pd.concat(parts).sort_values("caption_id", ignore_index=True)
    pd.testing.assert_frame_equal(together, captions)
    seen = [set(part["image_id"]) for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen)) == len(ids)


@settings(deadline=None)
@given(image_ids, image_ids, configs)
def test_adding_images_moves_no_image(ids, more, config):
    before = sides_of(split_captions(captions_of(ids), config))
    after = sides_of(split_captions(captions_of(ids | more), config))
    assert {image_id: after[image_id] for image_id in before} == before


@settings(deadline=None)
@given(image_ids, configs)
def test_copies_of_an_image_are_in_one_split(ids, config):
    hashes = {image_id: f"{position // 2:064x}" for position, image_id in enumerate(sorted(ids))}
    sides = sides_of(split_captions(captions_of(ids), config, images_of(hashes)))
    for content in set(hashes.values()):
        assert len({sides[image_id] for image_id in ids if hashes[image_id] == content}) == 1


def test_order_of_the_rows_does_not_matter():
    captions = captions_of(range(200))
    shuffled = captions.sample(frac=1, random_state=1)
    config = SplitConfig(seed=3, test_fraction=0.1)
    assert sides_of(split_captions(shuffled, config)) == sides_of(split_captions(captions, config))


def test_fractions_are_met_on_many_images_and_the_seed_changes_who_is_held_out():
    captions = captions_of(range(20_000), per_image=1)
    _, val, test = split_captions(captions, SplitConfig(val_fraction=0.1, test_fraction=0.2))
    assert abs(len(val) - 2000) < 150  # binomial, 3.5 standard deviations
    assert abs(len(test) - 4000) < 200
    other = split_captions(captions, SplitConfig(val_fraction=0.1, test_fraction=0.2, seed=1))[1]
    assert len(set(other["image_id"]) & set(val["image_id"])) < 300  # 200 expected by chance


def test_held_out_images_never_change_between_releases():
    # Guards the split of data sets already trained on: another hash would leak val images into train.
    _, val, test = split_captions(captions_of(range(80)), SplitConfig(val_fraction=0.1, test_fraction=0.1))
    assert val["image_id"].unique().tolist() == [15, 44, 46, 76]
    assert test["image_id"].unique().tolist() == [1, 30, 41, 43, 48, 60, 66, 79]


def test_one_fraction_does_not_affect_the_images_of_the_other():
    captions = captions_of(range(300))
    small = split_captions(captions, SplitConfig(val_fraction=0.1, test_fraction=0.0))
    large = split_captions(captions, SplitConfig(val_fraction=0.1, test_fraction=0.3))
    assert set(small[1]["image_id"]) == set(large[1]["image_id"])


def test_given_parts_are_kept():
    captions = pd.concat(
        [captions_of(range(50)), captions_of(range(100, 110), "val", first_caption=100)], ignore_index=True
    )
    train, val, test = split_captions(captions, SplitConfig(val_fraction=0.5))
    assert set(train["image_id"]) == set(range(50))
    assert set(val["image_id"]) == set(range(100, 110))
    assert len(test) == 0
    assert test.columns.tolist() == captions.columns.tolist()
    train, val, test = split_captions(captions, SplitConfig(val_fraction=0.5, test_fraction=0.3))
    assert set(val["image_id"]) == set(range(100, 110))
    assert 0 < test["image_id"].nunique() < 50
    assert set(train["image_id"]) | set(test["image_id"]) == set(range(50))


def test_a_given_test_part_is_kept_if_its_fraction_is_zero():
    captions = pd.concat([captions_of(range(50)), captions_of([90], "test", first_caption=100)], ignore_index=True)
    assert split_captions(captions, SplitConfig())[2]["image_id"].unique().tolist() == [90]


def test_unread_images_are_split_by_their_id():
    captions = captions_of(range(100))
    unread = images_of(dict.fromkeys(range(100), ""))
    assert sides_of(split_captions(captions, SplitConfig(), unread)) == sides_of(
        split_captions(captions, SplitConfig())
    )


def test_empty_val_is_refused_with_the_numbers():
    with pytest.raises(DataError, match=r"val is empty: 50 images became train 50, val 0, test 0 with val_fraction 0"):
        split_captions(captions_of(range(50)), SplitConfig(val_fraction=0))


def test_empty_train_is_refused_with_the_numbers():
    with pytest.raises(DataError, match=r"train is empty: 3 images became train 0, val 3, test 0"):
        split_captions(captions_of(range(3), "val"), SplitConfig())


def test_image_ids_shared_by_parts_are_refused_by_name():
    captions = pd.concat([captions_of([1, 2, 3]), captions_of([2, 3, 4], "val")], ignore_index=True)
    with pytest.raises(DataError, match=r"2 image ids in more than one part \(2, 3\)"):
        split_captions(captions, SplitConfig())


def test_unknown_part_is_refused_by_name():
    with pytest.raises(DataError, match="unknown parts: dev; expected train, val, test"):
        split_captions(captions_of([1], "dev"), SplitConfig())


def test_content_in_two_given_parts_is_logged(caplog):
    captions = pd.concat([captions_of([1, 2]), captions_of([3], "val")], ignore_index=True)
    images = pd.concat([images_of({1: "a", 2: "b"}), images_of({3: "a"}, "val")])
    split_captions(captions, SplitConfig(), images)
    assert "1 image in more than one split" in caplog.text

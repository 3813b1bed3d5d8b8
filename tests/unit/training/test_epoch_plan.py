"""Epoch plans: properties over all sizes."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.training.batches import batches_of_epoch, plan_epoch, share_of_batch

counts_of_captions = st.lists(st.integers(1, 7), min_size=1, max_size=60)


def owners(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@settings(max_examples=200, deadline=None)
@given(counts_of_captions, st.integers(2, 20), st.integers(1, 5), st.integers(0, 9), st.integers(0, 30))
def test_every_image_comes_once_with_its_own_captions(counts, batch, per_image, seed, epoch):
    image_of_caption = owners(counts)
    plans = plan_epoch(image_of_caption, batch_images=batch, captions_per_image=per_image, seed=seed, epoch=epoch)
    assert sorted(np.concatenate([p.image_rows for p in plans])) == list(range(len(counts)))
    for plan in plans:
        np.testing.assert_array_equal(image_of_caption[plan.caption_rows], plan.image_rows[plan.image_of_text])
        brought = Counter(plan.image_rows[plan.image_of_text].tolist())
        assert brought == {int(row): min(counts[row], per_image) for row in plan.image_rows}
        assert len(set(plan.caption_rows.tolist())) == len(plan.caption_rows)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(2, 40))
def test_no_batch_holds_a_single_image_unless_there_is_but_one(n_images, batch):
    plans = plan_epoch(np.arange(n_images), batch_images=batch, captions_per_image=1, seed=0, epoch=0)
    sizes = [len(plan.image_rows) for plan in plans]
    assert len(plans) == batches_of_epoch(n_images, batch)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch, 3 if n_images % 2 else 2)
    assert n_images == 1 or min(sizes) >= 2


@settings(max_examples=100, deadline=None)
@given(counts_of_captions, st.integers(1, 5), st.integers(0, 9), st.integers(0, 12))
def test_all_captions_take_their_turn_before_one_comes_again(counts, per_image, seed, first):
    image_of_caption = owners(counts)
    used = [Counter() for _ in counts]
    for epoch in range(first, first + 4):
        plans = plan_epoch(image_of_caption, batch_images=8, captions_per_image=per_image, seed=seed, epoch=epoch)
        for row in np.concatenate([p.caption_rows for p in plans]):
            used[image_of_caption[row]][int(row)] += 1
        for count, seen in zip(counts, used, strict=True):
            turns = (epoch - first + 1) * min(per_image, count)
            assert len(seen) == min(count, turns) or per_image > count
            if per_image >= count:
                assert set(seen.values()) == {epoch - first + 1}
            else:
                assert max(seen.values()) - min([seen[k] for k in seen] if len(seen) == count else [0]) <= 1


def test_five_captions_two_at_a_time_are_all_used_in_three_epochs():
    image_of_caption = np.repeat(np.arange(10), 5)
    rows = [
        set(
            np.concatenate(
                [
                    p.caption_rows
                    for p in plan_epoch(image_of_caption, batch_images=4, captions_per_image=2, seed=1, epoch=epoch)
                ]
            ).tolist()
        )
        for epoch in range(3)
    ]
    assert rows[0] | rows[1] | rows[2] == set(range(50))
    assert not rows[0] & rows[1]


def test_a_plan_is_a_function_of_seed_and_epoch():
    image_of_caption = owners([3] * 40)

    def flat(seed, epoch):
        plans = plan_epoch(image_of_caption, batch_images=8, captions_per_image=2, seed=seed, epoch=epoch)
        return np.concatenate([np.concatenate(plan) for plan in plans]).tolist()

    assert flat(5, 3) == flat(5, 3)
    assert len({tuple(flat(seed, epoch)) for seed in (5, 6) for epoch in (3, 4)}) == 4


def test_an_images_views_take_turns_from_a_random_one_on():
    def seen(epoch, seed=3):
        plans = plan_epoch(np.arange(400), batch_images=64, captions_per_image=1, seed=seed, epoch=epoch, views=5)
        rows, views = (np.concatenate([plan[at] for plan in plans]) for at in (0, 3))
        return views[np.argsort(rows)]

    np.testing.assert_array_equal(np.sort([seen(epoch) for epoch in range(5)], axis=0)[:, 0], np.arange(5))
    np.testing.assert_array_equal(seen(5), seen(0))
    assert np.bincount(seen(0)).min() > 50, "an epoch has them all"
    assert (seen(0) != seen(0, seed=4)).sum() > 200
    (plan,) = plan_epoch(np.arange(400), batch_images=400, captions_per_image=1, seed=3, epoch=0)
    assert not plan.views.any(), "by default there is the image alone"


def test_ranks_see_the_views_one_process_would():
    (plan,) = plan_epoch(np.arange(30), batch_images=30, captions_per_image=1, seed=0, epoch=0, views=3)
    shares = [share_of_batch(plan, rank, 4).own.views for rank in range(4)]
    np.testing.assert_array_equal(np.concatenate(shares), plan.views)

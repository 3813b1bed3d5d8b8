from datetime import UTC, datetime

import pytest

from image_finder.components.records.promotion import Comparison, SetDifference
from image_finder.components.records.retrieval import DirectionReport, Interval, RetrievalReport, SliceReport
from image_finder.model_registry.comparison_text import Side, compare_text, history_text
from image_finder.model_registry.ledger.entries import FIRST, Event, Head, seal
from image_finder.model_registry.registry import RegisteredVersion


def side(version, recall, **changes):
    near = Interval(low=recall - 0.02, high=recall + 0.02)

    def direction(n_queries, gallery_size):
        return DirectionReport(
            n_queries=n_queries,
            gallery_size=gallery_size,
            recall={10: recall},
            interval={10: near},
            random_recall={10: 0.01},
            median_rank=3.0,
        )

    report = RetrievalReport(
        dataset="flickr8k",
        data_version="0123456789ab",
        split="val",
        n_images=1000,
        n_captions=5000,
        text_to_image=direction(5000, 1000),
        image_to_text=direction(1000, 5000),
        mean_recall=recall,
        mean_recall_interval=near,
        slices=(
            SliceReport(slice="length", value=f"{version}-9", n_queries=77, recall={10: 0.1}, interval={10: near}),
        ),
        bootstrap_samples=1000,
        seed=0,
    )
    tags = {"data_version": "0123456789ab", "config_sha256": version * 64, "seeds": "training.seed 0"}
    registered = RegisteredVersion(
        name="finder", version=version, run_id="r", aliases=(), tags=tags, created=datetime(2026, 1, 5, tzinfo=UTC)
    )
    return Side(registered, report.model_copy(update=changes))


def lines(*arguments):
    return {line[:24].strip(): " ".join(line.split()) for line in compare_text(*arguments).splitlines()}


def test_every_number_has_its_interval_and_difference():
    fault = lines(side("7", 0.55), side("5", 0.5), None)
    assert fault["mean recall"] == "mean recall 55.0 % [53.0, 57.0] 50.0 % [48.0, 52.0] +5.0"
    assert fault["text to image R@10"] == "text to image R@10 55.0 % [53.0, 57.0] 50.0 % [48.0, 52.0] +5.0"
    assert fault["length: 7-9"] == "length: 7-9 10.0 % [53.0, 57.0] not measured"
    assert fault["config"] == "config 777777777777 555555555555 differs"
    assert fault["seeds"] == "seeds training.seed 0 training.seed 0"


def test_only_a_comparison_query_by_query_has_an_interval():
    paired = Comparison(
        gain=0.05, interval=Interval(low=0.01, high=0.09), slices=(), n_images=1000, bootstrap_samples=1000
    )
    text = compare_text(side("7", 0.55), side("5", 0.5), paired)
    assert text.endswith("Query by query, version 7 against 5: mean recall +5.0 points [+1.0, +9.0], 1,000 images.")
    assert "the difference has no interval" in compare_text(side("7", 0.55), side("5", 0.5), None)


def test_each_evaluation_set_has_its_row_and_the_gain_names_them():
    def on_coco(version, recall):
        return side(version, 0.5, extra_sets={"coco": side(version, recall).report})

    near = Interval(low=0.01, high=0.09)
    sets = tuple(SetDifference(name=name, difference=0.05, interval=near) for name in ("val", "coco"))
    paired = Comparison(gain=0.05, interval=near, slices=(), n_images=1000, bootstrap_samples=1000, sets=sets)
    text = compare_text(on_coco("7", 0.6), on_coco("5", 0.5), paired)
    assert "mean recall over val and coco +5.0 points" in text
    found = lines(on_coco("7", 0.6), on_coco("5", 0.5), paired)
    assert found["mean recall on coco"] == "mean recall on coco 60.0 % [58.0, 62.0] 50.0 % [48.0, 52.0] +10.0"
    assert "extra sets coco against none" in compare_text(on_coco("7", 0.6), side("5", 0.5), None)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"data_version": "ffffffffffff"}, "data version 0123456789ab against ffffffffffff"),
        ({"split": "test"}, "split val against test"),
        ({"n_images": 999}, "images 1,000 against 999"),
    ],
)
def test_reports_on_different_tests_are_not_compared(changes, fault):
    text = compare_text(side("7", 0.55), side("5", 0.5, **changes), None)
    assert text.endswith(f"NOT COMPARABLE: {fault}. The differences above are meaningless.")


def test_history_gives_reasons_once_and_shortens_run_ids():
    head, entries = Head(0, FIRST), []
    for event in (
        Event(kind="moving", to_version="1", reasons=("better", "and smaller")),
        Event(kind="moved", to_version="1", reasons=("better", "and smaller")),
        Event(kind="skipped", reasons=("nothing changed",)),
    ):
        actor = "run training-x (0123456789abcdef0123456789abcdef)"
        entries.append(seal("finder", event, head=head, at=datetime(2026, 1, 5, 3, tzinfo=UTC), actor=actor))
        head = Head(entries[-1].n, entries[-1].sha256)
    assert history_text(entries).splitlines() == [
        "2026-01-05 03:00:00  0001 v1 about to become champion, none until then  run training-x (01234567)",
        "    better",
        "    and smaller",
        "2026-01-05 03:00:00  0002 v1 promoted, the first champion               run training-x (01234567)",
        "2026-01-05 03:00:00  0003 scheduled run: nothing to do                  run training-x (01234567)",
        "    nothing changed",
    ]

import re

import pytest

from image_finder.components.configs import ImageTowerConfig, ModelConfig, TextTowerConfig, TrainingConfig
from image_finder.components.evaluation.things_found import ThingFound
from image_finder.components.records.calibration import MatchModel, MatchModels, ScoreCalibration
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.export import BundleMeasurement, ParityReport
from image_finder.components.records.retrieval import DirectionReport, Interval, RetrievalReport, SliceReport
from image_finder.model_registry.card import model_card
from image_finder.model_registry.evidence import Evidence
from image_finder.model_registry.lineage import Lineage
from image_finder.pipelines.packing import Shipped, starter_card

LINEAGE = Lineage(
    code_version="c0de-dirty",
    config_sha256="1" * 64,
    environment_sha256="2" * 64,
    code_sha256="3" * 64,
    data_fingerprint="4" * 64,
    hardware="2 cores",
    seeds={"training.seed": 7, "split.seed": 0},
    parent_champion="4",
    run_name="training-flickr8k-x",
    environment=("mlflow==3.17.2", "torch==2.14.1"),
)
VALIDATION = ValidationReport(
    dataset="flickr8k",
    data_version="0123456789ab",
    n_images=7000,
    n_captions=35000,
    n_valid_captions=34650,
    expectations=(),
    quarantined={},
    max_quarantined_share=0.02,
    success=True,
)
PARITY = ParityReport(
    cases=(),
    min_cosine=0.999,
    max_difference=0.001,
    torch_recall_at_10=0.5,
    onnx_recall_at_10=0.49,
    n_images=64,
    passed=True,
    reasons=(),
)


def facts():
    def direction(n_queries, gallery_size, recall):
        return DirectionReport(
            n_queries=n_queries,
            gallery_size=gallery_size,
            recall={1: recall},
            interval={1: Interval(low=recall - 0.02, high=recall + 0.03)},
            random_recall={1: 1 / gallery_size},
            median_rank=4.0,
        )

    manifest = DatasetManifest(
        name="flickr8k",
        layout="coco",
        root="/data",
        n_images=7000,
        n_captions=35000,
        n_images_of_part={"train": 6000, "val": 1000},
        annotations_sha256={"train": "a"},
        images_sha256="b",
        mean_caption_characters=50.0,
        unreadable_images=3,
    )
    report = RetrievalReport(
        dataset="flickr8k",
        data_version="0123456789ab",
        split="val",
        n_images=1000,
        n_captions=5000,
        text_to_image=direction(5000, 1000, 0.219),
        image_to_text=direction(1000, 5000, 0.3),
        mean_recall=0.5,
        mean_recall_interval=Interval(low=0.49, high=0.51),
        slices=(
            SliceReport(
                slice="length", value="5|9", n_queries=77, recall={1: 0.1}, interval={1: Interval(low=0.05, high=0.2)}
            ),
        ),
        bootstrap_samples=1000,
        seed=0,
    )
    scores = ScoreCalibration(
        logit_scale=15.4,
        good_match=0.5673,
        quantiles=tuple(round(0.3 + step / 40, 3) for step in range(21)),
        n_captions=4999,
        gallery_size=1000,
        dataset="flickr8k",
        data_version="0123456789ab",
        split="val",
    )
    evidence = Evidence(report=report, manifest=manifest, validation=VALIDATION, parity=PARITY, lineage=LINEAGE)
    return evidence, scores


def card_of(*, scores=None, model=None, **changes):
    evidence, usual = facts()
    evidence = evidence.model_copy(update=changes)
    return model_card(
        "image-finder", evidence, scores or usual, model=model or ModelConfig(), training=TrainingConfig()
    )


def test_every_measurement_has_interval_baseline_and_denominators():
    card = card_of()
    assert "| text to image | 1 | 21.9 % | [19.9, 24.9] | 0.1 % | 5,000 | 1,000 |" in card
    assert "| image to text | 1 | 30.0 % | [28.0, 33.0] | 0.0 % | 1,000 | 5,000 |" in card
    assert "Mean recall 50.0 % [49.0, 51.0]" in card


def test_each_evaluation_set_has_its_figures_and_the_card_says_how_the_model_was_selected():
    report = facts()[0].report
    on_coco = report.model_copy(update={"split": "coco", "mean_recall": 0.6, "n_images": 777})
    card = card_of(report=report.model_copy(update={"extra_sets": {"coco": on_coco}}))
    assert (
        "### On the evaluation set `coco`\nPart `coco` of `flickr8k` (data version `0123456789ab`): 777 images" in card
    )
    assert card.count("| text to image | 1 | 21.9 % |") == 2
    assert "Mean recall 60.0 %" in card
    assert "Model selection used the mean of mean recall over `val` and `coco`, 55.0 % for this model" in card
    assert "Model selection" not in card_of()


def test_slices_have_their_own_denominator_and_cannot_break_the_table():
    assert "| length | 5\\|9 | 10.0 % @1 | [5.0, 20.0] | 77 |" in card_of()


def test_the_score_threshold_has_its_meaning_and_its_data_set():
    card = card_of()
    assert "4,999 captions in a gallery of 1,000 images" in card
    assert "best score is below **0.567**" in card
    assert "median 0.550, 90 % between 0.325 and 0.775" in card
    assert "No hit is called a good match" in card


def test_the_precision_of_good_matches_has_its_number_of_queries():
    good = MatchModel(coefficients=(0.0,) * 8, intercept=0, min_probability=0.9, precision=0.875, n_queries=93)
    scores = facts()[1].model_copy(update={"matches": MatchModels(short=good, long=None)})
    card = card_of(scores=scores)
    assert "87.5 % for texts of one or two content words (93 queries)" in card
    assert "No hit is called" not in card


def test_packaged_text_trunk_discloses_its_pretraining_and_a_hub_trunk_does_not_claim_it():
    assert re.search(r"pre-training text included captions of COCO and Flickr30k", card_of())
    hub = ModelConfig(
        text=TextTowerConfig(trunk="distilbert-base-uncased", weights="hub", revision="a" * 40),
        image=ImageTowerConfig(weights="hub"),
    )
    card = card_of(model=hub)
    assert "MiniLM" not in card
    assert f"`distilbert-base-uncased@{'a' * 40}` (hub weights)" in card


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [
        ("flickr8k", "coco", "research and educational use"),
        ("coco2017", "coco", "CC BY 4.0"),
        ("mine", "coco2017_table", "CC BY 4.0"),
        ("flickr8k+coco2017", "coco", "research and educational use"),
        ("flickr8k+coco2017", "coco", "CC BY 4.0"),
        ("flickr8k+mine", "coco", "research and educational use"),
        ("flickr8k+mine", "coco", "`mine` is not known to this project"),
        ("scenes", "demo", "OpenMoji 17.0.0"),
        ("mine", "coco", "not known to this project"),
    ],
)
def test_licence_follows_the_data_set_and_is_never_guessed(name, layout, words):
    manifest = facts()[0].manifest.model_copy(update={"name": name, "layout": layout})
    assert words in card_of(manifest=manifest)


def test_a_card_has_all_sections():
    headings = re.findall(r"^## (.+)$", card_of(), re.MULTILINE)
    wanted = ["Intended use", "Model", "Data and licences", "Measurements", "Slices", "Scores", "Export", "Limits"]
    assert headings == [*wanted, "Lineage", "Promotion history"]


def test_a_card_names_lineage_and_ledger():
    card = card_of()
    for line in (
        "| run | training-flickr8k-x |",
        "| code | `c0de-dirty` (files differed from the commit), sources `333333333333` |",
        "| environment | `222222222222`, 2 packages in lineage.json |",
        "| hardware | 2 cores |",
        "| seeds | split.seed 0, training.seed 7 |",
        "| champion at the time | version 4 |",
        "Validation passed: 34,650 of 35,000 captions used, 1.00 % quarantined (at most 2 % allowed), 0 warnings of 0",
        "experiment `image-finder ledger`, or `image-finder models history --model image-finder`",
    ):
        assert line in card


def _shipped(things):
    report = facts()[0].report
    words = [
        SliceReport(slice="words", value=value, n_queries=n, recall={1: recall}, interval=report.text_to_image.interval)
        for value, n, recall in (("all met in training", 4900, 0.25), ("some not met", 100, 0.125))
    ]
    measurement = BundleMeasurement(
        report=report.model_copy(update={"slices": (*report.slices, *words)}),
        text_ms=2,
        image_ms=9,
        bundle_mb=65,
        embedding_dim=256,
        device="cpu",
        threads=2,
        test_sha256="a",
        code_sha256="b",
    )
    return Shipped(measurement, things)


def test_a_starter_card_begins_with_what_the_model_finds():
    things = [ThingFound(f"thing{number}", 1 - number / 20, 30) for number in range(20)]
    first = starter_card(card_of(), "mine", [_shipped(things)]).split("\n## ")[1]
    assert first.startswith("What it finds\n")
    for line in (
        "| data | captions | recall@1 | queries |\n| --- | --- | --- | --- |\n",
        "| flickr8k val, 1,000 images | words all met in training | 25.0 % | 4,900 |\n",
        "| flickr8k val, 1,000 images | words some not met | 12.5 % | 100 |\n",
        "| flickr8k val, 1,000 images | all | 21.9 % | 5,000 |\n",
        "On flickr8k, recall@5 is highest for captions that name: thing0 100 %, thing1 95 %, ",
        "It is lowest for: thing19 5 %, thing18 10 %, ",
    ):
        assert line in first
    assert "recall@5" not in starter_card(card_of(), "mine", [_shipped(things[:19])])


@pytest.mark.parametrize(
    ("dataset", "present", "absent"),
    [
        ("flickr8k+coco2017", "people and dogs outdoors", "on one data set"),
        ("mine", "Expect weak results for subjects that are rare in it", "dogs"),
    ],
)
def test_a_starter_card_names_the_gaps_of_its_training_data(dataset, present, absent):
    card = starter_card(card_of(), dataset, [_shipped([])])
    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert headings[:2] == ["What it finds", "Licence of the weights"]
    assert headings[-3:] == ["As shipped, on part `val` of `flickr8k`", "Limits of its training data", "Limits"]
    unmet = card.split("## Limits of its training data")[1]
    assert present in unmet
    assert absent not in unmet

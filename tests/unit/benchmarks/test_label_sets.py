"""Labels that captions name: COCO's categories and the ImageNet classes."""

import pytest

from image_finder.components.search.labels import checked_labels
from tests.benchmarks.label_sets import (
    LabelSet,
    coco_categories,
    imagenet_classes,
    labels_shown,
    phrases_of,
    timm_descriptions,
)

COCO = phrases_of(coco_categories())

# Captions, and all categories that they name.
CAPTIONS = {
    "A MAN rides a Motor bike": {"person", "motorcycle"},
    "Two women with knives": {"person", "knife"},
    "mugs and wine glasses on a table": {"cup", "wine glass", "dining table"},
    "a hot dog": {"hot dog"},
    "a dog in hot water": {"dog"},
    "a teddy bear": {"teddy bear"},
    "A bear with a teddy-bear": {"bear", "teddy bear"},
    "a train station": set(),
    "a train in a train station": {"train"},
    "an orange chair": {"chair"},
    "three oranges": {"orange"},
    "a mantelpiece": set(),
    "a catcher\u2019s mitt": {"baseball glove"},
    "": set(),
}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_caption_names_categories_by_whole_words_in_singular_or_plural(caption):
    assert labels_shown([caption], COCO) == CAPTIONS[caption]


def test_any_caption_of_an_image_counts():
    assert labels_shown(["a cat", "an animal", "two dogs"], COCO) == {"cat", "dog"}


def test_the_categories_are_80_labels_that_the_product_accepts():
    labels = coco_categories().labels
    assert len(checked_labels(labels)) == 80
    assert (labels[0], labels[-1]) == ("person", "toothbrush")


def test_no_name_belongs_to_two_categories():
    assert {phrase: labels for phrase, labels in COCO.items() if len(labels) > 1} == {}


def test_classes_with_the_same_first_name_get_different_labels():
    found = imagenet_classes(
        ["crane", "Cardigan, Welsh corgi", "cardigan", "maillot", "maillot, tank suit", "dam, dyke"]
    )
    assert found.labels == ["crane", "Welsh corgi", "cardigan", "maillot", "tank suit", "dam"]
    phrases = phrases_of(found)
    assert phrases["maillots"] == {"maillot", "tank suit"}
    assert phrases["dyke"] == {"dam"}


def test_the_imagenet_classes_are_1000_labels_that_the_product_accepts():
    found = imagenet_classes(timm_descriptions())
    assert len(checked_labels(found.labels)) == 1000
    assert found.labels[517] == "construction crane"
    assert labels_shown(["a hotdog by a cab"], phrases_of(found)) == {"hotdog", "cab"}
    assert labels_shown(["his head in the light"], phrases_of(found)) == set()


def test_phrases_with_another_meaning_name_no_label():
    phrases = phrases_of(LabelSet({"promontory": ("promontory", "head"), "cat": ("cat",)}, ("head",)))
    assert labels_shown(["heads of cats"], phrases) == {"cat"}

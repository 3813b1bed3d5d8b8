"""Recall by the things that captions name."""

import numpy as np

from image_finder.components.evaluation.things_found import ThingFound, things_found
from image_finder.components.metrics.ranks import first_match_ranks


def test_a_thing_has_the_recall_of_the_captions_that_name_it():
    captions = ["a dog", "two dogs", "a red dog", "a dog and a cat", "dogs", "a cat", "a red cat"]
    images = np.eye(7, dtype=np.float32)
    texts = images.copy()
    texts[[0, 1]] = texts[[1, 0]]  # "a dog" finds the second image first, "two dogs" the first one
    ranks = first_match_ranks(images, texts, np.arange(7))
    assert things_found(captions, ranks, 1) == [ThingFound("dog", 0.6, 5)]  # "cat": three images; red is no thing


def test_the_captions_of_few_images_say_little():
    images = np.eye(4, dtype=np.float32)
    ranks = first_match_ranks(images, np.repeat(images, 2, axis=0), np.repeat(np.arange(4), 2))
    assert things_found(["a dog"] * 8, ranks, 1) == []

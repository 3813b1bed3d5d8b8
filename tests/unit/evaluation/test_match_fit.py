"""When hits are called good matches, learned from made-up images whose answers are known."""

import numpy as np
import pytest

from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.evaluation.caption_nouns import single_words, things_named
from image_finder.components.evaluation.match_fit import MIN_PRECISION, fit_matches
from image_finder.components.search.matching import background, count_good, match_features, model_for, query_words

WORDS = single_words()
DIM = 256


def world(seed: int, n_images: int, clarity: float):
    """Images of three things each; a text's vector is the sum of its things'.

    clarity: of things in image vectors.
    """
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    axes = {min(things_named(word)): directions[row] for row, word in enumerate(WORDS)}
    shown = [rng.choice(len(WORDS), 3, replace=False) for _ in range(n_images)]
    captions = [[f"a {WORDS[a]} with a {WORDS[b]} and a {WORDS[c]}"] * 2 for a, b, c in shown]

    def encode(texts):
        rows = [
            np.sum([axes[thing] for thing in things_named(text)] or [rng.normal(size=DIM)], axis=0) for text in texts
        ]
        return unit(rows)

    noise = rng.normal(size=(n_images, DIM)) / np.sqrt(DIM)
    images = unit(clarity * encode([each[0] for each in captions]) + noise)
    return images, captions, encode


def unit(rows):
    vectors = np.array(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.of([f"a {word}" for word in WORDS] * 40)


def judged(models, images, captions, encode, vocabulary):
    """Precision of the good hits of all words, and how many there are."""
    right, n_good = 0, 0
    for word in WORDS:
        cosines = (images @ encode([word])[0]).astype(np.float64)
        best = np.argsort(-cosines)[:100]
        words = query_words(word, vocabulary)
        ranks = np.arange(1.0, 101)
        features = match_features(cosines[best], ranks, len(images), background(cosines), words)
        good = best[: count_good(model_for(models, words), features)]
        n_good += len(good)
        right += sum(word in captions[row][0].split() for row in good)
    return right / max(n_good, 1), n_good


def test_good_hits_are_right_in_images_that_were_not_fitted_to(vocabulary):
    images, captions, encode = world(0, 600, clarity=1.5)
    models = fit_matches(images, captions, vocabulary, encode)
    assert models.short is not None
    assert models.short.precision >= MIN_PRECISION
    others, their_captions, encode = world(1, 900, clarity=1.5)
    precision, n_good = judged(models, others, their_captions, encode, vocabulary)
    assert precision >= 0.8
    assert n_good > 300


def test_where_hits_are_no_better_than_chance_nothing_is_called_good(vocabulary):
    images, captions, encode = world(2, 300, clarity=0.0)
    assert fit_matches(images, captions, vocabulary, encode).short is None


def test_captions_that_name_no_known_thing_give_no_model():
    images = unit(np.random.default_rng(0).normal(size=(80, 16)))
    captions = [["ein Hund am Strand"]] * 80
    models = fit_matches(
        images, captions, Vocabulary.of(["ein Hund am Strand"] * 80), lambda texts: images[: len(texts)]
    )
    assert (models.short, models.long) == (None, None)

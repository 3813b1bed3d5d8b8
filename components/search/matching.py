"""Matching: decides which leading hits of a text are good matches; arithmetic on scores.

Cosines of different texts are not comparable: "the eiffel tower" finds other towers with higher cosines than "dog" finds
most dogs. So a hit is judged by how far its cosine is above those of unrelated images for the same text (z), by its rank
among the images, and by how often the words of the text occurred in training. The cosines of unrelated images are estimated
from the lower half of those of a sample of the library, which matching images hardly change (an empirical null: B. Efron
2004, "Large-Scale Simultaneous Hypothesis Testing", JASA 99).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_finder.components.captions.vocabulary import Vocabulary, content_words
from image_finder.components.records.calibration import MATCH_FEATURES, MatchModel, MatchModels

MIN_IMAGES = 50  # with fewer, unrelated and matching images cannot be distinguished by their cosines
SAMPLE_IMAGES = 2048
# Texts of things that a library lacks mostly have a rarer word ("decker", "squirrel"), and rare words are learned badly.
MIN_CAPTIONS_OF_WORD = 30
SHORT_WORDS = 2  # content words
_MIN_SPREAD = 1e-6
_SHARES, _LEAST_EXCESS = (1e-4, 0.02), 1e-3
_NORMAL_5_PERCENT = 1.645  # standard deviations from the median of a normal distribution to its 5 % quantile

Floats = NDArray[np.float64]


class Background(NamedTuple):
    """Cosines of a text with unrelated images: median and standard deviation.

    excess: share of images more than 3 standard deviations above the median.
    """

    median: float
    spread: float
    excess: float


class QueryWords(NamedTuple):
    """Content words of a text: their number and their frequency in training captions.

    rarest: captions with the rarest word; mean: mean over words of log(1 + captions).
    """

    rarest: int
    mean: float
    words: int

    @property
    def known(self) -> bool:
        """Whether each word occurred in training often enough to call a hit good."""
        return self.rarest >= MIN_CAPTIONS_OF_WORD


def background(cosines: Floats) -> Background:
    """Background of a text from its cosines with a sample of a library: (n,), n >= MIN_IMAGES."""
    low, median = np.quantile(cosines, [0.05, 0.5])
    spread = max(float(median - low) / _NORMAL_5_PERCENT, _MIN_SPREAD)
    return Background(float(median), spread, float(np.mean(cosines > median + 3 * spread)))


def query_words(text: str, vocabulary: Vocabulary | None) -> QueryWords | None:
    """How often a text's words occurred in training; None if none did.

    vocabulary: with counts; None for an imported model, whose training is unknown: every word then counts as frequent.
    """
    words = content_words(text)
    if vocabulary is None:
        counts = [MIN_CAPTIONS_OF_WORD] * len(words)
    else:
        counts = [vocabulary.captions_with(word) for word in words]
    if not any(counts):
        return None
    return QueryWords(min(counts), sum(map(math.log1p, counts)) / len(counts), len(words))


def match_features(cosines: Floats, ranks: Floats, n_images: int, unrelated: Background, words: QueryWords) -> Floats:
    """Features of hits in the order of records.MATCH_FEATURES: (n, 8).

    cosines: (n,) of the text with the hits; ranks: (n,) from 1 among n_images, near-duplicates included. ranks / n_images
    shows how common the thing is in this library; it is clipped at 2 %, above which it has no effect.
    """
    columns = np.empty((len(cosines), len(MATCH_FEATURES)))
    columns[:, 0] = cosines
    columns[:, 1] = (cosines - unrelated.median) / unrelated.spread
    columns[:, 2] = np.log(np.clip(ranks / n_images, *_SHARES))
    columns[:, 3] = unrelated.spread
    columns[:, 4] = math.log(max(unrelated.excess, _LEAST_EXCESS))
    columns[:, 5:] = math.log1p(words.rarest), words.mean, words.words
    return columns


def probabilities(model: MatchModel, features: Floats) -> Floats:
    """Probability of each hit, (n,), that it matches the text."""
    logits = features @ np.array(model.coefficients) + model.intercept
    chances: Floats = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
    return chances


def model_for(models: MatchModels, words: QueryWords) -> MatchModel | None:
    return models.short if words.words <= SHORT_WORDS else models.long


def count_good(model: MatchModel, features: Floats) -> int:
    """Number of leading hits that are good matches: no hit is good below one that is not."""
    good = probabilities(model, features) >= model.min_probability
    return len(good) if good.all() else int(np.argmin(good))

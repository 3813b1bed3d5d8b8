"""Match fit: learns when a hit is a good match, from captioned images that the model was not trained on; reads no file.

Queries are single words and captions. Each is searched in galleries of several sizes, and again without its right
images, as if the thing were absent. Captions decide which images are right (caption_nouns.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from image_finder.components.arrays import Mask, Rows, Vectors
from image_finder.components.captions.vocabulary import Vocabulary, content_words, word_forms
from image_finder.components.evaluation.caption_nouns import is_right, single_words, things_named, things_shown
from image_finder.components.records.calibration import MatchModel, MatchModels
from image_finder.components.search.matching import (
    MIN_IMAGES,
    SHORT_WORDS,
    QueryWords,
    background,
    match_features,
    query_words,
)

# The product promises 0.8; libraries differ from these galleries. In one gallery the captions of a few words decide.
MIN_PRECISION, MIN_PRECISION_OF_ONE = 0.85, 0.78
# A caption without its right images is harder than an absent thing, because images that differ in one detail remain. So
# such searches are excluded from the fit for long texts, and their limit is wider.
MAX_ABSENT_SHORT, MAX_ABSENT_LONG = 0.03, 0.2
_GALLERIES = (200, 700)
_CAPTIONS = 800
_ABSENT_WORDS = 200
_DEPTH = 25  # hits per search in the fit: those that people look at
_FOLDS = 5
_MIN_RIGHT = 8  # right images of a word; with fewer, chance decides the precision
_MIN_GOOD = 10  # hits above a threshold; with fewer, chance decides the precision
_MIN_QUERIES = 40

EncodeQueries = Callable[[Sequence[str]], Vectors]


class _Query(NamedTuple):
    """own: row of a caption's image, else -1; key: texts with one key stay in one fold."""

    text: str
    own: int
    key: str


class _Hits(NamedTuple):
    """Hits of many searches, (n, ...) each; start: row of the first hit of the search."""

    features: NDArray[np.float64]
    right: Mask
    query: Rows
    group: Rows
    gallery: Rows
    absent: Mask
    start: Rows


@dataclass(frozen=True)
class _Search:
    """images: (n, dim) unit rows to search; shown: things in the captions of each image; vocabulary: of the features."""

    images: Vectors
    shown: Sequence[frozenset[str]]
    galleries: Sequence[Rows]
    vocabulary: Vocabulary | None
    encode: EncodeQueries


def fit_matches(
    images: Vectors,
    captions_of: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    encode: EncodeQueries,
    *,
    source_of: Sequence[int] | None = None,
    trained_on_it: bool = True,
    seed: int = 0,
) -> MatchModels:
    """Fit the models for short and for long texts.

    images: (n, dim) unit rows; captions_of: captions of each image; vocabulary: with counts; encode: unit vectors of
    texts as in a search; source_of: data set number of each image; each data set is a gallery too. trained_on_it: whether
    the model was trained on the vocabulary's captions; if not, how often a word occurs there is no feature. A model is
    None if there are too few queries, as with captions that are not English, or if no threshold reaches the promised
    precision.
    """
    rng = np.random.default_rng(seed)
    shown = [things_shown(captions) for captions in captions_of]
    galleries = _galleries(np.array([0] * len(images) if source_of is None else source_of), rng)
    search = _Search(images, shown, galleries, vocabulary if trained_on_it else None, encode)
    words = [*_known_words(shown, vocabulary), *_absent_words(captions_of, vocabulary, rng)]
    captions = _drawn_captions(captions_of, vocabulary, rng)
    return MatchModels(
        short=_model(search, words, fit_absent=True, max_absent=MAX_ABSENT_SHORT),
        long=_model(search, captions, fit_absent=False, max_absent=MAX_ABSENT_LONG),
    )


# Queries and galleries


def _known_words(shown: Sequence[frozenset[str]], vocabulary: Vocabulary) -> list[_Query]:
    queries = []
    for word in single_words():
        named = things_named(word)
        if _known(word, vocabulary) and sum(is_right(named, each) for each in shown) >= _MIN_RIGHT:
            queries += [_Query(text, -1, min(named)) for text in (word, f"a {word}")]
    return queries


def _absent_words(
    captions_of: Sequence[Sequence[str]], vocabulary: Vocabulary, rng: np.random.Generator
) -> list[_Query]:
    """Training words that no caption of these images contains: all their hits are wrong."""
    present = {word for captions in captions_of for caption in captions for word in content_words(caption)}
    absent = [word for word in vocabulary.words if _known(word, vocabulary) and present.isdisjoint(word_forms(word))]
    return [_Query(absent[row], -1, absent[row]) for row in np.sort(rng.permutation(len(absent))[:_ABSENT_WORDS])]


def _drawn_captions(
    captions_of: Sequence[Sequence[str]], vocabulary: Vocabulary, rng: np.random.Generator
) -> list[_Query]:
    every = [
        _Query(caption, row, str(row))
        for row, captions in enumerate(captions_of)
        for caption in captions
        if things_named(caption) and (words := _known(caption, vocabulary)) and words.words > SHORT_WORDS
    ]
    return [every[row] for row in np.sort(rng.permutation(len(every))[:_CAPTIONS])]


def _known(text: str, vocabulary: Vocabulary) -> QueryWords | None:
    words = query_words(text, vocabulary)
    return words if words and words.known else None


def _galleries(sources: NDArray[np.int64], rng: np.random.Generator) -> list[Rows]:
    """Rows of each gallery, ascending: random samples, all images, and each data set."""
    n_images = len(sources)
    drawn = [np.sort(rng.choice(n_images, size, replace=False)) for size in _GALLERIES if size < n_images]
    kinds = np.unique(sources)
    alone = [np.flatnonzero(sources == kind) for kind in kinds] if len(kinds) > 1 else []
    return [rows for rows in (*drawn, np.arange(n_images), *alone) if len(rows) >= MIN_IMAGES]


# Searches


def _all_hits(search: _Search, queries: Sequence[_Query]) -> _Hits:
    vectors = search.encode([query.text for query in queries])
    keys = {key: number for number, key in enumerate(dict.fromkeys(query.key for query in queries))}
    found = [
        hits
        for number, (query, vector) in enumerate(zip(queries, vectors, strict=True))
        for hits in _hits_of(search, query, vector, (number, keys[query.key]))
    ]
    starts = np.cumsum([0, *(len(hits.right) for hits in found[:-1])]).tolist()
    placed = [hits._replace(start=hits.start + start) for hits, start in zip(found, starts, strict=True)]
    return _Hits(*(np.concatenate(parts) for parts in zip(*placed, strict=True)))


def _hits_of(search: _Search, query: _Query, vector: Vectors, numbers: tuple[int, int]) -> list[_Hits]:
    words = query_words(query.text, search.vocabulary)
    assert words is not None, "queries without known words are never drawn"
    named = things_named(query.text)
    right = np.array([is_right(named, each) for each in search.shown])
    if query.own >= 0:
        right[query.own] = True
    cosines = search.images.astype(np.float64) @ vector.astype(np.float64)
    found = []
    for number, gallery in enumerate(search.galleries):
        without = gallery[~right[gallery]]
        if len(without) < len(gallery):
            found.append(_hits(cosines[gallery], right[gallery], words, (*numbers, number, False)))
        if len(without) >= MIN_IMAGES:
            found.append(_hits(cosines[without], right[without], words, (*numbers, number, True)))
    return found


def _hits(cosines: NDArray[np.float64], right: Mask, words: QueryWords, labels: tuple[int, int, int, bool]) -> _Hits:
    best = np.argsort(-cosines, kind="stable")[:_DEPTH]
    ranks = np.arange(1.0, len(best) + 1)
    features = match_features(cosines[best], ranks, len(cosines), background(cosines), words)
    query, group, gallery, absent, start = (np.full(len(best), label) for label in (*labels, 0))
    return _Hits(features, right[best], query, group, gallery, absent, start)


# Fit


def _model(search: _Search, queries: Sequence[_Query], *, fit_absent: bool, max_absent: float) -> MatchModel | None:
    """Fit all hits; the threshold keeps the promised precision in cross-validation."""
    if len(queries) < _MIN_QUERIES or not search.galleries:
        return None
    hits = _all_hits(search, queries)
    fitted = np.flatnonzero(~hits.absent | fit_absent)
    if len(np.unique(hits.right[fitted])) < 2 or len(np.unique(hits.group)) < _FOLDS:
        return None
    probabilities = np.empty(len(hits.right))
    for rest, judged in GroupKFold(_FOLDS).split(hits.features, groups=hits.group):
        probabilities[judged] = _regression(hits, np.intersect1d(rest, fitted)).predict_proba(hits.features[judged])[
            :, 1
        ]
    chosen = _min_probability(hits, probabilities, max_absent)
    if chosen is None:
        return None
    scaler, regression = (step for _, step in _regression(hits, fitted).steps)
    coefficients = regression.coef_[0] / scaler.scale_
    return MatchModel(
        coefficients=tuple(coefficients.round(6).tolist()),
        intercept=round(float(regression.intercept_[0] - coefficients @ scaler.mean_), 6),
        min_probability=chosen[0],
        precision=round(chosen[1], 4),
        n_queries=len(queries),
    )


def _regression(hits: _Hits, rows: Rows) -> Pipeline:
    model: Pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return model.fit(hits.features[rows], hits.right[rows])


def _min_probability(hits: _Hits, probabilities: NDArray[np.float64], max_absent: float) -> tuple[float, float] | None:
    """Lowest probability that keeps both promises, and its precision.

    The promises are the precision, and the share of absent queries with a good hit.
    """
    galleries = [hits.gallery == gallery for gallery in np.unique(hits.gallery)]
    for least in np.arange(0.3, 0.99, 0.01).round(2).tolist():
        good = _leading(hits, probabilities >= least)
        if np.count_nonzero(good & ~hits.absent) < _MIN_GOOD:
            return None
        precision = float(hits.right[good & ~hits.absent].mean())
        kept = precision >= MIN_PRECISION and _n_queries(hits, good & hits.absent) <= max_absent * _n_queries(
            hits, hits.absent
        )
        if kept and all(_holds(hits, good, here, max_absent) for here in galleries):
            return least, precision
    return None


def _holds(hits: _Hits, good: Mask, here: Mask, max_absent: float) -> bool:
    """Whether one gallery keeps the promise, with wider limits because few of its hits are good."""
    present, absent = here & ~hits.absent, here & hits.absent
    n_good = np.count_nonzero(good & present)
    precise = n_good < _MIN_GOOD or float(hits.right[good & present].mean()) >= MIN_PRECISION_OF_ONE
    return precise and _n_queries(hits, good & absent) <= 1.5 * max_absent * _n_queries(hits, absent)


def _n_queries(hits: _Hits, rows: Mask) -> int:
    return len(np.unique(hits.query[rows]))


def _leading(hits: _Hits, good: Mask) -> Mask:
    """Good hits before the first of their search that is not; hits of a search are adjacent, best first."""
    failures = np.concatenate([[0], np.cumsum(~good)])
    leading: Mask = failures[1:] == failures[hits.start]
    return leading

"""Negation: how the terms of `not` lower scores, and which words stand for a group; knows nothing of models or indexes.

An unwanted term lowers an image's score by a share of the term's own cosine, so images that show it rank lower; none is
removed. The score stays linear in the image's vector: one pass over the vectors answers a query with any number of
unwanted terms, and every tier of an index ranks it as it ranks other queries.

Chosen on 1,200 captioned photographs (Flickr8k val, 200 of COCO val2017) with 231 pairs of a query and an unwanted
thing; tests/benchmarks/bench_negation.py reports 20 other pairs. At an equal number of unwanted images among the first
20, a maximum over the terms of a group, a hinge, a sigmoid and texts such as "a beach with people" find no more wanted
ones than the mean of the group's terms does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.data.vocabulary import words_of
from components.search.exact import Vectors


class Group(NamedTuple):
    """General words that captions rarely use, and terms that captions use instead.

    words: without articles, in lower case; strength: factor of the weight.
    """

    words: frozenset[str]
    terms: tuple[str, ...]
    strength: float = 1.0


# A word is here if its terms remove more than the word alone does at no cost in wanted images, or keep more of those.
# Measured without effect, so absent: dogs, women, buildings, trees, flowers, water, cars, and singular against plural.
GROUPS = (
    Group(
        frozenset(
            "people person persons human humans human-being human-beings anyone anybody someone somebody everyone "
            "everybody folks".split()
        ),
        ("people", "men", "women", "children"),
        1.3,  # with 1 they fill more of the first 20 than any other group, and the wanted images gain nothing
    ),
    Group(frozenset("child children kid kids".split()), ("children",)),
    Group(frozenset("man men guy guys".split()), ("men", "man")),
    Group(frozenset("animal animals creature creatures".split()), ("animals", "animal")),
    Group(frozenset("vehicle vehicles".split()), ("vehicles", "cars", "bicycles", "motorcycles", "boats")),
    Group(frozenset("food foods meal meals".split()), ("food", "meal")),
    Group(
        frozenset("text texts writing letters lettering words inscription inscriptions".split()),
        ("signs", "posters", "writing"),
    ),
    Group(frozenset("sport sports".split()), ("sports", "players", "game")),
)
_ARTICLES = frozenset({"a", "an", "the", "any", "some"})
_GROUP_OF = {word: group for group in GROUPS for word in group.words}


def group_of(text: str) -> Group | None:
    """The group that an unwanted text names as a whole ("people", "Any person"), None if it names none."""
    words = words_of(text.casefold())
    if words and words[0] in _ARTICLES:
        words = words[1:]
    return _GROUP_OF.get("-".join(words))


def lowered(wanted: Vectors, unwanted: Sequence[tuple[Vectors, float]]) -> Vectors:
    """Scores (n,) of a query's wanted terms, lowered by scores (n,) and weights of its unwanted terms: (n,) float32.

    The same for vectors (dim,), as the score is linear. Subtracts the weighted mean of the unwanted scores times the
    root of the sum of the squared weights: one term counts with its weight w, m equal ones with w / sqrt(m) each. With
    w each, they would outweigh the query: with 4 terms 9 of the first 20 show what it names, with w / sqrt(m) 15.
    """
    if not unwanted:
        return wanted
    weights = np.array([weight for _, weight in unwanted])
    shares = weights / weights.sum() * np.linalg.norm(weights)
    result: Vectors = (wanted - shares @ np.stack([scores for scores, _ in unwanted])).astype(np.float32)
    return result

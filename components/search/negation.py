"""Negation: how `not` terms lower scores, and which words name a group.

A `not` term lowers an image's score by a share of the term's own cosine, so images that show it rank lower; none is
removed. The score stays linear in the image's vector: one pass over the vectors answers a query with any number of
`not` terms, and every tier of an index ranks it like other queries.

Chosen on the captions of 1,200 photographs (Flickr8k val, 200 of COCO val2017), with pairs of a query and a `not`
term other than the 20 that tests/benchmarks/bench_negation.py reports. With equally many images of the `not` term
among the first 20, a maximum over the terms of a group, a hinge, a sigmoid and texts such as "a beach with people"
keep no more images of the query than the mean of the group's terms.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import Vectors
from image_finder.components.captions.vocabulary import words_of


class Group(NamedTuple):
    """General words, and the terms that captions use for their meaning.

    words: lower case, without articles, separated by spaces; strength: factor of the weight.
    """

    words: str
    terms: tuple[str, ...]
    strength: float = 1.0


# A group is listed if its terms remove more than its word alone and cost no image of the query, keep more of those (animals,
# sports), or score images that show it higher (vehicles: area under the ROC curve 0.84, the word alone 0.77).
# Not listed, since without effect: dogs, women, buildings, trees, flowers, water, cars, and singular against plural.
GROUPS = (
    Group(
        "people person persons human humans human-being human-beings anyone anybody someone somebody everyone folks",
        ("people", "men", "women", "children"),
        1.3,  # of 10.6 such images in the first 20, 6.7 remain with 1.3 and 7.6 with 1; images of the query: 12.2, 12.6 of 12.1
    ),
    Group("child children kid kids", ("children",)),
    Group("man men guy guys", ("men", "man")),
    Group("animal animals creature creatures", ("animals", "animal")),
    Group("vehicle vehicles", ("vehicles", "cars", "bicycles", "motorcycles", "boats")),
    Group("food foods meal meals", ("food", "meal")),
    Group("text texts writing letters lettering words inscription inscriptions", ("signs", "posters", "writing")),
    Group("sport sports", ("sports", "players", "game")),
)
_ARTICLES = frozenset({"a", "an", "the", "any", "some"})
_GROUP_OF = {word: group for group in GROUPS for word in group.words.split()}


def group_of(text: str) -> Group | None:
    """The group that a whole text names ("people", "Any person"), None if it names none."""
    words = words_of(text.casefold())
    if words and words[0] in _ARTICLES:
        words = words[1:]
    return _GROUP_OF.get("-".join(words))


def lowered(terms: Vectors, not_terms: Sequence[tuple[Vectors, float]]) -> Vectors:
    """Scores (n,) of a query's terms, lowered by those of its `not` terms: (n,) float32.

    not_terms: scores (n,) and weight of each. Vectors (dim,) may replace scores, as the score is linear. Subtracts
    the weighted mean of the `not` scores times the root of the sum of the squared weights: one term counts with its
    weight w, m equal ones with w / sqrt(m) each. With w each, they would outweigh the query: of 16.7 images of the
    query among the first 20, 4 terms would leave 12.5, not 17.1.
    """
    if not not_terms:
        return terms
    weights = np.array([weight for _, weight in not_terms])
    shares = weights / weights.sum() * np.linalg.norm(weights)
    result: Vectors = (terms - shares @ np.stack([scores for scores, _ in not_terms])).astype(np.float32)
    return result

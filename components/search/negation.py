"""Negation: how the terms of `not` lower scores, and which words stand for a group; knows nothing of models or indexes.

An unwanted term lowers an image's score by a share of the term's own cosine, so images that show it rank lower; none is
removed. The score stays linear in the image's vector: one pass over the vectors answers a query with any number of
unwanted terms, and every tier of an index ranks it as it ranks other queries.

Chosen on the captions of 1,200 photographs (Flickr8k val, 200 of COCO val2017), on other pairs of a query and an unwanted
thing than the 20 that tests/benchmarks/bench_negation.py reports. At an equal number of unwanted images among the first
20, a maximum over the terms of a group, a hinge, a sigmoid and texts such as "a beach with people" keep no more wanted
ones than the mean of the group's terms does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import Vectors
from image_finder.components.captions.vocabulary import words_of


class Group(NamedTuple):
    """General words, and the terms that captions use for what they mean.

    words: in lower case, without articles, separated by blanks; strength: factor of the weight.
    """

    words: str
    terms: tuple[str, ...]
    strength: float = 1.0


# A group is here if its terms remove more than its word alone at no cost in wanted images, keep more of those (animals,
# sports), or score images that show it higher (vehicles: area under the ROC curve 0.84, the word alone 0.77).
# Without effect and therefore absent: dogs, women, buildings, trees, flowers, water, cars, and singular against plural.
GROUPS = (
    Group(
        "people person persons human humans human-being human-beings anyone anybody someone somebody everyone folks",
        ("people", "men", "women", "children"),
        1.3,  # of 10.6 among the first 20, 6.7 remain with 1.3 and 7.6 with 1; the wanted ones are 12.2 and 12.6 of 12.1
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
    """The group that an unwanted text names as a whole ("people", "Any person"), None if it names none."""
    words = words_of(text.casefold())
    if words and words[0] in _ARTICLES:
        words = words[1:]
    return _GROUP_OF.get("-".join(words))


def lowered(wanted: Vectors, unwanted: Sequence[tuple[Vectors, float]]) -> Vectors:
    """Scores (n,) of a query's wanted terms, lowered by scores (n,) and weights of its unwanted terms: (n,) float32.

    The same for vectors (dim,), as the score is linear. Subtracts the weighted mean of the unwanted scores times the
    root of the sum of the squared weights: one term counts with its weight w, m equal ones with w / sqrt(m) each. With
    w each, they would outweigh the query: of 16.7 wanted images among the first 20, 4 terms would leave 12.5, not 17.1.
    """
    if not unwanted:
        return wanted
    weights = np.array([weight for _, weight in unwanted])
    shares = weights / weights.sum() * np.linalg.norm(weights)
    result: Vectors = (wanted - shares @ np.stack([scores for scores, _ in unwanted])).astype(np.float32)
    return result

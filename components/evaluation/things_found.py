"""Things found: recall of the captions that name a thing, to say what a model finds and what it does not."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from image_finder.components.evaluation.caption_nouns import COLOURS, things_named
from image_finder.components.metrics.ranks import MatchRanks

_MIN_IMAGES = 5


class ThingFound(NamedTuple):
    """Recall (0 to 1) of the captions that name a thing."""

    thing: str
    recall: float
    n_captions: int


def things_found(captions: Sequence[str], ranks: MatchRanks, k: int) -> list[ThingFound]:
    """Text-to-image recall@k by thing, the highest first; only things that captions of five images or more name."""
    named = [things_named(caption) for caption in captions]
    found = []
    for thing in frozenset().union(*named) - COLOURS:
        rows = np.array([thing in each for each in named], dtype=np.bool_)
        if len(np.unique(ranks.image_of_caption[rows])) >= _MIN_IMAGES:
            recall = float((ranks.text_to_image[rows] <= k).mean())
            found.append(ThingFound(thing, recall, int(rows.sum())))
    return sorted(found, key=lambda each: (-each.recall, each.thing))

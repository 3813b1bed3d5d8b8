"""Words of captions: what is compared of a picture's captions, without keeping their text; knows nothing of pictures."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from components.drift.distances import FloatRows
from components.drift.divisions import Values

LONGEST = 200  # words; a longer caption counts as one of so many
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")  # "isn't" and "t-shirt" are one word


class PictureWords(NamedTuple):
    """Captions of one picture: words in each, and how often each word stands in all of them. Their order is not kept."""

    lengths: tuple[int, ...]
    counts: Mapping[str, int]


def picture_words(captions: Sequence[str]) -> PictureWords:
    """Words of one picture's captions, in lower case. Scripts without spaces count as one word a run."""
    words = [_WORD.findall(caption.lower()) for caption in captions]
    return PictureWords(tuple(map(len, words)), Counter(word for caption in words for word in caption))


def pictures_with_word(pictures: Iterable[Sequence[str]]) -> Counter[str]:
    """By word, the number of pictures whose captions hold it."""
    found: Counter[str] = Counter()
    for captions in pictures:
        found.update(picture_words(captions).counts.keys())
    return found


def length_histograms(pictures: Sequence[PictureWords]) -> Values:
    """Distribution of caption lengths by picture: (pictures, LONGEST + 1), rows sum to 1. Every picture has captions."""
    histograms = np.zeros((len(pictures), LONGEST + 1))
    for row, picture in enumerate(pictures):
        for length in picture.lengths:
            histograms[row, min(length, LONGEST)] += 1 / len(picture.lengths)
    return histograms


def commonest_words(pictures: Iterable[PictureWords], count: int) -> list[str]:
    """The count words that stand in most captions; of equally common ones the first by alphabet."""
    total: Counter[str] = Counter()
    for picture in pictures:
        total.update(picture.counts)
    return sorted(total, key=lambda word: (-total[word], word))[:count]


def word_frequencies(pictures: Sequence[PictureWords], words: Sequence[str]) -> FloatRows:
    """Shares of these words and, last, of all others by picture: (pictures, words + 1), rows sum to 1.

    A picture whose captions hold no word at all has all its share in the last column.
    """
    column = {word: place for place, word in enumerate(words)}
    shares = np.zeros((len(pictures), len(words) + 1), np.float32)
    for row, picture in enumerate(pictures):
        total = sum(picture.counts.values())
        for word, count in picture.counts.items():
            shares[row, column.get(word, len(words))] += count / total
        if not total:
            shares[row, -1] = 1
    return shares


def unseen_shares(
    pictures: Sequence[PictureWords], pictures_of_word: Mapping[str, int], *, counted_themselves: bool
) -> Values:
    """Share of each picture's words that stand in no (other) picture of a data set, (pictures,).

    pictures_of_word: as `pictures_with_word` gives; counted_themselves: whether these pictures are among its pictures,
    so that a word of theirs alone counts as unseen.
    """
    least = 2 if counted_themselves else 1
    shares = np.zeros(len(pictures))
    for row, picture in enumerate(pictures):
        unseen = sum(count for word, count in picture.counts.items() if pictures_of_word.get(word, 0) < least)
        shares[row] = unseen / max(1, sum(picture.counts.values()))
    return shares

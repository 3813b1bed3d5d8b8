"""Words of captions: what is compared of an image's captions, without keeping their text; knows nothing of images."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import FloatMatrix
from image_finder.components.drift.divisions import Values

LONGEST = 200  # words; a longer caption counts as one of so many
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")  # "isn't" and "t-shirt" are one word


class ImageWords(NamedTuple):
    """Captions of one image: words in each, and how often each word stands in all of them. Their order is not kept."""

    lengths: tuple[int, ...]
    counts: Mapping[str, int]


def image_words(captions: Sequence[str]) -> ImageWords:
    """Words of one image's captions, in lower case. Scripts without spaces count as one word a run."""
    words = [_WORD.findall(caption.lower()) for caption in captions]
    return ImageWords(tuple(map(len, words)), Counter(word for caption in words for word in caption))


def images_with_word(images: Iterable[Sequence[str]]) -> Counter[str]:
    """By word, the number of images whose captions hold it."""
    found: Counter[str] = Counter()
    for captions in images:
        found.update(image_words(captions).counts.keys())
    return found


def length_histograms(images: Sequence[ImageWords]) -> Values:
    """Distribution of caption lengths by image: (images, LONGEST + 1), rows sum to 1. Every image has captions."""
    histograms = np.zeros((len(images), LONGEST + 1))
    for row, image in enumerate(images):
        for length in image.lengths:
            histograms[row, min(length, LONGEST)] += 1 / len(image.lengths)
    return histograms


def commonest_words(images: Iterable[ImageWords], count: int) -> list[str]:
    """The count words that stand in most captions; of equally common ones the first by alphabet."""
    total: Counter[str] = Counter()
    for image in images:
        total.update(image.counts)
    return sorted(total, key=lambda word: (-total[word], word))[:count]


def word_frequencies(images: Sequence[ImageWords], words: Sequence[str]) -> FloatMatrix:
    """Shares of these words and, last, of all others by image: (images, words + 1), rows sum to 1.

    An image whose captions hold no word at all has all its share in the last column.
    """
    column = {word: place for place, word in enumerate(words)}
    shares = np.zeros((len(images), len(words) + 1), np.float32)
    for row, image in enumerate(images):
        total = sum(image.counts.values())
        for word, count in image.counts.items():
            shares[row, column.get(word, len(words))] += count / total
        if not total:
            shares[row, -1] = 1
    return shares


def unseen_shares(
    images: Sequence[ImageWords], images_of_word: Mapping[str, int], *, counted_themselves: bool
) -> Values:
    """Share of each image's words that stand in no (other) image of a data set, (images,).

    images_of_word: as `images_with_word` gives; counted_themselves: whether these images are among its images,
    so that a word of theirs alone counts as unseen.
    """
    least = 2 if counted_themselves else 1
    shares = np.zeros(len(images))
    for row, image in enumerate(images):
        unseen = sum(count for word, count in image.counts.items() if images_of_word.get(word, 0) < least)
        shares[row] = unseen / max(1, sum(image.counts.values()))
    return shares

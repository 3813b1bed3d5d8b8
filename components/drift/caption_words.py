"""Words of captions: word counts and lengths per image, without the text itself; knows nothing of images."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import FloatMatrix
from image_finder.components.drift.permutation import Values

LONGEST = 200  # words; longer captions count as this long
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")  # "isn't" and "t-shirt" are one word


class ImageWords(NamedTuple):
    """Captions of one image: words in each, and count of each word in all of them."""

    lengths: tuple[int, ...]
    counts: Mapping[str, int]


def image_words(captions: Sequence[str]) -> ImageWords:
    """Words of one image's captions, in lower case; in scripts without spaces, an unbroken run is one word."""
    words = [_WORD.findall(caption.lower()) for caption in captions]
    return ImageWords(tuple(map(len, words)), Counter(word for caption in words for word in caption))


def images_with_word(images: Iterable[Sequence[str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for captions in images:
        found.update(image_words(captions).counts.keys())
    return found


def length_histograms(images: Sequence[ImageWords]) -> Values:
    """Distribution of caption lengths per image, each with a caption: (images, LONGEST + 1), rows sum to 1."""
    histograms = np.zeros((len(images), LONGEST + 1))
    for row, image in enumerate(images):
        for length in image.lengths:
            histograms[row, min(length, LONGEST)] += 1 / len(image.lengths)
    return histograms


def commonest_words(images: Iterable[ImageWords], count: int) -> list[str]:
    """The most frequent words, ties in alphabetical order."""
    total: Counter[str] = Counter()
    for image in images:
        total.update(image.counts)
    return sorted(total, key=lambda word: (-total[word], word))[:count]


def word_frequencies(images: Sequence[ImageWords], words: Sequence[str]) -> FloatMatrix:
    """Shares of these words, and of all others in the last column, per image: (images, words + 1), rows sum to 1."""
    column = {word: number for number, word in enumerate(words)}
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
    """Share of each image's words that occur in no (other) image of a data set, (images,).

    images_of_word: result of `images_with_word`. counted_themselves: whether it includes these images.
    """
    min_images = 2 if counted_themselves else 1
    shares = np.zeros(len(images))
    for row, image in enumerate(images):
        unseen = sum(count for word, count in image.counts.items() if images_of_word.get(word, 0) < min_images)
        shares[row] = unseen / max(1, sum(image.counts.values()))
    return shares

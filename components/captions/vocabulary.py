"""Vocabulary: words of captions and queries, and their frequency in training; knows nothing of models.

For a word that no training caption holds, a contrastive model depends on the pre-training of its text trunk, which saw
no image. For captions of COCO with such a word the starter finds 80 % among the first five of 200 photographs, for
others 87 % (`image-finder models evaluate`, slice "words").
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from image_finder.components.records.base import Record

MIN_CAPTIONS = 2  # a word in a single caption may be mistyped
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")  # "isn't" and "t-shirt" are one word
# Words that name nothing visible.
FUNCTION_WORDS = frozenset(
    {
        *("a", "above", "against", "an", "and", "are", "as", "at", "away", "be", "been", "being", "below"),
        *("between", "both", "by", "down", "each", "for", "from", "front", "has", "have", "he", "her", "his", "in"),
        *("inside", "into", "is", "it", "its", "near", "next", "no", "not", "of", "off", "on", "one", "or", "onto"),
        *("other", "out", "outside", "over", "photo", "picture", "image", "s", "she", "some", "something", "that"),
        *("the", "their", "them", "there", "these", "they", "this", "those", "through", "to", "together", "under"),
        *("up", "very", "was", "were", "what", "which", "while", "who", "with"),
    }
)
_OWNS = re.compile(r"['\u2019]s?$")


def words_of(text: str) -> list[str]:
    return _WORD.findall(text)


def content_words(text: str) -> list[str]:
    """The words that name something, folded: no function words, no numbers."""
    folded = [word.casefold() for word in words_of(text)]
    return [word for word in folded if _names_something(word)]


def _names_something(folded: str) -> bool:
    return folded not in FUNCTION_WORDS and not folded.isdecimal()


class Vocabulary(Record):
    """Words of the captions that a model was trained on; stored in a bundle as vocabulary.json.

    words: folded and sorted, each in at least MIN_CAPTIONS captions. counts: captions with each; None in older bundles.
    """

    words: tuple[str, ...]
    n_captions: int
    counts: tuple[int, ...] | None = None

    @classmethod
    def of(cls, captions: Iterable[str]) -> "Vocabulary":
        counts: Counter[str] = Counter()
        n_captions = 0
        for caption in captions:
            n_captions += 1
            counts.update({word.casefold() for word in words_of(caption)})
        words = sorted(word for word, count in counts.items() if count >= MIN_CAPTIONS)
        return cls(words=tuple(words), n_captions=n_captions, counts=tuple(counts[word] for word in words))

    def captions_with(self, word: str) -> int:
        """Training captions with the most frequent form of a folded word. Raises ValueError if counts is None."""
        if self.counts is None:
            raise ValueError("this vocabulary holds no counts")
        return max(self._count_of.get(form, 0) for form in word_forms(word))

    def unmet(self, text: str) -> tuple[str, ...]:
        """Content words of a text that never occurred in training, in order, each once.

        A word is known in its singular or plural, and if all its parts between hyphens are known.
        """
        found = {word.casefold(): word for word in reversed(words_of(text)) if _names_something(word.casefold())}
        return tuple(word for folded, word in reversed(found.items()) if not self._has_met(folded))

    def _has_met(self, folded: str) -> bool:
        if self._is_known(folded):
            return True
        parts = folded.split("-")
        return len(parts) > 1 and all(part.isdecimal() or self._is_known(part) for part in parts)

    def _is_known(self, folded: str) -> bool:
        return not self._known.isdisjoint(word_forms(folded))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def _count_of(self) -> dict[str, int]:
        return dict(zip(self.words, self.counts or (), strict=True))


def word_forms(folded: str) -> set[str]:
    """A word with and without the endings of plural and genitive."""
    word = _OWNS.sub("", folded)
    return {folded, word, f"{word}s", f"{word}es", word.removesuffix("s"), word.removesuffix("es")}

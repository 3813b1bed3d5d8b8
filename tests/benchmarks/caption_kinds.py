"""Kinds of captions that may be hard to find: classified by words alone; knows nothing of models or images.

A caption can be of several kinds. The words were chosen on the captions of Flickr8k val and COCO val2017.
"""

import re

from image_finder.components.captions.vocabulary import Vocabulary, content_words, words_of

LONG_WORDS = 14
SHORT_WORDS = 8
RARE_CAPTIONS = 10  # a rare word occurs in fewer training captions

# Things that fit into one hand. COCO calls objects below 32 x 32 px small, but its captions do not state sizes. "Camera" is
# not among them: most captions mean the one that took the photograph.
SMALL_OBJECTS = (
    "apple|ball|banana|bat|book|bottle|candle|carrot|cell phone|cellphone|cigarette|cup|donut|earring|fork|frisbee|glasses|"
    "glove|knife|knives|microphone|mouse|mug|necklace|newspaper|paper|pen|pencil|phone|purse|racket|racquet|remote|scissors|"
    "spoon|stick|sunglasses|tie|toothbrush|wallet|wine glass"
)
COLOURS = (
    "red|reddish|blue|green|yellow|orange|pink|purple|violet|black|white|gray|grey|brown|tan|beige|golden|silver|maroon"
)
_SIDE = r"(?:left|right)"

# kind: words that make a caption one of it
_PATTERNS = {
    "counting": (
        r"two|three|four|five|six|seven|eight|nine|ten|[2-9]|10|couple of|pair of|groups? of|bunch of|crowd of|several"
    ),
    "three to ten": r"three|four|five|six|seven|eight|nine|ten|[3-9]|10",
    "colour": rf"(?:\w+-)*(?:{COLOURS})(?:-\w+)*",  # also "black-and-white" and "red-haired"
    "position": (
        r"(?:the|his|her|its|their|on|to|far|looks?|looking) "
        + _SIDE
        + rf"|{_SIDE} (?:side|hand|of)|above|under|underneath|"
        r"below|beneath|beside|behind|between|(?:in|on) front of|next to|on top of|in the middle of|across from"
    ),
    "small object": rf"(?:{SMALL_OBJECTS})(?:s|es)?",
    "negation": r"without|no|not|none|nobody|nothing|never|\w+n't",
    # not gestures: "a thumbs-up sign", "the sign for peace", "sign language"
    "text in the image": r"(?<!up )(?<!peace )signs?(?! for| language)|says?|saying|words?|letters?|lettering|text|written|that reads|reading [\"']|logo|labell?ed",
}
_KINDS = {kind: re.compile(rf"(?<![\w'-])(?:{words})(?![\w-])") for kind, words in _PATTERNS.items()}
KINDS = (*_KINDS, "word not met", "rare word", "long", "short")


def kinds_of(caption: str, vocabulary: Vocabulary | None) -> frozenset[str]:
    """Kinds of a caption. Without the model's vocabulary none is of the kinds "word not met" and "rare word"."""
    text = " ".join(caption.casefold().replace("\u2019", "'").split())
    found = {kind for kind, pattern in _KINDS.items() if pattern.search(text)}
    if vocabulary is not None:
        found |= {"word not met"} if vocabulary.unmet(caption) else set()
        found |= {"rare word"} if has_rare_word(caption, vocabulary) else set()
    n_words = len(words_of(caption))
    found |= {"long"} if n_words >= LONG_WORDS else set()
    found |= {"short"} if n_words <= SHORT_WORDS else set()
    return frozenset(found)


def has_rare_word(caption: str, vocabulary: Vocabulary) -> bool:
    """Whether a content word occurred in training, but in fewer than RARE_CAPTIONS captions."""
    if vocabulary.counts is None:
        return False
    return any(0 < vocabulary.captions_with(word) < RARE_CAPTIONS for word in content_words(caption))

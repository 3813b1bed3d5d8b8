"""Kinds of captions, which the error analysis compares."""

import pytest

from image_finder.components.captions.vocabulary import Vocabulary
from tests.benchmarks.caption_kinds import KINDS, kinds_of

# Captions of the data sets, and all kinds that their words make them.
CAPTIONS = {
    "Two dogs run through the shallow water of a lake": {"counting"},
    "Three dogs run through the shallow water of a lake": {"counting", "three to ten"},
    "A couple of people are eating food at a table": {"counting"},
    "A couple is eating a large meal at a table": set(),
    "A group of people watches several horses jump over fences": {"counting"},
    "A man reddens while one dog barks at him loudly": set(),
    "The skier in a Red jacket jumps over a hill": {"colour"},
    "A black-and-white dog runs across a large grassy field": {"colour"},
    "A red-haired woman walks along the beach at noon": {"colour"},
    "A scared child stands at the edge of the pool": set(),
    "The man in the backpack looks to his left alone": {"position"},
    "Ski equipment , left alone on a snowy ski slope today": set(),
    "A man surfs with the foam right after him today": set(),
    "A dog sits in front of a house at night": {"position"},
    "A clock stands in between the couch and a bed": {"position"},
    "A person holds two remotes and a drink at home": {"counting", "small object"},
    "A woman talks on her cell phone during a meal": {"small object"},
    "An untied boat drifts along the shore of the lake": set(),
    "Several knives hang on the wall of a large kitchen": {"counting", "small object"},
    "A child smiles at the camera during a school lesson": set(),
    "A boy without a shirt jumps from a high bench": {"negation"},
    "A man who isn't smiling waits at the bus stop": {"negation"},
    "A man who isn\u2019t smiling waits at the bus stop": {"negation"},
    "A man makes notes in a notebook at the station": set(),
    "A woman holds up a sign during a demonstration today": {"text in the image"},
    'Two people stand by a board reading " HELL " outside': {"counting", "text in the image"},
    "A man stands at the end of a pier reading": set(),
    "A girl makes a thumbs-up sign during a school lesson": set(),
    "Two dogs": {"counting", "short"},
    "A man walks his dog along the beach": {"short"},
    "A man walks his dog along the sandy beach": set(),
    "A man walks his dog along the sandy beach while the sun sets": set(),
    "A man walks his dog along the sandy beach while the sun sets slowly": {"long"},
}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_the_words_of_a_caption_decide_its_kinds(caption):
    assert kinds_of(caption, None) == CAPTIONS[caption]


WORDS = {
    "counting": "two, three, ten, 7, a couple of, pair of, a group of, groups of, a bunch of, a crowd of, several",
    "three to ten": "three, four, five, six, seven, eight, nine, ten, 3, 10",
    "colour": "red, gray, grey, orange, golden, black-and-white, red-haired",
    "position": (
        "to the left, on his right, looking left, left side, right of, above, under, underneath, below, beneath, beside, "
        "behind, between, in front of, on front of, next to, on top of, in the middle of, across from"
    ),
    "small object": "cell phone, remotes, fork, knives, tie, frisbee, tennis ball, wine glasses, toothbrushes",
    "negation": "without, no, not, none, nobody, nothing, never, isn't",
    "text in the image": "sign, says, saying, words, letters, lettering, text, written, that reads, logo, labeled, labelled",
}


@pytest.mark.parametrize(("kind", "words"), [(kind, each) for kind in WORDS for each in WORDS[kind].split(", ")])
def test_each_word_of_a_kind_is_found_in_a_caption(kind, words):
    assert kind in kinds_of(f"A man {words} a tree.", None)


@pytest.mark.parametrize("words", ["one", "11", "a couple", "group", "left over", "a tied", "note", "design"])
def test_similar_words_make_no_kind(words):
    assert kinds_of(f"A man {words} a tree near the lake until late", None) == set()


def test_each_kind_is_met_and_listed():
    with_vocabulary = {"word not met", "rare word"}
    assert set().union(*CAPTIONS.values()) == set(KINDS) - with_vocabulary


def test_words_are_compared_with_the_training_captions():
    vocabulary = Vocabulary.of(["a dog runs"] * 9 + ["a dog plays", "a cat"] + ["a cat plays"] * 9)
    assert kinds_of("a dog plays", vocabulary) == {"short"}
    assert kinds_of("the cats", vocabulary) == {"short"}
    assert kinds_of("a cat runs", vocabulary) == {"short", "rare word"}
    assert kinds_of("a kangaroo plays", vocabulary) == {"short", "word not met"}
    assert kinds_of("a kangaroo runs", vocabulary) == {"short", "word not met", "rare word"}


def test_a_bundle_without_counts_has_no_rare_words():
    vocabulary = Vocabulary.of(["a dog runs"] * 2)
    assert kinds_of("a dog runs", vocabulary) == {"short", "rare word"}
    assert kinds_of("a dog runs", vocabulary.model_copy(update={"counts": None})) == {"short"}

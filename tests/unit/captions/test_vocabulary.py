import pytest

from image_finder.components.captions.vocabulary import Vocabulary

CAPTIONS = [
    "A dog's ball, and a T-shirt.",
    "A dog runs over boxes",
    "a black t-shirt, a ball and two boxes",
    "A runs and runs of a kangaroo",  # the only kangaroo
    "black and white",
    "white",
]


@pytest.fixture
def vocabulary():
    return Vocabulary.of(CAPTIONS)


def test_vocabulary_has_the_words_of_at_least_two_captions(vocabulary):
    assert vocabulary.words == ("a", "and", "ball", "black", "boxes", "runs", "t-shirt", "white")
    assert vocabulary.n_captions == 6


@pytest.mark.parametrize(
    ("text", "unmet"),
    [
        ("A BALL, black!", ()),
        ("", ()),
        ("a kangaroo and a Kangaroo", ("kangaroo",)),
        ("boxes, box, balls, the ball's, runs", ()),
        ("2 balls at 14", ()),
        ("a black-and-white T-shirt", ()),
        ("a black-and-blue ball", ("black-and-blue",)),
        ("ein Hund und a ball", ("ein", "Hund", "und")),
        ("\u72ac \u05db\u05dc\u05d1 \U0001f415", ("\u72ac", "\u05db\u05dc\u05d1")),
    ],
)
def test_vocabulary_reports_the_unknown_words_of_a_text(vocabulary, text, unmet):
    assert vocabulary.unmet(text) == unmet


def test_captions_are_counted_with_a_word_in_any_number(vocabulary):
    assert vocabulary.counts is not None
    assert vocabulary.captions_with("ball") == vocabulary.captions_with("balls") == vocabulary.captions_with("ball's")
    assert vocabulary.captions_with("ball") == dict(zip(vocabulary.words, vocabulary.counts, strict=True))["ball"]
    assert vocabulary.captions_with("kangaroo") == 0
    with pytest.raises(ValueError, match="no counts"):
        Vocabulary(words=("ball",), n_captions=2).captions_with("ball")


def test_vocabulary_survives_json(vocabulary):
    again = Vocabulary.model_validate_json(vocabulary.model_dump_json())
    assert again == vocabulary
    assert again.unmet("a zebra") == ("zebra",)


def test_without_captions_every_word_is_unknown():
    assert Vocabulary.of([]).unmet("a dog") == ("dog",)

"""What captions name, and which images are right for a text by it."""

import pytest

from image_finder.components.evaluation.caption_nouns import is_right, single_words, things_named, things_shown


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Two puppies on a snowy hill", {"dog", "snow", "mountain"}),
        ("a red bus", {"red", "bus"}),
        ("a carpet", set()),
        ("the eiffel tower", {"building"}),
        ("happiness", set()),
    ],
)
def test_things_are_named_by_whole_words_in_any_number(text, named):
    assert things_named(text) == named


def test_an_image_is_right_if_its_captions_name_every_thing():
    dog_in_snow = things_shown(["A terrier plays", "A dog runs through the white snow"])
    assert is_right(things_named("a dog"), dog_in_snow)
    assert is_right(things_named("a puppy in the snow"), dog_in_snow)
    assert not is_right(things_named("a dog on a beach"), dog_in_snow)
    assert not is_right(things_named("happiness"), dog_in_snow)


def test_a_colour_is_missed_only_where_captions_name_others():
    asked = things_named("a blue car")
    assert is_right(asked, things_shown(["a blue car", "a red sign"]))
    assert is_right(asked, things_shown(["a car"]))
    assert not is_right(asked, things_shown(["a red car"]))


def test_people_are_found_under_their_roles():
    surfer = things_shown(["A surfer rides a wave"])
    assert {"person", "man", "woman", "board", "water"} <= surfer
    assert is_right(things_named("a man on a surfboard"), surfer)


def test_each_thing_has_a_word_that_names_it():
    words = single_words()
    assert len(set(words)) == len(words) > 50
    assert "blue" not in words
    assert all(things_named(word) for word in words)

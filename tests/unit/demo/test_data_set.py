import json
import re

import numpy as np
import pytest
import resvg_py
from PIL import Image

from image_finder.components.demo import data_set as demo
from image_finder.components.demo.backgrounds import BACKGROUNDS
from image_finder.components.demo.data_set import compose_demo, draw_scene
from image_finder.components.demo.objects import Noun, all_things, with_article
from image_finder.components.demo.scenes import Group, Scene, distinct_scenes, five_captions
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.storage import hash_directory

IMAGES = 24


def first_scenes(number, seed=0):
    return [scene for scene, _ in zip(distinct_scenes(seed), range(number), strict=False)]


def thing_called(name):
    return next(thing for thing in all_things() if thing.name.singular == name)


def background_called(noun):
    return next(background for background in BACKGROUNDS if background.noun == noun)


def says(caption, phrase):
    return re.search(rf"\b{re.escape(phrase)}\b", caption, re.IGNORECASE) is not None


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo") / "set"
    compose_demo(directory, n_images=IMAGES, seed=0)
    return directory


@pytest.fixture(scope="module")
def table(composed):
    return json.loads((composed / "annotations" / "captions.json").read_text(encoding="utf-8"))


@pytest.fixture
def interrupted(monkeypatch):
    """The fifth drawing to be rasterised is interrupted, as by Ctrl-C."""
    calls = []
    rasterise = resvg_py.svg_to_bytes

    def fail_at_the_fifth(**arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return rasterise(**arguments)

    demo._sprite.cache_clear()
    monkeypatch.setattr(resvg_py, "svg_to_bytes", fail_at_the_fifth)


def test_same_arguments_give_the_same_bytes_everywhere(composed, tmp_path):
    compose_demo(tmp_path / "again", n_images=IMAGES, seed=0)
    assert hash_directory(tmp_path / "again") == hash_directory(composed)


def test_smaller_set_is_the_beginning_of_a_larger_one(composed, table, tmp_path):
    compose_demo(tmp_path / "small", n_images=5, seed=0)
    small = json.loads((tmp_path / "small" / "annotations" / "captions.json").read_text(encoding="utf-8"))
    assert small["images"] == table["images"][:5]
    assert small["annotations"] == table["annotations"][:25]
    hashes = hash_directory(composed / "images")
    assert hash_directory(tmp_path / "small" / "images") == {name: hashes[name] for name in sorted(hashes)[:5]}


def test_annotations_follow_the_coco_layout(composed, table):
    assert [image["id"] for image in table["images"]] == list(range(1, IMAGES + 1))
    assert [row["id"] for row in table["annotations"]] == list(range(1, 5 * IMAGES + 1))
    assert table["images"][0]["file_name"] == "000000000001.jpg"
    assert {image["license"] for image in table["images"]} == {row["id"] for row in table["licenses"]} == {1}
    assert table["licenses"][0]["url"] == "https://creativecommons.org/licenses/by-sa/4.0/"
    assert sorted(path.name for path in composed.iterdir()) == ["LICENSE.txt", "annotations", "images"]
    assert {path.name for path in (composed / "images").iterdir()} == {row["file_name"] for row in table["images"]}


def test_annotated_sizes_are_those_of_the_images(composed, table):
    for row in table["images"]:
        with Image.open(composed / "images" / row["file_name"]) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert image.size == (row["width"], row["height"])
            assert 240 <= min(image.size) <= max(image.size) <= 320


def test_every_image_has_five_different_sentences(table):
    captions = {image["id"]: [] for image in table["images"]}
    for row in table["annotations"]:
        captions[row["image_id"]].append(row["caption"])
    for sentences in captions.values():
        assert len(sentences) == len(set(sentences)) == 5
        assert all(re.fullmatch(r"[A-Z][^.]*[a-z]\.", sentence) for sentence in sentences)


def test_licence_of_the_drawings_goes_with_the_images(composed):
    text = (composed / "LICENSE.txt").read_text(encoding="utf-8")
    assert "OpenMoji" in text
    assert "CC BY-SA 4.0" in text
    assert "https://openmoji.org" in text


def test_no_two_of_many_scenes_have_the_same_description():
    scenes = first_scenes(4000)
    assert len({scene.description() for scene in scenes}) == 4000


def test_descriptions_ignore_order_and_distinguish_numbers_and_places():
    dog, cat = thing_called("dog"), thing_called("cat")
    beach, desert = background_called("a sandy beach"), background_called("a sandy desert")
    scene = Scene((Group(dog, 1), Group(cat, 2)), beach)
    assert scene.description() == Scene((Group(cat, 2), Group(dog, 1)), beach).description()
    assert scene.description() != Scene((Group(cat, 1), Group(dog, 2)), beach).description()
    assert scene.description() != Scene((Group(dog, 1), Group(cat, 2)), desert).description()


def test_things_and_places_are_shared_so_that_held_out_scenes_use_known_words():
    scenes = first_scenes(1500)
    shown = [group.thing for scene in scenes for group in scene.groups]
    assert min(shown.count(thing) for thing in all_things()) >= 10
    assert {scene.background.noun for scene in scenes} == {background.noun for background in BACKGROUNDS}


def test_captions_name_every_thing_with_its_number():
    for number, scene in enumerate(first_scenes(600)):
        captions = five_captions(scene, np.random.default_rng(number))
        for group in scene.groups:
            words = (group.named(), group.synonym())
            by_name = [any(says(caption, phrase) for phrase in words) for caption in captions]
            assert all(by_name[:4]), (group, captions)
            kind = group.thing.kind
            assert by_name[4] or says(captions[4], kind.singular) or says(captions[4], kind.plural), (group, captions)


def test_captions_say_where_the_things_are():
    for number, scene in enumerate(first_scenes(300)):
        place = scene.background
        phrases = (place.noun, *place.on, *place.over, *place.anywhere)
        for caption in five_captions(scene, np.random.default_rng(number)):
            assert any(says(caption, phrase) for phrase in phrases), (place.noun, caption)


def test_captions_of_a_whole_set_are_nearly_all_different():
    captions = [
        caption
        for number, scene in enumerate(first_scenes(1500))
        for caption in five_captions(scene, np.random.default_rng([0, number]))
    ]
    assert len(set(captions)) >= 0.99 * len(captions)


def test_right_of_and_left_of_are_never_swapped():
    dog, cat = Group(thing_called("dog"), 1), Group(thing_called("cat"), 2)
    for number in range(20):
        scene = Scene((dog, cat), background_called("a sandy beach"))
        captions = five_captions(scene, np.random.default_rng(number))
        assert re.match(r"A dog (to the )?left of two cats ", captions[0])
        assert re.match(r"Two kittens (to|on) the right of a puppy ", captions[2])


def test_captions_have_the_article_that_is_spoken():
    spoken = {"apple": "an", "hourglass": "an", "UFO": "a", "ewe": "a", "umbrella": "an", "dog": "a", "T-shirt": "a"}
    assert {word: with_article(word).split()[0] for word in spoken} == spoken
    for number, scene in enumerate(first_scenes(300)):
        for caption in five_captions(scene, np.random.default_rng(number)):
            assert not re.search(r"\b[Aa] (?!ewe|UFO)[aeiouAEIOU]|\b[Aa]n (?!hourglass)[^aeiouAEIOU]", caption), caption


def test_plurals_are_english():
    plurals = {
        "fox": "foxes",
        "puppy": "puppies",
        "monkey": "monkeys",
        "bus": "buses",
        "couch": "couches",
        "scarf/scarves": "scarves",
    }
    assert {text: Noun.parse(text).plural for text in plurals} == plurals
    named = {thing.name.singular: thing.name.plural for thing in all_things()}
    assert (named["mouse"], named["sheep"], named["tomato"]) == ("mice", "sheep", "tomatoes")


def test_no_name_denotes_two_things():
    things = all_things()
    names = [name for thing in things for name in {thing.name.singular, thing.synonym.singular}]
    assert len(names) == len(set(names))
    assert len({thing.hexcode for thing in things}) == len(things)


def test_every_thing_has_a_drawing_that_fills_its_frame():
    for thing in all_things():
        sprite = demo._sprite(thing.hexcode)
        assert sprite.getchannel("A").getbbox() == (0, 0, *sprite.size)
        assert max(sprite.size) > 140, thing


def test_images_show_things_where_the_captions_say():
    scene = Scene(
        (Group(thing_called("eggplant"), 1), Group(thing_called("bright sun"), 1)),
        background_called("a plain turquoise background"),
    )
    for seed in range(10):
        pixels = np.asarray(draw_scene(scene, np.random.default_rng(seed))).astype(int)
        red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
        sun_y, sun_x = (axis.mean() for axis in np.nonzero((red > 200) & (blue < 100) & (green > 180)))
        plant_y, plant_x = (axis.mean() for axis in np.nonzero((blue - green > 40) & (red - green > 10)))
        assert plant_x < sun_x
        assert plant_y > sun_y


def test_second_call_leaves_the_set_untouched(tmp_path):
    compose_demo(tmp_path / "set", n_images=3, seed=0)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "set").rglob("*")}
    compose_demo(tmp_path / "set", n_images=3, seed=0)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "set").rglob("*")} == before


def test_missing_image_is_made_again(tmp_path):
    compose_demo(tmp_path / "set", n_images=3, seed=0)
    hashes = hash_directory(tmp_path / "set")
    (tmp_path / "set" / "images" / "000000000002.jpg").unlink()
    compose_demo(tmp_path / "set", n_images=3, seed=0)
    assert hash_directory(tmp_path / "set") == hashes


def test_other_seed_and_other_size_replace_the_set(tmp_path):
    compose_demo(tmp_path / "set", n_images=4, seed=0)
    first = hash_directory(tmp_path / "set")
    compose_demo(tmp_path / "set", n_images=4, seed=1)
    second = hash_directory(tmp_path / "set")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] == second[name]} == {"LICENSE.txt"}
    compose_demo(tmp_path / "set", n_images=2, seed=1)
    assert len(list((tmp_path / "set" / "images").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.usefixtures("interrupted")
def test_interruption_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        compose_demo(tmp_path / "set", n_images=IMAGES, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_interruption_keeps_the_set_that_was_there(tmp_path, request):
    compose_demo(tmp_path / "set", n_images=3, seed=0)
    before = hash_directory(tmp_path / "set")
    request.getfixturevalue("interrupted")
    with pytest.raises(KeyboardInterrupt):
        compose_demo(tmp_path / "set", n_images=IMAGES, seed=1)
    assert hash_directory(tmp_path / "set") == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_folder_with_other_content_is_refused_and_kept(tmp_path):
    folder = tmp_path / "photos"
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "captions.json").write_text('{"info": {}, "images": []}', encoding="utf-8")
    before = hash_directory(folder)
    with pytest.raises(DataError, match="photos holds something other than a demo data set"):
        compose_demo(folder, n_images=3, seed=0)
    assert hash_directory(folder) == before


def test_empty_folder_is_filled(tmp_path):
    compose_demo(tmp_path, n_images=2, seed=0)
    assert len(list((tmp_path / "images").iterdir())) == 2


@pytest.mark.parametrize(("images", "seed"), [(0, 0), (5, -1)])
def test_arguments_out_of_range_are_refused(tmp_path, images, seed):
    with pytest.raises(ConfigError, match=f"got n_images={images}, seed={seed}"):
        compose_demo(tmp_path / "set", n_images=images, seed=seed)
    assert not (tmp_path / "set").exists()

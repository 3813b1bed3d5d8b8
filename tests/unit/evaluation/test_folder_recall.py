"""Any bundle measured on a folder of captioned images: which part, which captions, and what `models evaluate` prints."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from image_finder.components.app.cli import main
from image_finder.components.configs import EvaluationConfig
from image_finder.components.errors import DataError
from image_finder.components.evaluation.folder_recall import read_part

CONFIG = EvaluationConfig(bootstrap_samples=100)
COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250), "white": (250, 250, 250)}


def write_part(root, part, words):
    """Images of these colours with two captions each, the second without a colour."""
    (root / part).mkdir(parents=True)
    images, annotations = [], []
    for number, word in enumerate(words):
        name = f"{part}{number}.png"
        pixels = np.full((8, 8, 3), COLOURS[word], np.uint8)
        pixels[0, 0, 0] = number  # no two files alike
        Image.fromarray(pixels).save(root / part / name)
        images.append({"id": number, "file_name": name, "width": 8, "height": 8, "license": 0})
        for text in (f"{word} {word} {word}", "what this is nobody in this whole wide world will ever know"):
            annotations.append({"id": len(annotations), "image_id": number, "caption": text})
    path = root / "annotations" / f"captions_{part}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "licenses": []}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("captioned") / "colours"
    write_part(root, "val", list(COLOURS))
    write_part(root, "train", ["red", "red"])
    return root


def measured(bundle, root, part=None, config=CONFIG):
    return read_part(root, part).measured(bundle, config).measurement


def test_the_part_least_likely_trained_on_is_measured_unless_one_is_named(colour_bundle, folder, tmp_path):
    report = measured(colour_bundle, folder).report
    assert (report.dataset, report.split, report.n_images, report.n_captions) == ("colours", "val", 4, 8)
    assert measured(colour_bundle, folder, "train").report.n_images == 2
    write_part(tmp_path, "test", ["white"])
    write_part(tmp_path, "val", ["red"])
    assert measured(colour_bundle, tmp_path).report.split == "test"


def test_a_missing_part_is_an_error_that_lists_the_existing_ones(colour_bundle, folder):
    with pytest.raises(DataError, match=r"has no part 'test', only .*train"):
        measured(colour_bundle, folder, "test")


def test_the_first_captions_alone_find_their_images(colour_bundle, folder):
    first = measured(colour_bundle, folder, config=CONFIG.model_copy(update={"captions_per_image": 1}))
    assert first.report.text_to_image.recall[1] == 1.0
    assert first.report.image_to_text.recall[1] == 1.0
    assert measured(colour_bundle, folder).report.text_to_image.recall[1] < 0.8


def test_captions_without_their_image_are_left_out_and_counted(colour_bundle, tmp_path):
    write_part(tmp_path, "val", list(COLOURS))
    (tmp_path / "val" / "val2.png").unlink()
    found = read_part(tmp_path, None)
    assert (found.n_captions, found.n_left_out) == (8, 2)
    assert found.measured(colour_bundle, CONFIG).measurement.report.n_captions == 6
    for path in (tmp_path / "val").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has 8 captions, none of them valid"):
        measured(colour_bundle, tmp_path)


def test_the_command_prints_what_was_measured(colour_bundle, folder, tmp_path):
    write_part(tmp_path, "val", list(COLOURS) * 10)  # slices want 30 captions
    words = ["models", "evaluate", str(colour_bundle.path), "--data"]
    done = CliRunner().invoke(main, [*words, str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{tmp_path.name} val: 40 images, 80 captions")
    assert "caption length: 9-13 words" in done.stdout
    assert "3 dimensions" in done.stdout
    measured = json.loads(CliRunner().invoke(main, [*words, str(folder), "--captions", "1", "--json"]).stdout)
    assert measured["report"]["text_to_image"]["recall"]["1"] == 1.0
    assert (measured["captions"], measured["left_out"], measured["bundle_sha256"]) == (8, 0, colour_bundle.sha256)


def test_a_bundle_that_was_changed_is_refused(colour_bundle, folder, tmp_path):
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(colour_bundle.path, copy)
    (copy / "preprocess.json").write_text((copy / "preprocess.json").read_text() + "\n")
    done = CliRunner().invoke(main, ["models", "evaluate", str(copy), "--data", str(folder)])
    assert done.exit_code == 1
    assert "preprocess.json" in done.output

"""Parameters of a run: what enters its fingerprint, and what is refused before it starts."""

import shutil

import pytest

from image_finder.components.errors import BundleError
from image_finder.pipelines.runs import training_parameters
from image_finder.pipelines.stores import Home
from tests.support.tiny_bundle import draw_images, write_tiny_bundle


@pytest.fixture
def fingerprint(tmp_path):
    draw_images(tmp_path / "data")

    def of(*teachers):
        values = {
            "parameters": {
                "dataset": {
                    "name": "colours",
                    "layout": "coco",
                    "root": str(tmp_path / "data"),
                    "parts": {"train": {"annotations": "captions.json", "images": "."}},
                },
                "training": {"teacher": [str(each) for each in teachers]},
            }
        }
        return training_parameters(values, Home(tmp_path / "home"))["data_fingerprint"]

    return of


def test_another_bundle_at_a_teachers_path_makes_another_fingerprint(fingerprint, tmp_path):
    path = tmp_path / "teacher"
    seen = [fingerprint()]
    for colours in (((1, 0), (0, 1), (0, 0)), ((0, 1), (1, 0), (0, 0))):
        shutil.rmtree(path, ignore_errors=True)
        write_tiny_bundle(path, colours=colours)
        seen.append(fingerprint(path))
    assert len(set(seen)) == 3
    assert fingerprint(path) == seen[-1]


def test_an_absent_teacher_is_refused_before_the_run_starts(fingerprint, tmp_path):
    with pytest.raises(BundleError, match="no bundle at .*absent"):
        fingerprint(tmp_path / "absent")

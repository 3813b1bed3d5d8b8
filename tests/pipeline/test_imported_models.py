"""Imported models in the registry: registered, compared, promoted over our champion, rolled back, while searches continue."""

import json
import os
import subprocess
import sys
import threading

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from image_finder.components.app.cli import main
from image_finder.components.configs import GalleryConfig, SplitConfig
from image_finder.components.index.publish import publish_bundle
from image_finder.components.search.finder import Finder
from image_finder.model_registry import lineage, names
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registration import register_bundle
from image_finder.model_registry.registry import Registry
from tests.support.checkout import CHECKOUT
from tests.support.colour_bundle import WORDS, imported_model, write_colour_bundle
from tests.support.evidence import evidence_of
from tests.support.galleries import publish_gallery
from tests.support.tiny_bundle import retrieval_report

pytestmark = pytest.mark.slow

MODEL = "image-finder"


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """A folder in COCO's layout: 60 images of 5 colours, each with a caption of colour words."""
    root = tmp_path_factory.mktemp("captioned") / "colours"
    (root / "test").mkdir(parents=True)
    images, annotations = [], []
    for number in range(60):
        word = list(WORDS)[number % len(WORDS)]
        pixels = np.full((8, 8, 3), 250 * np.array(WORDS[word]), np.uint8)
        pixels[0, 0] = number  # no two files alike
        Image.fromarray(pixels).save(root / "test" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 8, "height": 8, "license": 0})
        annotations.append({"id": number, "image_id": number, "caption": f"{word} {word} {word}"})
    (root / "annotations").mkdir()
    content = json.dumps({"images": images, "annotations": annotations, "licenses": []})
    (root / "annotations" / "captions_test.json").write_text(content)
    return root


class ModelHome:
    def __init__(self, root, captioned):
        self.root, self.captioned, self.home = root, captioned, root / "home"
        self.home.mkdir()
        self.uri = f"sqlite:///{self.home}/mlflow.db"

    def run(self, *arguments):
        """Standard output of a command that succeeds."""
        code, out, err = self.outcome(*arguments)
        assert code == 0, err
        return out

    def outcome(self, *arguments):
        done = CliRunner().invoke(main, self._words(arguments))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    def promote(self, *arguments):
        """Standard output of `models promote`, which indexes in a pipeline of ZenML and so needs a process."""
        words = [sys.executable, "-m", "image_finder", *self._words(["promote", *arguments])]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW"))}
        done = subprocess.run(
            words,
            cwd="/",
            env={**environment, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def _words(self, arguments):
        return ["models", *map(str, arguments), "--home", str(self.home), "--mlflow-uri", self.uri]

    @property
    def promotions(self):
        return Promotions(Registry(self.uri), home=self.home)

    def make_ours_champion(self, bundle):
        """Register a bundle as a training run does, make it champion, and index the images with it."""
        client = Registry(self.uri).client
        experiment = client.create_experiment("image-finder", (self.home / "mlartifacts").as_uri())
        mlflow.set_tracking_uri(self.uri)
        with mlflow.start_run(experiment_id=experiment, run_name="training"):
            origin = lineage.of_run("c" * 64, split=SplitConfig())
            evidence = evidence_of(retrieval_report(), lineage=origin)
            registered = register_bundle(Registry.of_step(), bundle, MODEL, evidence, card="# ours")
        self.promotions.move_champion(MODEL, registered.version, reason="first")
        publish_gallery(GalleryConfig(root=self.captioned / "test"), bundle, self.home / "library")
        publish_bundle(bundle, self.home / "bundles")


@pytest.fixture(scope="module")
def home(captioned, tmp_path_factory):
    root = tmp_path_factory.mktemp("imported")
    made = ModelHome(root, captioned)
    before = mlflow.get_tracking_uri()
    made.make_ours_champion(write_colour_bundle(root / "ours", confused=True))
    yield made
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def clip(home):
    """A bundle that says it was imported, and knows the colours."""
    return write_colour_bundle(home.root / "clip", imported=imported_model())


def test_an_imported_model_replaces_ours_and_goes_back_while_searches_answer(home, clip, captioned):
    out = home.run("register", clip.path, "--data", captioned)
    assert "image-finder version 2 registered as challenger: mean recall" in out
    version = Registry(home.uri).version(MODEL, names.CHALLENGER)
    assert version.tags[names.IMPORTED] == "team/clip at cccccccccccc"
    assert "imported 0" in home.run("list")
    run = Registry(home.uri).client.get_run(version.run_id)
    assert run.data.tags["mlflow.note.content"].startswith(
        "Imported from team/clip at cccccccccccc, measured on colours"
    )

    answers, stop = [], threading.Event()

    def keep_searching():
        while not stop.is_set():
            finder = Finder.open(home.home / "library" / "index", threads=1)
            answers.append(len(finder.search("red", k=3).hits))

    searcher = threading.Thread(target=keep_searching)
    searcher.start()
    try:
        out = home.promote("2", "--data", captioned)
        assert "image-finder version 2 is now the champion (previous: 1)" in out
        assert "60 images indexed" in out
        assert best_colour(home, "red") == "red"
        out = home.run("rollback", "--reason", "the licence")
        assert "image-finder version 1 is now the champion (previous: 2)" in out
        assert "kept from before" in out
    finally:
        stop.set()
        searcher.join()
    assert set(answers) == {3}
    assert best_colour(home, "red") == "green", "our model confuses the words"
    history = home.run("history")
    assert "imported from team/clip at cccccccccccc" in history
    code, _, error = home.outcome("promote", "2", "--data", captioned)
    assert code == 1
    assert "was rolled back by ledger entry" in error


def best_colour(home, word):
    """Colour of the best hit."""
    finder = Finder.open(home.home / "library" / "index", threads=1)
    (hit,) = finder.search(word, k=1).hits
    return list(WORDS)[int(hit.name.removesuffix(".png")) % len(WORDS)]


def test_a_bundle_that_was_trained_here_is_not_registered_by_hand(home, captioned, tmp_path):
    ours = write_colour_bundle(tmp_path / "ours")
    code, _, error = home.outcome("register", ours.path, "--data", captioned)
    assert code == 1
    assert "was not imported; the training run of a model registers it" in error


def test_versions_folders_and_imported_models_are_compared_in_any_mix(home, clip, captioned, tmp_path):
    page = tmp_path / "comparison.html"
    out = home.run("compare", "1", clip.path, "--data", captioned, "--html", page)
    assert "imported from team/clip at cccccccccccc" in out
    assert "clip is better than version 1: mean recall +" in out
    assert "query by query on 60 images" in out
    html = page.read_text()
    assert "<h1>Models compared</h1>" in html
    assert "clip is better than version 1" in html
    assert html.count("correct image at rank") % 2 == 0
    assert html.count('class="correct"') > 0
    assert "src=" not in html.replace('src="data:image/jpeg;base64,', "")
    first, second = json.loads(home.run("compare", clip.path, "1", "--data", captioned, "--json"))
    assert first["gain"] is None
    assert second["gain"]["gain"] < 0


def test_a_version_is_evaluated_by_its_number(home, captioned):
    assert "colours test: 60 images" in home.run("evaluate", "1", "--data", captioned)


def test_options_that_make_no_sense_are_refused(home, captioned):
    assert "name two models" in home.outcome("compare", "1")[2]
    assert "more than two models need --data" in home.outcome("compare", "1", "1", "1")[2]
    assert "--force asks no rule" in home.outcome("promote", "1", "--force", "--reason", "x", "--data", captioned)[2]


def test_the_first_import_makes_the_registry(captioned, clip, tmp_path):
    fresh = ModelHome(tmp_path, captioned)
    assert "version 1 registered" in fresh.run("register", clip.path, "--data", captioned)
    assert "image-finder version 1 is now the champion (previous: none)" in fresh.promote("1")

"""`image-finder drift` against a real registry: a version with its drift reference, and data sets in COCO layout."""

import json

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from image_finder.components.app.cli import main
from image_finder.components.configs import DriftConfig, EmbeddingConfig
from image_finder.components.drift.reference import TrainedOn, write_reference
from image_finder.components.drift.sample import Sampler, find_captioned_files
from image_finder.components.storage import sha256_of_file
from image_finder.model_registry import names
from image_finder.model_registry.registration import register_bundle
from image_finder.model_registry.registry import Registry
from tests.support.evidence import evidence_of


def write_data(root, *, seed, green=0.5, count=80):
    """Parts `train` and `val` of plain images: red dogs and green cats, two captions each."""
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        (root / part).mkdir()
        images, annotations = [], []
        for number in range(count):
            is_green = rng.random() < (green if part == "train" else 0.5)
            colour = np.array((30, 220, 0) if is_green else (220, 30, 0)) + rng.integers(0, 25, 3)
            name = f"{number}.png"
            Image.new("RGB", (12, 8), tuple(colour.tolist())).save(root / part / name)
            identity = number + (1000 if part == "val" else 0)
            images.append({"id": identity, "file_name": name, "width": 12, "height": 8})
            animal = "cat" if is_green else "dog"
            annotations += [
                {"id": 2 * identity + place, "image_id": identity, "caption": f"{start} {animal}"}
                for place, start in enumerate(("a", "one"))
            ]
        content = json.dumps({"images": images, "annotations": annotations})
        (root / "annotations" / f"captions_{part}.json").write_text(content)
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("drift_command")


@pytest.fixture(scope="module")
def training(place):
    return write_data(place / "training", seed=0)


@pytest.fixture
def home(place, training, tiny_bundle, report, tmp_path, monkeypatch):
    """A home whose model `finder` has a champion with a drift reference, and `plain` one without."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    root = place / "home"
    uri, before = f"sqlite:///{root}/mlflow.db", mlflow.get_tracking_uri()
    if not root.exists():
        root.mkdir()
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.create_experiment("scratch", (root / "mlartifacts").as_uri())
        files = find_captioned_files(training, "train")
        sampler = Sampler(
            tiny_bundle, DriftConfig(), EmbeddingConfig(device="cpu", threads=1), cache_dir=tmp_path / "cache"
        )
        trained_on = TrainedOn("training", "0123456789ab", files, [sha256_of_file(file.path) for file in files])
        reference = write_reference(tmp_path / "made", sampler, trained_on, images=2000, seed=0)
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("scratch")
        for model, path in (("finder", reference.path), ("plain", None)):
            with mlflow.start_run():
                evidence = evidence_of(report, drift_reference=path)
                register_bundle(Registry.of_step(), tiny_bundle, model, evidence, card="# Card")
            Registry(uri).set_alias(model, names.CHAMPION, "1")
        mlflow.set_tracking_uri(before)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it, and the command would follow it
    return root


def drift(home, *words):
    return CliRunner().invoke(main, ["drift", "--home", str(home), "--model", "finder", *map(str, words)])


def test_data_of_the_same_kind_are_steady_and_a_table_says_what_was_compared(home, place):
    done = drift(home, "--data", write_data(place / "same", seed=1), "--part", "train", "--fail")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        "same train: 80 of 80 images, compared with 80 of the 80 training images of finder version 1 (training, data version"
    )
    assert lines[-1] == "no drift in 7 of 7 rows"
    assert [line.split("  ")[0] for line in lines[2:-1]] == [
        *("caption length", "vocabulary", "new words"),
        *("image size", "image shape", "brightness", "embeddings"),
    ]


def test_data_of_another_kind_drift_with_an_exit_code_of_their_own_and_a_page(home, place, tmp_path):
    other = write_data(place / "other", seed=2, green=1.0)
    done = drift(home, "--data", other, "--part", "train", "--json", "--fail", "--html", tmp_path / "drift.html")
    assert done.exit_code == 3, done.output
    report = json.loads(done.stdout)
    assert {row["name"] for row in report["rows"] if row["drifted"]} == {"vocabulary", "brightness", "embeddings"}
    assert report["reference"]["version"] == "1"
    assert "Drifted: vocabulary, brightness, embeddings" in (tmp_path / "drift.html").read_text()
    lenient = [word for row in ("embedding", "vocabulary", "brightness") for word in ("--set", f"max_{row}=1")]
    assert drift(home, "--data", other, "--part", "train", "--fail", *lenient).exit_code == 0
    assert drift(home, "--data", other, "--part", "val", "--fail").exit_code == 0


def test_a_folder_of_images_is_compared_without_captions(home, training):
    done = drift(home, "--data", training / "train", "--json")
    report = json.loads(done.stdout)
    assert report["n_known"] == report["n_compared"] == 80
    assert [row["name"] for row in report["rows"] if row["measured"] is None] == [
        "caption length",
        "vocabulary",
        "new words",
    ]


def test_searches_are_judged_without_any_registry(tmp_path):
    facts = {"time": "2026-11-24 10:00:00,000", "message": "request", "status": 200, "matches_well": False}
    (tmp_path / "serve.log").write_text(200 * (json.dumps(facts) + "\n"))
    done = drift(tmp_path / "nowhere", "--logs", tmp_path / "serve.log", "--fail")
    assert done.exit_code == 3, done.output
    assert done.stdout.splitlines()[-1] == "drifted: unmatched queries"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to compare: give --data DIR, --logs FILE, or both"),
        (("--data", "{training}", "--model", "nobody"), "model 'nobody' has no champion yet"),
        (("--data", "{training}", "--version", "7"), "model 'finder' has no version"),
        (("--data", "{training}", "--model", "plain"), "drift_reference of plain version 1 cannot be fetched"),
        (("--data", "{training}", "--part", "test"), "has no part 'test', only train, val"),
        (("--data", "{training}/annotations"), "no captions in"),
        (("--data", "{training}", "--set", "max_sise=1"), "DriftConfig: max_sise: Extra inputs are not permitted"),
        (("--logs", "{training}/none.log"), "no search log at"),
    ],
)
def test_what_cannot_be_compared_is_one_line(home, training, words, message):
    done = drift(home, *(word.format(training=training) for word in words))
    assert done.exit_code == 1
    assert message in done.stderr.splitlines()[-1]


def test_a_home_without_a_registry_is_left_alone(tmp_path, training):
    done = drift(tmp_path / "empty", "--data", training)
    assert done.exit_code == 1
    assert "no registry at" in done.stderr
    assert not (tmp_path / "empty" / "mlflow.db").exists()

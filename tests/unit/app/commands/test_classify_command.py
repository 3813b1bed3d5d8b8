import json
import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from image_finder.components.app import starter_bundle as starter
from image_finder.components.app.commands.classify_command import classify
from image_finder.components.bundle.bundle import MANIFEST, SCORES
from image_finder.components.index.generations import POINTER
from image_finder.components.index.publish import keep_bundle
from image_finder.components.storage import unsealed
from tests.support.checkout import CHECKOUT

LABELS = "red,green,blue"


@pytest.fixture
def images(paint, tmp_path):
    """40 images, alternately red and blue."""
    return [paint(tmp_path / f"{n:02d}.png", "blue" if n % 2 else "red") for n in range(40)]


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words):
    return CliRunner().invoke(classify, list(map(str, words)))


def test_images_are_classified_in_the_given_order(images, colour_bundle):
    done = run(*images, "--labels", LABELS, "--bundle", colour_bundle.path, "--top", 1, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    answers = json.loads(done.stdout)
    assert [answer["image"] for answer in answers] == list(map(str, images))
    assert [answer["labels"][0]["label"] for answer in answers] == ["red", "blue"] * 20
    assert all(answer["labels"][0]["probability"] > 0.9 for answer in answers)


def test_a_table_shows_the_best_labels_with_probability_and_score(paint, tmp_path, colour_bundle):
    path = paint(tmp_path / "a.png", "red")
    done = run(path, "--labels", LABELS, "--bundle", colour_bundle.path, "--top", 2)
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["image", "label", "probability", "score"]
    assert first.split()[:3] == [str(path), "red", "1.000"]
    assert float(first.split()[3]) == pytest.approx(1, abs=0.005)
    assert second.split()[1] in {"green", "blue"}


def test_broken_images_are_reported_and_the_others_classified(images, tmp_path, colour_bundle):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    gone = tmp_path / "gone.png"
    words = [images[0], broken, *images[1:20], gone, images[20]]
    done = run(*words, "--labels", LABELS, "--bundle", colour_bundle.path, "--json")
    assert done.exit_code == 1
    answers = {answer["image"]: answer for answer in json.loads(done.stdout)}
    assert [path for path, answer in answers.items() if "error" in answer] == [str(broken), str(gone)]
    assert [answers[str(path)]["labels"][0]["label"] for path in images[:21]] == [*["red", "blue"] * 10, "red"]
    first, second, last = done.stderr.splitlines()
    assert first.startswith(f"{broken}: ")
    assert second.startswith(f"{gone}: ")
    assert last == "Error: could not read 2 of 23 images"


def test_only_broken_images_print_no_empty_table(tmp_path, colour_bundle):
    done = run(tmp_path, "--labels", LABELS, "--bundle", colour_bundle.path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [f"{tmp_path}: not a regular file", "Error: could not read 1 of 1 image"]


def test_labels_come_from_a_file_and_the_option_together(paint, tmp_path, colour_bundle):
    listed = tmp_path / "labels.txt"
    listed.write_bytes("\ufeffgreen\r\n\r\nblue, or so\r\n".encode())
    path = paint(tmp_path / "a.png", "green")
    done = run(path, "--labels", "red", "--labels-file", listed, "--bundle", colour_bundle.path, "--json")
    labels = json.loads(done.stdout)[0]["labels"]
    assert labels[0]["label"] == "green"
    assert {each["label"] for each in labels} == {"red", "green", "blue, or so"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Error: no label is given, at least 2 are needed"),
        (["--labels", "red"], "Error: 1 label is given, at least 2 are needed"),
        (["--labels", "red,,blue"], "Error: label 2 of 3 is empty"),
        (["--labels", "red,RED"], "Error: labels 1 and 2 are both 'RED'"),
        (["--labels-file", "{tmp}/binary"], "Error: could not read labels from {tmp}/binary as UTF-8 text"),
        (["--labels", LABELS, "--bundle", "/nowhere"], "Error: no bundle at /nowhere"),
    ],
)
def test_user_errors_are_one_line(paint, tmp_path, colour_bundle, words, message):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    words = [word.format(tmp=tmp_path) for word in words]
    bundle = [] if "--bundle" in words else ["--bundle", colour_bundle.path]
    done = run(paint(tmp_path / "a.png", "red"), *words, *bundle)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(message.format(tmp=tmp_path))


def test_the_published_bundle_is_the_default(home, paint, tmp_path, colour_bundle, monkeypatch):
    monkeypatch.setattr(starter, "FOLDER", tmp_path / "empty")  # otherwise the starter model is exported
    path = paint(tmp_path / "a.png", "red")
    done = run(path, "--labels", LABELS)
    assert done.exit_code == 1
    assert done.stderr == "Error: this installation has no starter model; name a model with --bundle, or train one\n"
    kept = keep_bundle(colour_bundle, home / "bundles")
    (home / "bundles" / POINTER).write_text(kept.name + "\n")
    assert run(path, "--labels", LABELS, "--top", 1).stdout.split()[-3] == "red"


def test_a_damaged_index_is_an_error_and_not_replaced_by_the_starter(home):
    (home / "library" / "index").mkdir(parents=True)
    (home / "library" / "index" / POINTER).write_text("000001-gone\n")
    done = run("a.png", "--labels", LABELS)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert str(home / "library" / "index") in line
    assert "starter" not in line


def test_a_bundle_of_the_first_format_says_what_to_do(paint, tmp_path, colour_bundle):
    old = tmp_path / "old"
    shutil.copytree(colour_bundle.path, old)
    (old / SCORES).unlink()
    manifest, _ = unsealed((old / MANIFEST).read_bytes())
    hashes = {name: digest for name, digest in manifest["files_sha256"].items() if name != SCORES}
    (old / MANIFEST).write_text(json.dumps({**manifest, "format_version": 1, "files_sha256": hashes}))
    done = run(paint(tmp_path / "a.png", "red"), "--labels", LABELS, "--bundle", old)
    assert done.stderr == f"Error: bundle {old} has format 1, this version reads 2; train again with this version\n"


def test_the_installed_command_stays_light_and_its_help_needs_no_numpy(paint, tmp_path, colour_bundle):
    runner = (
        "import sys\nfrom image_finder.components.app.cli import main\n"
        "try:\n    main(prog_name='image-finder')\nfinally:\n"
        "    print([name for name in ('torch', 'pandas', 'zenml', 'mlflow', 'numpy') if name in sys.modules])"
    )
    root = CHECKOUT

    def light(*words):
        command = [sys.executable, "-c", runner, "classify", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run(
            command, cwd="/", env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        return done.stdout

    assert light("--help").splitlines()[-1] == "[]"
    printed = light(paint(tmp_path / "a.png", "red"), "--labels", LABELS, "--bundle", colour_bundle.path)
    assert printed.splitlines()[-1] == "['numpy']"

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.configs import EmbeddingConfig, GalleryConfig
from components.search.embed import embed_gallery
from components.search.gallery import read_gallery

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "zenml", "mlflow", "transformers", "timm", "pandas", "great_expectations", "onnx", "sklearn")

# Runs the command line and then tells on stderr which heavy modules it took along.
RUNNER = f"""
import sys
from components.app.cli import main
try:
    main(prog_name="image-finder")
finally:
    print("heavy:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, colour_bundle):
    from PIL import Image

    folder = tmp_path_factory.mktemp("home")
    (folder / "pictures").mkdir()
    images, annotations = [], []
    for number, name in enumerate(("red", "green", "blue"), start=1):
        Image.new("RGB", (8, 8), name).save(folder / "pictures" / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.png"})
        annotations.append({"image_id": number, "caption": f"a plain\n{name} ✓ picture"})
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    gallery = read_gallery(GalleryConfig(root=folder, annotations="captions.json", images="pictures"))
    config = EmbeddingConfig(device="cpu", threads=1)
    embed_gallery(colour_bundle, gallery, folder / "index", config, cache_dir=folder / "cache", max_failed_share=0)
    return folder


def run(home, *arguments, cwd="/", **environment):
    return subprocess.run(
        [sys.executable, "-c", RUNNER, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "IMAGE_FINDER_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_search_prints_an_aligned_table_and_stays_light(home):
    done = run(home, "search", "green", "-k", "2")
    assert (done.returncode, done.stderr) == (0, "heavy:\n")
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["rank", "score", "id", "uri", "caption"]
    assert first.split() == [
        "1",
        "1.0000",
        "2",
        str(home / "pictures" / "green.png"),
        "a",
        "plain",
        "green",
        "✓",
        "picture",
    ]
    assert [line.index("a plain") for line in (first, second)] == [heading.index("caption")] * 2


def test_json_holds_every_field(home):
    done = run(home, "search", "blue", "-k", "1", "--json")
    (hit,) = json.loads(done.stdout)
    assert hit.pop("score") == pytest.approx(1, abs=1e-3)
    uri = str(home / "pictures" / "blue.png")
    assert hit == {"rank": 1, "id": "3", "uri": uri, "captions": ["a plain\nblue ✓ picture"]}


def test_words_without_quotes_are_one_query(home):
    done = run(home, "search", "a", "red", "thing", "--json")
    assert json.loads(done.stdout)[0]["id"] == "1"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "  "], 1, "Error: the query is empty"),
        (["search", "red", "-k", "0"], 1, "Error: k is 0, expected 1 to 1000"),
        (["search", "red", "--index", "/nowhere"], 1, "Error: no index at /nowhere: index.json is missing"),
        (["search", "red", "--bundle", "/nowhere"], 1, "Error: no bundle at /nowhere"),
        (["search"], 2, "Error: Missing argument 'TEXT'"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_on_stderr(home, arguments, code, message):
    done = run(home, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert [line.startswith(message) for line in lines] == [True]
    assert "Traceback" not in done.stderr


def test_an_index_of_another_model_is_one_line(home, write_colour_bundle, tmp_path):
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    done = run(home, "search", "red", "--bundle", str(other.path))
    assert done.returncode == 1
    assert other.sha256[:12] in done.stderr.splitlines()[0]
    assert "was made with bundle" in done.stderr.splitlines()[0]


def test_help_is_light_and_has_an_example(home):
    done = run(home, "search", "--help")
    assert (done.returncode, done.stderr) == (0, "heavy:\n")
    assert "image-finder search a dog running on the beach" in done.stdout


def test_a_closed_pipe_is_quiet(home):
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, "search", "red"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "IMAGE_FINDER_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    talk = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), talk) == (1, "heavy:\n")

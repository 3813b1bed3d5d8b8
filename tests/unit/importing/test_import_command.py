"""`models import`: a folder becomes a bundle, and with --use the library is searched with it."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from PIL import Image

from image_finder.components.app.cli import main
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.importing.known import KNOWN
from image_finder.components.search.finder import Finder

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words):
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("red", (250, 0, 0)), ("green", (0, 250, 0)), ("blue", (0, 0, 250))):
        Image.linear_gradient("L").convert("RGB").point(lambda value: value // 2).save(folder / f"grey-{name}.png")
        Image.new("RGB", (90, 70), colour).save(folder / f"{name}.png")
    return folder


def test_a_new_folder_or_use_must_be_chosen(original_folder, home):
    code, _, error = run("models", "import", original_folder("siglip"))
    assert code == 2
    assert "name a new folder with --to, or use the model at once with --use" in error


def test_a_compressed_bundle_states_its_loss(original_folder, home, tmp_path):
    code, out, _ = run(
        "models", "import", original_folder("clip"), "--to", tmp_path / "clip", "--int8-text", "--half-image"
    )
    assert code == 0
    assert "compression  smallest cosine to the exact towers: text 0.99" in out
    assert "To use it: image-finder index IMAGES --bundle" in out
    bundle = Bundle.open(tmp_path / "clip")
    assert bundle.manifest.text_quantised
    origin = bundle.manifest.imported
    assert origin is not None
    assert 0.99 < origin.text_cosine < 1
    assert 0.9999 < origin.image_cosine < 1


def test_a_used_model_indexes_the_library_again_and_answers(original_folder, home, images, tmp_path):
    code, _, error = run("models", "import", original_folder("alt_clip"), "--to", tmp_path / "first")
    assert code == 0, error
    assert run("index", images, "--bundle", tmp_path / "first")[0] == 0
    code, out, error = run("models", "import", original_folder("siglip"), "--use", "--json")
    assert code == 0, error
    made = json.loads(out)
    assert made["imported"]["architecture"] == "siglip"
    assert [path.name for path in (home / "bundles").iterdir() if path.is_dir()] == [made["sha256"][:16]]
    finder = Finder.open(home / "library", threads=1)
    assert finder.bundle_manifest.sha256 == made["sha256"]
    result = finder.search("\u4e00\u53ea\u72d7 eiffel", k=2)
    assert len(result.hits) == 2
    assert result.unmet == (), "the words of its training are unknown"
    assert result.matches_well is None
    assert {hit.good for hit in result.hits} == {None}
    assert finder.explain(result.hits[0].id, "a dog").overlay.width > 0
    assert "imported from" in run("info")[1]
    code, _, error = run("search", "a dog", "--explain", tmp_path / "explained", "--explain-kind", "attention")
    assert code == 1
    assert "has no attention pooling to show; explain the query instead" in error
    code, out, _ = run("classify", images / "red.png", "--labels", "dog,cat", "--json")
    scores = json.loads(out)
    total = sum(each["probability"] for each in (scores[0] if isinstance(scores, list) else scores)["labels"])
    assert total != pytest.approx(1, abs=1e-3), "SigLIP judges each label alone"


def test_an_import_needs_no_package_of_the_pipeline(original_folder, tmp_path):
    absent = ("pandas", "great_expectations", "zenml", "mlflow", "sklearn", "datasets", "matplotlib")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from image_finder.components.app.cli import main\nmain(sys.argv[1:])"
    )
    words = ["models", "import", str(original_folder("siglip")), "--to", str(tmp_path / "bundle")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert Bundle.open(tmp_path / "bundle").manifest.imported is not None


def test_the_known_models_have_a_licence_and_figures_in_percent(home):
    code, out, _ = run("models", "known")
    assert code == 0
    assert all(model.source in out for model in KNOWN)
    assert {each["source"] for each in json.loads(run("models", "known", "--json")[1])} == {
        each.source for each in KNOWN
    }
    for model in KNOWN:
        assert model.licence
        for recall in (model.coco, model.flickr30k):
            assert recall is None or sorted(recall) == list(recall)

"""The installed wheel, outside the checkout: trains, indexes and searches, also in a light environment."""

import json
import os
import shutil
import site
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.checkout import CHECKOUT
from tests.support.installed import CONSTRAINTS, build_wheel, run
from tests.support.small_trunk import SMALL_IMAGE_TRUNK, write_text_trunk

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "parameters": {
        "dataset": {"name": "tiny", "layout": "demo", "demo_images": 60},
        "split": {"val_fraction": 0.2},
        "model": {
            "embedding_dim": 64,
            "image": {**SMALL_IMAGE_TRUNK, "pool_width": 64, "pool_heads": 4},
            "text": {"weights": "hub"},  # with the trunk of write_text_trunk
        },
        "training": {"epochs": 1, "batch_images": 16},
        "evaluation": {"min_times_random": 0, "bootstrap_samples": 100},
        "export": {"parity_images": 8},
    }
}
INDEXING = {"parameters": {"gallery": {"annotations": "annotations/captions.json", "images": "images"}}}
HOST_SETTINGS = tuple(map(Path, ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")))
HEAVY = ("torch", "zenml", "mlflow", "transformers", "timm", "pandas", "great_expectations")


# Arguments: library, captions file. Fails unless each query has equal results alone, in batches, threads and pages.
COMPANY = """
import json, random, sys
from concurrent.futures import ThreadPoolExecutor
from image_finder.components.search.finder import Finder
from image_finder.components.search.query import Query

finder = Finder.open(sys.argv[1])
texts = [each["caption"] for each in json.load(open(sys.argv[2]))["annotations"]]
queries = [Query.of_text(text, k=10) for text in random.Random(0).sample(texts, 40)]
alone = [finder.search(query) for query in queries]
assert finder.search_many(queries) == alone
assert finder.search_many(queries[::-1])[::-1] == alone
with ThreadPoolExecutor(8) as threads:
    assert list(threads.map(finder.search, queries)) == alone
halves = [finder.search_many([query.model_copy(update={"k": 5, "offset": at}) for at in (0, 5)]) for query in queries]
assert [(*first.hits, *second.hits) for first, second in halves] == [each.hits for each in alone]
images = [finder.image_path(hit.id) for hit in alone[0].hits]
together = finder.encode_images(images)
for row, image in enumerate(images):
    difference = abs(finder.encode_images([image])[0] - together[row]).max()
    assert difference < 1e-6, difference
print(len(alone))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def published(wheel, tmp_path_factory):
    """A home trained and indexed by the wheel, with this environment's packages."""
    root = tmp_path_factory.mktemp("installed")
    venv.create(root / "env", with_pip=True)
    python = root / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    (own,) = (root / "env" / "lib").glob("python*/site-packages")
    (own / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    finder = root / "env" / "bin" / "image-finder"
    TINY["parameters"]["model"]["text"]["trunk"] = str(write_text_trunk(root / "words"))
    for name, values in (("training", TINY), ("indexing", INDEXING)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(values))
        run(finder, "pipeline", "run", name, "--config", root / f"{name}.yaml", "--home", root / "home")
    where = run(python, "-c", "import image_finder; print(image_finder.__file__)").strip()
    assert where.startswith(str(own)), where
    return finder, root / "home" / "library"


def test_the_installed_wheel_trains_indexes_and_searches(published):
    finder, index = published
    hits = json.loads(
        run(finder, "search", "a dog on the beach", "--index", index, "-k", "5", "--duplicates", "show", "--json")
    )["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory):
    """The command in an environment with the search extra, as README.md installs it."""
    root = tmp_path_factory.mktemp("light")
    venv.create(root / "env", with_pip=True)
    pip = (root / "env" / "bin" / "python", "-m", "pip")
    options = ("install", "-q", "--no-compile", "-c")
    assert f"pip {' '.join(options)} infra/constraints.txt '.[search]' " in (CHECKOUT / "README.md").read_text("utf-8")
    run(*pip, *options, CONSTRAINTS, f"{wheel}[search]")
    installed = {line.split("==")[0].lower() for line in run(*pip, "freeze").splitlines()}
    assert not installed & set(HEAVY)
    size_mb = sum(path.lstat().st_size for path in (root / "env").rglob("*") if path.is_file()) / 1e6
    assert size_mb < 450, size_mb
    return root / "env" / "bin" / "image-finder"


def test_the_search_extra_gives_equal_answers(published, light):
    finder, index = published
    words = ("search", "a dog on the beach", "--index", index, "-k", "5", "--json")
    here, there = (json.loads(run(command, *words))["hits"] for command in (finder, light))
    assert [hit["id"] for hit in here] == [hit["id"] for hit in there]


def test_the_search_extra_searches_photographs_with_the_starter_model(light, shared_data, tmp_path):
    finder = light
    captions = json.loads((shared_data / "coco" / "annotations" / "captions_val2017.json").read_text())
    named = {each["id"]: each["file_name"] for each in captions["images"]}
    folder = shared_data / "coco" / "val2017"
    home = {"IMAGE_FINDER_HOME": str(tmp_path / "home")}
    run(finder, "starter", "fetch", **home)
    run(finder, "index", folder, **home)
    found = json.loads(run(finder, "search", "a plate of food on a table", "-k", "8", "--json", **home))["hits"]
    without = [
        json.loads(run(finder, "search", "grass", *words, "-k", "10", "--json", **home))["hits"]
        for words in ((), ("--not", "animals"))
    ]
    annotations = shared_data / "coco" / "annotations" / "captions_val2017.json"
    assert run(finder.parent / "python", "-c", COMPANY, tmp_path / "home" / "library", annotations) == "40\n"
    captions_of = {name: [] for name in named.values()}
    for each in captions["annotations"]:
        captions_of[named[each["image_id"]]].append(each["caption"].lower())
    served = [
        any(word in " ".join(captions_of[hit["name"]]) for word in ("food", "plate", "pizza", "meal")) for hit in found
    ]
    of_all = sum(
        any(word in " ".join(each) for word in ("food", "plate", "pizza", "meal")) for each in captions_of.values()
    )
    assert of_all < 0.2 * len(captions_of)
    assert sum(served) >= 5, [hit["name"] for hit in found]
    animals, grass = (
        [sum(any(word in " ".join(captions_of[hit["name"]]) for word in words) for hit in hits) for hits in without]
        for words in (("dog", "horse", "cow", "sheep", "giraffe", "zebra", "elephant", "bird"), ("grass", "field"))
    )
    assert animals[0] >= 5, animals
    assert animals[1] <= 2, animals
    assert grass[1] >= 4, grass


@pytest.fixture(scope="module")
def trixie(tmp_path_factory):
    """A root directory of Debian 13 with its Python."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        message = "a Debian root directory is made as root: apt-get install debootstrap"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    root = tmp_path_factory.mktemp("trixie")
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    run("debootstrap", "--variant=minbase", f"--include={packages}", "trixie", root)
    for path in HOST_SETTINGS:
        if path.is_file():
            shutil.copyfile(path, root / path.relative_to("/"))
    yield root
    shutil.rmtree(root, ignore_errors=True)


def test_the_search_extra_searches_with_python_3_13_of_debian(trixie, wheel, shared_data):
    def inside(*words):
        return run("chroot", trixie, "env", "HOME=/root", *words)

    for path in (wheel, CONSTRAINTS):
        shutil.copy(path, trixie / "root")
    images = trixie / "root" / "images"
    images.mkdir()
    for path in sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[:20]:
        shutil.copy(path, images)
    inside("python3", "-m", "venv", "/root/env")
    inside("/root/env/bin/pip", "install", "-q", "-c", "/root/constraints.txt", f"/root/{wheel.name}[search]")
    inside("/root/env/bin/image-finder", "starter", "fetch")
    assert inside("/root/env/bin/python", "--version").startswith("Python 3.13")
    inside("/root/env/bin/image-finder", "index", "/root/images")
    hits = json.loads(inside("/root/env/bin/image-finder", "search", "a plate of food", "-k", "3", "--json"))["hits"]
    assert len(hits) == 3

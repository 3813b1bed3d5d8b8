import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from image_finder.components.app.commands.search_command import search
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import GalleryConfig
from image_finder.components.storage import sha256_of_file
from tests.support.checkout import CHECKOUT
from tests.support.galleries import publish_gallery
from tests.support.item_ids import item_id

HEAVY = ("torch", "zenml", "mlflow", "transformers", "timm", "pandas", "great_expectations", "onnx", "sklearn")

# Runs the command line and then prints the imported heavy modules to stderr.
RUNNER = f"""
import sys
from image_finder.components.app.cli import main
try:
    main(prog_name="image-finder")
finally:
    print("heavy:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def publish_images(folder, colours, bundle):
    """Publish coloured images (name -> colour) with captions as the index of a home."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, (name, colour) in enumerate(colours.items(), start=1):
        Image.new("RGB", (8, 8), colour).save(folder / "images" / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.png"})
        annotations.append({"image_id": number, "caption": f"a plain\n{name} ✓ image"})
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    gallery = GalleryConfig(root=folder, annotations="captions.json", images="images")
    publish_gallery(gallery, bundle, folder / "library")


@pytest.fixture(scope="module")
def home(tmp_path_factory, colour_bundle):
    """A home with three colours; its subfolder `twins` is a home with two red images."""
    folder = tmp_path_factory.mktemp("home")
    publish_images(folder, {name: name for name in ("red", "green", "blue")}, colour_bundle)
    twins = {"red": "red", "rot": (250, 3, 3), "green": "green"}
    publish_images(folder / "twins", twins, colour_bundle)
    return folder


@pytest.fixture(scope="module")
def album_of_reds(tmp_path_factory, write_colour_bundle, good_from):
    """A home with 5 red images among 60; its model calls hits with a cosine of 0.9 or more good."""
    folder = tmp_path_factory.mktemp("reds")
    vocabulary = Vocabulary.of(["a red one"] * 40)
    bundle = write_colour_bundle(folder / "bundle", vocabulary=vocabulary, matches=good_from(0.9))
    publish_images(folder, {f"{n:02d}": (220, n, n) if n < 5 else (20, n, 200) for n in range(60)}, bundle)
    return folder


def run(home, *arguments, cwd="/", **environment):
    return subprocess.run(
        [sys.executable, "-c", RUNNER, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "IMAGE_FINDER_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def ask(home, *arguments, **environment):
    """Run the command in this process: (exit code, stdout, lines of stderr)."""
    done = CliRunner().invoke(
        search, arguments, env={"IMAGE_FINDER_HOME": str(home), **environment}, prog_name="search"
    )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stdout, done.stderr.splitlines()


def names(home, *arguments):
    code, printed, _ = ask(home, *arguments, "--json")
    assert code == 0
    return [hit["name"].removesuffix(".png") for hit in json.loads(printed)["hits"]]


def id_of(home, name):
    code, printed, _ = ask(home, name, "-k", "1", "--json")
    assert code == 0
    return json.loads(printed)["hits"][0]["id"]


def test_a_search_prints_an_aligned_table_and_stays_light(home):
    done = run(home, "search", "green", "-k", "2", "--folder", "images", "--since", "2001-01-01", "--min-px", "8")
    assert (done.returncode, done.stderr) == (0, "more images: --page 2\nheavy:\n")
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["rank", "score", "id", "caption", "image"]
    rank, score, identity, *caption, path = first.split()
    assert (rank, score, path) == ("1", "0.9993", str(home / "images" / "green.png"))
    assert (len(identity), " ".join(caption)) == (16, "a plain green ✓ image")
    assert [line.index("a plain") for line in (first, second)] == [heading.index("caption")] * 2
    assert [line.index(str(home)) for line in (first, second)] == [heading.index("image")] * 2


@pytest.mark.parametrize("how", ["--image", "--like"])
def test_a_search_by_image_stays_light_too(home, how):
    term = str(home / "images" / "blue.png") if how == "--image" else id_of(home, "blue")
    done = run(home, "search", how, term, "--duplicates", "show", "-k", "3")
    assert (done.returncode, done.stderr) == (0, "heavy:\n")
    heading, first, *_ = done.stdout.splitlines()
    assert heading.split() == ["rank", "score", "id", "caption", "image"]
    assert first.endswith("blue.png")


def test_json_contains_the_whole_answer(home):
    code, printed, talk = ask(home, "blue", "-k", "1", "--json")
    answer = json.loads(printed)
    (hit,) = answer.pop("hits")
    assert (code, talk) == (0, ["more images: --page 2"])
    assert answer == {"candidates": 3, "more": True, "matches_well": True, "unmet": [], "truncated": []}
    file = home / "images" / "blue.png"
    assert (hit.pop("score"), hit.pop("good")) == (pytest.approx(1, abs=1e-2), None)
    assert datetime.fromisoformat(hit.pop("modified_at")).timestamp() == int(file.stat().st_mtime)
    assert hit == {
        "rank": 1,
        "id": item_id(home / "images", b"blue.png"),
        "uri": str(file),
        "folder": "images",
        "name": "blue.png",
        "captions": ["a plain\nblue ✓ image"],
        "sha256": sha256_of_file(file),
        "bytes": file.stat().st_size,
        "width_px": 8,
        "height_px": 8,
        "taken_at": None,
        "camera": "",
        "latitude": None,
        "longitude": None,
        "duplicates": [],
    }


def test_paths_alone_are_printed_as_they_are(home, tmp_path, colour_bundle):
    assert ask(home, "red", "--paths", "-k", "2")[1].splitlines()[0] == str(home / "images" / "red.png")
    publish_images(tmp_path, {"red": "red", "two\nlines": "blue"}, colour_bundle)
    code, printed, _ = ask(tmp_path, "blue", "-0")
    assert (code, printed.split("\0")) == (
        0,
        [str(tmp_path / "images" / f"{name}.png") for name in ("two\nlines", "red")] + [""],
    )


@pytest.mark.linux
def test_a_path_that_is_not_utf8_reaches_a_pipe_byte_by_byte(home, tmp_path, colour_bundle):
    publish_images(tmp_path, {"red": "red"}, colour_bundle)
    name = os.fsencode(tmp_path / "images") + b"/\xff.png"
    shutil.copy(tmp_path / "images" / "red.png", name)
    publish_gallery(GalleryConfig(root=tmp_path / "images"), colour_bundle, tmp_path / "other")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    words = ["search", "red", "-0", "--duplicates", "show", "--library", str(tmp_path / "other")]
    done = subprocess.run(
        [sys.executable, "-m", "image_finder", *words], env=environment, capture_output=True, check=True
    )
    assert name in done.stdout.split(b"\0")


def test_a_contact_sheet_holds_its_images_and_escapes_captions(home, tmp_path):
    assert ask(home, "red <b>", "--html", str(tmp_path / "sheet.html"), "-k", "2")[0] == 0
    page = (tmp_path / "sheet.html").read_text()
    assert "<h1>red &lt;b&gt;</h1>" in page
    images = [Image.open(io.BytesIO(base64.b64decode(part))) for part in re.findall('base64,([^"]+)"', page)]
    assert [(image.format, image.size) for image in images] == [("JPEG", (8, 8))] * 2
    red, _, blue = np.asarray(images[0])[4, 4]
    assert (red > 200, blue < 50) == (True, True)
    assert page.count("a plain") >= len(images)


def test_a_contact_sheet_by_time_has_no_headings(colour_bundle, tmp_path, paint):
    from image_finder.components.app.contact_sheet import contact_sheet
    from image_finder.components.search.engine import SearchEngine
    from tests.support.galleries import embed_folder

    for name in ("red", "green", "blue"):
        paint(tmp_path / "images" / f"{name}.png", name)
    embed_folder(tmp_path / "images", colour_bundle, tmp_path / "index")
    engine = SearchEngine.open(tmp_path / "index")
    hits = engine.search("red", 3).hits

    def sheet(*goods):
        judged = tuple(hit.model_copy(update={"good": good}) for hit, good in zip(hits, goods, strict=True))
        return contact_sheet(engine, judged, title="red", notes=[])

    assert "Less certain" in sheet(True, False, False)
    assert "Less certain" not in sheet(True, False, True)


def test_a_contact_sheet_names_an_image_that_cannot_be_read(tmp_path, colour_bundle):
    publish_images(tmp_path, {"red": "red", "green": "green"}, colour_bundle)
    (tmp_path / "images" / "red.png").unlink()
    assert ask(tmp_path, "red", "--html", str(tmp_path / "sheet.html"))[0] == 0
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("base64,") == 1
    assert "red.png: No such file or directory" in page


@pytest.mark.linux
def test_open_starts_the_program_of_the_system(home, tmp_path):
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/opened\n')
    opener.chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert run(home, "search", "red", "--open", PATH=path).returncode == 0
    sheet = tmp_path / "sheet.html"
    assert run(home, "search", "red", "--open", "--html", str(sheet), PATH=path).returncode == 0
    deadline = time.monotonic() + 30
    while not (opened := tmp_path / "opened").exists() or len(opened.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert set(opened.read_text().splitlines()) == {str(home / "images" / "red.png"), str(sheet)}
    done = run(home, "search", "red", "--open", PATH=str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "no program opens" in done.stderr


def test_words_without_quotes_are_one_query(home):
    assert names(home, "a", "red", "thing", "-k", "1") == ["red"]


def test_texts_images_and_ids_are_combined(home):
    image, identity = str(home / "images" / "blue.png"), id_of(home, "green")
    assert names(home, "red", "--image", image, "--duplicates", "show")[2] == "green"
    assert names(home, "red", "--like", identity, "--duplicates", "show")[2] == "blue"
    assert names(home, "--also", "red", "--also", "green", "--duplicates", "show")[2] == "blue"
    assert names(home, "--like", identity, "--image", image, "--duplicates", "show")[2] == "red"


def test_texts_images_and_ids_can_have_weights(home):
    image, identity = str(home / "images" / "blue.png"), id_of(home, "green")
    order = ["red^3", "--image", f"{image}^2", "--like", f"{identity}^1", "--duplicates", "show"]
    assert names(home, *order) == ["red", "blue", "green"]
    assert names(home, "red", "--image", f"{image}^2.5", "--like", f"{identity}^.5", "--duplicates", "show") == [
        "blue",
        "red",
        "green",
    ]
    assert names(home, "red", "--also", "blue^2", "--duplicates", "show")[0] == "blue"


def test_a_file_name_that_ends_like_a_weight_is_a_file(home, tmp_path):
    named = tmp_path / "blue.png^2"
    named.write_bytes((home / "images" / "blue.png").read_bytes())
    assert names(home, "--image", str(named), "-k", "1") == ["blue"]


def test_not_lowers_the_rank_by_its_weight(home):
    every = ("red and green and blue", "--duplicates", "show")
    assert names(home, *every, "--not", "red", "--not", "green^0.1") == ["blue", "green", "red"]
    assert names(home, *every, "--not", "blue^0.4", "--not", "green^0.8") == ["red", "blue", "green"]


def test_filters_and_the_minimum_score_exclude_images(home):
    assert names(home, "red", "--min-score", "0.5") == ["red"]
    none: dict[str, list[tuple[str, ...]]] = {
        "no image matches the filters": [
            ("--until", "1999-12-31"),
            ("--camera", "canon"),
            ("--min-px", "9"),
            ("--orientation", "portrait"),
            ("--gps",),
        ],
        "none of 3 images scores 1.5 or more": [("--min-score", "1.5"), ("--no-gps", "--min-score", "1.5")],
        "no images on page 9": [("--page", "9")],
    }
    for expected, filters in none.items():
        for options in filters:
            assert ask(home, "red", *options) == (0, "", [expected])
    assert json.loads(ask(home, "red", "--gps", "--json")[1])["hits"] == []


def test_a_folder_is_named_by_its_label_or_by_its_path(home, monkeypatch):
    monkeypatch.chdir(home)
    for folder in ("images", "./images/", str(home / "images"), f"{home}/twins/../images"):
        assert len(names(home, "red", "--folder", folder)) == 3
    assert len(names(home / "twins", "red", "--duplicates", "show", "--folder", str(home / "twins" / "images"))) == 3
    code, _, talk = ask(home, "red", "--folder", str(home / "twins" / "images"))
    assert (code, talk) == (
        1,
        [f"Error: the library has no images in folder {str(home / 'twins' / 'images')!r}; indexed folders: 'images'"],
    )


def test_an_image_reaches_a_minimum_score_of_one_with_itself(home):
    assert names(home, "--image", str(home / "images" / "red.png"), "--min-score", "1") == ["red"]


def test_pages_follow_each_other(home):
    pages = [names(home, "red", "--duplicates", "show", "-k", "1", "--page", str(page)) for page in (1, 2, 3)]
    assert [page[0] for page in pages] == names(home, "red", "--duplicates", "show")
    assert ask(home, "red", "--duplicates", "show", "-k", "1", "--page", "3")[2] == []


def test_near_duplicates_are_folded_and_counted(home):
    # Plain images have one difference hash, and red and its near shade one colour as well.
    folded = ask(home / "twins", "red")[1].splitlines()
    assert len(folded) == 3
    assert folded[1].split()[3:5] == ["+1", "similar"]
    assert len(ask(home / "twins", "red", "--duplicates", "show")[1].splitlines()) == 4


def test_words_missing_in_the_training_captions_are_reported(tmp_path, write_colour_bundle):
    bundle = write_colour_bundle(tmp_path / "bundle", vocabulary=Vocabulary.of(["a red one", "a red two"]))
    publish_images(tmp_path / "home", {"red": "red"}, bundle)
    assert ask(tmp_path / "home", "a red")[2] == []
    assert ask(tmp_path / "home", "a red emu, or an Émeu")[2] == [
        "'emu', 'Émeu' never occurred in the training captions; results may be unrelated"
    ]


def test_the_ignored_part_of_a_long_query_is_reported(home):
    text = "red green blue white red green blue white yellow yellow"  # the model of these tests reads eight words
    code, printed, talk = ask(home, text, "--json")
    assert (code, json.loads(printed)["truncated"]) == (
        0,
        [{"used": "red green blue white red green blue white", "unused": "yellow yellow"}],
    )
    assert talk[1:] == [
        "the query is too long for the model; used 'red green blue white red green blue white', ignored 'yellow yellow'"
    ]
    assert "the query is too long" in ask(home, "red", "--not", text)[2][-1]


def test_a_divider_separates_good_from_less_certain_matches(album_of_reds):
    printed = ask(album_of_reds, "a red one", "-k", "6", "--duplicates", "show")[1].splitlines()
    assert [line for line in printed if not line[0].isdigit()][1:] == ["Good matches", "Less certain"]
    assert (printed[1], printed[7]) == ("Good matches", "Less certain")
    assert "Less certain" not in ask(album_of_reds, "a red one", "-k", "2", "--duplicates", "show")[1]
    code, printed, talk = ask(album_of_reds, "1234", "-k", "3", "--duplicates", "show")
    assert (code, printed.splitlines()[1]) == (0, "Less certain")
    assert "Good matches" not in printed
    assert talk == ["no good match; these are the closest images", "more images: --page 2"]


def test_a_search_without_good_match_is_reported(home):
    code, printed, talk = ask(home, "white")
    assert (code, len(printed.splitlines())) == (0, 4)
    assert talk == ["no good match; these are the closest images"]
    assert ask(home, "white", "--not", "red")[2] == talk
    assert ask(home, "red")[2] == []


@pytest.fixture(scope="module")
def edges(tmp_path_factory, colour_bundle):
    """A home with two images; one has since been given a red left and a blue right edge."""
    folder = tmp_path_factory.mktemp("edges")
    publish_images(folder, {"both": (140, 100, 140), "green": "green"}, colour_bundle)
    image = Image.new("RGB", (80, 80), "grey")
    image.paste("red", (0, 0, 20, 80))
    image.paste("blue", (60, 0, 80, 80))
    image.save(folder / "images" / "both.png")
    return folder


def test_an_explanation_colours_what_raises_the_score_for_the_query(edges, tmp_path):
    def coloured(*words):
        code, _, talk = ask(edges, *words, "--explain", str(tmp_path / "why.png"))
        with Image.open(tmp_path / "why.png") as overlay:
            assert (code, overlay.size, overlay.mode) == (0, (80, 80), "RGB")
            spread = np.ptp(np.asarray(overlay).astype(int), axis=2)
        return bool(spread[:, 2:8].min() > 20), bool(spread[:, -8:-2].min() > 20), talk[-1]

    explained = f"wrote {tmp_path / 'why.png'}"
    assert (
        coloured("red", "--not", "green")
        == coloured("red", "--not", "green", "--not", "blue")
        == (True, False, explained)
    )
    assert coloured("blue", "--not", "green") == (False, True, explained)
    assert coloured("red", "--not", "green", "--explain-kind", "attention") == (False, False, explained)


def test_explanations_go_to_a_folder_or_a_file(home, tmp_path):
    code, _, talk = ask(home, "red", "-k", "2", "--explain", str(tmp_path / "why"))
    nothing = "without colour: no region raises the score"  # these images are of one colour each
    assert (code, talk[-1]) == (0, f"wrote 2 images to {tmp_path / 'why'}; 2 {nothing}")
    written = sorted(path.name for path in (tmp_path / "why").iterdir())
    assert written[0] == f"001-{id_of(home, 'red')}.jpg"
    assert len(written) == 2
    for name in ("why.png", "why.jpg"):
        assert ask(home, "red", "--explain", str(tmp_path / name))[2] == [f"wrote {tmp_path / name}; 1 {nothing}"]
        with Image.open(tmp_path / name) as overlay:
            assert (overlay.size, overlay.mode) == ((8, 8), "RGB")
    code, printed, talk = ask(home, "red", "--explain", "/dev/null/why")
    assert code == 1
    assert "Error: cannot write /dev/null/why" in talk[-1]
    assert len(printed.splitlines()) == 4


def test_a_missing_image_is_reported_and_not_explained(home, tmp_path):
    twins = home / "twins"
    (twins / "images" / "green.png").rename(tmp_path / "green.png")
    try:
        code, _, talk = ask(twins, "green", "--explain", str(tmp_path / "why"))
    finally:
        (tmp_path / "green.png").rename(twins / "images" / "green.png")
    assert code == 0
    assert talk[-2].startswith("could not explain: ")
    assert "green.png: No such file" in talk[-2]
    assert talk[-1].startswith(f"wrote 1 image to {tmp_path / 'why'}")


def test_the_library_of_the_home_is_searched_unless_another_one_is_named(home, tmp_path):
    assert ask(home, "red")[2] == []
    shutil.copytree(home / "library", tmp_path / "elsewhere")
    code, _, talk = ask(tmp_path, "red")
    assert (code, talk[0]) == (1, talk[0])
    assert f"{tmp_path}/library" in talk[0]
    for option in (("--library", tmp_path / "elsewhere"), ("--index", tmp_path / "elsewhere" / "index")):
        assert ask(tmp_path, "red", *map(str, option))[0] == 0
    code, _, talk = ask(home, "red", "--library", str(tmp_path), "--index", str(tmp_path))
    assert code == 2
    assert talk[-1].endswith("--library and --index exclude each other")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["  "], 1, "Error: the query is empty"),
        ([], 1, "Error: the query is empty; give a text, an image or the id of an image"),
        (["red", "-k", "0"], 2, "Error: Invalid value for '-k': 0 is not in the range 1<=x<=500"),
        (["red", "-k", "-3", "--page", "2"], 2, "Error: Invalid value for '-k': -3 is not in the range 1<=x<=500"),
        (
            ["red", "-k", "500", "--page", "11"],
            1,
            "Error: query: offset (5000) and k (500) must not add up to more than 5000$",
        ),
        (["red", "--not", " "], 1, "Error: the query is empty"),
        (["red^11", "--also", "blue"], 1, "Error: query: terms.0.weight: Input should be less than or equal to 10"),
        (["red", "--min-score", "nan"], 1, "Error: query: min_score"),
        (
            ["red", "--since", "2024-02-01", "--until", "2024-01-01"],
            1,
            "Error: query: filters: since (2024-02-01) must not be after until (2024-01-01)$",
        ),
        (
            ["red", "--folder", "elsewhere"],
            1,
            "Error: the library has no images in folder 'elsewhere'; indexed folders: 'images'$",
        ),
        (
            ["red", "--folder", "/nowhere"],
            1,
            "Error: the library has no images in folder '/nowhere'; indexed folders: 'images'$",
        ),
        (["red", "--since", "tomorrow"], 2, "Error: Invalid value for '--since'"),
        (["red", "--orientation", "round"], 2, "Error: Invalid value for '--orientation'"),
        (["red", "--page", "0"], 2, "Error: Invalid value for '--page'"),
        (["--image", "/nowhere/a.jpg"], 1, "Error: /nowhere/a.jpg: No such file or directory"),
        (["--image", "/dev/zero"], 1, "Error: /dev/zero: not a regular file"),
        (["--image", __file__], 1, f"Error: {__file__}: not a readable image"),
        (["--like", "0123456789abcdef"], 1, "Error: no image has the id '0123456789abcdef'"),
        (["red", "--index", "/nowhere"], 1, "Error: no images indexed yet in /nowhere. Run: image-finder index FOLDER"),
        (
            ["red", "--library", "/nowhere"],
            1,
            "Error: no images indexed yet in /nowhere. Run: image-finder index FOLDER",
        ),
        (["red", "--bundle", "/nowhere"], 1, "Error: no bundle at /nowhere"),
        (["red", "--json", "--paths"], 2, "Error: --json and --paths exclude each other$"),
        (
            ["red", "--preview"],
            2,
            "Error: --preview draws images on a terminal, and standard output is none; use --html",
        ),
        (["red", "--index", "/a", "--library", "/b"], 2, "Error: --library and --index exclude each other"),
    ],
)
def test_user_errors_are_one_line_on_stderr(home, arguments, code, message):
    exit_code, printed, talk = ask(home, *arguments)
    assert (exit_code, printed) == (code, "")
    assert [f"{line}$".startswith(message) for line in talk if line.startswith("Error")] == [True]
    assert len(talk) == (1 if code == 1 else 4)


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
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "IMAGE_FINDER_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    talk = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), talk) == (141, "heavy:\n")


@pytest.mark.linux
@pytest.mark.parametrize(
    ("stdout", "code", "messages"),
    [
        ("> /dev/full", 1, ["Error: could not write to standard output: No space left on device"]),
        ("--json > /dev/full", 1, ["Error: could not write to standard output: No space left on device"]),
        ("| head -c 0; exit ${PIPESTATUS[0]}", 141, []),
        (">&-", 0, ["more images: --page 2"]),
    ],
)
def test_an_unwritable_standard_output_causes_no_traceback(home, stdout, code, messages):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m image_finder search green -k 1 {stdout}"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "IMAGE_FINDER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr.splitlines()) == (code, messages)

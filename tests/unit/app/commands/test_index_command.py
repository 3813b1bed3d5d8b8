"""Commands index and info."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from image_finder.components.app import starter_bundle as starter
from image_finder.components.app.cli import main
from image_finder.components.app.commands.index_command import _Warnings
from image_finder.components.bundle.bundle import SCORES, BundleManifest
from image_finder.components.library.library import Library
from image_finder.components.storage import sha256_of_file
from tests.support.checkout import CHECKOUT


@pytest.fixture
def images_and_bundle(tmp_path, monkeypatch, colour_bundle, paint):
    """An isolated home, and three images, one of them broken."""
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "home"))
    for name in ("red", "green"):
        paint(tmp_path / "images" / f"{name}.png", name)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"x")
    for path in (tmp_path / "images").iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return tmp_path / "images", colour_bundle.path


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_index_prints_counts_and_unreadable_files(images_and_bundle, tmp_path):
    images, bundle = images_and_bundle
    lines = invoke("index", images, "--bundle", bundle).stdout.splitlines()
    assert lines[0].startswith("2 added, 0 unchanged; 2 embedded in ")
    assert lines[1] == f"2 images searchable in {tmp_path}/home/library"
    assert lines[2] == "1 file could not be read:"
    assert lines[3].startswith(f"  {images}/broken.jpg: not a readable image")
    again = invoke("index").stdout.splitlines()
    assert again[0].startswith("2 unchanged; 0 embedded")
    assert again[1].endswith(", index unchanged")
    assert again[2].startswith("Skipped 1 unreadable file (unchanged")


def test_many_failures_are_listed_up_to_twenty_and_json_has_all(images_and_bundle):
    images, bundle = images_and_bundle
    for i in range(30):
        (images / f"{i}.jpg").write_bytes(b"x")
    output = invoke("index", images, "--bundle", bundle).stdout
    assert output.count("not a readable image") == 20
    assert "and 11 more; --json lists them all" in output
    summary = json.loads(invoke("index", images, "--library", images.parent / "l", "--bundle", bundle, "--json").stdout)
    assert (len(summary["failed"]), summary["images"], summary["added"]) == (31, 2, 2)


def test_a_dry_run_writes_nothing(images_and_bundle, tmp_path):
    images, _ = images_and_bundle
    assert invoke("index", images, "--dry-run").stdout.startswith(
        "Would add 3 images; 0 unchanged (copies are detected while reading)"
    )
    assert not (tmp_path / "home").exists()
    assert "exclude each other" in invoke("index", images, "--dry-run", "--watch", code=2).stderr


def test_unsupported_formats_are_counted_by_kind_also_in_a_dry_run_and_as_json(images_and_bundle):
    images, bundle = images_and_bundle
    for name in ("a.mp4", "b.MP4", "c.mov", "d.cr2"):
        (images / name).write_bytes(b"x")
    line = "Not supported: 3 videos (.mp4 2, .mov 1), 1 camera raw file (.cr2)"
    assert line in invoke("index", images, "--dry-run").stdout.splitlines()
    assert line in invoke("index", images, "--bundle", bundle).stdout.splitlines()
    counts = json.loads(invoke("index", "--json").stdout)["unsupported"]
    assert counts == {"video": {".mp4": 2, ".mov": 1}, "camera raw file": {".cr2": 1}}


def test_an_empty_library_says_that_it_is_empty(images_and_bundle, tmp_path, album_tools):
    _, bundle = images_and_bundle
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "film.mkv").write_bytes(b"x")
    assert f"No images found in {empty}" in invoke("index", empty, "--dry-run").stdout.splitlines()
    lines = invoke("index", empty, "--bundle", bundle).stdout.splitlines()
    assert lines[2:] == [f"The library is empty: no readable images in {empty}", "Not supported: 1 video (.mkv)"]
    expected = "The library is empty. Run: image-finder index FOLDER"
    assert invoke("search", "red", code=1).stderr.splitlines()[-1] == f"Error: {expected}"
    answered = invoke("search", "red", "--json", code=1)
    assert (json.loads(answered.stdout)["hits"], expected in answered.stderr) == ([], True)
    assert f"  {expected}" in invoke("info").stdout.splitlines()
    with album_tools.serving(tmp_path / "home" / "library" / "index") as client:
        assert client.get("/api/v1/search?q=red").json()["notice"] == expected
        assert client.get("/api/v1/search?q=red&min_px=9").json()["notice"] == expected
        assert client.get("/api/v1/info").json()["images"] == 0


def test_a_folder_with_an_unreadable_ignore_file_is_reported_and_skipped(images_and_bundle):
    images, bundle = images_and_bundle
    (images / "in").mkdir()
    (images / "red.png").rename(images / "in" / "red.png")
    (images / "in" / ".finderignore").write_text("red.png", encoding="utf-16-le")
    lines = invoke("index", images, "--bundle", bundle).stdout.splitlines()
    assert lines[0].startswith("1 added")
    assert f"Not scanned: {images}/in: its .finderignore is no text in UTF-8; save it as UTF-8" in lines


def test_faults_are_one_line(images_and_bundle, tmp_path, monkeypatch):
    images, bundle = images_and_bundle
    monkeypatch.setattr(starter, "FOLDER", tmp_path / "empty")
    for arguments, message in [
        (("index",), "the library has no folders yet"),
        (("index", tmp_path / "nowhere"), "no such folder"),
        (("index", images), "this installation has no starter model; name a model with --bundle, or train one"),
        (("index", images, "--bundle", tmp_path), "no bundle at"),
        (("index", "--forget", images), "is not a folder of this library"),
        (("info",), "nothing is published at|no images indexed yet in"),
    ]:
        error = invoke(*arguments, code=1).stderr
        assert any(part in error for part in message.split("|")), error
        assert error.count("\n") == 1
    with Library(tmp_path / "home" / "library").writing():
        error = invoke("index", images, "--bundle", bundle, code=1).stderr
    assert f"is being written by process {os.getpid()} since" in error


def test_a_library_with_a_former_starter_model_is_told_how_to_change_it(images_and_bundle, tmp_path):
    images, _ = images_and_bundle
    hint = "for that of this version, embed all images again with: image-finder index --bundle starter"
    first = invoke("index", images)
    assert hint not in first.stderr
    former = tmp_path / "former"
    shutil.copytree(starter.starter_bundle().path, former)
    scores = (former / SCORES).read_text(encoding="utf-8").replace('"good_match": 0.', '"good_match": 0.1')
    (former / SCORES).write_text(scores, encoding="utf-8")
    manifest = BundleManifest.read(former)
    manifest.model_copy(
        update={"files_sha256": {**manifest.files_sha256, SCORES: sha256_of_file(former / SCORES)}}
    ).write(former)
    assert hint in invoke("index", images, "--bundle", former).stderr
    (images / "red.png").unlink()
    assert hint in invoke("index").stderr
    changed = invoke("index", "--bundle", "starter", "--json")
    assert hint not in changed.stderr
    assert json.loads(changed.stdout)["bundle"] == starter.starter_bundle().sha256


def test_info_shows_the_contents_and_a_newer_bundle(images_and_bundle, tmp_path, write_colour_bundle):
    images, bundle = images_and_bundle
    invoke("index", images, "--bundle", bundle)
    found = json.loads(invoke("info", "--json").stdout)
    assert (found["images"], found["folders"], list(found["failed"])) == (
        2,
        {str(images): 2},
        [f"{images}/broken.jpg"],
    )
    assert found["labels"] == {str(images): "images"}
    assert (found["bundle_dataset"], found["newer_bundle"]) == ("colours", "")
    assert f"          2  {images}  (--folder images)" in invoke("info").stdout.splitlines()
    newer = write_colour_bundle(tmp_path / "newer", input_px=16)
    defaults = tmp_path / "home" / "bundles"
    defaults.mkdir()
    newer.path.rename(defaults / newer.sha256[:16])
    (defaults / "CURRENT").write_text(newer.sha256[:16])
    text = invoke("info", "--index", tmp_path / "home" / "library" / "index").stdout
    assert f"A newer bundle is available: {newer.sha256[:16]}. Use it with: image-finder index" in text
    changed = invoke("index")
    assert "the bundle changed from" in changed.stderr
    assert "2 embedded" in changed.stdout
    assert "newer bundle is" not in invoke("info").stdout


def test_info_prints_each_path_of_stored_data_also_without_a_library(images_and_bundle, tmp_path):
    images, bundle = images_and_bundle
    home = tmp_path / "home"
    assert invoke("info", "--paths").stdout == f"{home}  home (IMAGE_FINDER_HOME): empty\n"
    invoke("index", images, "--bundle", bundle)
    invoke("index", images, "--bundle", bundle, "--library", tmp_path / "elsewhere")
    (home / "unknown").mkdir()
    stored = json.loads(invoke("info", "--paths", "--json", "--library", tmp_path / "elsewhere").stdout)
    assert list(stored) == [*map(str, (home, home / "library", home / "unknown", tmp_path / "elsewhere"))]
    assert json.loads(invoke("info", "--json", "--library", tmp_path / "elsewhere").stdout)["stored"] == stored
    lines = invoke("info").stdout.splitlines()
    assert lines[lines.index("stored") + 1].split()[:2] == [str(home), "home"]
    assert lines[-1].split()[0] == str(home / "unknown")


def test_info_shows_the_labels_of_folders(images_and_bundle, tmp_path, paint):
    images, bundle = images_and_bundle
    other = paint(tmp_path / "other" / "images" / "deep" / "blue.png", "blue").parents[1]
    (tmp_path / "empty").mkdir()
    invoke("index", images, other, tmp_path / "empty", "--bundle", bundle)
    listed = invoke("info").stdout.splitlines()
    assert f"          1  {other}  (--folder 'images (2)')" in listed
    assert f"          0  {tmp_path}/empty" in listed
    for label, n_images in json.loads(invoke("info", "--json").stdout)["labels"].items():
        assert n_images == {str(images): "images", str(other): "images (2)"}.get(label, "")
    for folder in ("images (2)", "images (2)/deep", other, other / "deep"):
        found = json.loads(invoke("search", "blue", "--folder", folder, "--json").stdout)
        assert [hit["name"] for hit in found["hits"]] == ["blue.png"]


@pytest.mark.posix
def test_every_command_prints_exact_paths(images_and_bundle, tmp_path, paint):
    _, bundle = images_and_bundle
    folder = tmp_path / "two  blanks" / "line\nbreak"
    image = paint(folder / "red  \x1b[31m.png", "red")
    (folder / "broken  one.jpg").write_bytes(b"x")
    shown = f"$'{tmp_path}/two  blanks/line\\nbreak"
    printed = [
        invoke("index", folder, "--bundle", bundle).stdout,
        invoke("info").stdout,
        invoke("search", "red").stdout,
    ]
    assert f"  {shown}/broken  one.jpg': not a readable image" in printed[0]
    assert f"          1  {shown}'  (--folder $'line\\nbreak')" in printed[1].splitlines()
    assert f"  {shown}/red  \\x1b[31m.png'" in printed[2]
    printed += [invoke("classify", image, "--labels", "red,blue", "--bundle", bundle).stdout]
    assert f"{shown}/red  \\x1b[31m.png'  red" in printed[3]
    printed += [invoke("index", tmp_path / "no  such\nfolder", code=1).stderr]
    assert f"{tmp_path}/no  such\\nfolder: no such folder" in printed[4]
    assert "\x1b" not in "".join(printed)
    (hit,) = json.loads(invoke("search", "red", "--json").stdout)["hits"]
    assert hit["uri"] == str(image)
    assert list(json.loads(invoke("info", "--json").stdout)["failed"]) == [f"{folder}/broken  one.jpg"]


def test_info_works_without_the_bundle(images_and_bundle, tmp_path):
    import shutil

    images, bundle = images_and_bundle
    invoke("index", images, "--bundle", bundle)
    shutil.rmtree(tmp_path / "home" / "library" / "bundles")
    assert "absent" in invoke("info").stdout


def test_help_of_both_has_examples_and_imports_nothing_heavy():
    program = (
        "import sys\nfrom image_finder.components.app.commands.index_command import index\nfrom image_finder.components.app.commands.info_command import info\n"
        "print([n for n in ('numpy', 'onnxruntime', 'pyarrow', 'watchfiles', 'PIL') if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert "Examples:" in invoke("index", "--help").stdout
    assert "Examples:" in invoke("info", "--help").stdout


def test_a_warning_is_repeated_only_after_an_update_without_it(capsys):
    warnings = _Warnings()
    for messages in (["a", "a"], ["a", "b"], ["b"], ["a"]):
        warnings.next_update()
        for message in messages:
            warnings.warn(message)
    assert capsys.readouterr().err.split() == ["a", "b", "a"]


@pytest.mark.posix
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_watch_indexes_new_files_until_it_is_stopped(images_and_bundle, tmp_path, paint, how):
    images, bundle = images_and_bundle
    command = [
        sys.executable,
        "-m",
        "image_finder",
        "index",
        str(images),
        "--bundle",
        str(bundle),
        "--watch",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert json.loads(child.stdout.readline())["images"] == 2
        paint(images / "new.png", "blue")
        deadline = time.monotonic() + 60
        while (summary := json.loads(child.stdout.readline()))["images"] != 3:
            assert time.monotonic() < deadline
        assert (summary["added"], summary["watching"]) == (1, "events")
        child.send_signal(how)
        _, stderr = child.communicate(timeout=30)
    assert "stopped; everything indexed so far is kept" in stderr
    assert "Traceback" not in stderr
    assert child.returncode == 0

"""Commands index and info: what they print, refuse and leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.app import starter
from components.app.cli import main
from components.app.index_command import _Warnings
from components.library.place import Library

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch, colour_bundle, paint):
    """A home of its own and three pictures, one broken."""
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "home"))
    for name in ("red", "green"):
        paint(tmp_path / "pictures" / f"{name}.png", name)
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"x")
    for path in (tmp_path / "pictures").iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return tmp_path / "pictures", colour_bundle.path


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_index_says_what_it_did_and_which_files_it_could_not_read(place, tmp_path):
    pictures, bundle = place
    lines = invoke("index", pictures, "--bundle", bundle).stdout.splitlines()
    assert lines[0].startswith("2 added, 0 unchanged; 2 embedded in ")
    assert lines[1] == f"2 pictures can be searched in {tmp_path}/home/library"
    assert lines[2] == "1 files cannot be read as pictures:"
    assert lines[3].startswith(f"  {pictures}/broken.jpg: not a picture")
    again = invoke("index").stdout.splitlines()
    assert again[0].startswith("2 unchanged; 0 embedded")
    assert again[1].endswith(", index unchanged")
    assert again[2].startswith("1 broken files did not change")


def test_many_failures_are_listed_up_to_twenty_and_json_has_all(place):
    pictures, bundle = place
    for i in range(30):
        (pictures / f"{i}.jpg").write_bytes(b"x")
    output = invoke("index", pictures, "--bundle", bundle).stdout
    assert output.count("not a picture") == 20
    assert "and 11 more; --json lists them all" in output
    summary = json.loads(
        invoke("index", pictures, "--library", pictures.parent / "l", "--bundle", bundle, "--json").stdout
    )
    assert (len(summary["failed"]), summary["pictures"], summary["added"]) == (31, 2, 2)


def test_a_dry_run_writes_nothing(place, tmp_path):
    pictures, _ = place
    assert invoke("index", pictures, "--dry-run").stdout.startswith("would be done: 3 added, 0 unchanged")
    assert not (tmp_path / "home").exists()
    assert "exclude each other" in invoke("index", pictures, "--dry-run", "--watch", code=2).stderr


def test_faults_are_one_line(place, tmp_path, monkeypatch):
    pictures, bundle = place
    monkeypatch.setattr(starter, "FOLDER", tmp_path / "empty")
    for arguments, message in [
        (("index",), "the library has no folders yet"),
        (("index", tmp_path / "nowhere"), "no such folder"),
        (("index", pictures), "this installation holds no starter model; name one with --bundle, or train one"),
        (("index", pictures, "--bundle", tmp_path), "no bundle at"),
        (("index", "--forget", pictures), "is not a folder of this library"),
        (("info",), "nothing is published at|no index at"),
    ]:
        error = invoke(*arguments, code=1).stderr
        assert any(part in error for part in message.split("|")), error
        assert error.count("\n") == 1
    with Library(tmp_path / "home" / "library").writing():
        error = invoke("index", pictures, "--bundle", bundle, code=1).stderr
    assert f"is being written by process {os.getpid()} since" in error


def test_info_tells_what_can_be_searched_and_that_a_newer_bundle_came(place, tmp_path, write_colour_bundle):
    pictures, bundle = place
    invoke("index", pictures, "--bundle", bundle)
    found = json.loads(invoke("info", "--json").stdout)
    assert (found["pictures"], found["folders"], list(found["failed"])) == (
        2,
        {str(pictures): 2},
        [f"{pictures}/broken.jpg"],
    )
    assert found["labels"] == {str(pictures): "pictures"}
    assert (found["bundle_dataset"], found["newer_bundle"]) == ("colours", "")
    assert f"          2  {pictures}  (--folder pictures)" in invoke("info").stdout.splitlines()
    newer = write_colour_bundle(tmp_path / "newer", input_px=16)
    defaults = tmp_path / "home" / "bundles"
    defaults.mkdir()
    newer.path.rename(defaults / newer.sha256[:16])
    (defaults / "CURRENT").write_text(newer.sha256[:16])
    text = invoke("info", "--index", tmp_path / "home" / "library" / "index").stdout
    assert f"a newer bundle was published: {newer.sha256[:16]}; image-finder index takes it" in text
    changed = invoke("index")
    assert "the bundle changed from" in changed.stderr
    assert "2 embedded" in changed.stdout
    assert "newer bundle" not in invoke("info").stdout


def test_info_gives_the_labels_by_which_folders_can_be_searched(place, tmp_path, paint):
    pictures, bundle = place
    other = paint(tmp_path / "other" / "pictures" / "deep" / "blue.png", "blue").parents[1]
    (tmp_path / "empty").mkdir()
    invoke("index", pictures, other, tmp_path / "empty", "--bundle", bundle)
    listed = invoke("info").stdout.splitlines()
    assert f"          1  {other}  (--folder 'pictures (2)')" in listed
    assert f"          0  {tmp_path}/empty" in listed
    for label, n_pictures in json.loads(invoke("info", "--json").stdout)["labels"].items():
        assert n_pictures == {str(pictures): "pictures", str(other): "pictures (2)"}.get(label, "")
    for folder in ("pictures (2)", "pictures (2)/deep", other, other / "deep"):
        found = json.loads(invoke("search", "blue", "--folder", folder, "--json").stdout)
        assert [hit["name"] for hit in found["hits"]] == ["blue.png"]


def test_info_of_a_library_whose_bundle_is_gone_still_answers(place, tmp_path):
    import shutil

    pictures, bundle = place
    invoke("index", pictures, "--bundle", bundle)
    shutil.rmtree(tmp_path / "home" / "library" / "bundles")
    assert "absent" in invoke("info").stdout


def test_help_of_both_has_examples_and_imports_nothing_heavy():
    program = (
        "import sys\nfrom components.app.index_command import index\nfrom components.app.info_command import info\n"
        "print([n for n in ('numpy', 'onnxruntime', 'pyarrow', 'watchfiles', 'PIL') if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
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


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_watch_indexes_what_comes_and_ends_when_it_is_told_to(place, tmp_path, paint, how):
    pictures, bundle = place
    command = [
        sys.executable,
        "-m",
        "components.app.cli",
        "index",
        str(pictures),
        "--bundle",
        str(bundle),
        "--watch",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert json.loads(child.stdout.readline())["pictures"] == 2
        paint(pictures / "new.png", "blue")
        deadline = time.monotonic() + 60
        while (summary := json.loads(child.stdout.readline()))["pictures"] != 3:
            assert time.monotonic() < deadline
        assert (summary["added"], summary["watching"]) == (1, "events")
        child.send_signal(how)
        _, stderr = child.communicate(timeout=30)
    assert "stopped; what was indexed is kept" in stderr
    assert "Traceback" not in stderr
    assert child.returncode == 0

"""Scan: what a walk finds, and what it leaves out."""

import codecs
import os
import random
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from image_finder.components.images.files import IMAGE_ENDINGS
from image_finder.components.library.ignore import IgnoreRules
from image_finder.components.library.scan import Scan, outermost_first, scan_folders
from image_finder.components.library.unsupported import KIND_OF_ENDING, by_kind, unsupported_text
from image_finder.components.system import path_bytes


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(root, *others, **options):
    scan = scan_folders([path_bytes(each) for each in (root, *others)], **options)
    return {os.fsdecode(path)[len(str(root)) + 1 :] for path in scan.files}


def test_images_are_found_at_any_depth_with_size_and_time(tmp_path):
    file = touch(tmp_path / "a" / "b" / "C.JPG", b"12345")
    os.utime(file, ns=(5, 1_700_000_000_123_456_789))
    touch(tmp_path / "a" / "notes.txt")
    touch(tmp_path / "jpg")
    assert scan_folders([path_bytes(tmp_path)]).files == {path_bytes(file): (0, 5, 1_700_000_000_123_456_789)}


@pytest.mark.parametrize(
    "hidden",
    [".x/a.jpg", ".a.jpg", "lost+found/a.jpg", "$RECYCLE.BIN/a.jpg", "d/@eaDir/a.jpg", "__MACOSX/a.jpg", "node_modules/a.jpg", "System Volume Information/a.jpg"],
)  # fmt: skip
def test_hidden_and_system_folders_are_skipped(tmp_path, hidden):
    touch(tmp_path / hidden)
    touch(tmp_path / "seen" / "a.jpg")
    assert names(tmp_path) == {"seen/a.jpg"}


def test_a_hidden_folder_given_as_source_is_scanned(tmp_path):
    touch(tmp_path / ".cache" / "a.jpg")
    assert names(tmp_path / ".cache") == {"a.jpg"}


@pytest.mark.linux
def test_names_of_any_bytes_are_found(tmp_path):
    odd = [b"new\nline.jpg", b"caf\xe9.jpg", "日本 🐕.png".encode(), b" .jpg", b"-rf.jpg", b"tab\t.gif"]
    for name in odd:
        Path(os.fsdecode(path_bytes(tmp_path) + b"/" + name)).write_bytes(b"x")
    assert set(scan_folders([path_bytes(tmp_path)]).files) == {path_bytes(tmp_path) + b"/" + name for name in odd}


def test_overlapping_folders_list_each_file_once_under_the_outermost_folder(tmp_path):
    touch(tmp_path / "a" / "in" / "1.jpg")
    touch(tmp_path / "a" / ".hidden" / "2.jpg")
    inner, hidden, outer = (path_bytes(tmp_path / name) for name in ("a/in", "a/.hidden", "a"))
    scan = scan_folders([inner, hidden, outer, outer])
    found = {path.rpartition(b"/")[2]: scan.roots[position] for path, (position, _, _) in scan.files.items()}
    assert found == {b"1.jpg": outer, b"2.jpg": hidden}, "what the outer folder hides is reached when it is named"


def test_folders_are_ordered_outermost_first():
    assert outermost_first([b"/a/b/c", b"/", b"/a", b"/a/b", b"/a"]) == (b"/", b"/a", b"/a/b", b"/a/b/c")


@pytest.mark.posix
def test_link_loops_end_and_links_to_the_outside_are_counted_not_followed(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root / "deep" / "a.jpg")
    touch(outside / "secret.jpg")
    touch(outside / "secret.txt")
    (root / "deep" / "loop").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "inside.jpg").symlink_to(root / "deep" / "a.jpg")
    (root / "out").symlink_to(outside)
    (root / "out.jpg").symlink_to(outside / "secret.jpg")
    (root / "out.txt").symlink_to(outside / "secret.txt")
    assert names(root) == {"deep/a.jpg"}
    assert scan_folders([path_bytes(root)]).links_outside == 2
    assert scan_folders([path_bytes(root), path_bytes(outside)]).links_outside == 0


@pytest.mark.posix
def test_pipes_with_an_image_ending_are_skipped(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert names(tmp_path) == set()


def test_absent_empty_and_non_directory_roots_are_reported(tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "file")
    absent, file, empty = (path_bytes(tmp_path / name) for name in ("absent", "file", "empty"))
    scan = scan_folders([absent, file, empty])
    assert scan.unreadable == {absent: "No such file or directory", file: "Not a directory"}
    assert scan.empty_roots == [empty]


def test_paths_below_an_unreadable_folder_count_as_unreadable(tmp_path):
    scan = Scan((b"/r",), unreadable={b"/r/a": "", b"/r/b/c.jpg": ""})
    paths = [b"/r/a", b"/r/a/x/y.jpg", b"/r/ab/y.jpg", b"/r/b/c.jpg", b"/r/b/d.jpg", b"/r"]
    assert [scan.is_unreadable(path) for path in paths] == [True, True, False, True, False, False]
    assert Scan((b"/",), unreadable={b"/": ""}).is_unreadable(b"/x.jpg")


def test_the_library_itself_is_not_scanned(tmp_path):
    touch(tmp_path / "library" / "thumbnails" / "a.jpg")
    touch(tmp_path / "b.jpg")
    assert names(tmp_path, leave_out=[path_bytes(tmp_path / "library")]) == {"b.jpg"}


def test_a_deeper_ignore_file_overrides_those_above(tmp_path):
    touch(tmp_path / ".finderignore", b"*.png\n/private/\n# nothing\n\n!/keep.png\n")
    touch(tmp_path / "album" / ".finderignore", b"!*.png\nraw/\n")
    for name in ("a.png", "keep.png", "a.jpg", "private/a.jpg", "album/a.png", "album/raw/a.jpg", "raw/a.jpg"):
        touch(tmp_path / name)
    assert names(tmp_path) == {"keep.png", "a.jpg", "album/a.png", "raw/a.jpg"}


@pytest.mark.posix
@pytest.mark.parametrize("kind", ["folder", "link", "large"])
def test_a_folder_with_an_unreadable_ignore_file_is_skipped(tmp_path, kind):
    touch(tmp_path / "open.jpg")
    touch(tmp_path / "in" / "secret.jpg")
    rules = tmp_path / "in" / ".finderignore"
    if kind == "folder":
        rules.mkdir()
    elif kind == "link":
        rules.symlink_to(touch(tmp_path / "rules", b"*\n"))
    else:
        touch(rules, b"#" * ((1 << 20) + 1))
    scan = scan_folders([path_bytes(tmp_path)])
    assert set(scan.files) == {path_bytes(tmp_path / "open.jpg")}
    assert list(scan.unreadable) == [path_bytes(tmp_path / "in")]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
MARKS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_ignore_file_is_decoded_by_its_byte_order_mark(tmp_path, encoding, line_break):
    lines = line_break.join(["privé/", "*.png", "!keep.png", ""])
    touch(tmp_path / ".finderignore", MARKS.get(encoding, b"") + lines.encode(encoding))
    for name in ("privé/a.jpg", "open/b.jpg", "c.png", "keep.png"):
        touch(tmp_path / name)
    assert names(tmp_path) == {"open/b.jpg", "keep.png"}


@pytest.mark.parametrize("content", ["private/\n".encode("utf-16-le"), codecs.BOM_UTF16_LE + b"odd", b"a\0b\n"])
def test_a_folder_whose_ignore_file_is_not_text_is_skipped_with_the_reason(tmp_path, content):
    touch(tmp_path / "in" / ".finderignore", content)
    touch(tmp_path / "in" / "private" / "secret.jpg")
    touch(tmp_path / "open.jpg")
    scan = scan_folders([path_bytes(tmp_path)])
    assert set(scan.files) == {path_bytes(tmp_path / "open.jpg")}
    (reason,) = scan.unreadable.values()
    assert reason.startswith("its .finderignore is")
    assert reason.endswith("; save it as UTF-8")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")])
def test_a_folder_whose_ignore_file_is_forbidden_or_just_deleted_is_skipped(tmp_path, monkeypatch, error):
    touch(tmp_path / "in" / ".finderignore", b"private/")
    touch(tmp_path / "in" / "private" / "secret.jpg")
    real = open

    def refusing(path, *rest):
        if os.fsdecode(path).endswith(".finderignore"):
            raise error
        return real(path, *rest)

    monkeypatch.setattr("builtins.open", refusing)
    scan = scan_folders([path_bytes(tmp_path)])
    assert scan.files == {}
    assert list(scan.unreadable.values()) == [f"its .finderignore cannot be read: {error.strerror}"]


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_rule_matches_a_name_in_both_unicode_forms(tmp_path, form, other):
    touch(tmp_path / ".finderignore", unicodedata.normalize(form, "é/\nà/**\n").encode())
    inner = unicodedata.normalize(other, "ü")
    touch(tmp_path / inner / ".finderignore", unicodedata.normalize(form, "/ö.jpg\n").encode())
    for name in ("é/a.jpg", "à/b.jpg", "open/c.jpg", "ü/ö.jpg", "ü/d.jpg"):
        touch(tmp_path / unicodedata.normalize(other, name))
    assert {unicodedata.normalize("NFC", name) for name in names(tmp_path)} == {"open/c.jpg", "ü/d.jpg"}


@pytest.mark.posix
def test_files_of_formats_that_are_not_supported_are_counted_unless_they_are_ignored(tmp_path):
    touch(tmp_path / ".finderignore", b"private/\n*.mov\n")
    for name in (
        "a.jpg",
        "b.MP4",
        "in/c.mp4",
        "d.mov",
        "private/e.mp4",
        "f.CR2",
        "g.jxl",
        "notes.txt",
        ".h.mp4",
        "mp4",
    ):
        touch(tmp_path / name)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "b.MP4")
    scan = scan_folders([path_bytes(tmp_path), path_bytes(tmp_path / "in")])
    assert dict(scan.unsupported) == {".mp4": 2, ".cr2": 1, ".jxl": 1}


def test_unsupported_formats_are_named_by_kind_with_the_most_frequent_ending_first():
    found = by_kind({".mov": 2, ".mp4": 1000, ".cr2": 1, ".psd": 2, ".svg": 1, ".jxl": 3, ".nef": 0})
    assert list(found) == ["video", "camera raw file", "JPEG XL image", "Photoshop document", "SVG drawing"]
    assert unsupported_text(found) == (
        "1,002 videos (.mp4 1,000, .mov 2), 1 camera raw file (.cr2), 3 JPEG XL images (.jxl), "
        "2 Photoshop documents (.psd), 1 SVG drawing (.svg)"
    )
    assert KIND_OF_ENDING.keys().isdisjoint(IMAGE_ENDINGS)


def test_an_invalid_pattern_is_logged_and_the_others_apply(caplog):
    rules = IgnoreRules().extended("", b"!\n*.png\n\xff\xfe.jpg\n")
    assert rules.ignores("a.png")
    assert not rules.ignores("a.jpg")


PATTERNS = ["*.jpg", "!*.jpg", "a", "a/", "/a", "!/a/", "a/*", "a/**", "!a/b/", "**/b", "b/**/c.jpg", "!c.jpg", "*", "!*/", "[ab].jpg", "a*b", "\\!x.jpg", "d/e/", "!d", "?.jpg", "/d/*", "!/d/e", "x\\ ", "a//b", "**", "/", "!"]  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_rules_match_as_in_git(tmp_path):
    chance = random.Random(5)
    for trial in range(40):
        root = tmp_path / str(trial)
        for _ in range(25):
            depth = chance.randrange(4)
            touch(
                root.joinpath(
                    *(chance.choice("abde") for _ in range(depth)), chance.choice(["a", "b", "c", "x", "!x"]) + ".jpg"
                )
            )
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            if folder == root or chance.random() < 0.3:
                lines = chance.sample(PATTERNS, chance.randrange(1, 5))
                touch(folder / ".finderignore", "\n".join(lines).encode())
                touch(folder / ".gitignore", "\n".join(lines).encode())
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        listing = [
            "git",
            "-c",
            "core.excludesFile=/dev/null",
            "ls-files",
            "-z",
            "-o",
            "--exclude-per-directory=.gitignore",
        ]
        output = subprocess.run(listing, cwd=root, check=True, capture_output=True, text=True).stdout
        expected = {name for name in output.split("\0") if name.endswith(".jpg")}
        rules = {str(f.relative_to(root)): f.read_text() for f in root.rglob(".gitignore")}
        assert names(root) == expected, rules

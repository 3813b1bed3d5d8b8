"""Watching folders within the system's limits and beyond them. The limits are real: each child has its own namespace."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from image_finder.components.library import watch
from image_finder.components.library.scan import scan_folders
from image_finder.components.library.watch import FolderWatch, view_of
from tests.support.checkout import CHECKOUT

pytestmark = pytest.mark.linux

WATCH = """
import json, os, sys, threading
from pathlib import Path
from image_finder.components.library.scan import scan_folders
from image_finder.components.library import watch as watching
from image_finder.components.library.watch import FolderWatch, view_of

watching._QUIET_MS = 50
folder, limit, value = Path(sys.argv[1]), *sys.argv[2:]
limit = Path("/proc/sys/user", limit) if limit else None
if limit:
    limit.write_text(value)
seen = []

def say(*words):
    print(json.dumps(words), flush=True)

watch = FolderWatch(
    [folder], leave_out=folder / "library", seen=lambda: seen[-1], bundle_ns=lambda: 0, stop=threading.Event(),
    warn=lambda line: say("warning", line), rescan_s=600, look_s=0.2,
)
seen.append(view_of(scan_folders([os.fsencode(folder)])))
for cause, polling in watch.causes():
    seen.append(view_of(scan_folders([os.fsencode(folder)])))
    say(cause, polling)
    if cause == "images" and limit:
        limit.write_text("1000")
        watch.rescan_s = 0.1
"""


@contextlib.contextmanager
def watching(folder, limit="", value="", namespace=("--user", "--map-root-user")):
    """A function that returns the next line of a process that watches a folder."""
    command = ["unshare", *namespace, sys.executable, "-c", WATCH, str(folder), limit, value]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield lambda: json.loads(child.stdout.readline())
        finally:
            child.kill()


@pytest.fixture
def photos(tmp_path, paint):
    """Fifteen folders, and the last one in the order of the file system."""
    folder = tmp_path / "photos"
    for i in range(15):
        (folder / f"s{i}").mkdir(parents=True)
    paint(folder / "s0" / "a.png", "red")
    return folder


def last_of(folder):
    return [entry.path for entry in os.scandir(folder) if entry.name.startswith("s")][-1]


def test_an_unreadable_folder_does_not_end_the_watch_of_the_others(photos, paint):
    (photos / "locked").mkdir(mode=0)
    with watching(photos, namespace=["--user"]) as reported:  # without rights over files, even for root
        assert reported() == ["start", ""]
        readable = [path for path in photos.iterdir() if path.name != "locked"]
        for folder in (readable[0], readable[-1]):
            paint(folder / "new.png", "blue")
            assert reported() == ["images", ""]
        (photos / "locked").chmod(0o755)
        assert reported()[0] in {"folders", "images"}, "it is listed again"


@pytest.mark.parametrize(
    ("limit", "value", "reason", "setting"),
    [
        ("max_inotify_watches", "10", "inotify watches are used up", "fs.inotify.max_user_watches=1048576"),
        ("max_inotify_instances", "0", "no inotify instance is left", "fs.inotify.max_user_instances=1024"),
    ],
)
def test_above_the_inotify_limits_folders_are_polled_with_a_warning(photos, paint, limit, value, reason, setting):
    with watching(photos, limit, value) as reported:
        kind, line = reported()
        assert kind == "warning"
        assert reason in line
        assert line.endswith(
            f"looking for changes every 0.2 s or less often instead; to raise the limit: sudo sysctl {setting}"
        )
        cause, polling = reported()
        assert cause == "start"
        assert reason in polling
        paint(Path(last_of(photos)) / "new.png", "blue")
        assert reported() == ["images", polling]
        assert reported() == ["interval", polling], "events are tried again after the limit was raised"
        assert reported() == ["warning", "the system reports changes again"]
        assert reported() == ["start", ""]


def test_a_folder_whose_name_is_not_utf8_is_polled(photos, paint, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(photos) + b"/\xff"))
    odd.mkdir()
    with watching(photos) as reported:
        assert r"cannot watch" in reported()[1]
        assert reported()[0] == "start"
        paint(tmp_path / "new.png", "blue").rename(odd / "new.png")
        assert reported()[0] == "images"


@pytest.fixture
def prompt(monkeypatch):
    """Report changes after 50 ms without one."""
    monkeypatch.setattr(watch, "_QUIET_MS", 50)


def causes_of(folder, steps, rescan_s=600.0):
    """Causes of the given steps; each step follows when the previous one was noticed."""
    stop, found = threading.Event(), []
    seen = [view_of(scan_folders([os.fsencode(folder)]))]
    watched = FolderWatch(
        [folder],
        leave_out=folder / "library",
        seen=lambda: seen[0],
        bundle_ns=lambda: 0,
        stop=stop,
        warn=found.append,
        rescan_s=rescan_s,
        look_s=0.2,
    )
    steps = iter(steps)
    for due in watched.causes():
        before, seen[0] = seen[0], view_of(scan_folders([os.fsencode(folder)]))
        found.append(due.cause)
        if seen[0].folders != before.folders:  # they are watched anew, which starts in a moment
            continue
        step = next(steps, None)
        if step is None:
            stop.set()
        else:
            step()
    return [cause for cause in found if cause != "start"]


@pytest.mark.usefixtures("prompt")
def test_added_and_removed_folders_are_noticed_and_watched(photos, paint):
    away = photos.parent / "away"
    steps = [
        (photos / "s1" / "new").mkdir,
        lambda: paint(photos / "s1" / "new" / "a.png", "blue"),
        lambda: (photos / "s1").rename(photos / "2024.05"),
        lambda: paint(photos / "2024.05" / "new" / "b.png", "blue"),
        lambda: (photos / "2024.05").rename(away),
        lambda: away.rename(photos / "s1"),
        (photos / "s1" / "new" / "a.png").unlink,
    ]
    assert causes_of(photos, steps) == ["images"] * 7


@pytest.mark.usefixtures("prompt")
def test_an_update_is_due_at_intervals_without_any_change(photos):
    assert causes_of(photos, [lambda: None] * 2, rescan_s=0.3) == ["interval"] * 2


def test_a_disk_that_is_mounted_below_a_source_is_noticed(photos):
    program = WATCH.replace(
        '    if cause == "images" and limit',
        '    if cause == "start":\n        os.system(f"mount -t tmpfs none {folder}/s1")\n    if limit',
    )
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", program, str(photos), "", ""]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert [json.loads(child.stdout.readline())[0] for _ in range(2)] == ["start", "folders"]
        child.kill()

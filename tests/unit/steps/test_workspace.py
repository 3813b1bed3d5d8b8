import os
import time

import pytest

from image_finder.components.errors import ConfigError
from image_finder.steps import _workspace


def test_what_an_earlier_version_left_is_removed_a_day_later(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path))
    mine = _workspace.scratch_dir()
    left, recent = mine.with_name("tmpab12cd_x"), mine.with_name("tmpab12cd_y")
    (left / "checkpoint").mkdir(parents=True)
    recent.mkdir()
    yesterday = time.time() - 25 * 3600
    for folder in (left, mine):
        os.utime(folder, (yesterday, yesterday))
    new = _workspace.scratch_dir()
    assert sorted(new.parent.iterdir()) == sorted([mine, recent, new])


def test_without_a_home_it_says_what_to_do(monkeypatch):
    monkeypatch.delenv("IMAGE_FINDER_HOME", raising=False)
    with pytest.raises(ConfigError, match="IMAGE_FINDER_HOME is not set: start the pipeline with"):
        _workspace.scratch_dir()

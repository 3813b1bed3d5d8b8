"""Partial publication and progress of an update."""

import os
import shutil
import time
from dataclasses import replace

import pytest

from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import StorageError
from image_finder.components.index.index import VectorIndex
from image_finder.components.library import partial, progress
from image_finder.components.library.engine import embed_here
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.library.partial import PartialPublisher
from image_finder.components.library.progress import IndexProgress, read_progress

N = 12


class Home:
    def __init__(self, folder, bundle):
        self.images, self.library, self.bundle = folder / "images", Library(folder / "library"), bundle
        self.warned = []

    def index(self, after_image=lambda number: None, *, bundle=None, **options):
        """after_image: called after each image that was read, with their number."""
        number = 0

        def engine(batch):
            def on_file(*values):
                nonlocal number
                batch.on_file(*values)
                number += 1
                after_image(number)

            embed_here(replace(batch, on_file=on_file))

        settings = IndexOptions(
            config=EmbeddingConfig(device="cpu", batch_images=2),
            bundle=(bundle or self.bundle).path,
            engine=engine,
            **options,
        )
        return update(self.library, [self.images], settings, warn=self.warned.append)

    def published(self):
        """Number of images and bundle of the published index; None if there is none."""
        try:
            manifest = VectorIndex.open(self.library.index).manifest
        except StorageError:
            return None
        return manifest.count, manifest.bundle_sha256


@pytest.fixture
def home(tmp_path, colour_bundle, paint):
    for number in range(N):
        path = paint(tmp_path / "images" / f"{number:02}.png", (number * 20, 255 - number * 20, 90))
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return Home(tmp_path, colour_bundle)


@pytest.fixture
def at_once(monkeypatch):
    """Publish after each image."""
    monkeypatch.setattr(partial, "_SHARE", 1e9)


@pytest.mark.usefixtures("at_once")
def test_embedded_images_can_be_searched_while_others_are_read(home):
    seen = []
    summary = home.index(lambda _: seen.append(home.published()))
    counts = [count for count, _ in filter(None, seen)]
    assert counts == sorted(counts)
    assert 0 < counts[-1] < N
    assert home.published() == (N, home.bundle.sha256)
    assert (summary.added, summary.embedded, summary.published) == (N, N, True)
    assert not home.index().published


@pytest.mark.usefixtures("at_once")
def test_an_index_of_another_model_is_replaced_only_when_it_is_complete(home, write_colour_bundle, tmp_path):
    home.index()
    seen = []
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    home.index(lambda _: seen.append(home.published()), bundle=other)
    assert set(seen) == {(N, home.bundle.sha256)}
    assert home.published() == (N, other.sha256)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("lost", ["catalog.sqlite", "vectors-*"])
def test_after_a_loss_no_index_with_fewer_images_is_published(home, lost):
    home.index()
    (path,) = home.library.root.glob(lost)
    path.unlink() if path.is_file() else shutil.rmtree(path)
    seen = []
    home.index(lambda _: seen.append(home.published()))
    assert len(seen) == N
    assert set(seen) == {(N, home.bundle.sha256)}


@pytest.mark.usefixtures("at_once")
def test_an_index_that_must_be_checked_is_published_only_after_the_check(home):
    seen = []
    home.index(lambda _: seen.append(home.published()), self_check=True)
    assert set(seen) == {None}
    assert home.published() == (N, home.bundle.sha256)


def test_an_update_that_the_user_stops_publishes_what_is_done(home):
    def stop(number):
        if number == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        home.index(stop)
    count, _ = home.published()
    assert 0 < count < 9
    assert home.warned == [f"stopping: {count} images can be searched"]
    summary = home.index()
    assert (summary.images, summary.embedded) == (N, N - count)


def test_publications_keep_their_share_of_the_time(monkeypatch):
    now, spent, n_images = 0.0, 0.0, 0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def publish():
        nonlocal now, spent
        took = 0.05 + n_images * 2e-5
        now, spent = now + took, spent + took
        return n_images

    publisher = PartialPublisher(publish)
    first = None
    for _ in range(50_000):
        now, n_images = now + 0.02, n_images + 1
        publisher.offer()
        first = first or (spent and now)
    assert first < 5
    assert 0.02 < spent / now <= 0.03


def test_progress_is_reported_until_the_update_ends(home, monkeypatch):
    monkeypatch.setattr(progress, "_EVERY_S", 0)
    seen = []
    home.index(lambda _: seen.append(read_progress(home.library.root)))
    assert [(each.done, each.total) for each in seen] == [(number, N) for number in range(1, N + 1)]
    assert read_progress(home.library.root) is None
    assert list(home.library.root.glob("*progress*")) == []


def test_progress_of_a_killed_update_is_forgotten(tmp_path):
    path = tmp_path / Library.PROGRESS
    path.write_text('{"done": 3, "total": 9, "seconds": 2.0}')
    assert read_progress(tmp_path) == IndexProgress(done=3, total=9, seconds=2.0)
    os.utime(path, (time.time() - 120, time.time() - 120))
    assert read_progress(tmp_path) is None
    path.write_text("{")
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 10, 0.0, "0 of 10 images"),
        (5, 10, 3.0, "5 of 10 images, about 3 s left"),
        (2140, 6000, 100.0, "2,140 of 6,000 images, about 3 min left"),
        (1000, 1_000_000, 20.0, "1,000 of 1,000,000 images, about 6 h left"),
        (10, 10, 3.0, "10 of 10 images"),
    ],
)
def test_progress_is_written_for_people(done, total, seconds, text):
    assert IndexProgress(done=done, total=total, seconds=seconds).text() == text

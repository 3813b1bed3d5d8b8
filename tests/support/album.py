"""A published index over a folder of images, and the application on it."""

import contextlib
import os

from starlette.testclient import TestClient

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.settings import Settings
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.index.embed import embed_gallery
from image_finder.components.index.gallery import read_gallery
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.publish import publish
from image_finder.components.search.finder import Finder


def publish_album(folder, bundle, place):
    """Index the images of folder and publish that below place; returns the published root."""
    made = place / f"made-{os.urandom(4).hex()}"
    gallery = read_gallery(GalleryConfig(root=folder))
    config = EmbeddingConfig(device="cpu", threads=1)
    embed_gallery(bundle, gallery, made, config, cache_dir=place / "cache", max_failed_share=1)
    publish(VectorIndex.open(made), bundle, bundles=place / "bundles", target=place / "index")
    return place / "index"


@contextlib.contextmanager
def serving(index, *, base_url="http://127.0.0.1:8080", **settings):
    """A client of the running application."""
    app = create_app(lambda: Finder.open(index, threads=1), Settings.parse({"refresh_s": 0.02, **settings}))
    with TestClient(app, base_url=base_url) as client:
        yield client

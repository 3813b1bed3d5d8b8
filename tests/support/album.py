"""A published index over a folder of images, and the application on it."""

import contextlib

from starlette.testclient import TestClient

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.settings import Settings
from image_finder.components.configs import GalleryConfig
from image_finder.components.index.publish import publish_bundle
from image_finder.components.search.finder import Finder
from tests.support.galleries import publish_gallery


def publish_album(folder, bundle, place):
    """Index the images of folder in the library `place`; returns its published root."""
    publish_gallery(GalleryConfig(root=folder, max_failed_share=1), bundle, place)
    publish_bundle(bundle, place / "bundles")
    return place / "index"


@contextlib.contextmanager
def serving(index, *, base_url="http://127.0.0.1:8080", **settings):
    """A client of the running application."""
    app = create_app(lambda: Finder.open(index, threads=1), Settings.parse({"refresh_s": 0.02, **settings}))
    with TestClient(app, base_url=base_url) as client:
        yield client

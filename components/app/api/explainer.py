"""Explainer: computes explanations one at a time and caches the latest contributions."""

from collections import OrderedDict

from starlette.requests import Request

from image_finder.components.app.api.limits import Load, Workers, while_connected
from image_finder.components.app.api.original_files import as_gone, open_original
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.api.thumbnails import VIEW_PX, View, is_known, key_of, read_original
from image_finder.components.arrays import Vectors
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.images.decoding import load_for_display
from image_finder.components.images.encoding import jpeg_bytes
from image_finder.components.search.contributions import Contributions, contributions
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.explain import explain_pooling, heat_overlay
from image_finder.components.search.query import Query
from image_finder.components.storage import sha256_of_bytes

_VERSION = 1  # of the rendering; part of the ETag
_CACHED = 4096  # contributions of 200 bytes each

_Key = tuple[str, str, bytes]


class Explainer:
    """Explains on a separate thread, so that 60 encodings delay no thumbnails and searches."""

    def __init__(self, settings: Settings) -> None:
        self.workers = Workers(Load("explanations", settings.waiting), running=1, timeout_s=settings.timeout_s)
        self._max_bytes = settings.max_original_bytes
        self._cache: OrderedDict[_Key, Contributions] = OrderedDict()  # used by the one worker thread only

    async def explain(self, engine: SearchEngine, identity: str, query: Query | None, request: Request) -> View:
        """Explain an indexed image's score for a query, or its attention pooling. Raises Fault, FinderError."""
        known = request.headers.get("if-none-match", "")
        return await while_connected(request, self.workers.run(lambda: self._explained(engine, identity, query, known)))

    def _explained(self, engine: SearchEngine, identity: str, query: Query | None, known: str) -> View:
        with open_original(engine, identity) as original:
            data = read_original(original, self._max_bytes)
        vector = engine.encode([query])[0].terms if query else None
        subject = (engine.encoder.bundle.sha256, sha256_of_bytes(data), b"" if vector is None else vector.tobytes())
        key = key_of(_VERSION, *subject)
        if is_known(key, known):
            return View(key)
        with as_gone():
            if vector is None:
                return View(key, jpeg_bytes(explain_pooling(engine.encoder, data, at_most_px=VIEW_PX)))
            found = self._contributions(engine.encoder, data, vector, subject)
            overlay = heat_overlay(load_for_display(data, at_most_px=VIEW_PX), found.shares)
            return View(key, jpeg_bytes(overlay), found.peak)

    def _contributions(self, encoder: OnnxEncoder, data: bytes, vector: Vectors, key: _Key) -> Contributions:
        found = self._cache.get(key)
        if found is None:
            found = contributions(encoder, encoder.preprocess.load(data), vector)
        self._cache[key] = found
        self._cache.move_to_end(key)
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return found

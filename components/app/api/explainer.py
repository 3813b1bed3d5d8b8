"""Explainer: computes explanations one at a time and caches the latest contributions."""

import hashlib
from collections import OrderedDict
from typing import NamedTuple

from PIL import Image
from starlette.requests import Request

from image_finder.components.app.api.limits import Load, Workers, while_connected
from image_finder.components.app.api.original_files import UNREADABLE, gone, open_original
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.api.thumbnails import VIEW_PX, jpeg, read_original
from image_finder.components.errors import ImageError
from image_finder.components.images.decoding import load_for_display
from image_finder.components.search.contributions import Contributions, contributions
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.explain import explain_pooling, heat_overlay
from image_finder.components.search.query import Query

_VERSION = 1  # of the rendering; part of the ETag
_CACHED = 4096  # contributions of 200 bytes each

_Key = tuple[str, str, bytes]


class Explained(NamedTuple):
    """key: ETag, 32 hex digits. content: JPEG; None if the client already has it.

    peak: largest contribution, cosine; 0 if no region raises the score; None if not computed.
    """

    key: str
    content: bytes | None
    peak: float | None


class Explainer:
    """Explains on a separate thread, so that 60 encodings delay no thumbnails and searches."""

    def __init__(self, settings: Settings) -> None:
        self.workers = Workers(Load("explanations", settings.waiting), running=1, timeout_s=settings.timeout_s)
        self._max_bytes = settings.max_original_bytes
        self._cache: OrderedDict[_Key, Contributions] = OrderedDict()  # used by the one worker thread only

    async def explain(self, engine: SearchEngine, identity: str, query: Query | None, request: Request) -> Explained:
        """Explain an indexed image's score for a query, or without query the attention pooling.

        Stops when the client disconnects or the timeout expires. Raises Fault 404, 410, 503, FinderError.
        """
        known = request.headers.get("if-none-match", "")
        return await while_connected(request, self.workers.run(lambda: self._explained(engine, identity, query, known)))

    def _explained(self, engine: SearchEngine, identity: str, query: Query | None, known: str) -> Explained:
        with open_original(engine, identity) as original:
            data = read_original(original, self._max_bytes)
        vector = engine.encode([query])[0].terms if query else None
        content = hashlib.sha256(data).hexdigest()
        subject = (engine.encoder.bundle.sha256, content, b"" if vector is None else vector.tobytes())
        key = hashlib.sha256(repr((_VERSION, *subject)).encode()).hexdigest()[:32]
        if key in known or known.strip() == "*":
            return Explained(key, None, None)
        try:
            if vector is None:
                return Explained(key, jpeg(explain_pooling(engine.encoder, data, at_most_px=VIEW_PX)), None)
            found = self._cache.get(subject)
            if found is None:
                found = contributions(engine.encoder, engine.encoder.preprocess.load(data), vector)
            self._cache[subject] = found
            self._cache.move_to_end(subject)
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
            return Explained(key, jpeg(_overlay(data, found)), found.peak)
        except ImageError:
            raise gone(UNREADABLE) from None


def _overlay(data: bytes, found: Contributions) -> Image.Image:
    return heat_overlay(load_for_display(data, at_most_px=VIEW_PX), found.shares)

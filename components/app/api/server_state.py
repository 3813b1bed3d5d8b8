"""State of a server: objects shared by its routes."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from image_finder.components.app.api.explainer import Explainer
from image_finder.components.app.api.limits import Load, Workers
from image_finder.components.app.api.live_finder import LiveFinder
from image_finder.components.app.api.metrics import Metrics
from image_finder.components.app.api.request_bodies import BodyReader
from image_finder.components.app.api.search_queue import SearchQueue
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.api.thumbnails import Views
from image_finder.components.app.folder_adding import FolderAdding
from image_finder.components.app.watcher import Watching
from image_finder.components.library.progress import IndexProgress, read_progress
from image_finder.components.search.examples import example_queries
from image_finder.components.search.finder import Finder


class Examples:
    """Example queries of the current index, found once for each."""

    def __init__(self, live: LiveFinder) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._known: tuple[str, list[str]] = ("", [])

    def current(self) -> list[str]:
        """Takes a second after a new index has been published. Raises Fault 503 while there is no index."""
        engine = self._live.engine
        with self._lock:
            if self._known[0] != engine.index.path.name:
                self._known = engine.index.path.name, example_queries(engine)
            return self._known[1]


class State:
    """Objects shared by the routes of a server. Call start before use and stop after it."""

    def __init__(
        self, source: Callable[[], Finder | None], settings: Settings, watching: Callable[[], Watching]
    ) -> None:
        self.settings = settings
        self.metrics = metrics = Metrics()
        self.live = live = LiveFinder(source, refresh_s=settings.refresh_s, metrics=metrics, watching=watching)
        self.searches = SearchQueue(live, metrics, settings)
        self.examples = Examples(live)
        images = Load("images", settings.waiting)
        self.workers = Workers(images, running=settings.images, timeout_s=settings.timeout_s)
        self.bodies = BodyReader(settings)
        self.explainer = Explainer(settings)
        library = settings.library_path
        self.adding = FolderAdding(library) if library is not None and settings.folder_key is not None else None
        self.views = Views(settings.thumbnails_path, max_bytes=settings.max_original_bytes)
        metrics.watch_loads((self.searches.load, images, self.explainer.workers.load, self.bodies.load))
        metrics.watch("upload_bytes", "bytes of uploads in memory", lambda: float(self.bodies.n_bytes))
        metrics.watch("index_images", "searchable images", lambda: live.images)
        metrics.watch("index_generation", "number of the current index generation", lambda: live.generation_number)
        stale = "1 while the index may be outdated"
        metrics.watch("index_stale", stale, lambda: float(live.failure is not None))
        for part, text in (("done", "images read by the running update"), ("total", "images that it reads")):
            metrics.watch(f"indexing_{part}", f"{text}; 0 if none is running", partial(self._indexing, part))

    def start(self) -> None:
        self.live.start()

    @property
    def progress(self) -> IndexProgress | None:
        """Of the running update of the library; None if there is none. Reads a small file."""
        library = self.settings.library_path
        return None if library is None else read_progress(library)

    def _indexing(self, part: str) -> float:
        progress = self.progress
        return 0.0 if progress is None else float(getattr(progress, part))

    def stop(self) -> None:
        self.live.stop()
        if self.adding is not None:
            self.adding.stop()
        for part in (self.searches, self.workers, self.explainer.workers):
            part.close()


async def _state_of(request: Request) -> State:  # async: a plain function would run in a thread
    state: State = request.app.state.server
    return state


Server = Annotated[State, Depends(_state_of)]

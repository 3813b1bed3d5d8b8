"""Live finder: the one in force, exchanged for a newer one while requests go on with the one they began with."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from image_finder.components.app.api.error_responses import not_ready
from image_finder.components.app.api.metrics import Metrics
from image_finder.components.app.champion_index import pending_change
from image_finder.components.app.watcher import Watching
from image_finder.components.errors import FinderError

if TYPE_CHECKING:
    from image_finder.components.search.engine import SearchEngine
    from image_finder.components.search.finder import Finder

logger = logging.getLogger(__name__)
_WARM_UP = "an image"


class LiveFinder:
    """Holds the finder and looks for a newer index in a thread of its own."""

    def __init__(
        self,
        source: "Callable[[], Finder]",
        *,
        refresh_s: float,
        metrics: Metrics,
        watching: Callable[[], Watching],
    ) -> None:
        """source: opens the finder, raises FinderError while there is nothing to open. watching: how changes of the
        images are noticed.
        """
        self._source = source
        self._refresh_s = refresh_s
        self._metrics = metrics
        self._watching = watching
        self._finder: Finder | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="live-finder", daemon=True)
        self._failure: str | None = None

    def start(self) -> None:
        """Open what is there and begin to look for newer ones."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join(timeout=5)

    @property
    def failure(self) -> str | None:
        """Why what is searched may be behind the images, None if it is not; for the log, it names paths."""
        return self._failure or self._watching().failure

    @property
    def watching(self) -> str:
        """How changes of the images are noticed: events, polling, or "" if they are not."""
        return self._watching().how

    @property
    def finder(self) -> "Finder":
        """The finder. Raises Fault 503 while there is none."""
        if self._finder is None:
            raise not_ready()
        return self._finder

    @property
    def engine(self) -> "SearchEngine":
        """The engine in force; a request takes it once and stays with it. Raises Fault 503 while there is none."""
        return self.finder.engine

    @property
    def images(self) -> int:
        """Images that can be found now."""
        return self._finder.engine.index.manifest.count if self._finder else 0

    @property
    def generation(self) -> str:
        """Name of the index in force, "" if there is none."""
        return self._finder.engine.index.path.name if self._finder else ""

    @property
    def pending(self) -> str | None:
        """What completes a change of the champion whose index is missing, None if nothing does; names no path."""
        change = pending_change(self.finder.path, bundle=self.engine.index.manifest.bundle_sha256)
        return None if change is None else change.text(with_home=False)

    @property
    def generation_number(self) -> int:
        """Running number of the index in force, 0 if it has none."""
        number = self.generation.partition("-")[0]
        return int(number) if number.isdecimal() else 0

    def _watch(self) -> None:
        while not self._stop.wait(self._refresh_s):
            self._look()

    def _look(self) -> None:
        try:
            newer = self._finder is None
            if self._finder is None:
                finder = self._source()
                finder.search(_WARM_UP)  # opens the text tower, half a second that the first person would wait
                self._finder = finder
            else:
                newer = self._finder.refresh()
        except FinderError as error:
            self._note_failure(str(error))
        except Exception as error:  # noqa: BLE001 - this thread must outlive whatever a damaged index makes a reader raise
            self._note_failure(f"{type(error).__name__}: {error}")
        else:
            self._failure = None
            if newer:
                self._metrics.note_swap()
                model = self.engine.encoder.bundle.manifest
                facts = {"bundle": model.sha256[:16], "starter": model.starter}
                logger.info("index in force", extra={"generation": self.generation, "images": self.images, **facts})

    def _note_failure(self, reason: str) -> None:
        if reason != self._failure:  # once, not each half second
            self._metrics.note_failure()
            logger.error("the newest index cannot be opened, the one before stays in force: %s", reason)
        self._failure = reason

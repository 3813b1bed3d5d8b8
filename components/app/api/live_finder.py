"""Live finder: opens new indexes while requests continue with the index they started with."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from image_finder.components.app.api.error_responses import Fault
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
    """Holds the current finder; a thread checks for new indexes."""

    def __init__(
        self,
        source: "Callable[[], Finder | None]",
        *,
        refresh_s: float,
        metrics: Metrics,
        watching: Callable[[], Watching],
    ) -> None:
        """source: opens the finder; None while there is no index. watching: returns the state of the folder watch."""
        self._source = source
        self._refresh_s = refresh_s
        self._metrics = metrics
        self._watching = watching
        self._finder: Finder | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="live-finder", daemon=True)
        self._failure: str | None = None

    def start(self) -> None:
        self._check()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    @property
    def failure(self) -> str | None:
        """Why the index may be outdated, None if it is not. Contains paths: only for the log."""
        return self._failure or self._watching().failure

    @property
    def watching(self) -> str:
        """How changed images are detected: events, polling, or "" if they are not."""
        return self._watching().how

    @property
    def finder(self) -> "Finder":
        """The current finder. Raises Fault 503 while there is no index."""
        if self._finder is None:
            message = "no images indexed yet. Run: image-finder index FOLDER"
            raise Fault(503, "not_ready", message, headers={"Retry-After": "2"})
        return self._finder

    @property
    def engine(self) -> "SearchEngine":
        """The current engine; a request takes it once. Raises Fault 503 while there is no index."""
        return self.finder.engine

    @property
    def images(self) -> int:
        return self._finder.engine.index.manifest.count if self._finder else 0

    @property
    def pending(self) -> str | None:
        """How to build the missing index of a new champion; None if complete. Contains no path."""
        change = pending_change(self.finder.path, bundle=self.engine.index.manifest.bundle_sha256)
        return None if change is None else change.text(with_home=False)

    @property
    def generation(self) -> str:
        """Name of the current index generation, "" if there is none yet."""
        return self._finder.engine.index.path.name if self._finder else ""

    @property
    def generation_number(self) -> int:
        """Number of the current index generation, 0 if it has none."""
        number = self.generation.partition("-")[0]
        return int(number) if number.isdecimal() else 0

    def _watch(self) -> None:
        while not self._stop.wait(self._refresh_s):
            self._check()

    def _check(self) -> None:
        try:
            newer = self._finder is None
            if self._finder is None:
                finder = self._source()
                if finder is None:
                    return
                finder.search(_WARM_UP)  # loads the text tower (0.5 s) before the first request
                self._finder = finder
            else:
                newer = self._finder.refresh()
        except FinderError as error:
            self._note_failure(str(error))
        except Exception as error:  # noqa: BLE001 - the thread must survive anything a damaged index causes
            self._note_failure(f"{type(error).__name__}: {error}")
        else:
            self._failure = None
            if newer:
                self._metrics.swaps.inc()
                model = self.engine.encoder.bundle.manifest
                facts = {"bundle": model.sha256[:16], "starter": model.starter}
                generation = self.engine.index.path.name
                logger.info("index opened", extra={"generation": generation, "images": self.images, **facts})

    def _note_failure(self, reason: str) -> None:
        if reason != self._failure:  # once, not at every check
            self._metrics.failures.inc()
            logger.error("could not open the new index, keeping the current one: %s", reason)
        self._failure = reason

"""Application: puts routes, limits, security and logs together; knows nothing of sockets and of the command line."""

import contextlib
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from image_finder.components.app.api import (
    explanation_routes as explanations,
)
from image_finder.components.app.api import (
    image_routes as images,
)
from image_finder.components.app.api import (
    label_routes as labels,
)
from image_finder.components.app.api import (
    operation_routes as operations,
)
from image_finder.components.app.api import (
    search_routes as search,
)
from image_finder.components.app.api.batches import SearchLine
from image_finder.components.app.api.error_responses import add_fault_handlers
from image_finder.components.app.api.explainer import Explainer
from image_finder.components.app.api.head_requests import HeadAsGet
from image_finder.components.app.api.limits import Load, Workers
from image_finder.components.app.api.live_finder import LiveFinder
from image_finder.components.app.api.metrics import Metrics
from image_finder.components.app.api.request_bodies import BodyReader
from image_finder.components.app.api.security import SafeHeaders, Security
from image_finder.components.app.api.server_logs import RequestLog
from image_finder.components.app.api.server_state import State
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.api.thumbnails import Views
from image_finder.components.app.watcher import Watching
from image_finder.components.search.finder import Finder

WEB = Path(__file__).resolve().parents[1] / "web"
_REVALIDATE = {"Cache-Control": "no-cache"}  # the page and its parts change with the version; their ETags tell


def create_app(
    source: Callable[[], Finder], settings: Settings, *, watching: Callable[[], Watching] = Watching
) -> FastAPI:
    """The application. source: opens the finder; while it raises FinderError, requests are answered with 503.

    watching: how changes of the images are noticed.
    """
    state = _state(source, settings, watching)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.live.start()
        try:
            yield
        finally:
            state.live.stop()
            state.searches.close()
            state.workers.close()
            state.explainer.workers.close()

    app = FastAPI(
        title="Image finder",
        version=metadata.version("text-guided-image-finder"),
        summary="Find images with a sentence.",
        description=_limits_of(settings),
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,  # an address is right or not found
    )
    app.state.server = state
    for router in (
        search.router,
        images.router,
        explanations.router,
        labels.router,
        operations.router,
        operations.root,
    ):
        app.include_router(router)
    _add_page(app)
    add_fault_handlers(app)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Security, settings=settings)
    app.add_middleware(RequestLog, metrics=state.metrics)
    app.add_middleware(SafeHeaders)  # added last: outermost
    return app


def _limits_of(settings: Settings) -> str:
    """The limits of requests, for the OpenAPI document."""
    return (
        f"A request body must arrive within {settings.upload_timeout_s:g} s and, after {settings.upload_grace_s:g} s, at "
        f"{settings.min_upload_bytes_per_s:,} bytes/s on average; otherwise the answer is 408. Uploads have at most "
        f"{settings.max_upload_bytes:,} bytes (413); while all of them together exceed {settings.max_uploads_bytes:,} "
        f"bytes, more are answered with 503. What cannot be answered within {settings.timeout_s:g} s is answered with 503 "
        "and a Retry-After header, and the work for it stops, as it does when a client disconnects.\n\n"
        f"An address that sends {settings.token_attempts} wrong tokens is answered with 429 until it has waited "
        f"{settings.token_attempt_s:g} s for each further attempt. An address that has sent the right token before is "
        "answered with 429 only to wrong ones. Behind a proxy, all clients share the address of the proxy."
    )


def _state(source: Callable[[], Finder], settings: Settings, watching: Callable[[], Watching]) -> State:
    metrics = Metrics()
    live = LiveFinder(source, refresh_s=settings.refresh_s, metrics=metrics, watching=watching)
    searches = SearchLine(live, metrics, settings)
    workers = Workers(Load("images", settings.waiting), running=settings.images, timeout_s=settings.timeout_s)
    bodies = BodyReader(settings)
    explainer = Explainer(settings)
    metrics.watch_loads((searches.load, workers.load, explainer.workers.load, bodies.load))
    metrics.watch("upload_bytes", "bytes of uploads in memory", lambda: float(bodies.n_bytes))
    metrics.watch("index_images", "images that can be found", lambda: live.images)
    metrics.watch("index_generation", "running number of the index in force", lambda: live.generation_number)
    stale = "1 while the newest index cannot be opened, or folders are not watched that should be"
    metrics.watch("index_stale", stale, lambda: float(live.failure is not None))
    views = Views(settings.thumbnails_path, max_bytes=settings.max_original_bytes)
    return State(settings, metrics, live, searches, workers, bodies, views, explainer)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html", headers=_REVALIDATE)

    app.mount("/static", _Revalidated(directory=WEB))


class _Revalidated(StaticFiles):
    def file_response(self, *values: object, **named: object) -> Response:
        response = super().file_response(*values, **named)  # type: ignore[arg-type]
        response.headers.update(_REVALIDATE)
        return response

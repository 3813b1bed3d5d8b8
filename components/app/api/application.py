"""Application: puts routes, limits, security and logs together; knows nothing of sockets and of the command line."""

import contextlib
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from components.app.api import explanations, labels, operations, pictures, search
from components.app.api.batches import SearchLine
from components.app.api.bodies import BodyReader
from components.app.api.explainer import Explainer
from components.app.api.faults import add_fault_handlers
from components.app.api.heads import HeadAsGet
from components.app.api.limits import Load, Workers
from components.app.api.live import LiveFinder
from components.app.api.logs import RequestLog
from components.app.api.metrics import Metrics
from components.app.api.security import SafeHeaders, Security
from components.app.api.settings import Settings
from components.app.api.state import State
from components.app.api.views import Views
from components.finder import Finder

WEB = Path(__file__).resolve().parents[1] / "web"
_REVALIDATE = {"Cache-Control": "no-cache"}  # the page and its parts change with the version; their ETags tell


def create_app(
    source: Callable[[], Finder], settings: Settings, *, watching: Callable[[], str | None] = lambda: None
) -> FastAPI:
    """The application. source: opens the finder; while it raises FinderError, requests are answered with 503.

    watching: why changes of the pictures are not noticed, None while they are or need not be.
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
        summary="Find pictures with a sentence.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,  # an address is right or not found
    )
    app.state.server = state
    for router in (
        search.router,
        pictures.router,
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


def _state(source: Callable[[], Finder], settings: Settings, watching: Callable[[], str | None]) -> State:
    metrics = Metrics()
    live = LiveFinder(source, refresh_s=settings.refresh_s, metrics=metrics, watching=watching)
    searches = SearchLine(live, metrics, settings)
    workers = Workers(Load("pictures", settings.waiting), running=settings.pictures, timeout_s=settings.timeout_s)
    bodies = BodyReader(settings)
    explainer = Explainer(settings)
    metrics.watch_loads((searches.load, workers.load, explainer.workers.load, bodies.load))
    metrics.watch("index_pictures", "pictures that can be found", lambda: live.pictures)
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

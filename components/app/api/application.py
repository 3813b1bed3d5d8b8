"""Application: combines routes, middleware and the page; knows nothing of sockets."""

import contextlib
from collections.abc import AsyncIterator, Callable
from importlib import metadata

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from image_finder.components.app.api import folder_routes, image_routes, operation_routes, search_routes
from image_finder.components.app.api.document import document_of
from image_finder.components.app.api.error_responses import add_fault_handlers
from image_finder.components.app.api.head_requests import HeadAsGet
from image_finder.components.app.api.pages import add_pages
from image_finder.components.app.api.path_prefix import PathPrefix
from image_finder.components.app.api.security import CrossOrigin, SafeHeaders, Security
from image_finder.components.app.api.server_logs import RequestLog
from image_finder.components.app.api.server_state import State
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.watcher import Watching
from image_finder.components.search.finder import Finder

# Documents how to send the token; the middleware checks it.
_TOKEN = HTTPBearer(
    auto_error=False, scheme_name="token", description="The token of `image-finder serve --token-file`, if it has one."
)
_TAGS = [
    {"name": "search", "description": "Find images by texts and images, or browse them by time."},
    {"name": "images", "description": "Metadata, views, originals and explanations of images."},
    {"name": "labels", "description": "Compare an image with labels."},
    {"name": "operation", "description": "State of the server and of its index."},
]


def create_app(
    source: Callable[[], Finder | None], settings: Settings, *, watching: Callable[[], Watching] = Watching
) -> FastAPI:
    """Create the application; while source returns None or raises FinderError, searches are answered with 503."""
    state = State(source, settings, watching)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.start()
        try:
            yield
        finally:
            state.stop()

    app = FastAPI(
        title="Image finder",
        version=metadata.version("text-guided-image-finder"),
        summary="Find images with a sentence.",
        description=_limits_of(settings),
        docs_url=None,  # would load scripts from other servers
        redoc_url=None,
        lifespan=lifespan,
        root_path=settings.root_path,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        openapi_tags=_TAGS,
    )
    app.state.server = state
    for router in (
        search_routes.router,
        image_routes.router,
        image_routes.labels_router,
        image_routes.archive_router,
        operation_routes.router,
        folder_routes.router,
        operation_routes.protected_root,
    ):
        app.include_router(router, dependencies=[Depends(_TOKEN)])
    app.include_router(operation_routes.root)
    add_fault_handlers(app)
    add_pages(app)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Security, settings=settings)
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, settings=settings)
    app.add_middleware(RequestLog, metrics=state.metrics)
    app.add_middleware(SafeHeaders, varies=bool(settings.cors_origins))
    app.add_middleware(PathPrefix, prefix=settings.root_path)  # added last: outermost
    app.openapi = lambda: document_of(app)  # type: ignore[method-assign]
    return app


def _limits_of(settings: Settings) -> str:
    return (
        f"A request body must arrive within {settings.upload_timeout_s:g} s and, after {settings.upload_grace_s:g} s, at "
        f"{settings.min_upload_bytes_per_s:,} bytes/s on average (otherwise 408). It has at most "
        f"{settings.max_upload_bytes:,} bytes (413). While all uploads together exceed {settings.max_uploads_bytes:,} bytes, "
        f"further ones are refused (503). Requests that are not answered within {settings.timeout_s:g} s fail with 503 and "
        "a Retry-After header; their work is cancelled, as it is when a client disconnects.\n\n"
        f"An address that sends {settings.token_attempts} wrong tokens receives 429 until it has waited "
        f"{settings.token_attempt_s:g} s for each further attempt. An address that has sent the right token receives 429 "
        "only for wrong tokens. Behind a proxy, all clients share the address of the proxy."
    )

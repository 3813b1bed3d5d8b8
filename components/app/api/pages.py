"""Pages: the search page, the reference of the API, the card of the model, and an answer for people to unknown addresses."""

import hashlib
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

import jinja2
import markupsafe
from fastapi import APIRouter, FastAPI, HTTPException, Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import Scope

from image_finder.components import starter
from image_finder.components.app.api.error_responses import fault_of, fault_response
from image_finder.components.app.api.path_prefix import path_below, prefix_of
from image_finder.components.app.api.reference import reference_page
from image_finder.components.app.api.server_state import Server
from image_finder.components.app.api.settings import PREFIX, REFERENCE
from image_finder.components.app.api.thumbnails import ICON_PX, TILE_PX, VIEW_PX
from image_finder.components.bundle.bundle import CARD, Bundle

router = APIRouter(include_in_schema=False)
WEB = Path(__file__).resolve().parents[1] / "web"
PAGE_HITS = 40  # that the page requests at a time
_REVALIDATE = {"Cache-Control": "no-cache"}  # a new version changes the page; browsers compare ETags
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STYLES = ("style.css", "results.css", "filters.css", "viewer.css")  # that the page loads as one


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


@router.get("/")
async def page() -> Response:
    return FileResponse(WEB / "index.html", headers=_REVALIDATE)


@router.get("/static/{name}")
async def static_file(name: str, request: Request) -> Response:
    file = _files().get(name)
    if file is None:
        raise HTTPException(404)
    headers = {**_REVALIDATE, "ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@router.get("/model-card")
def model_card(request: Request, server: Server) -> Response:
    """What the current model finds and what it does not."""
    card = _card_of(server.live.engine.encoder.bundle)
    if card is None:
        message = "The model has no card in this library. Its version in the registry has one: image-finder ui."
        return _plain(request.scope, "No model card", f"<h1>No model card</h1>\n<p>{escape(message)}</p>")
    from markdown_it import MarkdownIt

    # Cards of imported models are not ours: HTML in them is shown as text.
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(card.read_text(encoding="utf-8"))
    return _plain(request.scope, "Model card", html)


def add_pages(app: FastAPI) -> None:
    """Add the pages and their files; browsers receive a page for an unknown address outside the API."""
    app.include_router(router)
    made = cache(lambda: reference_page(app.openapi()))

    @app.get(REFERENCE, include_in_schema=False)
    async def reference() -> Response:
        return HTMLResponse(made(), headers=_REVALIDATE)

    async def missing(request: Request, error: Exception) -> Response:
        of_browser = "text/html" in request.headers.get("accept", "")
        if path_below(request.scope).startswith((PREFIX, "/health")) or not of_browser:
            return fault_response(request.scope, fault_of(error))
        content = (
            "<h1>There is no such page</h1>\n"
            f'<p>Images are searched on the <a href="{prefix_of(request.scope)}/">start page</a>.</p>'
        )
        return _plain(request.scope, "No such page", content, status=404)

    app.add_exception_handler(404, missing)


def _card_of(bundle: Bundle) -> Path | None:
    packaged = starter.FOLDER / starter.CARD if bundle.manifest.starter else None
    return next((path for path in (bundle.path / CARD, packaged) if path is not None and path.is_file()), None)


def _plain(scope: Scope, title: str, html: str, *, status: int = 200) -> Response:
    content = markupsafe.Markup(html)  # noqa: S704 - escaped where it was made
    return HTMLResponse(_template().render(title=title, prefix=prefix_of(scope), content=content), status)


@cache
def _template() -> jinja2.Template:
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (WEB / "plain.html").read_text(encoding="utf-8")
    )


@cache
def _files() -> dict[str, _File]:
    """Files of the page by name, in memory: reading one takes longer than sending it."""
    contents = {path.name: path.read_bytes() for path in WEB.iterdir() if path.suffix in {".css", ".js", ".svg"}}
    contents["page.css"] = b"\n".join(contents[name] for name in _STYLES)
    sizes = {"PAGE_HITS": PAGE_HITS, "ICON_PX": ICON_PX, "TILE_PX": TILE_PX, "VIEW_PX": VIEW_PX}
    contents["sizes.js"] = "".join(f"export const {name} = {value};\n" for name, value in sizes.items()).encode()
    return {
        name: _File(content, _MEDIA_TYPES[Path(name).suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        for name, content in contents.items()
    }

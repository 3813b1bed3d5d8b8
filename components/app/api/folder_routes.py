"""Routes that add a folder to the library: on a local server, for clients with the key that it has printed."""

import hmac
from pathlib import Path
from typing import Annotated

import platformdirs
from fastapi import APIRouter, Header, Request
from pydantic import Field

from image_finder.components.app.api.error_responses import Fault, errors
from image_finder.components.app.api.request_bodies import body_document
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.records.base import Record

router = APIRouter(prefix=PREFIX, tags=["operation"])
Key = Annotated[str, Header(alias="X-Folder-Key", max_length=200, description="the key that the server has printed")]


class FolderBody(Record):
    """Body of POST /folders."""

    folder: str = Field(min_length=1, max_length=4096, description="path on the server, absolute or from ~")


class FoldersAnswer(Record):
    """Whether folders can be added, and how the last attempt ended."""

    allowed: bool = Field(description="whether this client may add folders")
    running: bool = Field(description="whether a folder is being added")
    failure: str = Field(description="why the last folder could not be added; empty if it could")
    suggested: str = Field(description="a folder that probably holds images; empty if unknown")


@router.get("/folders", responses=errors(401, 422, 429))
async def folders(server: Server, key: Key = "") -> FoldersAnswer:
    """Whether this client may add folders, and how the last attempt ended."""
    return _answer(server, allowed=_may_add(server, key))


@router.post(
    "/folders",
    status_code=202,
    responses=errors(400, 401, 403, 408, 409, 413, 415, 422, 429),
    openapi_extra=body_document(FolderBody, uploads=False),
)
async def add_folder(request: Request, server: Server, key: Key = "") -> FoldersAnswer:
    """Index a folder in the background; GET /progress reports it."""
    body = (await server.bodies.read_json(request)).parsed(FolderBody)
    adding = server.adding
    if adding is None or not _may_add(server, key):
        raise Fault(403, "refused", "folders are added with: image-finder index FOLDER")
    if not adding.start(_folder(body.folder)):
        raise Fault(409, "busy", "another folder is being added; wait until it is indexed")
    return _answer(server, allowed=True)


def _may_add(server: State, key: str) -> bool:
    expected = server.settings.folder_key
    return expected is not None and hmac.compare_digest(key.encode(), expected.get_secret_value().encode())


def _answer(server: State, *, allowed: bool) -> FoldersAnswer:
    adding = server.adding
    if adding is None or not allowed:
        return FoldersAnswer(allowed=False, running=False, failure="", suggested="")
    return FoldersAnswer(allowed=True, running=adding.running, failure=adding.failure, suggested=_suggested())


def _folder(text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~somebody who does not exist
        path = Path(text)
    if "\0" in text or not path.is_absolute() or not path.is_dir():
        raise Fault(400, "bad_query", f"{text[:200]!r} is not a folder of this computer; give an absolute path")
    return path


def _suggested() -> str:
    pictures = platformdirs.user_pictures_path()
    return str(pictures) if pictures.is_dir() else ""

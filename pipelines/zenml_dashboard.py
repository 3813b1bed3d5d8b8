"""ZenML dashboard: serves ZenML's pages on a copy of a home's store; reads the home and never writes to it.

The server has no login, so it answers on the loopback interface alone and refuses every request that would change its
store: a page of another origin could otherwise register a directory of its choice and read the files in it.
"""

import contextlib
import os
import signal
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from image_finder.components.errors import ConfigError
from image_finder.components.temporaries import scratch_directory
from image_finder.pipelines.stores import Home

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
_READING = {"GET", "HEAD", "OPTIONS"}
_LOGIN = "/api/v1/login"
# A second policy beside ZenML's, which allows six other hosts; reports have their styles and images in the page.
_ALLOWED_CONTENT = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:"
)
_PATIENCE_S = 5  # for requests in progress when Ctrl-C stops the server


class ReadOnly:
    """ASGI middleware: answers 403 to requests that change something, and lets no page load from other hosts."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.datastructures import MutableHeaders
        from starlette.responses import JSONResponse

        async def restricted(message: "Message") -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("content-security-policy", _ALLOWED_CONTENT)
            await send(message)

        if scope["type"] == "http" and scope["method"] not in _READING and scope["path"] != _LOGIN:
            refused = JSONResponse({"detail": "this dashboard shows a copy of the store and changes nothing"}, 403)
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, restricted)


def runs_page(port: int) -> str:
    return f"http://{HOST}:{port}/projects/default/runs"


def serve(home: Home, port: int) -> None:
    """Serve the dashboard until the process is interrupted.

    Runs that begin later are not shown. Raises ConfigError if the home has no runs or ZenML's server is not installed.
    """
    with scratch_directory() as folder:
        _copy_store(home, Path(folder) / "zenml.db")
        _set_environment(home, Path(folder), port)
        _skip_questions()
        app = _read_only_app()
        import uvicorn

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that uvicorn ends here and the copy is removed
        uvicorn.run(app, host=HOST, port=port, log_level="warning", timeout_graceful_shutdown=_PATIENCE_S)


def _read_only_app() -> "ASGIApp":
    os.environ["ZENML_SERVER"] = "true"  # not before: the client would look for the user of a request
    try:
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from zenml.zen_server.zen_server_api import app
    except ImportError as error:
        needed = f"zenml[server]=={version('zenml')}"
        raise ConfigError(f"ZenML's dashboard is not installed ({error}): run pip install '{needed}'") from error
    return TrustedHostMiddleware(ReadOnly(app), allowed_hosts=[HOST, "localhost"])


def _copy_store(home: Home, to: Path) -> None:
    store = home.zenml_dir / "stores" / "default_zen_store" / "zenml.db"
    if not store.is_file():
        raise ConfigError(f"no pipeline runs in {home.root} yet: run 'image-finder demo' first")
    source = sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)
    with contextlib.closing(source), contextlib.closing(sqlite3.connect(to)) as copy:
        source.backup(copy)


def _set_environment(home: Home, scratch: Path, port: int) -> None:
    """Set what ZenML reads at import."""
    os.environ |= {
        "ZENML_CONFIG_PATH": str(scratch / "config"),
        "ZENML_STORE_URL": f"sqlite:///{scratch / 'zenml.db'}",
        "ZENML_LOCAL_STORES_PATH": str(home.zenml_dir / "stores"),  # of the artefacts, which are only read
        "ZENML_REPOSITORY_PATH": str(scratch),
        "ZENML_CUSTOM_SOURCE_ROOT": str(scratch),
        "ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS": "true",
        "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "other",  # "local" shows an advertisement on every page
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_CORS_ALLOW_ORIGINS": f"http://{HOST}:{port}",
        "ZENML_LOGGING_VERBOSITY": "ERROR",
    }


def _skip_questions() -> None:
    """Answer the dashboard's survey, news and updates in the copy, so that it opens on the runs."""
    from zenml.client import Client

    client = Client()
    client.update_user(
        client.active_user.id, updated_email_opt_in=False, updated_metadata={"finished_onboarding_survey": True}
    )
    client.update_server_settings(  # all of them: 0.98 writes NULL for those left out
        updated_name="image-finder",
        updated_logo_url="",
        updated_enable_analytics=False,
        updated_enable_announcements=False,
        updated_enable_updates=False,
    )

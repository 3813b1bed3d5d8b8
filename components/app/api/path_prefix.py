"""Path prefix: serves below a path of a reverse proxy, whether the proxy removes the path from requests or not."""

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class PathPrefix:
    """Middleware that gives each request the path with the prefix, and `root_path`, as ASGI requires."""

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._prefix:
            if scope["path"] == self._prefix:  # relative addresses of the page need the slash
                await RedirectResponse(f"{self._prefix}/", status_code=308)(scope, receive, send)
                return
            path = scope["path"] if scope["path"].startswith(f"{self._prefix}/") else self._prefix + scope["path"]
            scope = {**scope, "path": path, "root_path": self._prefix}
        await self._app(scope, receive, send)


def path_below(scope: Scope) -> str:
    """Path of a request without the prefix."""
    path: str = scope["path"]
    return path.removeprefix(prefix_of(scope))


def prefix_of(scope: Scope) -> str:
    """The prefix, "" if there is none. A mounted application adds its own path to `root_path`."""
    return str(scope.get("app_root_path", scope.get("root_path", "")))

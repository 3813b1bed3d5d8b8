"""HEAD requests: answered as GET would be, without the body."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MARK = "head_only"


class HeadAsGet:
    """Layer that lets routes know GET alone."""

    def __init__(self, app: ASGIApp) -> None:
        """app: is asked with GET."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        head = scope["type"] == "http" and scope["method"] == "HEAD"
        asked = {**scope, "method": "GET", _MARK: True} if head else scope

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("allow") == "GET":
                    headers["Allow"] = "GET, HEAD"
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(asked, receive, send_head)
        finally:
            if "route" in asked:  # the log names it
                scope["route"] = asked["route"]


def is_head(request: Request) -> bool:
    """Whether the body of the answer will be left out, so that it need not be made."""
    return bool(request.scope.get(_MARK))

"""HEAD requests: answered like GET, without the body."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MARK = "head_only"


class HeadAsGet:
    """Middleware that passes HEAD requests on as GET and drops the body of the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = scope["type"] == "http" and scope["method"] == "HEAD"
        forwarded = {**scope, "method": "GET", _MARK: True} if head else scope

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("allow") == "GET":
                    headers["Allow"] = "GET, HEAD"
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(forwarded, receive, send_head)
        finally:
            if "route" in forwarded:  # for the log
                scope["route"] = forwarded["route"]


def is_head(request: Request) -> bool:
    return bool(request.scope.get(_MARK))

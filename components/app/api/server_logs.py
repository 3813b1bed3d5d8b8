"""Server log: one JSON object per line; no tokens, queries only with --log-queries."""

import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image_finder.components.app.api.error_responses import fault_of, fault_response
from image_finder.components.app.api.metrics import Metrics

logger = logging.getLogger(__name__)
REQUEST_ID = "X-Request-ID"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_NO_BYTES_SENT = 499


class _WithRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id") and (request_id := _request_id.get()):
            record.request_id = request_id
        return True


def configure_logging(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Write this package's and uvicorn's records to stream as JSON, for the whole process."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(_WithRequestId())
    names = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"}
    handler.setFormatter(
        JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names, json_ensure_ascii=False)
    )
    for name in ("image_finder", "uvicorn.error", "asyncio", "py.warnings"):
        named = logging.getLogger(name)
        named.handlers, named.propagate = [handler], False
        named.setLevel(level if name == "image_finder" else logging.WARNING)
    logging.captureWarnings(True)


class RequestLog:
    """Middleware: assigns ids, logs and times requests, answers unexpected exceptions."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        proposed = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = proposed if _SANE_ID.fullmatch(proposed) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        _request_id.set(request_id)
        status = _NO_BYTES_SENT

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except Exception as error:
            logger.exception("unexpected %s", type(error).__name__)
            if status == _NO_BYTES_SENT:
                await fault_response(scope, fault_of(error))(scope, receive, send_noting)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.note_request(scope["method"], route, status, seconds)
        facts = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 2)}
        logger.info("request", extra={**facts, **scope["state"].get("log", {})})

"""Server: runs the application until a signal stops it, and finishes running requests first."""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Callable
from typing import Any

import click
import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from image_finder.components import system
from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.error_responses import Fault, fault_response
from image_finder.components.app.api.security import SafeHeaders
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.watcher import Watching
from image_finder.components.errors import ConfigError
from image_finder.components.search.finder import Finder

_HEAD_BYTES = 32 * 1024
_HEAD_S = 10.0  # for a request head, and for the rest of an unread body
_KEEP_ALIVE_S = 15
_STOP_S = 30  # for running requests after a signal
_BACKLOG = 1024


class PromptProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for request heads and unread bodies.

    uvicorn waits for them without limit. h11 limits the size of heads; routes that read a body have their own deadlines.
    """

    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, *values: Any, **named: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(*values, **named)
        self._served, self._most = self.app, self.limit_concurrency or math.inf
        self.limit_concurrency = None  # uvicorn would refuse in plain text

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_deadline()

    def data_received(self, data: bytes) -> None:
        self.app = self._served if len(self.connections) <= self._most else _TOO_MANY
        super().data_received(data)
        self._update_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has too large a head, with a problem document."""
        problem = fault_response(
            {}, Fault(400, "bad_http", f"{msg.rstrip('.')}; a head has at most {_HEAD_BYTES:,} bytes")
        )
        headers = [*problem.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers),
            h11.Data(bytes(problem.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _update_deadline(self) -> None:
        in_head = self.conn.their_state is h11.IDLE and self.conn.trailing_data[0] != b""
        unread = self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete
        if not (in_head or unread):
            self._stop_deadline()
        elif self._deadline is None:
            self._start_deadline()

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(_HEAD_S, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Retry-After": "1", "Connection": "close"}
    fault = Fault(503, "busy", "too many open connections; retry shortly", headers=headers)
    await fault_response(scope, fault)(scope, receive, send)


_TOO_MANY: Any = SafeHeaders(_too_many)


class _AnnouncingServer(uvicorn.Server):
    """Calls a function once it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


def run(source: Callable[[], Finder | None], settings: Settings, *, watching: Callable[[], Watching]) -> None:
    """Serve until SIGTERM or Ctrl-C; prints the address to stderr. Raises ConfigError."""
    with contextlib.closing(_listener(settings)) as listener:
        config = uvicorn.Config(
            create_app(source, settings, watching=watching),
            http=PromptProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_S,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            backlog=_BACKLOG,
        )
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        server = _AnnouncingServer(config, lambda: _announce(f"{address}{settings.root_path}", settings))
        # uvicorn raises the stopping signal again at the end; a requested stop is not a failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        server.run(sockets=[listener])


def _announce(address: str, settings: Settings) -> None:
    click.echo(f"serving on {address} (stop with Ctrl-C)", err=True)
    if settings.folder_key is not None:
        # In the fragment, which browsers send to no server.
        key = settings.folder_key.get_secret_value()
        click.echo(f"to add folders on the page, open {address}/#key={key}", err=True)


def _listener(settings: Settings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            system.reserve_address(listener)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror if error.strerror and error.errno and error.errno > 0 else str(error)
        raise ConfigError(
            f"cannot listen on {settings.host}, port {settings.port}: {reason}; choose another --port (0: any free port)"
        ) from error
    return listener

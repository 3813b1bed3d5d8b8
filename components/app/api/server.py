"""Server: runs the application on a socket until a signal stops it; running requests are finished first."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from components.app.api.application import create_app
from components.app.api.settings import Settings
from components.app.watcher import Watching
from components.errors import ConfigError
from components.finder import Finder

_HEAD_BYTES = 32 * 1024
_HEAD_S = 10.0
_KEEP_ALIVE_S = 15
_STOP_S = 30  # for running requests, after a signal
_BACKLOG = 1024


class PromptProtocol(H11Protocol):
    """HTTP/1.1 whose request heads must arrive within a time; uvicorn alone would wait for ever, h11 limits their size."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the first head."""
        super().connection_made(transport)
        self._time_head()

    def data_received(self, data: bytes) -> None:
        """Stop the time when the head is whole; start it with the first bytes of the next one."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timing()
        elif self.conn.trailing_data[0] and self._head_timer is None:
            self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._stop_timing()
        super().connection_lost(exc)

    def _time_head(self) -> None:
        self._head_timer = self.loop.call_later(_HEAD_S, self.transport.abort)

    def _stop_timing(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _AnnouncingServer(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


def run(source: Callable[[], Finder], settings: Settings, *, watching: Callable[[], Watching]) -> None:
    """Serve until SIGTERM or Ctrl-C. The address is told on stderr once it answers. Raises ConfigError.

    watching: how changes of the images are noticed.
    """
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
        address = address_of(listener)
        server = _AnnouncingServer(config, lambda: _say(f"image-finder answers on {address} (Ctrl-C stops it)"))
        # uvicorn raises the signal that stopped it once more when all is done; a stop that was asked for is no failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        server.run(sockets=[listener])


def address_of(listener: socket.socket) -> str:
    """URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listener(settings: Settings) -> socket.socket:
    """A socket bound to the address. Raises ConfigError."""
    try:
        kind, _, _, _, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(kind, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(
            f"cannot listen on {settings.host}, port {settings.port}: {reason}; choose another --port (0: any free one)"
        ) from error
    return listener


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

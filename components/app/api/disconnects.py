"""Disconnects: ends the work for a request once its client has gone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

_Answer = TypeVar("_Answer")


async def while_connected(request: Request, answer: Coroutine[Any, Any, _Answer]) -> _Answer:
    """What answer returns or raises. Raises ClientDisconnect and cancels it once the client has gone.

    The request's body must have been read: what is left of it would be taken from the connection and dropped.
    """
    work, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise ClientDisconnect
    finally:
        work.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

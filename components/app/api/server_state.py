"""State of one server: what its routes share, made when it starts and ended when it stops."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from image_finder.components.app.api.batches import SearchLine
from image_finder.components.app.api.explainer import Explainer
from image_finder.components.app.api.limits import Workers
from image_finder.components.app.api.live_finder import LiveFinder
from image_finder.components.app.api.metrics import Metrics
from image_finder.components.app.api.request_bodies import BodyReader
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.api.thumbnails import Views


@dataclass(frozen=True)
class State:
    """Parts of a running server."""

    settings: Settings
    metrics: Metrics
    live: LiveFinder
    searches: SearchLine
    workers: Workers
    bodies: BodyReader
    views: Views
    explainer: Explainer


async def _state_of(request: Request) -> State:  # async: a plain function would cost a thread at each request
    state: State = request.app.state.server
    return state


Server = Annotated[State, Depends(_state_of)]

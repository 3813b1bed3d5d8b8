"""Partial publication: embedded images become searchable while an update still reads others."""

import time
from collections.abc import Callable

_SHARE = 0.03  # of the time since reading began that publications may take
_FIRST_S = 0.1  # expected duration of the first one
_GROWTH = 1.5  # expected of the next one: it has more images


class PartialPublisher:
    """Calls a function that publishes, at intervals that keep its share of the time."""

    def __init__(self, publish: Callable[[], int]) -> None:
        """publish: returns the number of images that are now searchable."""
        self._publish = publish
        self._started = time.monotonic()
        self._spent = 0.0
        self._next = self._started + _FIRST_S / _SHARE

    def offer(self) -> None:
        """Publish if enough time has passed; called after each image. Raises what `publish` raises."""
        if time.monotonic() >= self._next:
            self.now()

    def now(self) -> int:
        """Publish; returns the number of images that are searchable. Raises what `publish` raises."""
        began = time.monotonic()
        count = self._publish()
        took = time.monotonic() - began
        self._spent += took
        self._next = self._started + (self._spent + _GROWTH * took) / _SHARE
        return count

"""Lifeline: a process that ends with the one that holds the other end of its standard input, even if that was killed."""

import os
import threading
from collections.abc import Callable


def when_stdin_ends(act: Callable[[], None]) -> None:
    """Call `act` in a thread once standard input has ended."""

    def watch() -> None:
        # not sys.stdin.read(): its lock, held for ever, would break the interpreter's end
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=watch, daemon=True).start()

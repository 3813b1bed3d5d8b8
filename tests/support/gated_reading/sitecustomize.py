"""Makes the reading of a file wait at a named pipe beside it, if there is one, and take the pipe's content.

Python imports this module at its start from PYTHONPATH, so it reaches the worker processes of a Ray cluster, where a test
cannot patch anything.
"""

import pathlib

_whole = pathlib.Path.read_bytes


def read_bytes(self):
    pipe = pathlib.Path(f"{self}.pipe")
    return _whole(pipe) if pipe.is_fifo() else _whole(self)


pathlib.Path.read_bytes = read_bytes  # type: ignore[method-assign]  # the purpose of this module

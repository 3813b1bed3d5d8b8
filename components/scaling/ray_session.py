"""Ray session: starts Ray here or connects to a cluster, and turns its errors into one line."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from image_finder.components.errors import ConfigError, FinderError, StorageError
from image_finder.components.temporaries import temporary_directory
from image_finder.components.text import one_line

logger = logging.getLogger(__name__)

# Only file names and hashes travel through the store; vectors are written by the workers themselves.
_STORE_BYTES = 128 << 20
# A socket's path may have 107 characters (unix(7)), of which Ray needs 84 behind this folder.
_LONGEST_PARENT = 16
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it Ray warns of its next version
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else a line on stderr for each actor that may be started again
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


@contextlib.contextmanager
def ray_session(address: str, *, cpus: int) -> Iterator[None]:
    """Connect to Ray, or run it on this machine with `cpus` CPUs until the context ends.

    address: "" starts Ray; "auto" or host:port names a running cluster. An existing session of this process is used.
    Raises ConfigError if Ray is not installed, StorageError for every error of Ray; this project's errors pass.
    """
    with _environment(QUIET), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="ray")
        ray = _imported()
        # It warns of changes in Ray 2.64, which pyproject.toml excludes.
        warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
        if ray.is_initialized():
            yield
            return
        with contextlib.nullcontext() if address else _scratch() as folder, _own_signals():
            try:
                _connect(ray, address, cpus, folder)
                yield
            except Exception as error:
                own = error_of_worker(error)
                if own is not None:
                    raise own from None  # without the worker's traceback, which Ray adds
                raise StorageError(f"Ray failed: {reason_of(error)}; run again: finished shards are kept") from error
            finally:
                ray.shutdown()


def error_of_worker(error: BaseException) -> FinderError | None:
    """The error of this project that caused an error of Ray; None if there is none."""
    own = [each for each in _behind(error) if isinstance(each, FinderError) and not hasattr(each, "cause")]
    if not own:
        return None
    own[-1].args = (str(own[-1]).partition("\n")[0],)  # Ray appends lines about retries
    return own[-1]


def worker_was_lost(error: BaseException) -> bool:
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, ExecutionTimeoutError | RayError) and not isinstance(error, RayTaskError)


def reason_of(error: BaseException) -> str:
    *_, last = _behind(error)
    return one_line(str(last).strip().partition("\n")[0] or type(last).__name__)


def _behind(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        cause = getattr(following, "cause", None)  # where Ray stores the worker's exception
        following = cause if isinstance(cause, BaseException) else following.__cause__


def _imported() -> Any:  # noqa: ANN401 - a module
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            "engine ray needs Ray: pip install 'text-guided-image-finder[ray]', or set embedding.engine=local"
        ) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised, in one line
    return ray


def _connect(ray: Any, address: str, cpus: int, folder: Path | None) -> None:  # noqa: ANN401 - a module
    common = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
    own = {
        "num_cpus": cpus,
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
        "_temp_dir": str(folder),
        "_node_ip_address": "127.0.0.1",
    }
    try:
        with _no_stderr(), _no_cloud_detection(folder) as environment:
            own["runtime_env"] = {"env_vars": environment}
            ray.init(address=address or "local", **common, **({} if address else own))
    except Exception as error:
        where = f"Ray cannot be reached at {address}" if address else "Ray cannot be started here"
        hint = "check ray_address and the cluster" if address else "see whether memory and processes are free"
        raise StorageError(f"{where}: {reason_of(error)}; {hint}") from error


@contextlib.contextmanager
def _no_cloud_detection(folder: Path | None) -> Iterator[dict[str, str]]:
    """Set HOME to folder while Ray starts; yields variables that restore it for the workers.

    Ray calls the metadata services of three clouds unless the home directory has that file. Its token stays in the
    user's home directory.
    """
    home = os.environ.get("HOME")
    if folder is None or home is None:
        yield {}
        return
    (folder / "ray_bootstrap_config.yaml").touch()
    own = Path(home, ".ray")
    own.mkdir(mode=0o700, exist_ok=True)
    (folder / ".ray").symlink_to(own)
    os.environ["HOME"] = str(folder)
    try:
        yield {"HOME": home}
    finally:
        os.environ["HOME"] = home


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Discard stderr, where Ray's C++ part prints its log level at the start; errors are raised."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _scratch() -> contextlib.AbstractContextManager[Path]:
    """A folder with a short path for Ray's sockets and logs."""
    parent = tempfile.gettempdir()
    return temporary_directory(Path(parent if len(parent) <= _LONGEST_PARENT else "/tmp", "r"))  # noqa: S108


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray replaces the SIGTERM handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

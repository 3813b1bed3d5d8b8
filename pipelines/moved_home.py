"""Moved home: updates the stored paths of a home that was renamed, copied, restored or mounted elsewhere.

Our own files use relative paths. MLflow and ZenML store absolute paths in their SQLite files and have no interface to
change them. The stored paths show the former location. Each store is updated in one transaction, so the next command
completes an update that was killed. Ledger entries and logs are history and are not changed.
"""

import base64
import functools
import json
import logging
import os
import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import yaml
from filelock import FileLock, Timeout

from image_finder.components.errors import BusyError, ConfigError, StorageError
from image_finder.components.storage import disk_full, write_text_atomically

if TYPE_CHECKING:
    from image_finder.pipelines.stores import Home

logger = logging.getLogger(__name__)

_BUSY_S = 10.0
_ZENML_DATABASE = ("zenml", "stores", "default_zen_store", "zenml.db")
# Address columns by table; a table may be missing in other versions of MLflow.
_MLFLOW_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
_ZENML_ADDRESSES = {"artifact_version": ("uri",), "artifact_visualization": ("uri",), "logs": ("uri",)}
# JSON with the parameters of runs, which may be repeated, and with the stack's settings.
_ZENML_SNAPSHOTS = ("pipeline_snapshot", "pipeline_configuration")
_ZENML_COMPONENTS = ("stack_component", "configuration")


def adopt(home: "Home") -> None:
    """Update the paths stored by MLflow and ZenML if the home was moved, and log that.

    Raises BusyError if a pipeline is running there, StorageError if the home cannot be written.
    """
    if _former(home) is None:
        return
    try:
        with run_lock(home.root, "wait for it and run again"):
            former = _former(home)  # another process may have adopted it meanwhile
            if former is None:
                return
            if (tracked := mlflow_home(home)) is not None:
                _adopt_mlflow(home, tracked)
            if (stored := zenml_home(home)) is not None:
                _adopt_zenml(home, stored)
    except OSError as error:
        raise _refused(home.root, error.strerror) from error
    logger.warning("Home moved from %s to %s: stored paths updated", former, home.root)
    schedule = home.root / "schedule"
    # The file `environment` contains secrets but no paths of the home.
    files = [path for path in schedule.glob("*") if path.is_file() and path.name != "environment"]
    if any(str(former) in path.read_text("utf-8", "replace") for path in files):
        logger.warning(
            "The schedule in %s still names %s: run 'image-finder pipeline schedule' again", schedule, former
        )


@contextmanager
def run_lock(root: Path, advice: str) -> Iterator[None]:
    """Hold a home's lock: one pipeline at a time, because SQLite cannot serve two writers for minutes.

    Reentrant; the system releases it when the process dies. Raises BusyError with the advice.
    """
    lock = FileLock(root / "run.lock", is_singleton=True)  # one object per process, which makes it reentrant
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(f"another pipeline is running in {root}: {advice}") from error
    try:
        yield
    finally:
        lock.release()


def ensure_own_store(home: "Home") -> None:
    """Undo `zenml login` and `logout`. Raises ConfigError if the home is connected to a server."""
    configuration = _zenml_configuration(home)
    store = configuration.pop("store", None) or {}
    own = home.root.joinpath(*_ZENML_DATABASE)
    if store.get("type", "sql") == "sql" and store.get("database", str(own)) == str(own):
        return
    if store.get("type") == "rest":
        address = str(store.get("url", ""))
        is_local = urlsplit(address).hostname in {"127.0.0.1", "localhost"}  # started by `zenml login --local`
        daemon = home.zenml_dir / "zen_server" / "daemon"
        if not is_local or _runs_here(daemon):
            stores = home.zenml_dir / "stores"
            raise ConfigError(
                f"the home {home.root} is connected to the ZenML server {address}, but pipelines use the home's own store: "
                f"run ZENML_CONFIG_PATH={shlex.quote(str(home.zenml_dir))} "
                f"ZENML_LOCAL_STORES_PATH={shlex.quote(str(stores))} zenml logout {'--local' if is_local else address}, "
                "or set ZENML_STORE_URL to use that server"
            )
        shutil.rmtree(daemon, ignore_errors=True)
        logger.warning(
            "Home %s was connected to %s, whose server is not running here: disconnected", home.root, address
        )
    # Without this entry ZenML uses the store below ZENML_LOCAL_STORES_PATH.
    write_text_atomically(home.zenml_dir / "config.yaml", yaml.safe_dump(configuration))


def _runs_here(daemon: Path) -> bool:
    """Whether the local server runs from this path: a copied home must not stop the original's."""
    try:
        service = json.loads((daemon / "service.json").read_text(encoding="utf-8"))
        os.kill(int((daemon / "service.pid").read_text()), 0)
        return bool(service["config"]["root_runtime_path"] == str(daemon))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def keep_cached_steps(home: "Home") -> None:
    """Keep step outputs cached after a move: ZenML 0.98's cache key contains the store's path."""
    from zenml.orchestrators import cache_utils

    made = getattr(cache_utils.generate_cache_key, "__wrapped__", cache_utils.generate_cache_key)

    @functools.wraps(made)
    def generate(*, artifact_store: Any, **facts: Any) -> str:  # noqa: ANN401 - see the pin in pyproject.toml
        path = Path(artifact_store.path)
        inside = path.relative_to(home.root).as_posix() if path.is_relative_to(home.root) else artifact_store.path
        key = artifact_store.custom_cache_key
        return made(artifact_store=SimpleNamespace(id=artifact_store.id, path=inside, custom_cache_key=key), **facts)  # type: ignore[arg-type]

    cache_utils.generate_cache_key = cast("Any", generate)


def mlflow_home(home: "Home") -> Path | None:
    """Home path in MLflow's store; None if unchanged or if MLflow's store is elsewhere."""
    from image_finder.pipelines.stores import EXPERIMENT_NAME

    rows = _read(home.mlflow_db, "SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT_NAME,))
    address = urlsplit(str(rows[0][0])) if rows else None
    if address is None or address.scheme != "file":
        return None
    stored = Path(unquote(address.path))
    if stored.name != home.mlflow_artifacts.name or stored == home.mlflow_artifacts:
        return None
    # The database may belong to another home, which then has the artefacts.
    runs = [str(uri) for (uri,) in _read(home.mlflow_db, "SELECT artifact_uri FROM runs")]
    inside = [run.removeprefix(stored.as_uri()).strip("/") for run in runs if run.startswith(stored.as_uri() + "/")]
    here = any((home.mlflow_artifacts / each).exists() for each in inside)
    there = any((stored / each).exists() for each in inside)
    return None if there and not here else stored.parent


def zenml_home(home: "Home") -> Path | None:
    """Home path in ZenML's store; None if unchanged or if a ZenML server is used."""
    store = _zenml_configuration(home).get("store") or {}
    database = Path(str(store.get("database") or ""))
    if store.get("type") != "sql" or database.parts[-4:] != _ZENML_DATABASE:
        return None
    return None if database.parents[3] == home.root else database.parents[3]


def _former(home: "Home") -> Path | None:
    return mlflow_home(home) or zenml_home(home)


def _adopt_mlflow(home: "Home", former: Path) -> None:
    with _changing(home.mlflow_db) as store:
        for old, new in ((former.as_uri(), home.root.as_uri()), (str(former), str(home.root))):
            _replace_beginnings(store, _MLFLOW_ADDRESSES, old, new)


def _adopt_zenml(home: "Home", former: Path) -> None:
    """Update the database before the configuration, which marks the update as done."""
    database = home.root.joinpath(*_ZENML_DATABASE)
    if database.is_file():
        with _changing(database) as store:
            _replace_beginnings(store, _ZENML_ADDRESSES, str(former), str(home.root))
            _replace_texts(store, *_ZENML_SNAPSHOTS, lambda text: _with_paths(text, former, home.root))
            _replace_texts(store, *_ZENML_COMPONENTS, lambda text: _component(text, former, home.root))
    configuration = json.dumps(_zenml_configuration(home))
    moved = json.loads(_with_paths(configuration, former, home.root))
    write_text_atomically(home.zenml_dir / "config.yaml", yaml.safe_dump(moved))


def _zenml_configuration(home: "Home") -> dict[str, Any]:
    """ZenML's config.yaml; empty if missing or unreadable, which ZenML reports itself."""
    try:
        found = yaml.safe_load((home.zenml_dir / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace_beginnings(store: sqlite3.Connection, columns: Mapping[str, tuple[str, ...]], old: str, new: str) -> None:
    for table, names in columns.items():
        for column in set(names) & _columns(store, table):
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - own constants
                f"WHERE ({column} = ? OR substr({column}, 1, ?) = ?) AND substr({column} || '/', 1, ?) != ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/", len(new) + 1, f"{new}/"),
            )


def _replace_texts(store: sqlite3.Connection, table: str, column: str, change: Callable[[Any], Any]) -> None:
    if column not in _columns(store, table):
        return
    for row, value in store.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall():  # noqa: S608
        if (changed := change(value)) != value:
            store.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))  # noqa: S608


def _component(value: Any, former: Path, root: Path) -> Any:  # noqa: ANN401 - bytes, or text in other versions
    """Settings of a stack component, which ZenML stores as JSON in base64."""
    try:
        text = base64.b64decode(value, validate=True).decode("utf-8")
    except ValueError:
        return value
    changed = base64.b64encode(_with_paths(text, former, root).encode())
    return changed if isinstance(value, bytes) else changed.decode()


def _with_paths(text: str, former: Path, root: Path) -> str:
    """Replace paths in JSON, also within addresses."""
    forms = {
        tuple(json.dumps(str(path), ensure_ascii=ascii_only)[1:-1] for path in (former, root))
        for ascii_only in (True, False)
    }
    for old, new in forms:
        # If the home was moved below its former path, do not replace again what a killed update replaced.
        done = f'(?!{re.escape(new.removeprefix(old))}["/])' if new.startswith(f"{old}/") else ""
        text = re.sub(rf'(?<=["/]){re.escape(old)}{done}(?=["/])', new.replace("\\", "\\\\"), text)
    return text


def _columns(store: sqlite3.Connection, table: str) -> set[str]:
    return {str(row[1]) for row in store.execute(f"PRAGMA table_info({table})")}


def _read(database: Path, query: str, values: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    """Rows of a database; none if it is missing or unreadable, which its owner reports."""
    if not database.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as store:
            return store.execute(query, values).fetchall()
    except sqlite3.Error:
        return []


@contextmanager
def _changing(database: Path) -> Iterator[sqlite3.Connection]:
    """One transaction. Raises StorageError if the database cannot be written."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)) as store, store:
            yield store
    except sqlite3.Error as error:
        raise disk_full(error, database) or _refused(database, error) from error


def _refused(path: Path, reason: object) -> StorageError:
    return StorageError(
        f"the home was moved and {path} cannot be updated: {reason}; make it writable and run the same command again"
    )

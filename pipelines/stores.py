"""Stores: a home's ZenML and MLflow stores, and their set-up; knows nothing of steps or models."""

import functools
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from image_finder.components.errors import ConfigError, StorageError
from image_finder.components.home import HOME_VARIABLE, home_root
from image_finder.components.index.format import read_manifest
from image_finder.components.library.former_home import bring_up_to_date
from image_finder.components.phases import write_unwrapped
from image_finder.components.storage import make_private, write_errors
from image_finder.components.text import one_line
from image_finder.model_registry.former_models import renew_code
from image_finder.pipelines import moved_home as moved

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

STACK_NAME = "image-finder"
EXPERIMENT_NAME = "image-finder"

_REMOTE_SCHEMES = ("http://", "https://")
_STEP_LAUNCHER = "zenml.orchestrators.step_launcher"
_LOG_LEVELS = {
    "image_finder.model_registry.tracking": logging.INFO,  # the comparison with the baseline
    # Warns about activating the stack `default`, which ours replaces at once.
    "zenml.zen_stores.base_zen_store": logging.ERROR,
    # Cannot disable autologging of fastai.
    "zenml.integrations.mlflow.experiment_trackers.mlflow_experiment_tracker": logging.ERROR,
    # They log the traceback of a failed step, which is raised again and shown by the command.
    "zenml.orchestrators.local.local_orchestrator": logging.CRITICAL,
    "zenml.orchestrators.step_runner": logging.CRITICAL,
}


class Home:
    """Folder of everything that pipelines write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.zenml_dir = root / "zenml"  # ZenML's configuration, SQLite store and artefacts
        self.mlflow_db = root / "mlflow.db"  # runs, metrics, registered models
        self.mlflow_uri = f"sqlite:///{self.mlflow_db}"
        self.mlflow_artifacts = root / "mlartifacts"  # figures, reports and registered bundles
        self.cache_dir = root / "cache"  # features of frozen trunks; may be deleted at any time
        self.data_dir = root / "data"  # the demo data set
        self.bundles_dir = root / "bundles"  # downloaded from the registry
        self.library_dir = root / "library"
        self.index_dir = self.library_dir / "index"

    @classmethod
    def resolve(cls, path: Path | None = None) -> "Home":
        """The given folder, else IMAGE_FINDER_HOME, else the user's data folder; absolute."""
        return cls(home_root(path))


def require_demo_library(home: Home) -> None:
    """Raise ConfigError if a home's library has other sources than the demo, whose model would then search them."""
    bring_up_to_date(home.root)
    try:
        roots = read_manifest(home.index_dir).roots
    except StorageError:  # nothing is published
        return
    others = [root for root in roots if not Path(root).is_relative_to(home.data_dir)]
    if others:
        raise ConfigError(
            f"the library in {home.root} holds {others[0]}, which would be searched with the demo's model: "
            "give another directory with --home"
        )


def existing_registry(home: Home, given: str | None = None) -> str:
    """MLflow's address for a command without ZenML; adopts a moved home first."""
    _bring_up_to_date(home)
    return tracking_uri(home, given)


def _bring_up_to_date(home: Home) -> None:
    moved.adopt(home)
    bring_up_to_date(home.root)
    renew_code(home.mlflow_artifacts)


def tracking_uri(home: Home, given: str | None = None) -> str:
    """MLflow's address: the given one, else MLFLOW_TRACKING_URI, else SQLite in the home."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or home.mlflow_uri


def prepare(home: Home, *, mlflow_uri: str | None) -> str:
    """Create what a pipeline run needs, if missing, and return MLflow's tracking address.

    Without a ZenML server (ZENML_STORE_URL unset) the home gets its own SQLite store and stack; with one, the user's
    active stack is only checked. Call it before anything imports zenml, which reads its environment at import. Callers
    must use the returned address, because ZenML blanks MLflow's global one after each tracked step. Raises ConfigError,
    StorageError.
    """
    client = connect(home)
    if store_url():
        return _tracker_of(client).get_tracking_uri()
    _require_same_store(home, client)
    uri = _blanked_address(client, mlflow_uri) or tracking_uri(home, mlflow_uri)
    _ensure_stack(client, uri)
    ensure_experiment(home, uri)
    return uri


def store_url() -> str | None:
    """Address of the ZenML server that is used instead of the home's own store."""
    return os.environ.get("ZENML_STORE_URL") or None


def connect(home: Home) -> "Client":
    """Create the home's folders, set the environment, and return ZenML's client.

    Call it before anything imports zenml. Raises StorageError, and ConfigError if the server does not answer.
    """
    _make_folders(home)
    _bring_up_to_date(home)
    server = store_url()
    if not server:
        moved.ensure_own_store(home)
    _set_environment(home, has_server=bool(server))
    from zenml.client import Client  # 4 s, and it reads the environment set above

    _tame_logs()
    _remember_packages()
    moved.keep_cached_steps(home)
    try:
        client = Client()
        _ = client.zen_store  # connects
    except Exception as error:
        if not server:
            raise
        raise ConfigError(
            f"ZenML server {server} cannot be used: {one_line(error)}; "
            "check ZENML_STORE_URL and ZENML_STORE_API_KEY, or unset them to use the home's own store"
        ) from error
    return client


def _make_folders(home: Home) -> None:
    for folder in (home.zenml_dir, home.mlflow_artifacts, home.cache_dir, home.data_dir, home.bundles_dir):
        with write_errors(folder):
            make_private(folder)
    # Checked here because ZenML and MLflow fail later, with 30 lines of traceback.
    for folder in (home.root, home.zenml_dir, home.mlflow_artifacts):
        if not os.access(folder, os.W_OK):
            raise StorageError(f"cannot write {folder}: Permission denied; choose another folder with --home")


def _set_environment(home: Home, *, has_server: bool) -> None:
    """Set what ZenML and MLflow read at import; the user's values stay, except store paths."""
    os.environ[HOME_VARIABLE] = str(home.root)  # what the steps read
    if not has_server:
        os.environ["ZENML_CONFIG_PATH"] = str(home.zenml_dir)
        os.environ["ZENML_LOCAL_STORES_PATH"] = str(home.zenml_dir / "stores")
        # A folder without .zen, so that a .zen above the current folder cannot choose the stack.
        os.environ["ZENML_REPOSITORY_PATH"] = str(home.zenml_dir)
    defaults = {
        "ZENML_LOGGING_VERBOSITY": "WARNING",
        "ZENML_LOGGING_COLORS_DISABLED": str(not sys.stderr.isatty()).lower(),
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
        "AUTO_OPEN_DASHBOARD": "false",
        # A folder without our code: ZenML would import code below it as a second module, named by its path.
        "ZENML_CUSTOM_SOURCE_ROOT": str(home.zenml_dir),
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for key, value in defaults.items():
        os.environ.setdefault(key, value)


class _Stderr:
    """Writes to the current stderr, below ZenML's wrapper, which would store lines twice."""

    def write(self, text: str) -> int:
        return write_unwrapped(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _remember_packages() -> None:
    """Cache a ZenML 0.98 function that scans all installed packages (0.7 s) per stored table."""
    from zenml.utils import source_utils

    if not hasattr(source_utils._get_package_for_module, "cache_info"):  # noqa: SLF001 - see the pin in pyproject.toml
        source_utils._get_package_for_module = functools.cache(source_utils._get_package_for_module)  # noqa: SLF001


def _tame_logs() -> None:
    """Send ZenML's log to stderr, without what a user cannot act on."""
    from zenml.logger import ZenMLConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, ZenMLConsoleHandler):
            handler.setStream(cast("TextIO", _Stderr()))
    logging.getLogger("image_finder").setLevel(min(logging.getLogger().level, logging.WARNING))
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger(_STEP_LAUNCHER).addFilter(_repeats_no_error)
    warnings.filterwarnings("ignore", module=r"mlflow\.")  # about MLflow's own type hints and its use of pandas
    if not logging.getLogger().isEnabledFor(logging.INFO):
        for category in (FutureWarning, DeprecationWarning):  # of libraries, about each other
            warnings.simplefilter("ignore", category)


def _repeats_no_error(record: logging.LogRecord) -> bool:
    """Drop errors of steps: they are raised again and shown by the command in one line."""
    return record.levelno < logging.ERROR


def _blanked_address(client: "Client", given: str | None) -> str | None:
    """The stack's address, if ZenML blanked MLFLOW_TRACKING_URI and so lost the user's value."""
    from zenml.enums import StackComponentType as Kind

    if given or os.environ.get("MLFLOW_TRACKING_URI") != "":
        return None
    for stack in client.list_stacks(name=STACK_NAME, hydrate=True).items:
        return str(stack.components[Kind.EXPERIMENT_TRACKER][0].configuration["tracking_uri"])
    return None


def _tracker_of(client: "Client") -> "MLFlowExperimentTracker":
    """The MLflow tracker of the active stack. Raises ConfigError if it has none."""
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

    stack = client.active_stack
    tracker = stack.experiment_tracker
    if not isinstance(tracker, MLFlowExperimentTracker):
        found = "no experiment tracker" if tracker is None else f"the {tracker.flavor} experiment tracker"
        raise ConfigError(
            f"ZenML stack '{stack.name}' has {found}, an MLflow one is needed: run `zenml experiment-tracker register "
            f"mlflow --flavor=mlflow --tracking_uri=...` and `zenml stack update {stack.name} -e mlflow`, "
            "or unset ZENML_STORE_URL to use the local store"
        )
    return tracker


def _require_same_store(home: Home, client: "Client") -> None:
    url = client.zen_store.url
    if not url.startswith(f"sqlite:///{home.zenml_dir}"):
        raise ConfigError(f"this process already uses the ZenML store {url}: start a new one for the home {home.root}")


def _ensure_stack(client: "Client", uri: str) -> None:
    """Register the stack or update its tracker's address, and activate it in this process."""
    from zenml.enums import StackComponentType as Kind

    if not client.list_stacks(name=STACK_NAME).items:
        settings = {key: value for key, value in _tracker_settings(uri).items() if value is not None}
        tracker = client.create_stack_component(STACK_NAME, "mlflow", Kind.EXPERIMENT_TRACKER, settings)
        orchestrator, store = (
            client.list_stack_components(type=kind, flavor="local").items[0].id
            for kind in (Kind.ORCHESTRATOR, Kind.ARTIFACT_STORE)
        )
        client.create_stack(
            STACK_NAME,
            {Kind.ORCHESTRATOR: orchestrator, Kind.ARTIFACT_STORE: store, Kind.EXPERIMENT_TRACKER: tracker.id},
        )
    stack = client.get_stack(STACK_NAME)
    os.environ["ZENML_ACTIVE_STACK_ID"] = str(stack.id)
    tracker = stack.components[Kind.EXPERIMENT_TRACKER][0]
    if any(tracker.configuration.get(key) != value for key, value in _tracker_settings(uri).items()):
        client.update_stack_component(tracker.id, Kind.EXPERIMENT_TRACKER, configuration=_tracker_settings(uri))
    if client.active_stack_model.id != stack.id:
        raise ConfigError(f"ZenML did not activate the stack '{STACK_NAME}': unset ZENML_ACTIVE_STACK_ID and run again")


def _tracker_settings(uri: str) -> dict[str, str | None]:
    """Tracker settings; None removes one from an existing stack.

    ZenML requires exactly one way to log in to a remote server; a server without login ignores the placeholder.
    """
    user, password, token = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD", "TOKEN"))
    remote = uri.startswith(_REMOTE_SCHEMES)
    by_name = remote and user and password
    return {
        "tracking_uri": uri,
        "experiment_name": EXPERIMENT_NAME,
        "tracking_username": user if by_name else None,
        "tracking_password": password if by_name else None,
        "tracking_token": token or "none" if remote and not by_name else None,
    }


def ensure_experiment(home: Home, uri: str) -> None:
    """Create the MLflow experiment; ZenML's tracker would put its artefacts into ./mlruns."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    location = None if uri.startswith(_REMOTE_SCHEMES) else home.mlflow_artifacts.as_uri()
    try:
        client = MlflowClient(tracking_uri=uri)
        if client.get_experiment_by_name(EXPERIMENT_NAME) is None:
            client.create_experiment(EXPERIMENT_NAME, artifact_location=location)
    except MlflowException as error:
        raise ConfigError(f"MLflow at {uri} cannot be used: {one_line(error)}; check MLFLOW_TRACKING_URI") from error

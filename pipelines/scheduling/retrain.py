"""Retraining: the run that a schedule starts. Under one lock: detect changes, train, decide, index, alert."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

from image_finder.components.configs import DatasetConfig, EmbeddingConfig, RegistryConfig
from image_finder.components.drift.report import DriftReport, verdict
from image_finder.components.errors import BusyError, ConfigError, FinderError
from image_finder.components.index.format import IndexManifest
from image_finder.components.index.generations import is_published_root
from image_finder.components.index.publish import current_bundle_sha256
from image_finder.components.phases import accounted, phase
from image_finder.components.records.base import Record
from image_finder.components.records.export import ParityReport
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.text import one_line
from image_finder.pipelines import run_config, runs
from image_finder.pipelines.run_config import PipelineName, Values
from image_finder.pipelines.scheduling.alerts import Alert, notify, scrub
from image_finder.pipelines.scheduling.changes import Changes, Fingerprints, KnownVersion, compare
from image_finder.pipelines.stores import Home, prepare

logger = logging.getLogger(__name__)

Status = Literal["promoted", "kept", "unchanged"]
_DECIDED = {"decision", "moved", "forced", "rollback", "outside"}  # ledger entries that decide about a version
_LOCK_WAIT_S = 20.0  # while the process is being stopped; systemd kills it after 90 s


class PipelineInput(NamedTuple):
    """A configuration and the folder it reads; None: the folder that the configuration names."""

    config: str  # name or file
    folder: Path | None

    @classmethod
    def of(cls, config: str, folder: Path | None) -> "PipelineInput":
        """The folder becomes absolute."""
        return cls(config, folder.resolve() if folder else None)


class Retraining(NamedTuple):
    training: PipelineInput
    indexing: PipelineInput | None
    if_changed: bool
    home: Home

    @classmethod
    def of(
        cls,
        training: str,
        data: Path | None,
        indexing: str | None,
        gallery: Path | None,
        *,
        if_changed: bool,
        home: Home,
    ) -> "Retraining":
        indexes = indexing or gallery
        index_input = PipelineInput.of(indexing or "local", gallery) if indexes else None
        return cls(PipelineInput.of(training, data), index_input, if_changed, home)

    def require_runnable(self) -> None:
        """Check that configurations and folders exist. Raises ConfigError, DataError."""
        load("training", self.training)
        if self.indexing is not None:
            load("indexing", self.indexing)


class RetrainOutcome(Record):
    """What a retraining did. report, parity, decision and drift are None if nothing had changed."""

    status: Status
    model_name: str
    changes: Changes | None  # None without --if-changed
    report: RetrievalReport | None = None
    parity: ParityReport | None = None
    decision: PromotionDecision | None = None
    drift: DriftReport | None = None
    index: IndexManifest | None = None  # the new index; None: the current one stays


def retrain_and_alert(what: Retraining, mlflow_uri: str | None) -> RetrainOutcome:
    """Retrain, then send an alert with the outcome. Raises as `retrain`, and BusyError."""
    subject = _subject()
    try:
        outcome = retrain(what, mlflow_uri)
    except BusyError as error:
        notify(Alert(f"{subject} was skipped", str(error), "failure"))
        raise
    except Exception as error:  # not KeyboardInterrupt: the user who pressed Ctrl-C knows
        notify(Alert(f"{subject} failed", f"{_reason(error)}\nhome: {what.home.root}", "failure"))
        raise
    notify(alert_of(outcome, subject))
    return outcome


def report_killed(reason: str, what: Retraining, mlflow_uri: str | None) -> None:
    notify(Alert(f"{_subject()} failed", f"{reason}\nhome: {what.home.root}", "failure"))
    try:
        name, uri = _model_name(load("training", what.training)), prepare(what.home, mlflow_uri=mlflow_uri)
    except FinderError as error:
        logger.warning("the ledger has no entry for this run: %s", error)
    else:
        _record(uri, name, "failed", reason, wait_s=_LOCK_WAIT_S)


def alert_of(outcome: RetrainOutcome, subject: str) -> Alert:
    lines = [f"model: {outcome.model_name}"]
    if outcome.changes is not None:
        lines.append(outcome.changes.text)
    if outcome.decision is not None:
        lines += outcome.decision.reasons
    if outcome.drift is not None:
        lines.append(verdict(outcome.drift))
    if outcome.index is not None:
        lines.append(f"{outcome.index.count:,} images indexed with it, {len(outcome.index.failed):,} failed")
    title, text = f"{subject}: {_result(outcome)}", "\n".join(lines)
    if outcome.drift is not None and outcome.drift.drifted:
        return Alert(f"{title}, from data that drifted", text, "warning")
    return Alert(title, text, "success")


def retrain(what: Retraining, mlflow_uri: str | None) -> RetrainOutcome:
    """Train, decide and index the new champion; with if_changed, only if data, code, configuration or packages changed.

    A failed run changes neither champion nor index, with one exception: if only the indexing fails, the new champion
    stays, searches use the previous index, and the next call indexes again. Raises FinderError.
    """
    values, home = load("training", what.training), what.home
    name = _model_name(values)
    gallery = _gallery_of(name, what.indexing) if what.indexing else None
    with accounted(), runs.exclusive(home, mlflow_uri) as uri, _recorded(name, uri):
        changes = _changes(values, home, uri) if what.if_changed else None
        if changes is not None and not changes.any:
            _record(uri, name, "skipped", changes.text)
            outcome = RetrainOutcome(status="unchanged", model_name=name, changes=changes)
        else:
            trained = runs.run_training(values, home, uri)
            outcome = RetrainOutcome(
                status="promoted" if trained.decision.promoted else "kept",
                changes=changes,
                **trained._asdict(),
            )
        return outcome.model_copy(update={"index": _index_champion(gallery, name, home, uri)})


def reindex(home: Home, mlflow_uri: str | None, *, model_name: str) -> IndexManifest | None:
    """Index the library again with a model's champion; the ledger records it.

    Repeats the last indexing run; without one, indexes the sources that the library has. Returns None if that run or
    the library belongs to another model. Searches use the current index meanwhile. Raises FinderError.
    """
    with runs.exclusive(home, mlflow_uri) as uri:
        return _embed_all(_last_indexing(), model_name, home, uri)


def update_index(name: str, home: Home, mlflow_uri: str | None) -> IndexManifest | None:
    """Index the library again if its index is not of the model's champion. Raises FinderError.

    Returns None if nothing was done: the index is current, nothing is indexed, or the library belongs to another model.
    """
    if not is_published_root(home.index_dir):
        return None
    with runs.exclusive(home, mlflow_uri) as uri:
        return _index_champion(None, name, home, uri)


def load(pipeline: PipelineName, given: PipelineInput) -> Values:
    """The checked configuration of a pipeline on a folder. Raises ConfigError, DataError."""
    if given.folder is not None and not given.folder.is_dir():
        raise ConfigError(f"the folder {given.folder} for {pipeline} does not exist or cannot be read")
    values = run_config.with_data(pipeline, run_config.load(pipeline, given.config), given.folder)
    dataset = run_config.checked(pipeline, values).get("dataset")
    if isinstance(dataset, DatasetConfig) and dataset.layout != "demo" and not (dataset.root or dataset.hub_dataset):
        raise ConfigError(f"data set '{dataset.name}' has no folder: give --data DIR or set dataset.root")
    return values


def _subject() -> str:
    return f"image-finder: retraining on {socket.gethostname()}"


def _model_name(values: Values) -> str:
    return RegistryConfig.parse(values["parameters"].get("registry") or {}).model_name


def _gallery_of(name: str, indexing: PipelineInput) -> Values:
    """The indexing configuration with this model. Raises ConfigError if it names another one."""
    values = load("indexing", indexing)
    registry = values["parameters"].get("registry") or {}
    if registry.get("model_name", name) != name:
        raise ConfigError(
            f"the training registers model '{name}', but indexing '{indexing.config}' uses '{registry['model_name']}'"
        )
    return {**values, "parameters": {**values["parameters"], "registry": {**registry, "model_name": name}}}


def _changes(values: Values, home: Home, uri: str) -> Changes:
    from image_finder.model_registry import lineage
    from image_finder.model_registry.code_hash import code_hash

    parameters = runs.training_parameters(values, home)
    configs = run_config.checked("training", values)
    now = Fingerprints(
        data_fingerprint=parameters["data_fingerprint"],
        code_sha256=code_hash(),
        config_sha256=lineage.config_sha256(configs),
        environment_sha256=lineage.environment_sha256(),
    )
    return compare(now, _known(uri, _model_name(values)))


def _known(uri: str, name: str) -> list[KnownVersion]:
    from image_finder.model_registry.promotions import Promotions
    from image_finder.model_registry.registry import Registry

    registry = Registry(uri)
    decided = {entry.to_version for entry in Promotions(registry).history(name).entries if entry.kind in _DECIDED}
    return [KnownVersion(each.version, each.tags, each.version in decided) for each in registry.versions(name)]


def _index_champion(gallery: Values | None, name: str, home: Home, uri: str) -> IndexManifest | None:
    """Index the gallery, else as `reindex` does, unless the index is of the champion."""
    from image_finder.model_registry import names
    from image_finder.model_registry.registry import Registry

    registry = Registry(uri)
    champion = registry.champion_version(name)
    if (
        champion is None
        or current_bundle_sha256(home.index_dir) == registry.version(name, champion).tags[names.BUNDLE_SHA256]
    ):
        return None
    try:
        return _embed_all(gallery or _last_indexing(), name, home, uri)
    except FinderError as error:
        raise type(error)(
            f"version {champion} of {name} is champion, but its index could not be created, so searches still use "
            f"the previous one: {error}; the next retraining tries again"
        ) from error


def _embed_all(values: Values | None, name: str, home: Home, uri: str) -> IndexManifest | None:
    """Run the indexing with these values, or without them index the sources that the library has; see `reindex`."""
    from image_finder.model_registry.champion_library import embed_sources, publish_sources
    from image_finder.model_registry.promotions import Promotions
    from image_finder.model_registry.registry import Registry

    if values is not None:
        return runs.run_indexing(values, home, uri) if _model_name(values) == name else None
    registry, current = Registry(uri), current_bundle_sha256(home.index_dir)
    champion = registry.champion_version(name)
    others = [model for model in registry.model_names() if model != name]
    if not current or champion is None or any(registry.version_of_bundle(model, current) for model in others):
        return None
    bundle = registry.download_bundle(name, champion, home.bundles_dir / "champion")
    embedding = EmbeddingConfig()
    with accounted():
        with phase("embed images"):
            embed_sources(home.root, bundle, embedding)
        with phase("publish the index"):
            return publish_sources(Promotions(registry, home=home.root), name, home.root, bundle, embedding)


def _last_indexing() -> Values | None:
    """Parameters of the last completed indexing run; of its registry settings only the model."""
    from zenml.client import Client

    found = Client().list_pipeline_runs(
        pipeline_name="finder_indexing", status="completed", sort_by="desc:index", size=1, hydrate=True
    )
    for run in found.items:
        given = dict(run.config.parameters or {})
        kept = {key: given[key] for key in run_config.PARAMETERS["indexing"].model_fields if key in given}
        return {"parameters": {**kept, "registry": {"model_name": given["registry"]["model_name"]}}}
    return None


@contextmanager
def _recorded(name: str, uri: str) -> Iterator[None]:
    """Note a failure in the ledger; if the process is killed, `report_killed` does that."""
    try:
        yield
    except Exception as error:
        _record(uri, name, "failed", scrub(_reason(error), os.environ))
        raise


def _record(
    uri: str, name: str, kind: Literal["skipped", "failed"], reason: str, *, wait_s: float | None = None
) -> None:
    """Note in the ledger how a run ended; only logs a warning if that fails.

    wait_s: longest wait for the model's lock; None: as long as a comparison may take.
    """
    from image_finder.model_registry.ledger.entries import Event
    from image_finder.model_registry.promotions import Promotions
    from image_finder.model_registry.registry import Registry

    try:
        promotions = Promotions(Registry(uri))
        with nullcontext() if wait_s is None else promotions.exclusive(name, wait_s=wait_s):
            promotions.record(name, Event(kind=kind, reasons=(reason,)))
    except FinderError as error:
        logger.warning("the ledger of %s could not be written: %s", name, error)


def _reason(error: BaseException) -> str:
    if isinstance(error, FinderError):
        return str(error)
    text = one_line(str(error))
    return f"{type(error).__name__}: {text}; see the log for the traceback" if text else type(error).__name__


def _result(outcome: RetrainOutcome) -> str:
    if outcome.decision is None:
        return "nothing changed"
    verb = "is champion" if outcome.status == "promoted" else "was not promoted"
    return f"version {outcome.decision.challenger_version} {verb}"

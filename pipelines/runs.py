"""Runs: starts a pipeline in a home and reads its results; the one place that ties configuration, home and ZenML."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from filelock import FileLock, Timeout

from components.configs import Config, DatasetConfig, GalleryConfig
from components.data.demo import compose_demo
from components.data.manifest import fingerprint_folder, quick_fingerprint
from components.errors import ConfigError, FinderError
from components.records import ParityReport, PromotionDecision, RetrievalReport
from components.search.index import IndexManifest
from pipelines.home import Home, prepare
from pipelines.run_config import PipelineName, Values, checked

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse


class TrainingOutcome(NamedTuple):
    """What a training run leaves."""

    report: RetrievalReport
    parity: ParityReport
    decision: PromotionDecision
    model_name: str


def run_training(values: Values, home: Home, mlflow_uri: str | None) -> TrainingOutcome:
    """Run finder_training. Raises the FinderError of the step that failed, ConfigError."""
    configs = checked("training", values)
    dataset = configs["dataset"]
    assert isinstance(dataset, DatasetConfig)
    if dataset.layout == "demo" and dataset.root is None:
        dataset = dataset.model_copy(update={"root": demo_folder(home)})
        # The step would make it too; made here, its files are in the cache key of the very first run.
        compose_demo(demo_folder(home), pictures=dataset.demo_pictures, seed=dataset.demo_seed)
    elif dataset.root is None and dataset.hub_dataset is None:
        raise ConfigError(f"data set '{dataset.name}' has no folder: give --data DIR or set dataset.root")
    parameters = {**_plain(configs), "dataset": dataset.model_dump(mode="json")}
    parameters["data_fingerprint"] = quick_fingerprint(dataset)
    with _running(home, mlflow_uri):
        from pipelines.training import finder_training

        run = _start("training", dataset.name, finder_training, {**values, "parameters": parameters})
        return TrainingOutcome(
            report=_output(run, "evaluate_retrieval", "retrieval_report"),
            parity=_output(run, "measure_parity", "parity_report"),
            decision=_output(run, "promote_bundle", "promotion_decision"),
            model_name=parameters["registry"]["model_name"],
        )


def run_indexing(values: Values, home: Home, mlflow_uri: str | None) -> IndexManifest:
    """Run finder_indexing and return the manifest of the published index. Raises as run_training."""
    configs = checked("indexing", values)
    gallery = configs["gallery"]
    assert isinstance(gallery, GalleryConfig)
    root = gallery.root or demo_folder(home)
    if not root.is_dir():
        raise ConfigError(f"the gallery {root} does not exist: give --data DIR, or train on the demo first")
    parameters = {**_plain(configs), "gallery": gallery.model_copy(update={"root": root}).model_dump(mode="json")}
    parameters["gallery_fingerprint"] = fingerprint_folder(root)
    with _running(home, mlflow_uri):
        from pipelines.indexing import finder_indexing

        run = _start("indexing", root.name, finder_indexing, {**values, "parameters": parameters})
        manifest: IndexManifest = _output(run, "publish_index", "published_index")
        return manifest


def demo_folder(home: Home) -> Path:
    """Where the demo data set is made."""
    return home.data_dir / "demo"


@contextmanager
def _running(home: Home, mlflow_uri: str | None) -> Iterator[None]:
    """One run at a time in a home: its SQLite stores do not bear two writers for minutes."""
    prepare(home, mlflow_uri=mlflow_uri)
    lock = FileLock(home.root / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(f"another pipeline is running in {home.root}: wait for it, or use another --home") from error
    try:
        yield
    finally:
        lock.release()


def _start(kind: PipelineName, subject: str, pipeline: Any, values: Values) -> "PipelineRunResponse":  # noqa: ANN401
    _require_known_keys(pipeline, kind, values)
    stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H-%M-%S")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.yaml"
        path.write_text(yaml.safe_dump({**values, "run_name": f"{kind}-{subject}-{stamp}"}), encoding="utf-8")
        try:
            run: PipelineRunResponse = pipeline.with_options(config_path=str(path))()
        except Exception as error:
            if (cause := _finder_error(error)) is not None:
                raise cause from error
            raise
    return run


def _require_known_keys(pipeline: Any, kind: PipelineName, values: Values) -> None:  # noqa: ANN401
    """ZenML ignores a misspelt key or step: refuse it instead."""
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    unknown = sorted(set(values) - set(PipelineRunConfiguration.model_fields))
    if unknown:
        raise ConfigError(f"unknown key '{unknown[0]}' in the {kind} configuration; parameters go below 'parameters'")
    known = set(step_names(pipeline))
    strangers = sorted(set(values.get("steps") or {}) - known)
    if strangers:
        raise ConfigError(
            f"unknown step '{strangers[0]}' in the {kind} configuration: known are {', '.join(sorted(known))}"
        )


def step_names(pipeline: Any) -> list[str]:  # noqa: ANN401
    """Names of the steps a pipeline function calls, without running it."""
    return [
        name
        for name in pipeline.entrypoint.__code__.co_names
        if name in pipeline.entrypoint.__globals__ and hasattr(pipeline.entrypoint.__globals__[name], "entrypoint")
    ]


def _finder_error(error: BaseException | None) -> FinderError | None:
    while error is not None:
        if isinstance(error, FinderError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _output(run: "PipelineRunResponse", step: str, name: str) -> Any:  # noqa: ANN401
    return run.steps[step].outputs[name][0].load()


def _plain(configs: dict[str, Config]) -> dict[str, Any]:
    return {name: config.model_dump(mode="json") for name, config in configs.items()}

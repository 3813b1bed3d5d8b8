"""Runs: starts a pipeline in a home and reads its results; connects configuration, home and ZenML."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import yaml

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.manifest import quick_fingerprint
from image_finder.components.configs import (
    Config,
    DatasetConfig,
    EvaluationConfig,
    GalleryConfig,
    ModelConfig,
    RegistryConfig,
    TrainingConfig,
)
from image_finder.components.demo.data_set import compose_demo
from image_finder.components.drift.report import DriftReport
from image_finder.components.errors import ConfigError, FinderError
from image_finder.components.hub import require_pinned
from image_finder.components.images.image_folder import ImageFolder, shown_uri
from image_finder.components.index.format import IndexManifest
from image_finder.components.phases import accounted, phase
from image_finder.components.records.export import ParityReport
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.storage import disk_full, sha256_of_lines
from image_finder.components.temporaries import scratch_directory
from image_finder.pipelines.moved_home import run_lock
from image_finder.pipelines.run_config import PipelineName, Values, checked, filled
from image_finder.pipelines.step_phases import accounted_steps
from image_finder.pipelines.stores import EXPERIMENT_NAME, Home, prepare

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse


class TrainingOutcome(NamedTuple):
    report: RetrievalReport
    parity: ParityReport
    decision: PromotionDecision
    model_name: str
    drift: DriftReport


def run_training(values: Values, home: Home, mlflow_uri: str | None) -> TrainingOutcome:
    """Run finder_training. Raises the FinderError of the step that failed, ConfigError."""
    parameters = training_parameters(values, home)
    with accounted(), exclusive(home, mlflow_uri) as uri:
        run = _start("training", parameters["dataset"]["name"], {**values, "parameters": parameters}, home, uri)
        return TrainingOutcome(
            report=_output(run, "evaluate_retrieval", "retrieval_report"),
            parity=_output(run, "measure_parity", "parity_report"),
            decision=_output(run, "promote_bundle", "promotion_decision"),
            model_name=parameters["registry"]["model_name"],
            drift=_output(run, "measure_drift", "drift_report"),
        )


def training_parameters(values: Values, home: Home) -> dict[str, Any]:
    """Parameters of a training on local data, with the fingerprint of the data and the teachers.

    Raises ConfigError, BundleError.
    """
    configs = checked("training", values)
    dataset = configs["dataset"]
    assert isinstance(dataset, DatasetConfig)
    evaluation = cast("EvaluationConfig", configs["evaluation"])
    require_pinned(cast("ModelConfig", configs["model"]), dataset)
    if (baseline := cast("RegistryConfig", configs["registry"]).baseline) is not None:
        Bundle.open(baseline, verify=False)  # now, not after hours of training
    teachers = [Bundle.open(path, verify=False).sha256 for path in cast("TrainingConfig", configs["training"]).teacher]
    if dataset.layout == "demo" and dataset.root is None:
        dataset = dataset.model_copy(update={"root": demo_folder(home)})
        # The step would create it too, but only files that exist now enter the cache key of the first run.
        compose_demo(demo_folder(home), n_images=dataset.demo_images, seed=dataset.demo_seed)
    elif dataset.root is None and dataset.hub_dataset is None:
        raise ConfigError(f"data set '{dataset.name}' has no folder: give --data DIR or set dataset.root")
    elif dataset.root is not None and not dataset.root.is_dir() and dataset.layout != "demo":
        raise ConfigError(f"the folder {dataset.root} of data set '{dataset.name}' does not exist: check --data")
    parameters = {**_plain(configs), "dataset": dataset.model_dump(mode="json")}
    fingerprint = quick_fingerprint(dataset, evaluation.parts_of_sets)
    if teachers:  # another bundle at the same path makes another model
        fingerprint = sha256_of_lines([(fingerprint,), *enumerate(teachers)])
    return {**parameters, "data_fingerprint": fingerprint}


def run_indexing(values: Values, home: Home, mlflow_uri: str | None) -> IndexManifest:
    """Run finder_indexing; returns the published index's manifest. Raises as run_training."""
    configs = checked("indexing", values)
    gallery = configs["gallery"]
    assert isinstance(gallery, GalleryConfig)
    root = Path(shown_uri(gallery.uri)) if gallery.uri else gallery.root or demo_folder(home)
    if not gallery.uri and not root.is_dir():
        raise ConfigError(f"the gallery {root} does not exist: give --data DIR, or train on the demo first")
    placed = gallery if gallery.uri else gallery.model_copy(update={"root": root})
    parameters = {**_plain(configs), "gallery": placed.model_dump(mode="json")}
    parameters["gallery_fingerprint"] = ImageFolder(gallery.uri or str(root)).fingerprint()
    with accounted(), exclusive(home, mlflow_uri) as uri:
        run = _start("indexing", root.name, {**values, "parameters": parameters}, home, uri)
        manifest: IndexManifest = _output(run, "publish_index", "published_index")
        return manifest


def demo_folder(home: Home) -> Path:
    return home.data_dir / "demo"


@contextmanager
def exclusive(home: Home, mlflow_uri: str | None) -> Iterator[str]:
    """Prepare a home and hold its lock; yields MLflow's address. Raises BusyError."""
    with phase("open the stores", keep_short=False):
        uri = prepare(home, mlflow_uri=mlflow_uri)
    with run_lock(home.root, "wait for it, or use another --home"):
        yield uri


def submit_schedule(kind: PipelineName, values: Values, *, name: str, cron_expression: str) -> None:
    """Schedule a pipeline on the active stack's orchestrator, with an alert if a step fails.

    values: with the parameters of scheduled_parameters. Raises ConfigError.
    """
    from zenml.config.schedule import Schedule

    from image_finder.pipelines.scheduling import alerts

    _submit(
        kind,
        pipeline_function(kind),
        {**values, "run_name": f"{kind}-{{date}}-{{time}}"},
        schedule=Schedule(name=name, cron_expression=cron_expression),
        on_failure=alerts.run_failed,
    )


def scheduled_parameters(kind: PipelineName, values: Values) -> dict[str, Any]:
    """Parameters of a run that reads its data when it starts, perhaps on another machine."""
    fingerprint = {"training": "data_fingerprint", "indexing": "gallery_fingerprint"}[kind]
    return {**_plain(checked(kind, values)), fingerprint: ""}


def pipeline_function(kind: PipelineName) -> Any:  # noqa: ANN401 - ZenML's pipelines are untyped
    if kind == "training":
        from image_finder.pipelines.training import finder_training

        return finder_training
    from image_finder.pipelines.indexing import finder_indexing

    return finder_indexing


def _start(kind: PipelineName, subject: str, values: Values, home: Home, uri: str) -> "PipelineRunResponse":
    from image_finder.model_registry import tracking

    if uri == home.mlflow_uri:  # the home is locked, so no other process is running them
        tracking.mark_killed(uri, EXPERIMENT_NAME)
    # ZenML requires unique names; the time alone may repeat after a clock was set back.
    stamp = f"{datetime.now(UTC):%Y-%m-%d-%H-%M-%S}-{secrets.token_hex(2)}"
    name = f"{kind}-{subject}-{stamp}"
    try:
        with accounted_steps(kind, values["parameters"]):
            run = _submit(kind, pipeline_function(kind), {**values, "run_name": name})
    except BaseException as error:
        tracking.mark_failed(uri, EXPERIMENT_NAME, name)
        if not isinstance(error, FinderError) and (full := disk_full(error, home.root)) is not None:
            raise full from error
        raise
    assert run is not None
    return run


def _submit(kind: PipelineName, pipeline: Any, values: Values, **options: Any) -> "PipelineRunResponse | None":  # noqa: ANN401
    """Submit a pipeline to the active stack. Returns the run; None for a schedule."""
    _require_known_keys(pipeline, kind, values)
    with scratch_directory() as folder:
        path = Path(folder) / f"{kind}.yaml"
        path.write_text(yaml.safe_dump(filled(values)), encoding="utf-8")
        try:
            run: PipelineRunResponse | None = pipeline.with_options(config_path=str(path), **options)()
        except Exception as error:
            if (cause := _finder_error(error)) is not None:
                raise cause from error
            raise
    return run


def _require_known_keys(pipeline: Any, kind: PipelineName, values: Values) -> None:  # noqa: ANN401
    """Raise ConfigError for a misspelt key or step, which ZenML would ignore."""
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

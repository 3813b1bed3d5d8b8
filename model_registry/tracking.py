"""Tracking: what steps tell the MLflow run that ZenML opened for them; knows nothing of what the numbers mean."""

import logging
import math
import re
from typing import TYPE_CHECKING

import mlflow
from pydantic import BaseModel

from image_finder.components.drift.report import DriftReport
from image_finder.components.errors import ConfigError
from image_finder.components.records.base import Record
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.data import DatasetManifest
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.records.training import EpochRecord
from image_finder.model_registry import names
from image_finder.model_registry.lineage import this_hardware

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_LONGEST_PARAMETER = 6000  # characters, MLflow's limit


def run_id() -> str:
    """Id of the run ZenML opened for this step. Raises ConfigError when there is none.

    mlflow.log_* would open a run of its own instead, in a store of its own in the current folder.
    """
    run = mlflow.active_run()
    if run is None:
        raise ConfigError("no MLflow run is open: give the step experiment_tracker=True and run it in a pipeline")
    return str(run.info.run_id)


def run_name() -> str:
    """Name of that run, which is the pipeline run's. Raises ConfigError when there is none."""
    run_id()
    run = mlflow.active_run()
    return "" if run is None else str(run.info.run_name or "")


def log_hardware() -> None:
    """Tag the run with the machine that trains; the step that registers may run on another one."""
    mlflow.MlflowClient().set_tag(run_id(), names.HARDWARE, this_hardware())


def trained_on() -> str:
    """The machine that trained in this run, "" when the training is of an earlier run."""
    return str(mlflow.MlflowClient().get_run(run_id()).data.tags.get(names.HARDWARE, ""))


def mark_failed(tracking_uri: str, experiment: str, name: str) -> None:
    """Show the run of a pipeline that failed as failed: ZenML ends it with each step that went well. Never raises."""
    _end(tracking_uri, experiment, f"attributes.run_name = '{name}'", "FAILED")


def mark_killed(tracking_uri: str, experiment: str) -> None:
    """Show runs that are still open as killed: of a process that died nobody tells MLflow. Never raises.

    Call it only where no other run can be open in the experiment.
    """
    _end(tracking_uri, experiment, "attributes.status = 'RUNNING'", "KILLED")


def _end(tracking_uri: str, experiment: str, which: str, status: str) -> None:
    try:
        client = mlflow.MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        for run in client.search_runs([found.experiment_id], which) if found else ():
            client.set_terminated(run.info.run_id, status)
    except Exception as error:  # noqa: BLE001 - something that counts more has failed or is about to begin
        logger.warning("MLflow runs with %s could not be marked as %s: %s", which, status, error)


def log_config(**configs: BaseModel) -> None:
    """Log configurations as parameters named `config.field.field`."""
    run_id()
    flat: dict[str, str] = {}
    for name, config in configs.items():
        flat.update(_flatten(config.model_dump(mode="json"), name))
    mlflow.log_params({key: value[:_LONGEST_PARAMETER] for key, value in flat.items()})


def log_data(manifest: DatasetManifest) -> None:
    """Tag the run with the data it read, and keep the manifest."""
    run_id()
    mlflow.set_tags({names.DATA_VERSION: manifest.version, "dataset": manifest.name})
    log_record(manifest, "reports/dataset_manifest.json")


def log_epoch(record: EpochRecord) -> None:
    """Log one epoch's numbers; its number, counted from 1, is the metric's step."""
    run_id()
    values = {name: value for name, value in record.model_dump().items() if isinstance(value, float)}
    values.update({f"val_{name}": value for name, value in record.val_recall.items()})
    _log_metrics(values, record.epoch)


def log_retrieval(report: RetrievalReport) -> None:
    """Log recalls, their intervals' ends, slices and denominators as metrics `<split>.t2i_r10`, and the whole as JSON."""
    values: dict[str, float] = {"mean_recall": report.mean_recall}
    for short, direction in (("t2i", report.text_to_image), ("i2t", report.image_to_text)):
        values[f"{short}_median_rank"] = direction.median_rank
        values[f"{short}_queries"] = direction.n_queries
        values[f"{short}_gallery"] = direction.gallery_size
        for k, recall in direction.recall.items():
            values[f"{short}_r{k}"] = recall
            values[f"{short}_r{k}_random"] = direction.random_recall[k]
            values[f"{short}_r{k}_low"] = direction.interval[k].low
            values[f"{short}_r{k}_high"] = direction.interval[k].high
    run_id()
    _log_metrics({f"{report.split}.{name}": value for name, value in values.items()}, 0)
    log_record(report, f"reports/retrieval_{report.split}.json")


def log_scores(scores: ScoreCalibration) -> None:
    """Log the threshold, the median true pair and the logit scale as metrics `<split>.good_match`, the whole as JSON."""
    values = {
        "good_match": scores.good_match,
        "pair_median": scores.quantiles[len(scores.quantiles) // 2],
        "logit_scale": scores.logit_scale,
    }
    run_id()
    _log_metrics({f"{scores.split}.{name}": value for name, value in values.items()}, 0)
    log_record(scores, "reports/scores.json")


def log_promotion(decision: PromotionDecision, challenger: Record | None, *, version_run: str | None) -> None:
    """Log what the checks measured as metrics `promotion.<check>`, the decision as JSON, and the challenger's measurement.

    challenger: a StoredMeasurement; None when the version was champion already. Its file is one line: ranks are many. It
    goes to the run that registered the version, which is an earlier one when that was stopped before it decided.
    """
    run_id()
    words = re.compile(r"[^a-z0-9]+")
    values = {f"promotion.{words.sub('_', each.name)}": each.measured for each in decision.checks}
    values["promotion.promoted"] = float(decision.promoted)
    _log_metrics({name: value for name, value in values.items() if value is not None}, 0)
    log_record(decision, "reports/promotion.json")
    if challenger is not None:
        where = version_run or run_id()
        mlflow.MlflowClient().log_text(where, challenger.model_dump_json(), names.MEASURED_ARTIFACT)


def log_drift(report: DriftReport) -> None:
    """Log distances and thresholds as metrics `drift.<row>` and `drift.<row>_threshold`, the verdict as a tag, all as JSON."""
    run_id()
    values: dict[str, float] = {"drift.rows_drifted": len(report.drifted)}
    for row in report.rows:
        name = f"drift.{row.name.replace(' ', '_')}"
        if row.measured is not None and row.threshold is not None:
            values.update({name: row.measured, f"{name}_threshold": row.threshold})
    _log_metrics(values, 0)
    mlflow.set_tag("drift", ", ".join(report.drifted) or ("none" if report.rows else "not measured"))
    log_record(report, "reports/drift.json")


def log_record(record: Record, file: str) -> None:
    """Log a record as JSON at a path below the run's artefacts."""
    run_id()
    mlflow.log_text(record.model_dump_json(indent=2), file)


def log_page(html: str, file: str) -> None:
    """Log an HTML page at a path below the run's artefacts."""
    run_id()
    mlflow.log_text(html, file)


def log_figures(figures: "dict[str, Figure]") -> None:
    """Log matplotlib figures as PNG, keys are file names without ending, below figures/."""
    run_id()
    for name, figure in figures.items():
        mlflow.log_figure(figure, f"figures/{name}.png")


def _log_metrics(values: dict[str, float], step: int) -> None:
    """Leave out what is not a number: MLflow's SQLite store would turn NaN into 0."""
    mlflow.log_metrics({name: float(value) for name, value in values.items() if math.isfinite(value)}, step=step)


def _flatten(values: object, name: str) -> dict[str, str]:
    if not isinstance(values, dict) or not values:
        return {name: str(values)}
    flat: dict[str, str] = {}
    for key, value in values.items():
        flat.update(_flatten(value, f"{name}.{key}"))
    return flat

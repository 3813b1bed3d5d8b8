"""Tracking: logs results to the MLflow run that ZenML opens for a step."""

import logging
import math
import re
from typing import TYPE_CHECKING

import mlflow
from pydantic import BaseModel

from image_finder.components.drift.report import DriftReport
from image_finder.components.errors import ConfigError
from image_finder.components.metrics.comparison import MeasuredBundle
from image_finder.components.records.base import Record
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.data import DatasetManifest
from image_finder.components.records.promotion import Comparison, PromotionDecision
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.records.training import EpochRecord
from image_finder.model_registry import names
from image_finder.model_registry.lineage import leaves, this_hardware

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_LONGEST_PARAMETER = 6000  # characters, MLflow's limit


def run_id() -> str:
    """Id of the run that ZenML opened for this step. Raises ConfigError without a run.

    Without this check, mlflow.log_* would open a run in a new store in the current directory.
    """
    run = mlflow.active_run()
    if run is None:
        raise ConfigError("no MLflow run is open: give the step experiment_tracker=True and run it in a pipeline")
    return str(run.info.run_id)


def run_name() -> str:
    """Name of that run, equal to that of the pipeline run. Raises ConfigError without a run."""
    run_id()
    run = mlflow.active_run()
    return "" if run is None else str(run.info.run_name or "")


def log_hardware() -> None:
    """Tag the run with this machine, which trains; registration may run on another."""
    mlflow.MlflowClient().set_tag(run_id(), names.HARDWARE, this_hardware())


def trained_on() -> str:
    """The machine that trained in this run; "" if the checkpoint is cached from an earlier run."""
    return str(mlflow.MlflowClient().get_run(run_id()).data.tags.get(names.HARDWARE, ""))


def mark_failed(tracking_uri: str, experiment: str, name: str) -> None:
    """Mark the run of a failed pipeline, which ZenML shows as finished. Never raises."""
    _end(tracking_uri, experiment, f"attributes.run_name = '{name}'", "FAILED")


def mark_killed(tracking_uri: str, experiment: str) -> None:
    """Mark open runs, whose processes must have been killed, as killed. Never raises.

    Requires that no run of the experiment is in progress.
    """
    _end(tracking_uri, experiment, "attributes.status = 'RUNNING'", "KILLED")


def _end(tracking_uri: str, experiment: str, which: str, status: str) -> None:
    try:
        client = mlflow.MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        for run in client.search_runs([found.experiment_id], which) if found else ():
            client.set_terminated(run.info.run_id, status)
    except Exception as error:  # noqa: BLE001 - must not hide the pipeline's error or prevent its start
        logger.warning("MLflow runs with %s could not be marked as %s: %s", which, status, error)


def log_config(**configs: BaseModel) -> None:
    """Log configurations as parameters named `config.field.field`."""
    run_id()
    values = leaves({name: config.model_dump(mode="json") for name, config in configs.items()})
    mlflow.log_params({path: str(value)[:_LONGEST_PARAMETER] for path, value in values.items()})


def log_data(manifest: DatasetManifest) -> None:
    run_id()
    mlflow.set_tags({names.DATA_VERSION: manifest.version, "dataset": manifest.name})
    log_record(manifest, "reports/dataset_manifest.json")


def log_epoch(record: EpochRecord) -> None:
    """Log metrics `train/<name>` of an epoch; the metric's step is the epoch, from 1.

    Recall on val is `train/val_t2i_r10`, because `val/t2i_r10` is that of the finished model.
    """
    values = {name: value for name, value in record.model_dump().items() if isinstance(value, float)}
    values.update({f"val_{name}": value for name, value in record.val_recall.items()})
    _log_metrics(_grouped("train", values), record.epoch)


def log_retrieval(report: RetrievalReport) -> None:
    """Log recalls and denominators as metrics `<split or set>/t2i_r10`, and the report as JSON."""
    for name, each in report.sets.items():
        _log_recalls(name, each)
    if report.extra_sets:
        _log_metrics({"sets/mean_recall": report.mean_over_sets}, 0)
    log_record(report, f"reports/retrieval_{report.split}.json")


def _log_recalls(name: str, report: RetrievalReport) -> None:
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
    _log_metrics(_grouped(name, values), 0)


def log_scores(scores: ScoreCalibration) -> None:
    """Log threshold, median and logit scale as metrics `<split>/good_match`, and all as JSON."""
    values = {
        "good_match": scores.good_match,
        "pair_median": scores.quantiles[len(scores.quantiles) // 2],
        "logit_scale": scores.logit_scale,
    }
    _log_metrics(_grouped(scores.split, values), 0)
    log_record(scores, "reports/scores.json")


def log_promotion(decision: PromotionDecision, challenger: Record | None, *, version_run: str | None) -> None:
    """Log the checks as metrics `promotion/<check>`, decision and measurement as JSON.

    challenger: a StoredMeasurement, or None if the version was champion already. It is logged to the run that registered
    the version, which may be an earlier run that was killed before the decision.
    """
    words = re.compile(r"[^a-z0-9]+")
    values = {words.sub("_", each.name): each.measured for each in decision.checks if each.measured is not None}
    _log_metrics(_grouped("promotion", {**values, "promoted": float(decision.promoted)}), 0)
    log_record(decision, "reports/promotion.json")
    if challenger is not None:
        where = version_run or run_id()
        mlflow.MlflowClient().log_text(where, challenger.model_dump_json(), names.MEASURED_ARTIFACT)


def log_baseline(baseline: MeasuredBundle, comparison: Comparison) -> None:
    """Log and print how much better the challenger is than the baseline; both as JSON."""
    low, high = comparison.interval.low, comparison.interval.high
    values = {"mean_recall": baseline.measurement.report.mean_over_sets, "gain": comparison.gain, "gain_low": low}
    _log_metrics(_grouped("baseline", values), 0)
    log_record(baseline.measurement, "reports/baseline.json")
    log_record(comparison, "reports/baseline_comparison.json")
    logger.info(
        "against the baseline: mean recall %+.1f points [%+.1f, %+.1f], query by query on %s images",
        *(100 * comparison.gain, 100 * low, 100 * high, f"{comparison.n_images:,}"),
    )


def log_drift(report: DriftReport) -> None:
    """Log metrics `drift/<row>` and `drift/<row>_threshold`, the verdict as a tag, all as JSON."""
    values: dict[str, float] = {"rows_drifted": len(report.drifted)}
    for row in report.rows:
        name = row.name.replace(" ", "_")
        if row.measured is not None and row.threshold is not None:
            values.update({name: row.measured, f"{name}_threshold": row.threshold})
    _log_metrics(_grouped("drift", values), 0)
    mlflow.set_tag("drift", ", ".join(report.drifted) or ("none" if report.rows else "not measured"))
    log_record(report, "reports/drift.json")


def log_record(record: Record, file: str) -> None:
    run_id()
    mlflow.log_text(record.model_dump_json(indent=2), file)


def log_page(html: str, file: str) -> None:
    run_id()
    mlflow.log_text(html, file)


def log_figures(figures: "dict[str, Figure]") -> None:
    """Log figures as PNG to figures/. Keys are file names without suffix."""
    run_id()
    for name, figure in figures.items():
        mlflow.log_figure(figure, f"figures/{name}.png")


def _grouped(group: str, values: dict[str, float]) -> dict[str, float]:
    """Names with the group before a slash, by which MLflow's page divides the charts."""
    return {f"{group}/{name}": value for name, value in values.items()}


def _log_metrics(values: dict[str, float], step: int) -> None:
    """Log finite values; MLflow's SQLite store would turn NaN into 0."""
    run_id()
    mlflow.log_metrics({name: float(value) for name, value in values.items() if math.isfinite(value)}, step=step)

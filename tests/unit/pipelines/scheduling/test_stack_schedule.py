"""Schedules for orchestrators; tests/pipeline/test_retrain.py submits one to a Kubernetes API."""

from zoneinfo import ZoneInfo

import pytest

from image_finder.components.errors import ConfigError
from image_finder.pipelines import run_config
from image_finder.pipelines.scheduling.cron_expression import CronExpression
from image_finder.pipelines.scheduling.machine_schedule import Timing
from image_finder.pipelines.scheduling.stack_schedule import expression_for, scheduled

UTC, ZURICH = ZoneInfo("UTC"), ZoneInfo("Europe/Zurich")
WEEKLY = CronExpression.parse("30 3 * * MON")


def test_kubeflow_gets_seconds_first_and_only_the_zone_of_its_controller():
    assert expression_for("kubeflow", Timing(WEEKLY, UTC), UTC) == "0 30 3 * * 1"
    assert expression_for("kubeflow", Timing(WEEKLY, ZURICH), ZURICH) == "0 30 3 * * 1"
    with pytest.raises(
        ConfigError, match="in the time zone of its controller \\(UTC unless .*\\), not in Europe/Zurich"
    ):
        expression_for("kubeflow", Timing(WEEKLY, ZURICH), UTC)


def test_kubernetes_gets_five_fields_and_any_zone():
    assert expression_for("kubernetes", Timing(WEEKLY, ZURICH), UTC) == "30 3 * * 1"


@pytest.mark.parametrize(
    ("pipeline", "fingerprint", "reads", "last"),
    [
        ("training", "data_fingerprint", "ingest_captions", "promote_bundle"),
        ("indexing", "gallery_fingerprint", "embed_gallery", "publish_index"),
    ],
)
def test_a_scheduled_pipeline_reads_its_data_each_time_and_alerts(pipeline, fingerprint, reads, last):
    given = run_config.load(pipeline, "cluster")
    values = scheduled(pipeline, given)
    assert values["parameters"][fingerprint] == ""
    assert values["steps"][reads]["enable_cache"] is False
    assert values["steps"][last]["success_hook_source"] == "image_finder.pipelines.scheduling.alerts.run_succeeded"
    cron_job = values["settings"]["orchestrator.kubernetes"]
    assert (cron_job["concurrency_policy"], cron_job["starting_deadline_seconds"]) == ("Forbid", 3600)
    assert cron_job["pod_settings"] == given["settings"]["orchestrator.kubernetes"]["pod_settings"]
    assert set(given["steps"]) <= set(values["steps"])
    assert (
        "concurrency_policy" not in given["settings"]["orchestrator.kubernetes"]
    )  # the given configuration is unchanged


def test_settings_of_the_configuration_are_kept():
    given = run_config.load("training", "cluster")
    given["settings"]["orchestrator.kubernetes"]["concurrency_policy"] = "Replace"
    given["steps"]["ingest_captions"] = {"enable_cache": True}
    values = scheduled("training", given)
    assert values["settings"]["orchestrator.kubernetes"]["concurrency_policy"] == "Replace"
    assert values["steps"]["ingest_captions"]["enable_cache"] is True

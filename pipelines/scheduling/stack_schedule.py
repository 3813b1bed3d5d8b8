"""Stack schedule: a pipeline started by ZenML's Kubernetes or Kubeflow orchestrator, in an explicit time zone.

Kubernetes: a CronJob that forbids late starts and overlaps. Its timeZone is set here because ZenML 0.98 sets none.
Kubeflow: a recurring run, whose expression begins with seconds and is read in the time zone of the cluster's controller.
"""

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from image_finder.components.errors import ConfigError
from image_finder.components.text import one_line
from image_finder.pipelines import runs
from image_finder.pipelines.run_config import PipelineName, Values
from image_finder.pipelines.scheduling.machine_schedule import Schedule, Timing, describe
from image_finder.pipelines.scheduling.retrain import PipelineInput, load
from image_finder.pipelines.stores import Home, prepare

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.orchestrators import BaseOrchestrator

_KNOWN = ("kubernetes", "kubeflow")
_LATEST_START_S = 3600  # a run that could not start within this time is skipped
# These steps read the data, which may have changed since a run with the same parameters was cached.
_READS = {"training": "ingest_captions", "indexing": "embed_gallery"}
_LAST = {"training": "promote_bundle", "indexing": "publish_index"}


class StackSchedule(NamedTuple):
    pipeline: PipelineName
    given: PipelineInput
    when: Timing
    name: str
    cluster_zone: ZoneInfo  # time zone of Kubeflow's controller
    replace: bool


def create(plan: StackSchedule, home: Home, mlflow_uri: str | None, *, now: datetime) -> Schedule:
    """Create the schedule on the active stack. Raises ConfigError."""
    values = load(plan.pipeline, plan.given)
    prepare(home, mlflow_uri=mlflow_uri)
    from zenml.client import Client

    client = Client()
    stack = client.active_stack
    flavor = _require_schedulable(stack.name, stack.orchestrator)
    expression = expression_for(flavor, plan.when, plan.cluster_zone)
    _make_room(client, stack.orchestrator, plan)
    _submit(client, plan, scheduled(plan.pipeline, values), expression)
    if flavor == "kubernetes":
        _set_zone(client, stack.orchestrator, plan)
    return describe("stack", plan.when, now=now).model_copy(update={"name": plan.name, "stack": stack.name})


def expression_for(flavor: str, when: Timing, cluster_zone: ZoneInfo) -> str:
    """The expression for the orchestrator. Raises ConfigError for an unsupported time zone."""
    if flavor == "kubernetes":
        return when.expression.text
    if when.zone.key != cluster_zone.key:
        raise ConfigError(
            f"Kubeflow reads cron expressions in the time zone of its controller ({cluster_zone.key} unless --cluster-zone "
            f"says otherwise), not in {when.zone.key}: give --zone {cluster_zone.key}, or set CRON_SCHEDULE_TIMEZONE of "
            f"ml-pipeline-scheduledworkflow and give --cluster-zone {when.zone.key}"
        )
    return f"0 {when.expression.text}"


def scheduled(pipeline: PipelineName, values: Values) -> Values:
    parameters = runs.scheduled_parameters(pipeline, values)
    steps = {name: dict(step) for name, step in (values.get("steps") or {}).items()}
    steps.setdefault(_READS[pipeline], {}).setdefault("enable_cache", False)
    steps.setdefault(_LAST[pipeline], {}).setdefault(
        "success_hook_source", "image_finder.pipelines.scheduling.alerts.run_succeeded"
    )
    settings = {name: dict(setting) for name, setting in (values.get("settings") or {}).items()}
    cron_job = settings.setdefault("orchestrator.kubernetes", {})
    cron_job.setdefault("concurrency_policy", "Forbid")
    cron_job.setdefault("starting_deadline_seconds", _LATEST_START_S)
    return {**values, "parameters": parameters, "steps": steps, "settings": settings}


def _require_schedulable(stack: str, orchestrator: "BaseOrchestrator") -> str:
    """The orchestrator's flavour. Raises ConfigError if it cannot schedule."""
    flavor = orchestrator.flavor
    if orchestrator.config.is_schedulable and flavor in _KNOWN:
        return str(flavor)
    has = "has schedules that are not supported here" if orchestrator.config.is_schedulable else "has no schedules"
    raise ConfigError(
        f"the {flavor} orchestrator of ZenML stack '{stack}' {has}: activate a Kubernetes or Kubeflow stack with "
        "'image-finder stack apply kubernetes', or use --on systemd or --on crontab on this machine"
    )


def _make_room(client: "Client", orchestrator: "BaseOrchestrator", plan: StackSchedule) -> None:
    found = client.list_schedules(name=plan.name).items
    if not found:
        return
    if not plan.replace:
        raise ConfigError(f"a schedule named '{plan.name}' exists: give --replace, or another --name")
    if not orchestrator.supports_schedule_deletion:
        raise ConfigError(
            f"the {orchestrator.flavor} orchestrator cannot delete schedule '{plan.name}': disable its recurring run in "
            f"Kubeflow, then run 'zenml pipeline schedule delete \"{plan.name}\"'"
        )
    client.delete_schedule(found[0].id)


def _submit(client: "Client", plan: StackSchedule, values: Values, expression: str) -> None:
    """Submit the schedule. Removes it from ZenML and raises ConfigError if it is rejected."""
    from urllib3.exceptions import HTTPError
    from zenml.exceptions import ZenMLBaseException

    try:
        runs.submit_schedule(plan.pipeline, values, name=plan.name, cron_expression=expression)
    except (ZenMLBaseException, HTTPError, OSError, RuntimeError, ValueError) as error:
        with suppress(Exception):  # there may be none; the original error matters more
            client.zen_store.delete_schedule(client.get_schedule(plan.name).id, soft=False)
        reason = one_line(error)
        raise ConfigError(f"schedule '{plan.name}' could not be created: {reason}") from error


def _set_zone(client: "Client", orchestrator: Any, plan: StackSchedule) -> None:  # noqa: ANN401 - needs extra kubernetes
    """Set the CronJob's time zone, or delete the schedule: it would use the cluster's."""
    from kubernetes.client import ApiException, BatchV1Api

    try:
        schedule = client.get_schedule(plan.name, allow_name_prefix_match=False)
        job = BatchV1Api(orchestrator.get_kube_client()).patch_namespaced_cron_job(
            name=str(schedule.run_metadata["cron_job_name"]),
            namespace=orchestrator.config.kubernetes_namespace,
            body={"spec": {"timeZone": plan.when.zone.key}},
        )
        reason = (
            ""
            if job.spec.time_zone == plan.when.zone.key
            else "the cluster does not support timeZone (needs Kubernetes 1.27)"
        )
    except ApiException as error:
        reason = f"{error.status} {error.reason}"
    except KeyError:
        reason = "ZenML did not report the name of the CronJob"
    if reason:
        with suppress(Exception):  # the original error matters more
            client.delete_schedule(plan.name)
        raise ConfigError(
            f"the time zone of schedule '{plan.name}' could not be set: {reason}; the schedule was deleted"
        )

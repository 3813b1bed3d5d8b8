"""Step phases: the account of a pipeline run, with the time left by what the steps took in earlier runs."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from image_finder.components.phases import Account, accounted
from image_finder.pipelines.run_config import PipelineName

if TYPE_CHECKING:
    from zenml.config.step_configurations import Step
    from zenml.models import PipelineSnapshotResponse, StepRunResponse

TITLES: dict[PipelineName, dict[str, str]] = {
    "training": {
        "ingest_captions": "read images and captions",
        "validate_captions": "validate images and captions",
        "require_valid": "check the validation",
        "split_captions": "split by image",
        "log_data_sets": "log the data sets",
        "measure_drift": "measure drift",
        "require_no_drift": "check drift",
        "extract_features": "extract features",
        "train_dual_encoder": "train",
        "evaluate_retrieval": "measure recall",
        "require_quality": "check recall",
        "export_bundle": "export to ONNX",
        "measure_parity": "compare ONNX with torch",
        "require_parity": "check parity",
        "make_drift_reference": "make the drift reference",
        "register_bundle": "register the version",
        "promote_bundle": "compare with the champion",
    },
    "indexing": {
        "load_champion": "load the champion",
        "embed_gallery": "embed images",
        "publish_index": "publish the index",
    },
}
_DECIDE_TIME: dict[PipelineName, tuple[str, ...]] = {
    "training": ("dataset", "model", "training"),
    "indexing": ("gallery", "embedding"),
}
_EARLIER_RUNS = 3


@contextmanager
def accounted_steps(kind: PipelineName, parameters: Mapping[str, Any]) -> Iterator[None]:
    """Account for the steps that this process runs, with the local orchestrator.

    Steps of other orchestrators run elsewhere: their account is what ZenML prints.
    """
    from zenml.client import Client
    from zenml.execution.step import utils

    if Client().active_stack.orchestrator.flavor != "local":
        logging.getLogger("zenml").setLevel(logging.INFO)
        yield
        return
    launch_step = utils.launch_step
    with accounted() as account, ExitStack() as preparing:
        preparing.enter_context(account.phase("prepare the run", keep_short=False))
        steps = _Steps(account, kind, _earlier_durations(kind, parameters), preparing)

        def launch(snapshot: "PipelineSnapshotResponse", step: "Step", **options: Any) -> "StepRunResponse":  # noqa: ANN401
            steps.begin(snapshot.step_configurations)
            with account.phase(steps.titles[step.spec.invocation_id]) as phase:
                done = launch_step(snapshot=snapshot, step=step, **options)
                if done.status == "cached":
                    phase.outcome = "cached"
            return done

        # ZenML's hooks do not report cached steps, and store a record of each call.
        utils.launch_step = cast("Any", launch)
        try:
            yield
            steps.begin({})
        finally:
            utils.launch_step = launch_step


class _Steps:
    def __init__(
        self, account: Account, kind: PipelineName, durations_s: Mapping[str, float], preparing: ExitStack
    ) -> None:
        self.titles = TITLES[kind]
        self._account = account
        self._durations_s = durations_s
        self._preparing = preparing
        self._begun = False

    def begin(self, to_run: Mapping[str, object]) -> None:
        """Before the first step: note the steps that ZenML found cached and removed from the run."""
        if self._begun:
            return
        self._begun = True
        self._preparing.close()
        for name, title in self.titles.items():
            if name not in to_run:
                self._account.note(title, "cached")
        if to_run.keys() <= self._durations_s.keys():
            self._account.expect({self.titles[name]: self._durations_s[name] for name in to_run})


def _earlier_durations(kind: PipelineName, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each step when it last ran with these parameters."""
    from zenml.client import Client

    def decisive(given: Mapping[str, Any]) -> list[object]:
        return [given.get(name) for name in _DECIDE_TIME[kind]]

    durations: dict[str, float] = {}
    runs = Client().list_pipeline_runs(
        pipeline_name=f"finder_{kind}", status="completed", sort_by="desc:index", size=_EARLIER_RUNS, hydrate=True
    )
    for run in runs.items:
        if decisive(run.config.parameters or {}) == decisive(parameters):
            for name, step in run.steps.items():
                if step.status == "completed" and step.start_time and step.end_time:
                    durations.setdefault(name, (step.end_time - step.start_time).total_seconds())
    return durations

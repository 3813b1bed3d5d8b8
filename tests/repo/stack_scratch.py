"""Scratch: stacks applied to a real ZenML store, and both pipelines compiled for a cluster; scratch.py HOME, prints JSON.

A separate process: ZenML reads its environment when it is imported.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from image_finder.pipelines import run_config
from image_finder.pipelines.stacks import stacks
from image_finder.pipelines.stores import Home, prepare

HOME = Home.resolve(Path(sys.argv[1]))
SETTINGS = {
    "team": ["experiment_tracker.tracking_uri=http://mlflow:5000", f"artifact_store.path={HOME.root}/shared"],
    "kubernetes": [
        "orchestrator.incluster=true",
        "orchestrator.kubernetes_context=null",
        "artifact_store.path=s3://bucket/zenml",
        "container_registry.uri=registry.example.org",
        "experiment_tracker.tracking_uri=http://mlflow:5000",
    ],
    "kubeflow": [
        "orchestrator.kubernetes_context=null",
        "orchestrator.kubeflow_hostname=https://kubeflow.example.org/pipeline",
        "artifact_store.path=s3://bucket/zenml",
        "container_registry.uri=registry.example.org",
        "experiment_tracker.tracking_uri=http://mlflow:5000",
    ],
}


def applied(name, *more):
    from zenml.client import Client

    chosen = stacks.override(stacks.load(name), [*SETTINGS.get(name, []), *more])
    client = Client()
    plan = stacks.apply(chosen, client, store="scratch")
    actions = {change.kind: change.action for change in plan.components}
    return {"stack": plan.action, **actions, "active": client.active_stack_model.name}


def settings_of(name):
    from zenml.client import Client

    stack = Client().get_stack(name)
    return {str(kind): members[0].configuration for kind, members in stack.components.items()}


def snapshot_of(name, fingerprint):
    """The pipeline compiled by ZenML with the configuration `cluster` for the active stack."""
    import yaml

    if name == "training":
        from image_finder.pipelines.training import finder_training as pipeline
    else:
        from image_finder.pipelines.indexing import finder_indexing as pipeline
    values = run_config.load(name, "cluster")
    configs = {key: config.model_dump(mode="json") for key, config in run_config.checked(name, values).items()}
    values = run_config.filled({**values, "parameters": {**configs, fingerprint: "0"}})
    path = HOME.root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    configured = pipeline.with_options(config_path=str(path))
    configured.prepare()
    snapshot, _, _ = configured._compile(config_path=str(path))
    return snapshot


def pods(snapshot):
    """What each step's pod would be, by ZenML's own code for Kubernetes; no cluster is asked."""
    from kubernetes.client import ApiClient
    from zenml.integrations.kubernetes.kube_utils import apply_default_resource_requests
    from zenml.integrations.kubernetes.manifest_utils import build_pod_manifest
    from zenml.integrations.kubernetes.orchestrators import KubernetesOrchestrator

    orchestrator = component("orchestrator")
    assert isinstance(orchestrator, KubernetesOrchestrator)
    settings: Any
    made = {}
    for step_name, step in snapshot.step_configurations.items():
        settings = orchestrator.get_settings(step)
        pod = build_pod_manifest(
            pod_name=step_name.replace("_", "-"),
            image_name=step.config.docker_settings.parent_image,
            command=["python", "-m", "zenml.entrypoints.entrypoint"],
            args=[],
            privileged=settings.privileged,
            pod_settings=apply_default_resource_requests(memory="400Mi", pod_settings=settings.pod_settings),
            service_account_name=settings.step_pod_service_account_name,
        )
        sent = ApiClient().sanitize_for_serialization(pod)
        for container in sent["spec"]["containers"]:
            # ZenML 0.98 mixes Python's names, all None, into a security context; an API server drops what it does not know.
            context = container["securityContext"]
            container["securityContext"] = {key: value for key, value in context.items() if value is not None}
        made[step_name] = {
            "pod": sent,
            "builds": not step.config.docker_settings.skip_build,
            "retries": step.config.retry.max_retries if step.config.retry else 0,
            "resources": step.config.resource_settings.model_dump(exclude_unset=True),
        }
    return made


def workflow(snapshot):
    """What would be uploaded to Kubeflow Pipelines, compiled by its SDK: specification and platform of the pipeline."""
    import yaml

    from image_finder.pipelines.stacks.kubeflow import FinderKubeflowOrchestrator

    uploaded = []

    class Offline(FinderKubeflowOrchestrator):
        @staticmethod
        def get_image(snapshot, step_name=None):
            return snapshot.step_configurations[step_name].config.docker_settings.parent_image

        def _upload_and_run_pipeline(self, snapshot, pipeline_file_path, run_name):
            uploaded.append(Path(pipeline_file_path).read_text(encoding="utf-8"))

    orchestrator = component("orchestrator")
    assert isinstance(orchestrator, FinderKubeflowOrchestrator)
    orchestrator.__class__ = Offline
    stored: Any = SimpleNamespace(**{name: getattr(snapshot, name) for name in type(snapshot).model_fields}, id=uuid4())
    environments = {name: {"ZENML_STORE_URL": "http://zenml:8080"} for name in snapshot.step_configurations}
    stack: Any = SimpleNamespace(container_registry=True)
    orchestrator.submit_pipeline(stored, stack, {}, environments)
    return list(yaml.safe_load_all(uploaded[0]))


def component(kind):
    """A component of the active stack."""
    from zenml.client import Client
    from zenml.enums import StackComponentType
    from zenml.stack import StackComponent

    return StackComponent.from_model(Client().active_stack_model.components[StackComponentType(kind)][0])


def activate(name):
    from zenml.client import Client

    os.environ["ZENML_ACTIVE_STACK_ID"] = str(Client().get_stack(name).id)


def main():
    prepare(HOME, mlflow_uri=None)
    result = {"local": applied("local")}
    # A home has its one stack and insists on it; a server, for which this store stands from here on, has many.
    del os.environ["ZENML_ACTIVE_STACK_ID"]
    result |= {"team": applied("team"), "team again": applied("team")}
    result["team moved"] = applied("team", "experiment_tracker.tracking_uri=http://other:5000")
    result["team settings"] = settings_of("image-finder-team")
    result["kubernetes"] = applied("kubernetes")
    result["kubernetes again"] = applied("kubernetes")
    result["kubernetes settings"] = settings_of("image-finder-kubernetes")
    result["kubeflow"] = applied("kubeflow")
    result["kubeflow again"] = applied("kubeflow")
    os.environ["IMAGE_FINDER_PIPELINE_IMAGE"] = "registry.example.org/image-finder-pipeline:1"
    activate("image-finder-kubernetes")
    result["training"] = pods(snapshot_of("training", "data_fingerprint"))
    result["indexing"] = pods(snapshot_of("indexing", "gallery_fingerprint"))
    activate("image-finder-kubeflow")
    result["workflow"] = workflow(snapshot_of("training", "data_fingerprint"))
    sys.stdout.write(json.dumps(result, default=str))


if __name__ == "__main__":
    main()

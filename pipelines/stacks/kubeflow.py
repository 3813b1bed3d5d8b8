"""Kubeflow orchestrator: ZenML's, extended by volumes, secrets, memory limits and GPU nodes.

ZenML 0.98 loses a step's node selectors and requests a GPU only with one, formats memory in a way that Kubeflow's SDK
rejects, and passes no volumes; our steps share a home and read images. The stack (infra/stacks/kubeflow.yaml) sets what
depends on the cluster, each step's `resources` the rest.
"""

from typing import TYPE_CHECKING, Any, cast

from pydantic import Field
from zenml.config.resource_settings import ByteUnit, ResourceSettings
from zenml.integrations.kubeflow.flavors import KubeflowOrchestratorConfig, KubeflowOrchestratorFlavor
from zenml.integrations.kubeflow.orchestrators import KubeflowOrchestrator

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

_GPU = "nvidia.com/gpu"


class FinderKubeflowConfig(KubeflowOrchestratorConfig):
    claims: dict[str, str] = Field(default_factory=dict, description="path in every pod, by persistent volume claim")
    secrets: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="environment variable in every pod, by secret and key"
    )
    optional_secrets: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="as `secrets`, for secrets that may be missing"
    )
    run_as_user: int | None = Field(
        None, ge=1, description="user and group id of the containers; None: the cluster's choice"
    )
    gpu_node_selectors: dict[str, str] = Field(default_factory=dict, description="labels of GPU nodes")
    gpu_tolerations: list[dict[str, str]] = Field(default_factory=list, description="tolerated taints of GPU nodes")
    gpu_shared_memory: str | None = Field(None, description="size of /dev/shm in GPU pods, e.g. 16Gi; None: 64 MiB")


class FinderKubeflowFlavor(KubeflowOrchestratorFlavor):
    @property
    def name(self) -> str:
        return "kubeflow_finder"

    @property
    def config_class(self) -> type[FinderKubeflowConfig]:
        return FinderKubeflowConfig

    @property
    def implementation_class(self) -> "type[FinderKubeflowOrchestrator]":
        return FinderKubeflowOrchestrator


class FinderKubeflowOrchestrator(KubeflowOrchestrator):
    @property
    def config(self) -> FinderKubeflowConfig:
        return cast("FinderKubeflowConfig", self._config)

    def _configure_container_resources(
        self,
        dynamic_component: "PipelineTask",
        resource_settings: ResourceSettings,
        node_selector_constraint: tuple[str, str] | None = None,
    ) -> "PipelineTask":
        """Set what a step's pod needs; ZenML calls it for each task of the compiled pipeline."""
        task = dynamic_component
        if resource_settings.cpu_count:
            task.set_cpu_request(f"{resource_settings.cpu_count:g}")
        if memory := resource_settings.get_memory(unit=ByteUnit.MIB):
            task.set_memory_request(f"{memory:.0f}Mi").set_memory_limit(f"{memory:.0f}Mi")
        if resource_settings.gpu_count:
            task.set_accelerator_type(_GPU).set_accelerator_limit(resource_settings.gpu_count)
        _configure_pod(task, self.config, with_gpu=bool(resource_settings.gpu_count))
        return task


def _configure_pod(task: "PipelineTask", config: FinderKubeflowConfig, *, with_gpu: bool) -> None:
    from kfp import kubernetes

    for claim, path in config.claims.items():
        kubernetes.mount_pvc(task, claim, path)
    for secrets, optional in ((config.secrets, False), (config.optional_secrets, True)):
        for secret, variables in secrets.items():
            kubernetes.use_secret_as_env(task, secret, variables, optional=optional)
    if config.run_as_user is not None:
        user: Any = config.run_as_user
        kubernetes.set_security_context(task, run_as_user=user, run_as_group=user, run_as_non_root=True)
    if not with_gpu:
        return
    for label, value in config.gpu_node_selectors.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in config.gpu_tolerations:
        kubernetes.add_toleration_json(task, toleration)
    if config.gpu_shared_memory is not None:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=config.gpu_shared_memory)  # noqa: S108

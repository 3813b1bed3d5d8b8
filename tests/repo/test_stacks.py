"""The stacks that come with the checkout: readable, complete, applied to a real ZenML store, and compiled for a cluster."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from click.testing import CliRunner

from image_finder.components.app.cli import main
from image_finder.components.errors import ConfigError
from image_finder.pipelines import run_config
from image_finder.pipelines.stacks import stacks
from tests.support.checkout import CHECKOUT

SHIPPED = sorted(path.stem for path in stacks.stacks_folder().glob("*.yaml"))
EXTRAS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
TEAM = ["experiment_tracker.tracking_uri=http://mlflow:5000", "artifact_store.path=/srv/zenml"]


@pytest.fixture
def no_server(monkeypatch):
    monkeypatch.delenv("ZENML_STORE_URL", raising=False)


def stack_command(*words):
    return CliRunner().invoke(main, ["stack", *map(str, words)])


def test_there_is_a_stack_for_one_machine_a_team_kubernetes_and_kubeflow():
    assert SHIPPED == ["kubeflow", "kubernetes", "local", "team"]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_stack_begins_with_the_command_that_applies_it(name):
    text = (stacks.stacks_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"image-finder stack apply {name}" in text.splitlines()[0]
    required = stacks.load(name).required
    for path in required:
        assert f"--set {path}=" in text.partition("name:")[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_setting_of_a_shipped_stack_is_known_to_its_flavour(name):
    from zenml.integrations.kubernetes.flavors import KubernetesOrchestratorFlavor
    from zenml.integrations.mlflow.flavors import MLFlowExperimentTrackerFlavor
    from zenml.integrations.s3.flavors import S3ArtifactStoreFlavor

    from image_finder.pipelines.stacks.kubeflow import FinderKubeflowFlavor

    flavours: dict[tuple[str, str], Any] = {
        ("orchestrator", "kubeflow_finder"): FinderKubeflowFlavor,
        ("orchestrator", "kubernetes"): KubernetesOrchestratorFlavor,
        ("experiment_tracker", "mlflow"): MLFlowExperimentTrackerFlavor,
        ("artifact_store", "s3"): S3ArtifactStoreFlavor,
    }
    chosen = stacks.load(name)
    for kind, component in chosen.components.items():
        if (flavour := flavours.get((kind, component.flavor))) is not None:
            required = {key.partition(".")[2] for key in chosen.required if key.partition(".")[0] == kind}
            assert set(component.configuration) | required <= set(flavour().config_class.model_fields)


def test_packages_are_those_zenml_asks_for_and_the_extra_installs_them():
    from zenml.integrations.kubeflow import KubeflowIntegration
    from zenml.integrations.kubernetes import KubernetesIntegration
    from zenml.integrations.s3 import S3Integration

    for name, integration in (("kubernetes", KubernetesIntegration), ("kubeflow", KubeflowIntegration)):
        chosen = stacks.load(name)
        without = {"aws-profile-manager"}  # for ZenML's service connectors alone
        asked = {*integration.REQUIREMENTS, *S3Integration.REQUIREMENTS} - without
        assert {text.lower() for text in chosen.packages} == {text.lower() for text in asked}
        assert {text.lower() for text in EXTRAS[chosen.extra]} == {text.lower() for text in asked}


def test_an_unknown_stack_names_the_known_ones():
    with pytest.raises(ConfigError, match="no stack 'cloud': known are kubeflow, kubernetes, local, team; or name a"):
        stacks.load("cloud")


def test_a_stack_of_ones_own_is_read_from_its_file_and_a_misspelt_key_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nserver: false\ncomponents: {orchestrator: {flavor: local}}\n")
    assert stacks.load(str(path)).component_name("orchestrator") == "own"
    path.write_text("name: own\nserver: false\ncomponents: {orchestrater: {flavor: local}}\n")
    with pytest.raises(ConfigError, match=r"StackConfig: components.orchestrater"):
        stacks.load(str(path))


def test_settings_that_are_missing_are_named_in_one_line_with_what_they_are(no_server):
    done = stack_command("apply", "team")
    assert done.exit_code == 1
    (line,) = done.output.strip().splitlines()
    assert "experiment_tracker.tracking_uri (address of the MLflow server, e.g. http://mlflow.example.org:5000)" in line
    assert "artifact_store.path (folder that every machine mounts at this path" in line
    assert "give each with --set component.key=value" in line


def test_packages_that_are_missing_are_named_in_one_line_with_the_command_that_installs_them(no_server, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nserver: true\nextra: kubeflow\npackages: ['no-such-package>=2', 'click>=8', 'pydantic<1']\n"
        "components: {orchestrator: {flavor: local}}\n"
    )
    done = stack_command("apply", path)
    assert done.exit_code == 1
    (line,) = done.output.strip().splitlines()
    assert "not installed: no-such-package>=2, pydantic<1; " in line
    assert line.endswith("pip install 'text-guided-image-finder[pipeline,kubeflow]'")


def test_a_stack_of_a_team_wants_a_server(no_server):
    words = [word for setting in TEAM for word in ("--set", setting)]
    done = stack_command("apply", "team", *words)
    assert done.exit_code == 1
    assert "set ZENML_STORE_URL to its address" in done.output


def test_a_home_keeps_one_stack(no_server, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nserver: false\ncomponents: {orchestrator: {flavor: local}}\n")
    done = stack_command("apply", path)
    assert done.exit_code == 1
    assert "a home has only the stack image-finder: use that name instead of own, or 'server: true'" in done.output


@pytest.mark.parametrize("assignment", ["artifact_store", "artifact_store.path", "path=/srv", "artifact_store.a.b=1"])
def test_a_malformed_setting_is_refused(assignment):
    with pytest.raises(ConfigError, match=r"expected component.key=value"):
        stacks.override(stacks.load("team"), [assignment])


def test_a_setting_of_a_component_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="has no component 'step_operator': it has orchestrator, artifact_store"):
        stacks.override(stacks.load("team"), ["step_operator.x=1"])


def test_a_setting_taken_away_counts_as_given():
    chosen = stacks.override(stacks.load("kubernetes"), ["orchestrator.kubernetes_context=null"])
    assert "orchestrator.kubernetes_context" not in " ".join(stacks.missing_settings(chosen))
    assert len(stacks.missing_settings(chosen)) == 3


def test_a_dry_run_shows_everything_hides_secrets_and_makes_nothing(no_server, tmp_path):
    words = ["--set", "experiment_tracker.tracking_token=geheim", "--set", "artifact_store.path=/srv/zenml"]
    done = stack_command("apply", "team", "--dry-run", "--home", tmp_path / "home", *words)
    assert done.exit_code == 0
    assert "missing settings to --set: experiment_tracker.tracking_uri" in done.stderr
    assert "path=/srv/zenml" in done.stdout
    assert "tracking_token=***" in done.stdout
    assert "geheim" not in done.output
    assert "nothing was changed" in done.stdout
    assert not (tmp_path / "home").exists()


def test_a_reference_to_a_secret_is_shown(no_server):
    words = ["--set", "experiment_tracker.tracking_token={{mlflow.token}}", "--json"]
    plan = json.loads(stack_command("apply", "team", "--dry-run", *words).stdout)
    assert plan["components"][2]["settings"]["tracking_token"] == "{{mlflow.token}}"


def test_a_configuration_that_wants_an_image_says_so(monkeypatch):
    monkeypatch.delenv("IMAGE_FINDER_PIPELINE_IMAGE", raising=False)
    with pytest.raises(ConfigError, match="IMAGE_FINDER_PIPELINE_IMAGE, which is not set: export it"):
        run_config.filled(run_config.load("training", "cluster"))
    monkeypatch.setenv("IMAGE_FINDER_PIPELINE_IMAGE", "registry.example.org/x:1")
    values = run_config.filled(run_config.load("training", "cluster"))
    assert values["settings"]["docker"]["parent_image"] == "registry.example.org/x:1"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """What a separate process reported that applied stacks to a real store and compiled the pipelines."""
    home = tmp_path_factory.mktemp("stacks") / "home"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW", "IMAGE_FINDER"))}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("stack_scratch.py")), str(home)],
        env={**kept, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_local_stack_is_the_one_runs_make_by_themselves(scratch):
    assert scratch["local"] == {
        "stack": "unchanged",
        "orchestrator": "unchanged",
        "artifact_store": "unchanged",
        "experiment_tracker": "unchanged",
        "active": "image-finder",
    }


@pytest.mark.slow
def test_a_stack_is_made_once_and_only_what_differs_is_changed_later(scratch):
    kinds = ("orchestrator", "artifact_store", "experiment_tracker")
    assert {scratch["team"][kind] for kind in ("stack", *kinds)} == {"create"}
    assert {scratch["team again"][kind] for kind in ("stack", *kinds)} == {"unchanged"}
    assert scratch["team moved"]["experiment_tracker"] == "update"
    assert {scratch["team moved"][kind] for kind in ("stack", "orchestrator", "artifact_store")} == {"unchanged"}
    assert scratch["team settings"]["experiment_tracker"] == {
        "tracking_uri": "http://other:5000",
        "experiment_name": "image-finder",
        "tracking_token": "none",
    }


@pytest.mark.slow
def test_the_cluster_stack_is_made_with_what_was_set_and_without_what_was_taken_away(scratch):
    assert {scratch["kubernetes"][kind] for kind in ("stack", "orchestrator", "container_registry")} == {"create"}
    assert set(scratch["kubernetes again"].values()) - {scratch["kubernetes again"]["active"]} == {"unchanged"}
    orchestrator = scratch["kubernetes settings"]["orchestrator"]
    assert orchestrator["incluster"] is True
    assert "kubernetes_context" not in orchestrator
    assert scratch["kubernetes settings"]["artifact_store"] == {"path": "s3://bucket/zenml"}


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["training", "indexing"])
def test_every_step_gets_a_pod_that_the_cluster_would_admit(scratch, pipeline):
    assert len(scratch[pipeline]) >= {"training": 13, "indexing": 3}[pipeline]
    for name, step in scratch[pipeline].items():
        pod = step["pod"]
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "registry.example.org/image-finder-pipeline:1"
        assert not step["builds"], name
        # What the namespace enforces (pod-security.kubernetes.io/enforce: restricted).
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"].get("privileged")
        assert pod["spec"]["serviceAccountName"] == "image-finder-step"
        secrets = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
        assert secrets["IMAGE_FINDER_ALERTS"] == {"name": "alerts", "key": "addresses", "optional": True}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.items() >= {"home": "/finder", "data": "/data"}.items()
        assert set(mounts) == {volume["name"] for volume in pod["spec"]["volumes"]}


@pytest.mark.slow
def test_only_training_gets_a_gpu_and_a_node_that_has_one(scratch):
    with_gpu = {
        name
        for name, step in scratch["training"].items()
        if "nvidia.com/gpu" in step["pod"]["spec"]["containers"][0]["resources"].get("limits", {})
    }
    assert with_gpu == {"train_dual_encoder"}
    training = scratch["training"]["train_dual_encoder"]
    spec = training["pod"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert training["resources"]["gpu_count"] == 1  # what Kubeflow reads
    assert training["retries"] == 2
    for name, step in scratch["training"].items():
        if name not in with_gpu:
            assert "nodeSelector" not in step["pod"]["spec"], name


@pytest.mark.slow
def test_steps_get_the_processors_and_memory_their_settings_say(scratch):
    asked = {
        name: step["pod"]["spec"]["containers"][0]["resources"]["requests"]
        for name, step in scratch["training"].items()
    }
    assert asked["ingest_captions"] == {"cpu": "4", "memory": "8Gi"}
    assert asked["extract_features"] == {"cpu": "12", "memory": "16Gi"}
    assert asked["train_dual_encoder"] == {"cpu": "12", "memory": "48Gi"}
    for step in scratch["training"].values():  # both orchestrators get the same
        requests = step["pod"]["spec"]["containers"][0]["resources"]["requests"]
        assert requests["cpu"] == str(int(step["resources"]["cpu_count"]))
        assert requests["memory"] == step["resources"]["memory"].replace("GiB", "Gi")


@pytest.mark.slow
def test_kubeflow_is_made_with_our_flavour_once(scratch):
    assert {scratch["kubeflow"][kind] for kind in ("stack", "orchestrator")} == {"create"}
    assert set(scratch["kubeflow again"].values()) == {"unchanged", "image-finder-kubeflow"}
    assert scratch["kubeflow again"]["active"] == "image-finder-kubeflow"


@pytest.fixture(scope="module")
def workflow(scratch):
    """Containers and platform settings of each step, and the tasks' predecessors, of the compiled Kubeflow pipeline."""
    pipeline, platforms = scratch["workflow"]
    executors = pipeline["deploymentSpec"]["executors"]
    containers = {name.removeprefix("exec-").replace("-", "_"): each["container"] for name, each in executors.items()}
    settings = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    pods = {name.removeprefix("exec-").replace("-", "_"): each for name, each in settings.items()}
    tasks = pipeline["root"]["dag"]["tasks"]
    after = {
        name.replace("-", "_"): {each.replace("-", "_") for each in task.get("dependentTasks", [])}
        for name, task in tasks.items()
    }
    return containers, pods, after


@pytest.mark.slow
def test_kubeflow_gets_every_step_in_its_order_with_the_image_that_was_pushed(scratch, workflow):
    containers, _, after = workflow
    assert set(containers) == set(after) == set(scratch["training"])
    assert {each["image"] for each in containers.values()} == {"registry.example.org/image-finder-pipeline:1"}
    assert after["ingest_captions"] == set()
    assert "ingest_captions" in after["validate_captions"]
    assert {"require_quality", "evaluate_retrieval"} & after["export_bundle"]
    assert "register_bundle" in after["promote_bundle"]


@pytest.mark.slow
def test_kubeflow_gives_processors_memory_and_the_one_gpu(scratch, workflow):
    containers, pods, _ = workflow
    for name, container in containers.items():
        asked = scratch["training"][name]["resources"]
        assert container["resources"]["resourceCpuRequest"] == f"{asked['cpu_count']:g}", name
        mebibytes = int(asked["memory"].removesuffix("GiB")) * 1024
        assert container["resources"]["resourceMemoryLimit"] == f"{mebibytes}Mi", name
    with_gpu = {name for name, each in containers.items() if "accelerator" in each["resources"]}
    assert with_gpu == {"train_dual_encoder"}
    accelerator = containers["train_dual_encoder"]["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    assert accelerator["resourceCount"] == "1"
    training = pods["train_dual_encoder"]
    assert training["nodeSelector"]["labels"] == {"nvidia.com/gpu.present": "true"}
    assert {name for name, pod in pods.items() if "nodeSelector" in pod} == with_gpu
    assert "tolerations" in training
    assert training["emptyDirMounts"][0]["mountPath"] == "/dev/shm"


@pytest.mark.slow
def test_kubeflow_mounts_home_and_data_into_every_step(scratch, workflow):
    _, pods, _ = workflow
    assert set(pods) == set(scratch["training"])
    for name, pod in pods.items():
        mounts = {mount["constant"]: mount["mountPath"] for mount in pod["pvcMount"]}
        assert mounts == {"pipeline-home": "/finder", "pipeline-data": "/data"}, name
        assert pod["securityContext"]["runAsUser"] == "10001"
        keys, alerts = pod["secretAsEnv"]
        assert {each["envVar"] for each in keys["keyToEnv"]} == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        assert not keys.get("optional")
        assert alerts["keyToEnv"] == [{"envVar": "IMAGE_FINDER_ALERTS", "secretKey": "addresses"}]
        assert (alerts["secretName"], alerts["optional"]) == ("alerts", True)

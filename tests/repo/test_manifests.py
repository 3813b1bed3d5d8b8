"""Kubernetes manifests and the compose file: valid by schema, and in step with the code, images and stacks they name.

No container engine and no cluster is needed. kubectl renders the kustomization.
"""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from compose_pydantic.models import ComposeSpecification
from pydantic import ValidationError

from image_finder.components.app.api import operation_routes as operations
from image_finder.components.app.cli import main
from image_finder.components.app.commands.serve_command import TOKEN_VARIABLE
from image_finder.pipelines import run_config
from image_finder.pipelines.scheduling.alerts import ADDRESSES_VARIABLE
from tests.support.checkout import CHECKOUT

FOLDER = CHECKOUT / "infra" / "kubernetes"
DOCKERFILES = {
    "image-finder": "serve.Dockerfile",
    "image-finder-servers": "servers.Dockerfile",
    "image-finder-pipeline": "pipeline.Dockerfile",
}
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
MANIFESTS: list[Any] = [
    pytest.param(manifest, id=f"{path.stem}-{manifest['kind']}-{manifest['metadata']['name']}")
    for path in FILES
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((CHECKOUT / "infra" / "compose.yaml").read_text(encoding="utf-8"))


NEWEST = kubernetes_validate.latest_version()
RELEASES = [NEWEST, re.sub(r"(?<=\.)\d+(?=\.)", lambda minor: str(int(minor[0]) - 1), NEWEST)]  # 1.37.0 and 1.36.0
LOCKED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
PIPELINE_NAMESPACE = "image-finder-pipeline"
LINK_LOCAL = "169.254.0.0/16"


def all_of_kind(*kinds):
    return [each.values[0] for each in MANIFESTS if each.values[0]["kind"] in kinds]


def of_kind(*kinds):
    return {each["metadata"]["name"]: each for each in all_of_kind(*kinds)}


def pod_templates():
    """Pod templates by the name of what makes them."""
    made = {name: manifest["spec"]["template"] for name, manifest in of_kind("Deployment").items()}
    jobs = of_kind("CronJob")
    return made | {name: manifest["spec"]["jobTemplate"]["spec"]["template"] for name, manifest in jobs.items()}


TEMPLATES = pod_templates()
CONTAINERS: list[Any] = [
    pytest.param(template["spec"], container, id=f"{name}-{container['name']}")
    for name, template in TEMPLATES.items()
    for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
]


def container_of(name, container=None):
    spec = TEMPLATES[name]["spec"]
    everyone = [*spec.get("initContainers", []), *spec["containers"]]
    return next(each for each in everyone if each["name"] == (container or name))


def user_of(image):
    text = (CHECKOUT / "infra" / "docker" / DOCKERFILES[image]).read_text(encoding="utf-8")
    return int(re.findall(r"^USER (\d+)$", text, re.MULTILINE)[-1])


def understood(words):
    """Whether the command line takes these words, without running them."""
    parent, rest = click.Context(main), list(words)
    found: click.Command | None = main
    while isinstance(found, click.Group):
        name = rest.pop(0)
        found = found.get_command(parent, name)
        assert found is not None, f"no command {name}"
        parent = click.Context(found, parent=parent)
    options = {name: option for option in found.params for name in option.opts}
    unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in options]
    assert unknown == []
    required = [each.opts[0] for each in found.params if isinstance(each, click.Option) and each.required]
    assert [name for name in required if name not in rest] == []


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_manifest_is_valid_by_the_schema_of_its_kind(manifest, release):
    kubernetes_validate.validate(manifest, release, strict=True)


@pytest.fixture(scope="module")
def rendered():
    """The manifests that `kubectl apply -k` sends, by kind, namespace and name."""
    if shutil.which("kubectl") is None:
        message = "no kubectl: apt-get install kubernetes-client"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    printed = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=True).stdout
    return {identity(each): each for each in yaml.safe_load_all(printed)}


def identity(manifest):
    return manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def images_in(value):
    """Names of all images in a manifest."""
    if isinstance(value, dict):
        found = [value["image"]] if isinstance(value.get("image"), str) else []
        return found + [name for each in value.values() for name in images_in(each)]
    return [name for each in value for name in images_in(each)] if isinstance(value, list) else []


def test_the_rendered_kustomization_differs_from_the_files_in_its_images_only(rendered):
    pushed = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in KUSTOMIZATION["images"]}

    def with_pushed_images(value):
        if isinstance(value, dict):
            replaced = {key: with_pushed_images(each) for key, each in value.items()}
            return replaced | ({"image": pushed[value["image"]]} if isinstance(value.get("image"), str) else {})
        return [with_pushed_images(each) for each in value] if isinstance(value, list) else value

    assert rendered == {identity(m.values[0]): with_pushed_images(m.values[0]) for m in MANIFESTS}
    assert {name for each in rendered.values() for name in images_in(each)} == set(pushed.values())


@pytest.mark.parametrize("release", RELEASES)
def test_the_rendered_kustomization_is_valid_by_the_schemas(rendered, release):
    for manifest in rendered.values():
        kubernetes_validate.validate(manifest, release, strict=True)


def test_steps_of_the_retrain_job_use_the_rendered_image_of_the_pipeline(rendered):
    job = rendered["CronJob", PIPELINE_NAMESPACE, "retrain"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for container in [*job["initContainers"], *job["containers"]]:
        (variable,) = [each for each in container["env"] if each["name"] == "IMAGE_FINDER_PIPELINE_IMAGE"]
        assert variable["value"] == container["image"]


def test_tags_of_our_images_are_the_version_of_the_package():
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    files = [*FOLDER.glob("*.yaml"), CHECKOUT / "infra" / "compose.yaml", *CHECKOUT.glob("infra/docker/*")]
    files += [CHECKOUT / "infra" / "README.md", *CHECKOUT.glob("pipelines/configs/*"), *CHECKOUT.glob("infra/stacks/*")]
    pattern = r"image-finder(?:-servers|-pipeline)?:(\d[\w.]*)|newTag: (\S+?)[,}\s]"
    found = {
        (path.name, match[1] or match[2])
        for path in files
        for match in re.finditer(pattern, path.read_text(encoding="utf-8"))
    }
    assert {tag for _, tag in found} == {version}
    assert {name for name, _ in found} >= {"compose.yaml", "kustomization.yaml", "pipeline.yaml", "pipeline.Dockerfile"}


def test_a_misspelt_field_would_be_refused():
    manifest = of_kind("Deployment")["search"]
    spoilt = {**manifest, "spec": {**manifest["spec"], "replica": 3}}
    for release in RELEASES:
        with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
            kubernetes_validate.validate(spoilt, release, strict=True)


def test_everything_is_in_one_of_the_two_namespaces_and_none_is_overridden():
    names = set(of_kind("Namespace"))
    assert names == {"image-finder", PIPELINE_NAMESPACE}
    assert {m.values[0]["metadata"]["namespace"] for m in MANIFESTS if m.values[0]["kind"] != "Namespace"} == names
    assert "namespace" not in KUSTOMIZATION
    for namespace in of_kind("Namespace").values():
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_kustomization_names_every_file_and_every_image():
    assert sorted(KUSTOMIZATION["resources"]) == [path.name for path in FILES]
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {each.values[1]["image"] for each in CONTAINERS}
    assert {image["name"] for image in KUSTOMIZATION["images"]} == set(DOCKERFILES)


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_container_runs_as_the_user_of_its_image_without_privileges(pod, container):
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == user_of(container["image"])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == LOCKED


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_container_asks_for_what_it_needs_and_its_memory_is_limited(pod, container):
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_every_mount_is_a_volume_of_its_pod_and_every_claim_is_made(pod, container):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    claims = {
        each["persistentVolumeClaim"]["claimName"] for each in volumes.values() if "persistentVolumeClaim" in each
    }
    assert claims <= set(of_kind("PersistentVolumeClaim"))


def test_secrets_are_referred_to_never_written_and_the_kustomization_says_how_they_are_made():
    assert of_kind("Secret") == {}
    how = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8").replace("\\\n#", "")
    for entry in (each for _, container in (c.values for c in CONTAINERS) for each in container.get("env", [])):
        if "valueFrom" in entry:
            reference = entry["valueFrom"]["secretKeyRef"]
            if reference.get("optional"):
                assert f"`{reference['name']}` is optional" in how
            made = re.search(rf"secret generic {reference['name']} .*", how)
            assert made, reference
            assert f"--from-literal={reference['key']}=" in made[0]
        else:
            assert not re.search("TOKEN|PASSWORD|SECRET|API_KEY", entry["name"])


def step_pods(name):
    """The pods of a pipeline's steps on the cluster, and the one that starts them, as its configuration has them."""
    values = run_config.load(name, "cluster")
    settings = [values["settings"], *(step["settings"] for step in values["steps"].values())]
    pods = [pod for each in settings for pod in each["orchestrator.kubernetes"].values()]
    assert len(pods) == 2 + len(values["steps"])
    return pods


STEP_PODS: list[Any] = [
    pytest.param(pod, id=f"{name}-{n}") for name in ("training", "indexing") for n, pod in enumerate(step_pods(name))
]


def test_trainings_in_the_cluster_get_the_addresses_for_alerts():
    addresses = {
        "name": ADDRESSES_VARIABLE,
        "valueFrom": {"secretKeyRef": {"name": "alerts", "key": "addresses", "optional": True}},
    }
    assert addresses in container_of("retrain")["env"]
    assert all(addresses in pod.values[0]["env"] for pod in STEP_PODS)


@pytest.mark.parametrize("pod", STEP_PODS)
def test_steps_run_as_the_user_of_their_image_without_privileges(pod):
    assert pod["container_security_context"] == LOCKED
    context = pod["additional_pod_spec_args"]["security_context"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] == user_of("image-finder-pipeline")
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["volume_mounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert {"/tmp", "/app"} <= set(mounts.values())  # what is written outside the home


def secrets_of(containers):
    references = [
        entry["valueFrom"]["secretKeyRef"] for each in containers for entry in each["env"] if "valueFrom" in entry
    ]
    return {reference["name"] for reference in references}


def test_the_pipelines_role_reads_no_secret_and_its_namespace_holds_those_alone_that_its_pods_name():
    """Who may start a pod can read each secret of its namespace by it, whatever its role says of secrets."""
    for role in all_of_kind("Role", "ClusterRole"):
        assert role["kind"] == "Role"
        assert role["metadata"]["namespace"] == PIPELINE_NAMESPACE
        for rule in role["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            reads = {"get", "list", "watch"} & set(rule["verbs"])
            assert "secrets" not in rule["resources"] or not reads or rule.get("resourceNames")
            assert not {"pods/exec", "pods/attach", "serviceaccounts/token", "roles", "rolebindings"} & set(
                rule["resources"]
            )
    how = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    made = dict.fromkeys(of_kind("Namespace"), frozenset())
    for namespace, name in re.findall(r"kubectl -n (\S+) create secret generic (\S+)", how):
        made[namespace] |= {name}
    retrain = TEMPLATES["retrain"]["spec"]
    used = secrets_of([*retrain["initContainers"], *retrain["containers"], *(pod.values[0] for pod in STEP_PODS)])
    assert made[PIPELINE_NAMESPACE] == used == {"zenml-client", "object-store", "alerts"}
    others = [c.values[1] for c in CONTAINERS if c.values[0] is not retrain and "env" in c.values[1]]
    assert made["image-finder"] == secrets_of(others)


@pytest.mark.parametrize("namespace", of_kind("Namespace"))
def test_nothing_is_reached_and_nothing_reaches_out_unless_a_policy_allows_it(namespace):
    policies = [each for each in all_of_kind("NetworkPolicy") if each["metadata"]["namespace"] == namespace]
    everything = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert [each["metadata"]["name"] for each in policies if each["spec"] == everything] == ["nobody-by-default"]
    for policy in policies:
        for rule in policy["spec"].get("egress", []):
            assert rule.get("to"), policy["metadata"]["name"]
            assert rule.get("ports"), policy["metadata"]["name"]
            for peer in rule["to"]:
                assert peer.keys() <= {"podSelector", "namespaceSelector"} or LINK_LOCAL in peer["ipBlock"]["except"]
                assert peer.get("podSelector") != {}


def outside_ports(labels, namespace):
    """Ports of any address that pods with these labels may call."""
    found = set()
    for policy in all_of_kind("NetworkPolicy"):
        chosen = policy["spec"]["podSelector"].get("matchLabels", {})
        if policy["metadata"]["namespace"] == namespace and chosen.items() <= labels.items():
            rules = [rule for rule in policy["spec"].get("egress", []) if any("ipBlock" in peer for peer in rule["to"])]
            found |= {port["port"] for rule in rules for port in rule["ports"]}
    return found


def test_runs_reach_store_hub_receivers_of_alerts_and_the_cluster_others_at_most_their_database():
    labels = [TEMPLATES["retrain"]["metadata"]["labels"], *(pod.values[0]["labels"] for pod in STEP_PODS)]
    assert all(outside_ports(each, PIPELINE_NAMESPACE) == {443, 6443, 465, 587} for each in labels)
    reached = {
        name: outside_ports(template["metadata"]["labels"], "image-finder") for name, template in TEMPLATES.items()
    }
    del reached["retrain"]
    assert reached == {"mlflow": {5432}, "zenml": set(), "search": set(), "search-index": set()}


@pytest.mark.parametrize("name", of_kind("Deployment"))
def test_selectors_services_and_disruption_budgets_find_the_pods(name):
    deployment, service = of_kind("Deployment")[name], of_kind("Service")[name]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    if (budget := of_kind("PodDisruptionBudget").get(name)) is not None:
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    else:
        assert deployment["spec"]["replicas"] == 1  # a budget of a lone pod would hold up its node for ever


@pytest.mark.parametrize("name", of_kind("Deployment"))
def test_ports_of_command_container_service_and_policy_are_one(name):
    container = container_of(name)
    words = container.get("command", []) + container.get("args", [])
    port = int(words[words.index("--port") + 1])
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    assert of_kind("Service")[name]["spec"]["ports"][0]["targetPort"] == "http"
    (rule,) = of_kind("NetworkPolicy")[name]["spec"]["ingress"]
    assert rule["ports"] == [{"port": port}]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"


def test_the_search_is_asked_for_health_where_it_answers():
    known = {getattr(route, "path", None) for route in operations.root.routes}
    container = container_of("search")
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["startupProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert {"/health/live", "/health/ready"} <= known


def test_servers_are_asked_for_health_where_they_answer():
    from mlflow.server.security_utils import HEALTH_ENDPOINTS  # answered under every name
    from zenml.constants import HEALTH, READY

    mlflow, zenml = container_of("mlflow"), container_of("zenml")
    assert {mlflow[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} <= set(HEALTH_ENDPOINTS)
    assert zenml["livenessProbe"]["httpGet"]["path"] == HEALTH
    assert zenml["readinessProbe"]["httpGet"]["path"] == READY


def test_commands_of_our_images_are_understood():
    ours = [container for _, container in (c.values for c in CONTAINERS) if "args" in container]
    assert len(ours) == 5
    for container in ours:
        assert container["image"] in {"image-finder", "image-finder-pipeline"}  # whose entry point is image-finder
        understood(container["args"])


def test_environment_variables_are_those_that_are_read():
    from mlflow import environment_variables
    from mlflow.cli import server as mlflow_server
    from zenml.config.server_config import ServerConfiguration

    (token,) = container_of("search")["env"]
    assert token["name"] == TOKEN_VARIABLE
    read = {option.envvar for option in mlflow_server.params}
    read |= {name for name in dir(environment_variables) if name.startswith("MLFLOW_")}
    assert {entry["name"] for entry in container_of("mlflow")["env"]} <= read
    prefix = "ZENML_SERVER_"
    settings = {e["name"].removeprefix(prefix).lower() for e in container_of("zenml")["env"] if prefix in e["name"]}
    assert settings == {"deployment_type", "auto_activate", "jwt_secret_key"}
    assert settings <= set(ServerConfiguration.model_fields)


def test_the_search_scales_between_two_and_ten_and_reaches_nobody():
    scaler = of_kind("HorizontalPodAutoscaler")["search"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "search"}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert "replicas" not in of_kind("Deployment")["search"]["spec"]  # or each apply would undo the scaling
    assert of_kind("NetworkPolicy")["search"]["spec"]["egress"] == []


def test_every_policy_is_one_of_pods_that_there_are():
    labels = [template["metadata"]["labels"] for template in TEMPLATES.values()]
    for name, policy in of_kind("NetworkPolicy").items():
        chosen = policy["spec"]["podSelector"].get("matchLabels", {})
        assert any(chosen.items() <= each.items() for each in labels), name


def test_whoever_calls_a_server_is_let_in_there():
    into = {name: of_kind("NetworkPolicy")[name]["spec"]["ingress"][0]["from"] for name in ("mlflow", "zenml")}
    runs = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": PIPELINE_NAMESPACE}}}
    assert all(runs in peers for peers in into.values())
    assert {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "search-index"}}} in into["mlflow"]
    (policy,) = [each for each in all_of_kind("NetworkPolicy") if each["metadata"]["name"] == "runs"]
    called = {
        (peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], rule["ports"][0]["port"])
        for rule in policy["spec"]["egress"]
        for peer in rule["to"]
        if peer.get("namespaceSelector")
        if "app.kubernetes.io/name" in peer["podSelector"]["matchLabels"]
    }
    assert called == {(name, container_of(name)["ports"][0]["containerPort"]) for name in ("mlflow", "zenml")}


def test_what_the_library_is_indexed_from_and_served_from_lies_at_the_same_paths():
    served = {mount["name"]: mount for mount in container_of("search")["volumeMounts"]}
    indexed = {mount["name"]: mount for mount in container_of("search-index", "index")["volumeMounts"]}
    for name in ("library", "images"):
        assert served[name]["mountPath"] == indexed[name]["mountPath"]
        assert served[name]["readOnly"]
    assert "readOnly" not in indexed["library"]
    fetched = container_of("search-index", "fetch-champion")["args"]
    index = container_of("search-index", "index")["args"]
    assert fetched[fetched.index("--to") + 1] == index[index.index("--bundle") + 1]


def test_jobs_have_a_time_zone_and_never_overlap():
    from image_finder.pipelines.scheduling.cron_expression import CronExpression

    for job in of_kind("CronJob").values():
        assert job["spec"]["timeZone"] == "Etc/UTC"
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        CronExpression.parse(job["spec"]["schedule"])


def test_accounts_and_volumes_of_the_cluster_stack_are_those_of_the_manifests():
    from image_finder.pipelines.stacks import stacks

    orchestrator = stacks.load("kubernetes").components["orchestrator"].configuration
    accounts = of_kind("ServiceAccount")
    assert orchestrator["kubernetes_namespace"] == PIPELINE_NAMESPACE
    assert {each["metadata"]["namespace"] for each in accounts.values()} == {PIPELINE_NAMESPACE}
    assert {orchestrator["service_account_name"], orchestrator["step_pod_service_account_name"]} == set(accounts)
    assert accounts["image-finder-step"]["automountServiceAccountToken"] is False
    (subject,) = of_kind("RoleBinding")["image-finder-pipeline"]["subjects"]
    assert subject["name"] == orchestrator["service_account_name"]
    for name in ("training", "indexing"):
        pod = run_config.load(name, "cluster")["settings"]["orchestrator.kubernetes"]["pod_settings"]
        claimed = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
        claims = {volume["persistentVolumeClaim"]["claimName"] for volume in claimed}
        assert claims == {"pipeline-home", "pipeline-data"}
        named = {volume["name"] for volume in claimed}
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["volume_mounts"] if mount["name"] in named}
        client = {mount["name"]: mount["mountPath"] for mount in container_of("retrain")["volumeMounts"]}
        assert mounts.items() <= client.items()  # the process that starts a run sees the data under the steps' paths


def test_compose_is_valid_by_the_schema_and_a_misspelt_field_would_be_refused():
    values = {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}  # not known to the model
    ComposeSpecification.model_validate(values)
    values["services"] = {**values["services"], "mlflow": {**values["services"]["mlflow"], "porst": []}}
    with pytest.raises(ValidationError, match="porst"):
        ComposeSpecification.model_validate(values)


def test_compose_starts_the_servers_by_the_same_commands_as_the_cluster():
    for name in ("mlflow", "zenml"):
        assert COMPOSE["services"][name]["command"] == container_of(name)["command"]
        assert set(COMPOSE["services"][name]["environment"]) == {entry["name"] for entry in container_of(name)["env"]}


@pytest.mark.parametrize("name", [name for name, service in COMPOSE["services"].items() if "build" in service])
def test_compose_builds_from_dockerfiles_that_are_there(name):
    service = COMPOSE["services"][name]
    context = (CHECKOUT / "infra" / service["build"]["context"]).resolve()
    assert (context / service["build"]["dockerfile"]).is_file()
    assert Path(service["build"]["dockerfile"]).name == DOCKERFILES[service["image"].partition(":")[0]]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_gives_no_service_a_privilege_or_a_way_out(name):
    service = COMPOSE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert not service.get("cap_add")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "build" in service or int(service["user"].partition(":")[0]) > 0  # our images run as a separate user
    for network in service["networks"]:
        options = COMPOSE["networks"][network]
        masquerade = options.get("driver_opts", {}).get("com.docker.network.bridge.enable_ip_masquerade")
        assert options.get("internal") or masquerade == "false"


def test_compose_wants_every_secret_from_outside_and_opens_no_port_to_others():
    text = (CHECKOUT / "infra" / "compose.yaml").read_text(encoding="utf-8")
    body = text[text.index("services:") :]
    for line in body.splitlines():
        if re.search(r"(PASSWORD|SECRET\w*|TOKEN|URI):", line) and not line.strip().startswith("#"):
            assert re.search(r"\$\{\w+:\?", line), line
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("${BIND:-127.0.0.1}:") for port in service.get("ports", [])), name
    assert "ports" not in COMPOSE["services"]["postgres"]
    assert COMPOSE["services"]["postgres"]["networks"] == ["data"]
    assert COMPOSE["networks"]["data"] == {"internal": True}


def test_compose_volumes_and_networks_are_declared():
    for name, service in COMPOSE["services"].items():
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        named = {volume.partition(":")[0] for volume in service["volumes"] if re.match(r"[a-z]+:", volume)}
        assert named <= set(COMPOSE["volumes"]), name
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"]), name


def test_compose_waits_for_the_database_and_asks_for_health_where_the_servers_answer():
    assert COMPOSE["services"]["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("mlflow", "zenml"):
        port = container_of(name)["ports"][0]["containerPort"]
        path = container_of(name)["readinessProbe"]["httpGet"]["path"]
        assert f"http://127.0.0.1:{port}{path}'" in COMPOSE["services"][name]["healthcheck"]["test"][-1]

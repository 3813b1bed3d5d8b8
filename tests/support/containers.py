"""Containers run by buildah in a network without outside access, as a service of compose.yaml or a pod describes them."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from tests.support.checkout import CHECKOUT
from tests.support.servers import running

COMPOSE = yaml.safe_load((CHECKOUT / "infra" / "compose.yaml").read_text(encoding="utf-8"))
_RUN_S = 1200
_FETCH = """
import json, sys, urllib.error, urllib.request
url, headers = sys.argv[1], json.loads(sys.argv[2])
try:
    got = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20)
except urllib.error.HTTPError as error:
    got = error
print(got.status)
sys.stdout.flush()
sys.stdout.buffer.write(got.read())
"""


@dataclass
class Options:
    """What a container is started with. mounts: path in it -> (path here, read-only)."""

    image: str
    user: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    mounts: dict[str, tuple[Path, bool]] = field(default_factory=dict)
    temporary: list[str] = field(default_factory=list)


def interpolated(text: str, variables: dict[str, str]) -> str:
    """A value of the compose file with ${NAME}, ${NAME:-default} and ${NAME:?message} replaced, the innermost first."""

    def value(match: re.Match) -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        assert kind == "-", f"compose.yaml needs {name}: {rest}"
        return rest

    while (replaced := re.sub(r"\$\{(\w+)(?::([-?])([^${}]*))?\}", value, text)) != text:
        text = replaced
    return text


class Machine:
    """Images, names of hosts, and the folder of volumes."""

    def __init__(self, buildah, network, folder: Path, names: tuple[str, ...] = ()) -> None:
        self.buildah, self.network, self._folder = buildah, network, folder
        self._containers: dict[str, str] = {}
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost " + " ".join(names) + "\n")

    def volume(self, name: str) -> Path:
        return self._folder / name

    def container(self, image: str) -> str:
        """The one container of an image, because buildah copies the image for each."""
        if image not in self._containers:
            name = self._containers[image] = self.buildah("from", "--pull-never", image)
            # A volume of the image may otherwise hide one that is given: their order is random.
            for path in self.buildah.config_of(image).get("Volumes", ()):
                self.buildah("config", "--volume", f"{path}-", name)
        return self._containers[image]

    def root(self, image: str) -> Path:
        """Path here of the container's root directory."""
        return Path(self.buildah("mount", self.container(image)))

    def service(self, name: str, variables: dict[str, str], images: dict[str, str]) -> Options:
        """Options of a service in compose.yaml. A new volume belongs to the owner of its path in the image."""
        service = COMPOSE["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        image = images[service["image"].partition(":")[0]]
        config = self.buildah.config_of(image)
        options = Options(
            image,
            interpolated(service.get("user", config["User"]), variables),
            service["command"] if "command" in service else [*config["Entrypoint"], *config["Cmd"]],
            {key: interpolated(value, variables) for key, value in service["environment"].items()},
            temporary=service.get("tmpfs", []),
        )
        for text in service["volumes"]:
            source, target, *access = interpolated(text, variables).split(":")
            path = Path(source) if source.startswith("/") else self._named_volume(source, image, target)
            options.mounts[target] = (path, access == ["ro"])
        return options

    def _named_volume(self, name: str, image: str, target: str) -> Path:
        path = self.volume(name)
        if not path.exists():
            path.mkdir()
            owner = (self.root(image) / target.lstrip("/")).stat()
            os.chown(path, owner.st_uid, owner.st_gid)
        return path

    def pod(self, spec: dict, container: dict, secrets: dict[str, dict[str, str]], images: dict[str, str]) -> Options:
        """Options of a pod's container. Volumes are folders of the pod's group, as fsGroup makes them."""
        security = spec["securityContext"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        image = images[container["image"]]
        words = container.get("command", self.buildah.config_of(image).get("Entrypoint"))
        options = Options(
            image, f"{security['runAsUser']}:{security['runAsGroup']}", [*words, *container.get("args", [])]
        )
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            if reference is None:
                options.environment[entry["name"]] = entry["value"]
            elif reference["name"] in secrets:
                options.environment[entry["name"]] = secrets[reference["name"]][reference["key"]]
            else:
                assert reference["optional"]
        names = {volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            folder = self.volume(names[mount["name"]] or f"{spec['containers'][0]['name']}-{mount['name']}")
            folder.mkdir(exist_ok=True)
            for path in (each for each in (folder, *folder.rglob("*")) if not each.is_symlink()):
                os.chown(path, -1, security["fsGroup"])
                path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o060))
            options.mounts[mount["mountPath"]] = (folder, mount.get("readOnly", False))
        return options


class Container:
    """An image's container with options; what it has written outside its mounts since then can be listed."""

    def __init__(self, machine: Machine, options: Options) -> None:
        self._machine, self.options = machine, options
        self._name = machine.container(options.image)
        self._created_s = time.time()

    def words(self, *command: object) -> list[str]:
        """The command line that runs a command in the container, with its user, environment, network and mounts."""
        given, words = self.options, ["--isolation", "chroot", "--network", "host", "--cap-drop", "ALL"]
        words += ["--user", given.user, "--no-hosts", "-v", f"{self._machine.hosts}:/etc/hosts:ro"]
        for name, value in given.environment.items():
            words += ["--env", f"{name}={value}"]
        for path, (source, read_only) in given.mounts.items():
            words += ["-v", f"{source}:{path}{':ro' if read_only else ''}"]
        for path in given.temporary:
            words += ["--mount", f"type=tmpfs,destination={path}"]
        return self._machine.network.words(*self._machine.buildah.words("run", *words, self._name, "--", *command))

    def run(self, *command: object, code: int = 0) -> str:
        """Run a command, or the container's own, to its end; returns what it printed."""
        done = subprocess.run(
            self.words(*(command or self.options.command)),
            capture_output=True,
            text=True,
            check=False,
            env=self._machine.buildah.environment,
            timeout=_RUN_S,
        )
        assert done.returncode == code, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        return done.stdout

    def succeeds(self, *command: object) -> bool:
        environment = self._machine.buildah.environment
        return subprocess.run(self.words(*command), capture_output=True, check=False, env=environment).returncode == 0

    @contextlib.contextmanager
    def serving(self, log: Path):
        """Context in which the container's own command runs; yields the process. It is stopped by SIGTERM, as by Docker."""
        words, environment = self.words(*self.options.command), self._machine.buildah.environment
        with running(words, log, env=environment) as process:
            try:
                yield process
            finally:
                for child in self._processes(process):
                    child.terminate()
                process.wait(60)

    @staticmethod
    def _processes(process) -> list[psutil.Process]:
        """The container's first process: the one below those of buildah."""
        everyone = psutil.Process(process.pid).children(recursive=True)
        return [each for each in everyone if each.parent().name().startswith("buildah") and not _is_buildah(each)]

    def written(self) -> list[str]:
        """Paths outside the mounts that the container's user has written: what a read-only container would refuse."""
        root = self._machine.root(self.options.image)
        user = self.options.user.partition(":")[0]
        options = ["-xdev", "-uid", user, "-newerct", f"@{self._created_s}"]
        found = subprocess.run(["find", root, *options], capture_output=True, text=True, check=True).stdout
        return sorted(str(Path(path).relative_to(root)) for path in found.splitlines())


def _is_buildah(process: psutil.Process) -> bool:
    return process.name().startswith("buildah")


def fetch(network, url: str, **headers: str) -> tuple[int, bytes]:
    """(status, body) of a request inside the network."""
    words = network.words(sys.executable, "-I", "-S", "-c", _FETCH, url, json.dumps(headers))
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode != 0:
        return 0, done.stderr
    status, _, body = done.stdout.partition(b"\n")
    return int(status), body


def manifests(name: str) -> dict[tuple[str, str], dict]:
    """Manifests of a file of infra/kubernetes by (kind, name)."""
    text = (CHECKOUT / "infra" / "kubernetes" / f"{name}.yaml").read_text(encoding="utf-8")
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}


def pod_of(manifest: dict) -> dict:
    """The pod's specification in a Deployment or CronJob."""
    spec = manifest["spec"].get("jobTemplate", manifest)["spec"]
    return spec["template"]["spec"]


def container_in(spec: dict, name: str) -> dict:
    """A container or init container of a pod."""
    return next(each for each in [*spec.get("initContainers", []), *spec["containers"]] if each["name"] == name)


def probes_of(container: dict) -> dict[str, tuple[int, str]]:
    """(port, path) of each probe."""
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    named = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    return {name: (ports[probe["port"]], probe["path"]) for name, probe in named.items()}

"""Stacks: creates or updates the stack that a YAML of infra/stacks describes; knows nothing of pipelines.

A stack determines where runs compute and store their results. The same pipelines run on every stack.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from packaging.requirements import Requirement
from pydantic import Field

from image_finder.components.configs import Config
from image_finder.components.errors import ConfigError
from image_finder.components.records.base import Record
from image_finder.components.text import one_line
from image_finder.pipelines.run_config import FILE_ENDINGS, read_yaml
from image_finder.pipelines.stores import STACK_NAME, Home, connect, prepare, store_url

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.models import ComponentResponse

Kind = Literal["orchestrator", "artifact_store", "experiment_tracker", "container_registry", "image_builder"]
Action = Literal["create", "update", "unchanged"]

_SECRET_WORDS = ("token", "password", "username", "secret", "key")
_HIDDEN = "***"


class ComponentConfig(Config):
    flavor: str = Field(description="ZenML's flavour name, e.g. local, mlflow, kubernetes, s3")
    source: str | None = Field(None, description="class of a custom flavour to register; None: a flavour of ZenML")
    name: str | None = Field(None, description="name in the ZenML store; None: the stack's")
    configuration: dict[str, Any] = Field(default_factory=dict, description="settings of the flavour")


class StackConfig(Config):
    name: str = Field(min_length=1, description="name in the ZenML store")
    server: bool = Field(description="stored by the server at ZENML_STORE_URL; false: in SQLite in the home")
    extra: str = Field("pipeline", description="extra of this package that installs the flavours' requirements")
    packages: tuple[str, ...] = Field(
        (), description="requirements of the flavours in addition to the extra `pipeline`"
    )
    required: dict[str, str] = Field(
        default_factory=dict, description="required settings `component.key` and their meaning"
    )
    components: dict[Kind, ComponentConfig] = Field(min_length=1)

    def component_name(self, kind: Kind) -> str:
        return self.components[kind].name or self.name


class ComponentChange(Record):
    """Change of one component. settings: those that are written, without secrets."""

    kind: str
    name: str
    flavor: str
    action: Action
    settings: dict[str, str]


class StackPlan(Record):
    name: str
    action: Action
    store: str  # address of the ZenML server, or folder of the home
    components: tuple[ComponentChange, ...]


def stacks_folder() -> Path:
    """Folder of the stacks in a checkout; a wheel has none."""
    return Path(__file__).resolve().parents[2] / "infra" / "stacks"


def load(name_or_file: str) -> StackConfig:
    """Read a stack of infra/stacks by name, or one by path. Raises ConfigError."""
    path = Path(name_or_file)
    if path.suffix not in FILE_ENDINGS:
        path = stacks_folder() / f"{name_or_file}.yaml"
    if not path.is_file():
        names = sorted(found.stem for found in stacks_folder().glob("*.yaml"))
        known = f"known are {', '.join(names)}" if names else "they are in infra/stacks of the repository"
        raise ConfigError(f"no stack '{name_or_file}': {known}; or name a .yaml file")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must be a mapping with the key 'components', see infra/stacks/team.yaml")
    return StackConfig.parse(values)


def override(stack: StackConfig, assignments: Sequence[str]) -> StackConfig:
    """Apply `component.key=value`; null removes a setting. Raises ConfigError.

    value is YAML, except for a reference {{secret.key}}: text for ZenML, but a mapping in YAML.
    """
    components = dict(stack.components)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        kind, _, key = path.partition(".")
        if not separator or not key or "." in key:
            raise ConfigError(f"--set {assignment}: expected component.key=value, e.g. artifact_store.path=/srv/zenml")
        found = next((known for known in components if known == kind), None)
        if found is None:
            raise ConfigError(f"stack {stack.name} has no component '{kind}': it has {', '.join(components)}")
        component = components[found]
        configuration = {**component.configuration, key: _value(assignment, text)}
        components[found] = component.model_copy(update={"configuration": configuration})
    return stack.model_copy(update={"components": components})


def _value(assignment: str, text: str) -> object:
    if text.startswith("{{"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {assignment}: the value is not YAML; quote it") from error


def missing_settings(stack: StackConfig) -> list[str]:
    """Required settings without a value, as `component.key (meaning)`. Null counts as a value."""
    settings = {f"{kind}.{key}" for kind, component in stack.components.items() for key in component.configuration}
    return [f"{path} ({meaning})" for path, meaning in stack.required.items() if path not in settings]


def missing_packages(stack: StackConfig) -> list[str]:
    return [text for text in stack.packages if not _is_installed(Requirement(text))]


def require_ready(stack: StackConfig) -> None:
    """Raise ConfigError for missing settings, else missing packages, else store settings."""
    if absent := missing_settings(stack):
        raise ConfigError(f"stack {stack.name} needs {'; '.join(absent)}: give each with --set component.key=value")
    if absent := missing_packages(stack):
        raise ConfigError(
            f"stack {stack.name} needs packages that are not installed: {', '.join(absent)}; "
            f"pip install 'text-guided-image-finder[pipeline,{stack.extra}]'"
        )
    if not stack.server and stack.name != STACK_NAME:
        raise ConfigError(
            f"a home has only the stack {STACK_NAME}: use that name instead of {stack.name}, or 'server: true'"
        )
    if stack.server and not store_url():
        raise ConfigError(
            f"stack {stack.name} is stored by a ZenML server: set ZENML_STORE_URL to its address and "
            "ZENML_STORE_API_KEY to the key of a service account"
        )


def open_store(stack: StackConfig, home: Home, *, mlflow_uri: str | None) -> "Client":
    """Connect to the stack's store; a local one is created if missing. Raises ConfigError."""
    if stack.server:
        return connect(home)
    prepare(home, mlflow_uri=mlflow_uri)
    from zenml.client import Client

    return Client()


def plan(stack: StackConfig, client: "Client | None", *, store: str) -> StackPlan:
    """What apply would do; without a client, in an empty store. Raises ConfigError."""
    changes = []
    for kind, component in stack.components.items():
        name = stack.component_name(kind)
        existing = _component(client, kind, name) if client else None
        if existing is not None and existing.flavor_name != component.flavor:
            raise ConfigError(
                f"{kind} '{name}' has the flavour {existing.flavor_name} in {store}, not {component.flavor}: "
                f"rename it with 'zenml {kind.replace('_', '-')} rename', or give this one another name in the YAML"
            )
        changed = _changed(component.configuration, existing)
        action: Action = "create" if existing is None else "update" if changed else "unchanged"
        settings = {key: _shown(key, value) for key, value in changed.items()}
        changes.append(ComponentChange(kind=kind, name=name, flavor=component.flavor, action=action, settings=settings))
    return StackPlan(name=stack.name, action=_stack_action(stack, client), store=store, components=tuple(changes))


def apply(stack: StackConfig, client: "Client", *, store: str) -> StackPlan:
    """Create or update the components and the stack, and activate it. Raises ConfigError.

    Other components of the stack stay. Applying it again changes nothing.
    """
    from zenml.exceptions import EntityExistsError

    decided = plan(stack, client, store=store)
    try:
        members = {_kind(kind): _ensure_component(client, stack, kind) for kind in stack.components}
        if decided.action == "create":
            client.create_stack(stack.name, members)
        elif decided.action == "update":
            client.update_stack(stack.name, component_updates=members)
    except EntityExistsError as error:
        raise ConfigError(f"stack {stack.name} was just created by someone else: run the command again") from error
    except (ValueError, ImportError) as error:  # the flavour rejects its settings
        raise ConfigError(f"stack {stack.name} cannot be created: {one_line(error)}") from error
    client.activate_stack(client.get_stack(stack.name, allow_name_prefix_match=False).id)
    if client.active_stack_model.name != stack.name:
        raise ConfigError(
            f"stack {stack.name} exists, but ZENML_ACTIVE_STACK_ID selects {client.active_stack_model.name}: unset it"
        )
    return decided


def _is_installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _kind(kind: Kind) -> Any:  # noqa: ANN401 - ZenML's enumeration, whose import takes seconds
    from zenml.enums import StackComponentType

    return StackComponentType(kind)


def _component(client: "Client", kind: Kind, name: str) -> "ComponentResponse | None":
    found = client.list_stack_components(type=_kind(kind), name=name, hydrate=True).items
    return found[0] if found else None


def _changed(wanted: Mapping[str, Any], existing: "ComponentResponse | None") -> dict[str, Any]:
    """Settings that differ; None removes one."""
    there = {} if existing is None else existing.configuration
    return {key: value for key, value in wanted.items() if there.get(key) != value}


def _ensure_component(client: "Client", stack: StackConfig, kind: Kind) -> Any:  # noqa: ANN401 - a UUID
    component, name = stack.components[kind], stack.component_name(kind)
    if component.source and not client.list_flavors(name=component.flavor, type=kind).total:
        client.create_flavor(component.source, _kind(kind))
    existing = _component(client, kind, name)
    changed = _changed(component.configuration, existing)
    if existing is None:
        settings = {key: value for key, value in changed.items() if value is not None}
        return client.create_stack_component(name, component.flavor, _kind(kind), settings).id
    if changed:
        client.update_stack_component(existing.id, _kind(kind), configuration=changed)
    return existing.id


def _stack_action(stack: StackConfig, client: "Client | None") -> Action:
    found = client.list_stacks(name=stack.name, hydrate=True).items if client else []
    if not found:
        return "create"
    members = {kind: [each.name for each in found[0].components.get(_kind(kind), [])] for kind in stack.components}
    return "unchanged" if all(members[kind] == [stack.component_name(kind)] for kind in members) else "update"


def _shown(key: str, value: object) -> str:
    """A setting for printing; a secret only if it is a reference to one stored by ZenML."""
    if not isinstance(value, str):
        return "(removed)" if value is None else str(value)
    is_open = value == "none" or (value.startswith("{{") and value.endswith("}}"))
    return value if is_open or not any(word in key.split("_") for word in _SECRET_WORDS) else _HIDDEN

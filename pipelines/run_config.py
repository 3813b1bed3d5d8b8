"""Run configuration: a YAML file with overrides, checked as a whole before a run starts.

The format is ZenML's (parameters, settings, steps, ...), so `zenml pipeline run` reads the files too. Overrides are
merged here because in ZenML a file takes precedence over the arguments of a call.
"""

import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from image_finder.components.captions.layout import detect_layout
from image_finder.components.configs import Config, IndexingParameters, TrainingParameters
from image_finder.components.errors import ConfigError
from image_finder.components.text import one_line

PipelineName = Literal["training", "indexing"]
Values = dict[str, Any]
FILE_ENDINGS = {".yaml", ".yml"}
_VARIABLE = re.compile(r"\$\{(\w+)\}")  # as ZenML writes them

PARAMETERS: Mapping[PipelineName, type[TrainingParameters | IndexingParameters]] = {
    "training": TrainingParameters,
    "indexing": IndexingParameters,
}


def load(pipeline: PipelineName, name_or_file: str) -> Values:
    """Read a YAML of pipelines/configs by name, or one by path. Raises ConfigError."""
    path = Path(name_or_file)
    if path.suffix not in FILE_ENDINGS:
        path = configs_folder() / f"{pipeline}.{name_or_file}.yaml"
    if not path.is_file():
        names = sorted(p.name.split(".")[1] for p in configs_folder().glob(f"{pipeline}.*.yaml"))
        raise ConfigError(
            f"no configuration '{name_or_file}' for {pipeline}: known are {', '.join(names)}, or name a .yaml file"
        )
    values = read_yaml(path)
    if not isinstance(values, dict) or not isinstance(values.get("parameters"), dict):
        raise ConfigError(f"{path} must be a mapping with the key 'parameters', see {configs_folder()}")
    return values


def read_yaml(path: Path) -> object:
    """Raises ConfigError if the file is not YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from error


def configs_folder() -> Path:
    return Path(str(resources.files("image_finder.pipelines"))) / "configs"


def override(values: Values, assignments: Sequence[str]) -> Values:
    """Apply `a.b=c` below `parameters`; c is YAML. Raises ConfigError."""
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        keys = path.split(".")
        if not separator or not all(keys):
            raise ConfigError(f"--set {assignment}: expected a.b=value, e.g. training.epochs=3")
        values = _with(values, ["parameters", *keys], yaml.safe_load(text))
    return values


def with_data(pipeline: PipelineName, values: Values, root: Path | None) -> Values:
    """Use the data set or gallery in a folder. Parts that are not configured are detected."""
    if root is None:
        return values
    if pipeline == "indexing":
        return _with(values, ["parameters", "gallery", "root"], str(root.resolve()))
    dataset = values["parameters"].get("dataset") or {}
    if not dataset.get("parts") and dataset.get("layout") != "demo":
        found = detect_layout(root, dataset.get("name")).model_dump(mode="json", exclude_defaults=True)
        dataset = {**found, **dataset}
    return _with(values, ["parameters", "dataset"], {**dataset, "root": str(root.resolve())})


def checked(pipeline: PipelineName, values: Values) -> dict[str, Config]:
    """Every parameter as its config, with defaults. Raises ConfigError for the first fault."""
    known = PARAMETERS[pipeline].model_fields
    given = values["parameters"]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"unknown parameter '{unknown[0]}' for {pipeline}: known are {', '.join(known)}")
    required = next(name for name, field in known.items() if field.is_required())
    if required not in given:
        raise ConfigError(f"the {pipeline} pipeline needs '{required}': give --data DIR or set {required} in the YAML")
    kinds = {name: cast("type[Config]", field.annotation) for name, field in known.items()}
    return {name: kind.parse(given.get(name) or {}) for name, kind in kinds.items()}


def filled(values: Values) -> Values:
    """Replace `${NAME}` by environment variables. Raises ConfigError; ZenML would crash."""
    filled_in = _filled(values)
    assert isinstance(filled_in, dict)
    return filled_in


def _filled(value: object) -> object:
    if isinstance(value, dict):
        return {key: _filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(found: re.Match[str]) -> str:
    content = os.environ.get(found[1])
    if not content:
        raise ConfigError(f"the configuration needs the environment variable {found[1]}, which is not set: export it")
    return content


def _with(values: Values, keys: Sequence[str], value: object) -> Values:
    first, *rest = keys
    inner = values.get(first)
    if rest:
        value = _with(inner if isinstance(inner, dict) else {}, rest, value)
    return {**values, first: value}

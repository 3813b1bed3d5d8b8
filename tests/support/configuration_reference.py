"""The configuration reference of pipelines/README.md, generated from the models: python -m tests.support.configuration_reference."""

import types
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from image_finder.pipelines.run_config import PARAMETERS
from tests.support.checkout import CHECKOUT

DOCUMENT = CHECKOUT / "pipelines" / "README.md"
BEGIN, END = "<!-- configuration reference: begin -->", "<!-- configuration reference: end -->"
_LIMITS = {Ge: ("ge", ">="), Gt: ("gt", ">"), Le: ("le", "<="), Lt: ("lt", "<")}


def reference() -> str:
    """One table per part of a run's parameters: key, values, default, description."""
    parts = {name: field.annotation for model in PARAMETERS.values() for name, field in model.model_fields.items()}
    return "\n\n".join(_table(name, model) for name, model in parts.items())


def with_reference(document: str) -> str:
    """The document with a new reference between its markers."""
    before, rest = document.split(BEGIN)
    return f"{before}{BEGIN}\n{reference()}\n{END}{rest.split(END)[1]}"


def _table(name: str, model: type[BaseModel]) -> str:
    summary = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    rows = [
        f"| `{key}` | {values} | {default} | {description} |"
        for key, values, default, description in _rows(name, model)
    ]
    return "\n".join(
        [f"### {name}", summary, "", "| key | values | default | description |", "| --- | --- | --- | --- |", *rows]
    )


def _rows(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}"
        nested = [each for each in _members(field.annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
        if nested and get_origin(field.annotation) not in (tuple, dict):
            yield from _rows(key, nested[0])
        else:
            yield key, _escaped(_values(field)), _escaped(_default(field)), _escaped(field.description or "")


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _values(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for kind, (name, sign) in _LIMITS.items()
        if isinstance(limit, kind)
    ]
    return ", ".join([_type(field.annotation), *limits])


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_type(each) for each in get_args(annotation))
    if origin in (tuple, list):
        return f"list of {_type(get_args(annotation)[0])}"
    if origin is dict:
        return "mapping of " + " to ".join(_type(each) for each in get_args(annotation))
    if annotation is type(None):
        return "none"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    return {"int": "integer", "float": "number", "str": "text", "bool": "`true`, `false`", "Path": "path"}.get(
        annotation.__name__, f"mapping ({annotation.__name__})"
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in ("", {}) else f"{value:g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(with_reference(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")

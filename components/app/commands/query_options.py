"""Options of `image-finder search` that are derived from the query model."""

from datetime import date
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

# Field -> flags, and the placeholder in the help.
_FLAGS = {
    "folders": ("--folder", "FOLDER"),
    "since": ("--since", "DAY"),
    "until": ("--until", "DAY"),
    "cameras": ("--camera", "NAME"),
    "min_px": ("--min-px", "N"),
    "orientation": ("--orientation", None),
    "has_gps": ("--gps/--no-gps", None),
    "min_score": ("--min-score", "SCORE"),
    "k": ("-k", "N"),
    "duplicates": ("--duplicates", None),
}
QUERY_FIELDS = tuple(_FLAGS)
_DEFAULTS = {"k": 10}  # a terminal shows fewer images than a page


class QueryCommand(click.Command):
    """A command with an option for each field of a query, added on first use.

    The list of commands thus needs no pydantic, whose import takes longer than everything else.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """All parameters; those of the query's fields follow those of its terms."""
        names = [parameter.name for parameter in self.params]
        if QUERY_FIELDS[0] not in names:
            end = names.index("not_terms") + 1
            self.params[end:end] = query_options()
        return super().get_params(ctx)


def query_options() -> list[click.Option]:
    """Options with the types, limits and descriptions of the query's fields."""
    from image_finder.components.search.query import FilterFields, ResultFields

    fields = {**FilterFields.model_fields, **ResultFields.model_fields}
    return [_option(name, fields[name]) for name in _FLAGS]


def _option(name: str, field: "FieldInfo") -> click.Option:
    flags, metavar = _FLAGS[name]
    default = _DEFAULTS.get(name, field.default) or None
    return click.Option(
        [flags, name],
        type=_type(field),
        multiple=get_origin(field.annotation) is tuple,
        default=default,
        show_default=default is not None,
        metavar=metavar,
        help=field.description,
    )


def _type(field: "FieldInfo") -> "click.ParamType[Any] | type[Any]":
    kind: Any = next((each for each in get_args(field.annotation) if each is not NoneType), field.annotation)
    if get_origin(field.annotation) is Literal:
        kind = field.annotation
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is date:
        return click.DateTime(["%Y-%m-%d"])
    if kind in {int, float}:
        low, high = (next(getattr(each, end) for each in field.metadata if hasattr(each, end)) for end in ("ge", "le"))
        return click.IntRange(low, high) if kind is int else click.FloatRange(low, high)
    return bool if kind is bool else str

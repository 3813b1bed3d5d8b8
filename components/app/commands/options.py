"""Options that commands share, and those of `image-finder search` that are derived from the query model."""

import os
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

FOLDER = click.Path(path_type=Path)
RESCAN_S = 600.0  # a scan of 100,000 unchanged images takes about 4 s

library_option = click.option(
    "--library", type=FOLDER, help="Folder of the library.  [default: library in the home, see IMAGE_FINDER_HOME]"
)
index_option = click.option("--index", "index_path", type=FOLDER, help="Folder of an index, instead of a library.")
bundle_option = click.option("--bundle", type=FOLDER, help="Folder of the model.  [default: that of the index]")


def rescan_option(help_text: str) -> "Callable[[click.decorators.FC], click.decorators.FC]":
    return click.option(
        "--rescan-s",
        type=click.FloatRange(min=1),
        default=RESCAN_S,
        show_default=True,
        envvar="IMAGE_FINDER_RESCAN_S",
        show_envvar=True,
        metavar="SECONDS",
        help=help_text,
    )


def index_of(library: Path | None, index: Path | None) -> Path:
    """The index of --library or --index, else that of the home. Raises UsageError if both are given."""
    if library and index:
        raise click.UsageError("--library and --index exclude each other")
    from image_finder.components.index.generations import published_root
    from image_finder.components.library.library import default_index

    return published_root((library or index or default_index()).expanduser())


# Field -> flags, and the placeholder in the help.
_FLAGS = {
    "folders": ("--folder", "FOLDER"),
    "since": ("--since", "DAY"),
    "until": ("--until", "DAY"),
    "cameras": ("--camera", "NAME"),
    "min_px": ("--min-px", "N"),
    "orientation": ("--orientation", None),
    "name": ("--name", "TEXT"),
    "has_gps": ("--gps/--no-gps", None),
    "min_score": ("--min-score", "SCORE"),
    "k": ("-k", "N"),
    "order": ("--order", None),
    "duplicates": ("--duplicates", None),
}
QUERY_FIELDS = tuple(_FLAGS)
_DEFAULTS = {"k": 10}  # a terminal shows fewer images than a page


class QueryCommand(click.Command):
    """A command with an option for each field of a query, added on first use.

    The list of commands thus needs no pydantic, whose import takes longer than everything else.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        names = [parameter.name for parameter in self.params]
        if QUERY_FIELDS[0] not in names:
            end = names.index("not_terms") + 1
            self.params[end:end] = query_options()
        return super().get_params(ctx)


def query_options() -> list[click.Option]:
    from image_finder.components.search.query import FilterFields, ResultFields

    fields = {**FilterFields.model_fields, **ResultFields.model_fields}
    return [_option(name, fields[name]) for name in _FLAGS]


def _completed(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Labels of folders or names of cameras of the library, for a shell that completes a command line."""
    from image_finder.components.errors import FinderError
    from image_finder.components.index.index import VectorIndex
    from image_finder.components.search.filters import facets

    if incomplete.startswith(("/", "~", ".")):
        return [CompletionItem(incomplete, type="dir")]
    try:
        root = index_of(context.params.get("library"), context.params.get("index_path"))
        found = facets(VectorIndex.open(root, verify=False).items)
    except (FinderError, click.UsageError):
        return []
    values = [each.value for each in (found.folders if parameter.name == "folders" else found.cameras)]
    # bash inserts a completion as it is, other shells quote it.
    in_bash = os.environ.get("_IMAGE_FINDER_COMPLETE", "").startswith("bash")
    return [
        CompletionItem(re.sub(r"([^\w@%+=:,./-])", r"\\\1", value) if in_bash else value)
        for value in values
        if value.startswith(incomplete)
    ]


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
        shell_complete=_completed if name in {"folders", "cameras"} else None,
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

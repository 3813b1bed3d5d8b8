"""Command `image-finder info`: what a library holds, which model indexed it, and where data is stored."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.app.commands.options import index_of, index_option, library_option
from image_finder.components.app.error_boundary import EMPTY_LIBRARY, shown_to_user
from image_finder.components.text import aligned, listed, shown_path, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from image_finder.components.app.index_info import IndexInfo


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder info\n"
    "  image-finder info --index /srv/photos/index --json\n"
    "  image-finder info --paths                    where data is stored; to uninstall, delete the home",
)
@library_option
@index_option
@click.option("--paths", "only_paths", is_flag=True, help="Print only the paths of stored data; needs no library.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, with every failure.")
def info(*, library: Path | None, index_path: Path | None, only_paths: bool, as_json: bool) -> None:
    """Show folders, images, failures and model, and stored data."""
    with shown_to_user():
        from image_finder.components.app.stored_data import stored_data

        stored = stored_data(*(path.expanduser().resolve() for path in (library, index_path) if path))
        if only_paths:
            click.echo(_json_of(stored) if as_json else _path_text(stored))
            return

        from image_finder.components.app.index_info import index_info

        found = index_info(index_of(library, index_path).resolve(), stored)
        click.echo(found.model_dump_json(indent=2) if as_json else _info_text(found))


def _json_of(stored: dict[Path, str]) -> str:
    return json.dumps({str(path): what for path, what in stored.items()}, indent=2)


def _path_text(stored: "Mapping[str, str] | Mapping[Path, str]") -> str:
    return aligned([(shown_path(str(path)), what) for path, what in stored.items()])


def _info_text(found: "IndexInfo") -> str:
    lines = [
        f"index      {shown_path(found.index)}, generation {found.generation}, published {found.published_at}",
        f"images     {found.images:,}",
    ]
    if found.indexing is not None:
        lines.append(f"indexing   {found.indexing.text()}")
    if not found.images:
        lines.append(f"  {EMPTY_LIBRARY}")
    if found.recall_at_10 is not None:
        lines.append(f"search     {found.kind}, finds {found.recall_at_10:.1%} of the 10 nearest images of a text")
    for folder, count in found.folders.items():
        label = f"  (--folder {_shell_word(found.labels[folder])})" if found.labels[folder] else ""
        lines.append(f"  {count:>9,}  {shown_path(folder)}{label}")
    lines.append(f"bundle     {found.bundle[:16]}, {_origin(found)}, {shown_path(found.bundle_path)}")
    if found.bundle_dim:
        lines.append(f"  {found.bundle_dim} dimensions, {found.bundle_mb:,.0f} MB{_speed(found)}")
    if found.newer_bundle:
        lines.append(f"  A newer bundle is available: {found.newer_bundle[:16]}. Use it with: image-finder index")
    if found.pending:
        lines.append(f"pending    {found.pending}")
    lines.append(f"failed     {len(found.failed):,}")
    lines += [f"  {each}" for each in listed(found.failed)]
    lines += ["stored", *(f"  {line}" for line in _path_text(found.stored).splitlines())]
    return "\n".join(lines)


def _origin(found: "IndexInfo") -> str:
    if found.imported is not None:
        restricted = ", not for commercial use" if found.imported.non_commercial else ""
        return f"imported from {visible(found.imported.source)} (licence {visible(found.imported.licence)}{restricted})"
    if not found.bundle_dataset:
        return "absent"
    return (
        f"{'the starter model, ' if found.starter else ''}trained on {found.bundle_dataset} {found.bundle_data_version}"
    )


def _speed(found: "IndexInfo") -> str:
    if (model := found.imported) is None:
        return ""
    return f"; when imported {model.image_ms:.1f} ms an image, {model.text_ms:.1f} ms a text on {model.threads} threads"


def _shell_word(label: str) -> str:
    shown = shown_path(label)
    return shlex.quote(label) if shown == label else shown

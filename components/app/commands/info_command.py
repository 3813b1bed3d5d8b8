"""Command `image-finder info`: what a library holds and which model indexed it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.app.error_boundary import EMPTY_LIBRARY, shown_to_user
from image_finder.components.home import home_root
from image_finder.components.text import shown_path, visible

if TYPE_CHECKING:
    from image_finder.components.search.library_info import IndexInfo

_LISTED_FAILURES = 20
_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog="\b\nExamples:\n  image-finder info\n  image-finder info --index /srv/photos/index --json",
)
@click.option("--library", type=_FOLDER, help="Folder of the library.  [default: library in the home]")
@click.option("--index", "index_path", type=_FOLDER, help="Folder of an index, instead of a library.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, with every failure.")
def info(*, library: Path | None, index_path: Path | None, as_json: bool) -> None:
    """Show folders, images, failures and the model of a library."""
    if library and index_path:
        raise click.UsageError("--library and --index exclude each other")
    with shown_to_user():
        from image_finder.components.app.champion_index import pending_change
        from image_finder.components.library.library import default_index
        from image_finder.components.search.library_info import index_info

        path = (index_path or (library.expanduser() / "index" if library else default_index())).resolve()
        found = index_info(path, default_bundles=home_root() / "bundles")
        if (pending := pending_change(path)) is not None:
            found = found.model_copy(update={"pending": pending.text()})
        click.echo(found.model_dump_json(indent=2) if as_json else _info_text(found))


def _info_text(found: "IndexInfo") -> str:
    lines = [
        f"index      {shown_path(found.index)}, generation {found.generation}, published {found.published_at}",
        f"images     {found.images:,}",
    ]
    if not found.images:
        lines.append(f"  {EMPTY_LIBRARY}")
    if found.recall_at_10 is not None:
        lines.append(f"search     {found.kind}, finds {found.recall_at_10:.1%} of the 10 nearest images of a text")
    for folder, count in found.folders.items():
        label = f"  (--folder {_shell_word(found.labels[folder])})" if found.labels[folder] else ""
        lines.append(f"  {count:>9,}  {shown_path(folder)}{label}")
    starter = "the starter model, " if found.starter else ""
    trained = f"trained on {found.bundle_dataset} {found.bundle_data_version}" if found.bundle_dataset else "absent"
    lines.append(f"bundle     {found.bundle[:16]}, {starter}{trained}, {shown_path(found.bundle_path)}")
    if found.newer_bundle:
        lines.append(f"  A newer bundle is available: {found.newer_bundle[:16]}. Use it with: image-finder index")
    if found.pending:
        lines.append(f"pending    {found.pending}")
    lines.append(f"failed     {len(found.failed):,}")
    shown = list(found.failed.items())[:_LISTED_FAILURES]
    lines += [f"  {shown_path(path)}: {visible(reason)}" for path, reason in shown]
    if (more := len(found.failed) - _LISTED_FAILURES) > 0:
        lines.append(f"  and {more:,} more; --json lists them all")
    return "\n".join(lines)


def _shell_word(label: str) -> str:
    shown = shown_path(label)
    return shlex.quote(label) if shown == label else shown

"""Command `image-finder info`: what a library or an index holds, and with which model it was made."""

import shlex
from pathlib import Path

import click

from image_finder.components.app.error_boundary import EMPTY_LIBRARY, shown_to_user
from image_finder.components.home import default_index, default_library, home_root
from image_finder.components.text import shown_path, visible

_LISTED_FAILURES = 20
_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog="\b\nExamples:\n  image-finder info\n  image-finder info --index /srv/photos/index --json",
)
@click.option("--library", type=_FOLDER, help="Folder of a library.  [default: library in the home]")
@click.option("--index", "index_path", type=_FOLDER, help="Folder of an index, instead of a library.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with every failure.")
def info(*, library: Path | None, index_path: Path | None, as_json: bool) -> None:
    """Show what can be searched: folders, images, failures, and the model it was indexed with."""
    if library and index_path:
        raise click.UsageError("--library and --index exclude each other")
    with shown_to_user():
        from image_finder.components.app.champion_index import pending_change
        from image_finder.components.search.library_info import index_info

        if index_path is None and library is None and not (default_library() / "index").is_dir():
            index_path = default_index().path
        place = index_path or (library or default_library()).expanduser() / "index"
        found = index_info(place.resolve(), default_bundles=home_root() / "bundles")
        if (pending := pending_change(place.resolve())) is not None:
            found = found.model_copy(update={"pending": pending.text()})
        if as_json:
            click.echo(found.model_dump_json(indent=2))
            return
        click.echo(
            f"index      {shown_path(found.index)}, generation {found.generation}, published {found.published_at}"
        )
        click.echo(f"images   {found.images:,}")
        if not found.images:
            click.echo(f"  {EMPTY_LIBRARY}")
        if found.recall_at_10 is not None:
            click.echo(f"search     {found.kind}, finds {found.recall_at_10:.1%} of the 10 nearest images of a text")
        for folder, count in found.folders.items():
            label = f"  (--folder {_word(found.labels[folder])})" if found.labels[folder] else ""
            click.echo(f"  {count:>9,}  {shown_path(folder)}{label}")
        starter = "the starter model, " if found.starter else ""
        trained = f"trained on {found.bundle_dataset} {found.bundle_data_version}" if found.bundle_dataset else "absent"
        click.echo(f"bundle     {found.bundle[:16]}, {starter}{trained}, {shown_path(found.bundle_path)}")
        if found.newer_bundle:
            click.echo(f"  a newer bundle was published: {found.newer_bundle[:16]}; image-finder index takes it")
        if found.pending:
            click.echo(f"pending    {found.pending}")
        click.echo(f"failed     {len(found.failed):,}")
        for path, reason in list(found.failed.items())[:_LISTED_FAILURES]:
            click.echo(f"  {shown_path(path)}: {visible(reason)}")
        if (more := len(found.failed) - _LISTED_FAILURES) > 0:
            click.echo(f"  and {more:,} more; --json lists them all")


def _word(label: str) -> str:
    """A label as one word of a shell."""
    shown = shown_path(label)
    return shlex.quote(label) if shown == label else shown

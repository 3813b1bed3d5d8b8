"""Command `image-finder index`: folders of images into a library that can be searched, and keeps it fresh."""

import gc
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, Unpack, get_args

import click

from image_finder.components.app.error_boundary import EMPTY_LIBRARY, shown_to_user
from image_finder.components.home import default_library, home_root
from image_finder.components.text import shown_path, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from image_finder.components.library.indexer import IndexOptions, IndexSummary
    from image_finder.components.library.library import Library
    from image_finder.components.library.watch import Due

_LISTED_FAILURES = 20
_FOLDER = click.Path(path_type=Path)
TIER_VARIABLE = "IMAGE_FINDER_TIER"
RESCAN_VARIABLE = "IMAGE_FINDER_RESCAN_S"
RESCAN_S = 600.0  # looking through 100,000 unchanged images takes about 4 s
Tier: TypeAlias = Literal["auto", "exact", "hnsw", "ivfpq"]


class _Options(TypedDict):
    folders: tuple[Path, ...]
    library: Path | None
    bundle: Path | None
    forget: tuple[Path, ...]
    tier: "Tier"
    dry_run: bool
    prune: bool
    watching: bool
    rescan_s: float
    as_json: bool


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder index ~/Images /mnt/photos     add folders, or bring them up to date\n"
    "  image-finder index                            bring all folders of the library up to date\n"
    "  image-finder index --watch                    and keep them so until Ctrl-C\n"
    "  image-finder index --forget /mnt/photos       leave a folder out from now on\n"
    "  image-finder index --prune                    images that were kept are gone for good"
)
@click.argument("folders", nargs=-1, metavar="[DIR]...", type=_FOLDER)
@click.option("--library", type=_FOLDER, help="Folder of the library.  [default: library in the home]")
@click.option(
    "--bundle",
    type=_FOLDER,
    help="Folder of the model.  [default: the one published last, else the library's own, else the starter]",
)
@click.option("--forget", multiple=True, type=_FOLDER, metavar="DIR", help="Remove a folder from the library.")
@click.option(
    "--tier",
    type=click.Choice(get_args(Tier)),
    default="auto",
    show_default=True,
    envvar=TIER_VARIABLE,
    show_envvar=True,
    help="Compare every image of the library with a query (exact), or those an approximate file names (extra `faiss`); "
    "auto: exact up to a million. Less than 4,096 are always compared.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; read no image, write nothing.")
@click.option(
    "--prune", is_flag=True, help="Also remove images that are kept because a disk is away or most are missing."
)
@click.option("--watch", "watching", is_flag=True, help="Go on until stopped: index what changes, as it changes.")
@click.option(
    "--rescan-s",
    type=click.FloatRange(min=1),
    default=RESCAN_S,
    show_default=True,
    envvar=RESCAN_VARIABLE,
    show_envvar=True,
    metavar="SECONDS",
    help="With --watch: look through all folders after so many seconds, whatever the system reports.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as JSON, with every failure; a line an update."
)
def index(**options: Unpack[_Options]) -> None:
    """Index the images below each DIR, so that `image-finder search` finds them.

    Unchanged files cost a look at their size and time; only new content is embedded. Stopped at any moment, the same
    command goes on where it was. Left out are hidden files and folders, folders of the system (recycle bins, thumbnails
    of disk stations, node_modules), links, and what files named .finderignore say, in the form of .gitignore.

    Images that are gone leave the index, with two exceptions until --prune: the disk that held them is not mounted, or
    at least half of the 20 or more images of a folder's tree are missing at once.
    """
    with shown_to_user():
        from image_finder.components.app.starter_bundle import starter_bundle
        from image_finder.components.configs import EmbeddingConfig, IndexTierConfig
        from image_finder.components.library.indexer import IndexOptions, update
        from image_finder.components.library.library import Library

        # Rows are tuples, a hundred thousand and more, in no cycles: the collector would go over them again and again.
        gc.set_threshold(100_000, 20, 20)
        library = Library(options["library"] or default_library())
        chosen = IndexOptions(
            config=EmbeddingConfig(tier=IndexTierConfig(kind=options["tier"])),
            bundle=options["bundle"],
            default_bundles=home_root() / "bundles",
            starter=starter_bundle,
            dry_run=options["dry_run"],
            prune=options["prune"],
            progress=not options["as_json"],
        )
        if options["dry_run"] and options["watching"]:
            raise click.UsageError("--dry-run and --watch exclude each other")
        if options["watching"]:
            _watch(library, chosen, options)
            return
        summary = update(library, options["folders"], chosen, forget=options["forget"], warn=_warn)
        click.echo(summary.model_dump_json() if options["as_json"] else summary_text(summary))


def _watch(library: "Library", chosen: "IndexOptions", options: _Options) -> None:
    """Update now and whenever something changed, until Ctrl-C or SIGTERM. A later update that fails is tried again."""
    from dataclasses import replace

    from image_finder.components.library.bundles import published_ns
    from image_finder.components.library.indexer import update
    from image_finder.components.library.watch import FolderWatch, View, view_of

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _interrupt(stop))
    seen = [View()]
    warnings = _Warnings()
    chosen = replace(chosen, on_scan=lambda scan: seen.__setitem__(0, view_of(scan)))
    summary = update(library, options["folders"], chosen, forget=options["forget"], warn=warnings.warn)
    click.echo(summary.model_dump_json() if options["as_json"] else summary_text(summary))
    bundles = chosen.default_bundles
    watch = FolderWatch(
        [Path(folder) for folder in summary.folders],
        leave_out=library.root,
        seen=lambda: seen[0],
        bundle_ns=lambda: published_ns(bundles) if bundles else 0,
        stop=stop,
        warn=_warn,
        rescan_s=options["rescan_s"],
    )
    n = len(summary.folders)
    click.echo(f"watching {n} folder{'' if n == 1 else 's'}; stop with Ctrl-C", err=True)
    # A bundle named at the start was adopted then: from now on a newer default one takes its place.
    again = replace(chosen, bundle=None, prune=False)
    try:
        _keep_updating(library, again, watch.causes(), warnings, as_json=options["as_json"])
    except KeyboardInterrupt:
        click.echo("stopped; what was indexed is kept", err=True)


def _keep_updating(
    library: "Library", options: "IndexOptions", causes: "Iterable[Due]", warnings: "_Warnings", *, as_json: bool
) -> None:
    from image_finder.components.errors import FinderError
    from image_finder.components.library.indexer import update

    for due in causes:
        warnings.next_update()
        try:
            summary = update(library, [], options, warn=warnings.warn)
        except FinderError as error:
            warnings.warn(f"{error}; tried again later")
            continue
        if as_json:
            watching: Literal["events", "polling"] = "polling" if due.polling else "events"
            click.echo(summary.model_copy(update={"watching": watching}).model_dump_json())
        elif summary.published or due.cause not in {"start", "interval"}:
            click.echo(summary_text(summary))


class _Warnings:
    """Prints a message once, until an update comes without it."""

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._now: set[str] = set()

    def next_update(self) -> None:
        self._before, self._now = self._now, set()

    def warn(self, message: str) -> None:
        if message not in self._before | self._now:
            _warn(message)
        self._now.add(message)


def _interrupt(stop: threading.Event) -> None:
    stop.set()
    raise KeyboardInterrupt


def _warn(message: str) -> None:
    click.echo(visible(message), err=True)


def summary_text(summary: "IndexSummary") -> str:
    """A summary for people: a line of counts, what was left out, up to 20 failures."""
    counts = [
        f"{getattr(summary, name):,} {name}"
        for name in ("added", "changed", "moved", "copied", "removed", "vanished", "unchanged")
        if getattr(summary, name) or name == "unchanged"
    ]
    if summary.dry_run:
        lines = [f"would be done: {', '.join(counts)} (new files that are copies are told when they are read)"]
    else:
        state = "" if summary.published else ", index unchanged"
        lines = [
            f"{', '.join(counts)}; {summary.embedded:,} embedded in {summary.seconds:,.1f} s",
            f"{summary.images:,} images can be searched in {shown_path(summary.library)}{state}",
        ]
    if not summary.images:
        lines.append(_nothing_found(summary))
    if summary.unsupported:
        from image_finder.components.library.unsupported import unsupported_text

        lines.append(f"Not supported: {unsupported_text(summary.unsupported)}")
    if summary.links_outside:
        lines.append(f"{summary.links_outside:,} links lead out of the folders and were not followed")
    lines += [f"not looked at: {each}" for each in _some(summary.unreadable)]
    if summary.cut:
        images = "1 image is" if len(summary.cut) == 1 else f"{len(summary.cut):,} images are"
        lines.append(f"{images} damaged at the end and indexed as far as readable:")
        lines += [f"  {each}" for each in _some(summary.cut)]
    if summary.failed:
        lines.append(f"{len(summary.failed):,} files cannot be read as images:")
        lines += [f"  {each}" for each in _some(summary.failed)]
        if (more := len(summary.failed) - _LISTED_FAILURES) > 0:
            lines.append(f"  and {more:,} more; --json lists them all")
    if summary.still_failing:
        lines.append(f"{summary.still_failing:,} broken files did not change and were not tried again; see info --json")
    return "\n".join(lines)


def _nothing_found(summary: "IndexSummary") -> str:
    folders = ", ".join(map(shown_path, summary.folders))
    if summary.dry_run:
        return f"no images found in {folders}"
    return f"The library is empty: no readable images in {folders}" if folders else EMPTY_LIBRARY


def _some(reasons: dict[str, str]) -> list[str]:
    return [f"{shown_path(path)}: {visible(reason)}" for path, reason in list(reasons.items())[:_LISTED_FAILURES]]

"""Command `image-finder index`: adds folders to the library and keeps it up to date."""

import contextlib
import gc
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, Unpack, get_args

import click

from image_finder.components.app.commands.options import FOLDER, library_option, rescan_option
from image_finder.components.app.error_boundary import EMPTY_LIBRARY, shown_to_user
from image_finder.components.home import default_library, home_root
from image_finder.components.phases import accounted
from image_finder.components.text import counted, listed, shown_path, visible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from image_finder.components.library.index_options import IndexOptions, IndexSummary
    from image_finder.components.library.library import Library
    from image_finder.components.library.watch import Due

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
    "  image-finder index ~/Photos /mnt/photos      add folders, or update them\n"
    "  image-finder index                           update all folders of the library\n"
    "  image-finder index --watch                   update whenever files change, until Ctrl-C\n"
    "  image-finder index --forget /mnt/photos      remove a folder from the library\n"
    "  image-finder index --prune                   remove missing images that were kept"
)
@click.argument("folders", nargs=-1, metavar="[DIR]...", type=FOLDER)
@library_option
@click.option(
    "--bundle",
    type=FOLDER,
    help='Folder of the model, or "starter".  [default: the newest bundle, else the library\'s, else the starter model]',
)
@click.option("--forget", multiple=True, type=FOLDER, metavar="DIR", help="Remove a folder from the library.")
@click.option(
    "--tier",
    type=click.Choice(get_args(Tier)),
    default="auto",
    show_default=True,
    envvar="IMAGE_FINDER_TIER",
    show_envvar=True,
    help="How vectors are searched. exact compares the query with every image; hnsw and ivfpq use an approximate index "
    "(extra `faiss`); auto is exact up to a million images. Fewer than 4,096 images are always compared exactly.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@click.option(
    "--prune",
    is_flag=True,
    help="Remove missing images at once. Without it, they are kept while their disk is not mounted or most are missing.",
)
@click.option("--watch", "watching", is_flag=True, help="Keep running and index changes as they happen.")
@rescan_option("Seconds between full scans with --watch. They find changes that the system does not report.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON. With --watch: one line per update.")
def index(**options: Unpack[_Options]) -> None:
    """Index folders of images so that they can be searched.

    Only new or changed images are embedded. An interrupted run resumes where it left off. Skipped are hidden files and
    folders, system folders (recycle bins, NAS thumbnails, node_modules), links, and paths listed in .finderignore
    files, which have the syntax of .gitignore.

    Deleted images leave the index, with two exceptions until --prune: their disk is not mounted, or at least half of a
    folder's images (20 or more) are missing at once.
    """
    with shown_to_user():
        from image_finder.components.app.starter_bundle import is_former_starter, starter_bundle
        from image_finder.components.bundle.bundle import BundleManifest
        from image_finder.components.configs import EmbeddingConfig, IndexTierConfig
        from image_finder.components.library.former_home import bring_up_to_date
        from image_finder.components.library.index_options import IndexOptions
        from image_finder.components.library.indexer import update
        from image_finder.components.library.library import Library

        # 100,000 or more row tuples without cycles: the collector would traverse them over and over.
        gc.set_threshold(100_000, 20, 20)
        if not options["library"] and not options["dry_run"]:
            bring_up_to_date(home_root())
        library = Library(options["library"] or default_library())
        bundle = options["bundle"]
        if bundle == Path("starter") and not bundle.is_dir():
            bundle = None if options["dry_run"] else starter_bundle().path
        settings = IndexOptions(
            config=EmbeddingConfig(tier=IndexTierConfig(kind=options["tier"])),
            bundle=bundle,
            default_bundles=home_root() / "bundles",
            starter=starter_bundle,
            dry_run=options["dry_run"],
            prune=options["prune"],
            progress=not options["as_json"],
        )
        if options["dry_run"] and options["watching"]:
            raise click.UsageError("--dry-run and --watch exclude each other")
        if options["watching"]:
            _watch(library, settings, options)
            return
        with _phases_of(settings):
            summary = update(library, options["folders"], settings, forget=options["forget"], warn=_warn)
        _print(summary, as_json=options["as_json"])
        if (
            summary.bundle
            and not summary.dry_run
            and is_former_starter(BundleManifest.read(library.bundles / summary.bundle[:16]))
        ):
            _warn(
                "this library has the starter model of another version; for that of this version, embed all images again "
                "with: image-finder index --bundle starter"
            )


def _watch(library: "Library", settings: "IndexOptions", options: _Options) -> None:
    """Update now and after each change, until Ctrl-C or SIGTERM. Retries later updates."""
    from dataclasses import replace

    from image_finder.components.library.bundles import published_ns
    from image_finder.components.library.indexer import update
    from image_finder.components.library.watch import FolderWatch, View, view_of

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _interrupt(stop))
    seen = [View()]
    warnings = _Warnings()
    settings = replace(settings, on_scan=lambda scan: seen.__setitem__(0, view_of(scan)))
    with _phases_of(settings):
        summary = update(library, options["folders"], settings, forget=options["forget"], warn=warnings.warn)
    _print(summary, as_json=options["as_json"])
    bundles = settings.default_bundles
    watch = FolderWatch(
        [Path(folder) for folder in summary.folders if "://" not in folder],  # a store reports no changes
        leave_out=library.root,
        seen=lambda: seen[0],
        bundle_ns=lambda: published_ns(bundles) if bundles else 0,
        stop=stop,
        warn=_warn,
        rescan_s=options["rescan_s"],
    )
    click.echo(f"watching {counted(len(summary.folders), 'folder')}; stop with Ctrl-C", err=True)
    # The first update adopted --bundle; later updates use a newer default bundle.
    later = replace(settings, bundle=None, prune=False)
    try:
        _keep_updating(library, later, watch.causes(), warnings, as_json=options["as_json"])
    except KeyboardInterrupt:
        click.echo("stopped; everything indexed so far is kept", err=True)


def _keep_updating(
    library: "Library", settings: "IndexOptions", causes: "Iterable[Due]", warnings: "_Warnings", *, as_json: bool
) -> None:
    from image_finder.components.errors import FinderError
    from image_finder.components.library.indexer import update

    for due in causes:
        warnings.next_update()
        try:
            with _phases_of(settings):
                summary = update(library, [], settings, warn=warnings.warn)
        except FinderError as error:
            warnings.warn(f"{error}; will retry")
            continue
        if as_json:
            watching: Literal["events", "polling"] = "polling" if due.polling else "events"
            summary = summary.model_copy(update={"watching": watching})
        if as_json or summary.published or due.cause not in {"start", "interval"}:
            _print(summary, as_json=as_json)


def _phases_of(settings: "IndexOptions") -> "AbstractContextManager[object]":
    return accounted(keep_short=False) if settings.progress else contextlib.nullcontext()


def _print(summary: "IndexSummary", *, as_json: bool) -> None:
    click.echo(summary.model_dump_json() if as_json else summary_text(summary))


class _Warnings:
    """Prints a message once, and again only after an update without it."""

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
    if summary.dry_run:
        lines = [_planned(summary)]
    else:
        counts = [
            f"{getattr(summary, name):,} {name}"
            for name in ("added", "changed", "moved", "copied", "removed", "vanished", "unchanged")
            if getattr(summary, name) or name == "unchanged"
        ]
        state = "" if summary.published else ", index unchanged"
        lines = [
            f"{', '.join(counts)}; {summary.embedded:,} embedded in {summary.seconds:,.1f} s",
            f"{counted(summary.images, 'image')} searchable in {shown_path(summary.library)}{state}",
        ]
    if not summary.images:
        lines.append(_nothing_found(summary))
    if summary.unsupported:
        from image_finder.components.library.unsupported import unsupported_text

        lines.append(f"Not supported: {unsupported_text(summary.unsupported)}")
    if summary.links_outside:
        lines.append(f"Skipped {counted(summary.links_outside, 'link')} to paths outside the folders")
    lines += [f"Not scanned: {each}" for each in listed(summary.unreadable)]
    if summary.cut:
        lines.append(f"{counted(len(summary.cut), 'image')} truncated, indexed as far as readable:")
        lines += [f"  {each}" for each in listed(summary.cut)]
    if summary.failed:
        lines.append(f"{counted(len(summary.failed), 'file')} could not be read:")
        lines += [f"  {each}" for each in listed(summary.failed)]
    if summary.still_failing:
        skipped = counted(summary.still_failing, "unreadable file")
        lines.append(f"Skipped {skipped} (unchanged since the last attempt); see: image-finder info --json")
    return "\n".join(lines)


def _planned(summary: "IndexSummary") -> str:
    verbs = {"added": "add", "changed": "update", "moved": "move", "copied": "copy", "removed": "remove"}
    planned = [
        f"{verb} {counted(getattr(summary, name), 'image')}" for name, verb in verbs.items() if getattr(summary, name)
    ]
    note = " (copies are detected while reading)" if summary.added else ""
    return f"Would {', '.join(planned) or 'change nothing'}; {summary.unchanged:,} unchanged{note}"


def _nothing_found(summary: "IndexSummary") -> str:
    folders = ", ".join(map(shown_path, summary.folders))
    if summary.dry_run:
        return f"No images found in {folders}"
    return f"The library is empty: no readable images in {folders}" if folders else EMPTY_LIBRARY

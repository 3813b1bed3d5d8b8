"""Command `image-finder search`: words, images or both to the images nearest to them."""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import click

from image_finder.components.app.error_boundary import EMPTY_LIBRARY, shown_to_user
from image_finder.components.home import default_index
from image_finder.components.text import shown_path, visible

if TYPE_CHECKING:
    from PIL import Image

    from image_finder.components.records.search import Hit, SearchResult
    from image_finder.components.search.finder import Finder
    from image_finder.components.search.query import Query

_WEIGHTED = re.compile(r"(.*)\^(\d+\.?\d*|\.\d+)", re.DOTALL)
_ONE_FILE = {".jpg", ".jpeg", ".png"}
_FOLDER = click.Path(path_type=Path)
_GOOD, _LESS_CERTAIN = "Good matches", "Less certain"
_DAY = click.DateTime(["%Y-%m-%d"])


class _Options(TypedDict):
    """What stands behind the options; their help says what it means."""

    also: tuple[str, ...]
    images: tuple[str, ...]
    like: tuple[str, ...]
    not_terms: tuple[str, ...]
    folders: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    cameras: tuple[str, ...]
    min_px: int
    orientation: str | None
    has_gps: bool | None
    min_score: float | None
    k: int
    page: int
    duplicates: Literal["fold", "show"]
    explanations: Path | None
    explain_kind: Literal["query", "attention"]
    library: Path | None
    index_path: Path | None
    bundle_path: Path | None
    as_json: bool


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder search a dog running on the beach\n"
    "  image-finder search 'two cups of coffee' -k 3 --json\n"
    "  image-finder search a beach --not people --since 2023-06-01 --min-px 1000\n"
    "  image-finder search at night --image bridge.jpg^2\n"
    "\nWeights: ^ and a number after any text, image or id, 1 without; 0.65 after those of --not. In the last "
    "example the image counts twice as much as the words."
)
@click.argument("words", nargs=-1, metavar="[TEXT]...")
@click.option("--also", multiple=True, metavar="TEXT", help="Another text that is wanted as well.")
@click.option("--image", "images", multiple=True, metavar="FILE", help="An image that is wanted.")
@click.option("--like", multiple=True, metavar="ID", help="An image of the index that is wanted.")
@click.option(
    "--not",
    "not_terms",
    multiple=True,
    metavar="TEXT",
    help="Rank images that show TEXT lower (repeatable). They are not removed: some may remain among the first hits.",
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    metavar="FOLDER",
    help="Only in this folder and below it: its path, or its label as info shows it.",
)
@click.option(
    "--since",
    type=_DAY,
    metavar="DAY",
    help="Taken on or after this day, e.g. 2024-06-01: by EXIF (the camera's local time), else by the file's modification time in this machine's time zone.",
)
@click.option("--until", type=_DAY, metavar="DAY", help="Taken on or before this day.")
@click.option("--camera", "cameras", multiple=True, metavar="NAME", help="Only of cameras with this in their name.")
@click.option("--min-px", type=int, default=0, metavar="N", help="Only with a shorter side of at least N pixels.")
@click.option("--orientation", type=click.Choice(["landscape", "portrait", "square"]), help="Only of this form.")
@click.option("--gps/--no-gps", "has_gps", default=None, help="Only with, or without, a place.")
@click.option("--min-score", type=float, metavar="SCORE", help="Only with at least this score.")
@click.option("-k", "k", type=int, default=10, show_default=True, help="How many images to show, at most 500.")
@click.option("--page", type=click.IntRange(min=1), default=1, metavar="N", help="The N-th page of k images.")
@click.option(
    "--duplicates",
    type=click.Choice(["fold", "show"]),
    default="fold",
    show_default=True,
    help="Show one of several near-duplicates (fold) or each (show).",
)
@click.option(
    "--explain",
    "explanations",
    type=_FOLDER,
    metavar="PATH",
    help="Write the images with the regions that raise their scores in colour, into this folder; the best one alone "
    "into a .jpg or .png. About a second per image. Terms of --not are not explained.",
)
@click.option(
    "--explain-kind",
    type=click.Choice(["query", "attention"]),
    default="query",
    show_default=True,
    help="What --explain colours: what raises the score, or (for experts) the weights of the attention pooling, which "
    "are equal for every query.",
)
@click.option(
    "--library", type=_FOLDER, help="Library to search.  [default: library in the home, see IMAGE_FINDER_HOME]"
)
@click.option("--index", "index_path", type=_FOLDER, help="Index to search, instead of a library.")
@click.option("--bundle", "bundle_path", type=_FOLDER, help="Folder of the model.  [default: the index's own]")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as a JSON object.")
def search(words: tuple[str, ...], **options: Unpack[_Options]) -> None:
    """Show the images that fit TEXT best, with their scores (cosine, -1 to 1) and files.

    Instead of TEXT or besides it, --image and --like name images. All that is wanted counts together.
    """
    with shown_to_user():
        from image_finder.components.search.finder import Finder  # here, so that --help needs no numpy

        query = _query(words, options)
        finder = Finder.open(_place(options), bundle=options["bundle_path"])
        if finder.bundle_manifest.starter:
            click.echo("with the starter model; 'image-finder info' says on what it was trained", err=True)
        query = _with_labels(query, finder)
        result = finder.search(query)
        if options["as_json"]:
            click.echo(result.model_dump_json(indent=2))
        else:
            _show(result)
        if not finder.index_manifest.count:
            raise click.ClickException(EMPTY_LIBRARY)
        _comment(result, query, options["page"])
        if options["explanations"]:
            kind = options["explain_kind"]
            _explain(result, options["explanations"], lambda hit: _overlay(finder, hit, query, kind))


def _place(options: _Options) -> Path:
    library, index = options["library"], options["index_path"]
    if library and index:
        raise click.UsageError("--library and --index name two places to search; give one of them")
    if place := library or index:
        return place
    choice = default_index()
    if choice.other:
        newer, older = shown_path(choice.path), shown_path(choice.other)
        click.echo(f"searching {newer}, published after {older}; --index names another", err=True)
    return choice.path


def _query(words: tuple[str, ...], options: _Options) -> "Query":
    from image_finder.components.search.query import Query

    text = " ".join(words)
    others = [
        *(_term("text", each) for each in options["also"]),
        *(_term("image", each) for each in options["images"]),
        *(_term("like", each) for each in options["like"]),
    ]
    # Alone, a text needs no weight, so a ^2 at its end is meant.
    first = [_term("text", text) if others else {"text": text}] if words else []
    since, until = options["since"], options["until"]
    return Query.of_terms(
        [*first, *others],
        [_term("text", each) for each in options["not_terms"]],
        since=since and since.date(),
        until=until and until.date(),
        folders=options["folders"],
        cameras=options["cameras"],
        min_px=options["min_px"],
        orientation=options["orientation"],
        has_gps=options["has_gps"],
        k=options["k"],
        offset=(options["page"] - 1) * options["k"],
        min_score=options["min_score"],
        duplicates=options["duplicates"],
    )


def _with_labels(query: "Query", finder: "Finder") -> "Query":
    """The query with the labels of the folders it names by their paths: those are for the shell, not for the API."""
    labels = tuple(finder.folder_label(folder) for folder in query.filters.folders)
    return query.model_copy(update={"filters": query.filters.model_copy(update={"folders": labels})})


def _term(kind: str, text: str) -> dict[str, Any]:
    """A term of a text, a file or an id, with the weight that may stand behind it."""
    from image_finder.components.search.search_options import image_bytes

    found = None if kind == "image" and Path(text).exists() else _WEIGHTED.fullmatch(text)
    what = found[1] if found else text
    weight = {"weight": float(found[2])} if found else {}
    return {kind: image_bytes(Path(what)) if kind == "image" else what, **weight}


def _show(result: "SearchResult") -> None:
    from image_finder.components.search.hits_table import hits_table

    if not result.hits:
        return
    heading, *lines = hits_table(result.hits).splitlines()
    n_good = sum(hit.good is True for hit in result.hits)
    if result.hits[0].good is not None:
        lines[n_good:n_good] = [_LESS_CERTAIN] if n_good < len(result.hits) else []
        lines[:0] = [_GOOD] if n_good else []
    click.echo("\n".join([heading, *lines]))


def _comment(result: "SearchResult", query: "Query", page: int) -> None:
    """Tell on stderr what the hits do not tell of themselves."""
    if not result.hits:
        if not result.candidates:
            click.echo("no image passes the filters", err=True)
        elif query.min_score is not None and page == 1:
            click.echo(f"none of {result.candidates:,} images scores {query.min_score:g} or more", err=True)
        else:
            click.echo(f"there are no images on page {page}", err=True)
        return
    if result.matches_well is False:
        click.echo("no good match; these are the closest images", err=True)
    if result.unmet:
        words = visible(", ".join(f"'{word}'" for word in result.unmet))
        click.echo(f"{words} never occurred in the training captions; results may be unrelated", err=True)
    for text in result.truncated:
        used, unused = visible(text.used), visible(text.unused)
        click.echo(f"the query is longer than the model reads; used '{used}', not used '{unused}'", err=True)
    if result.more:
        click.echo(f"more with --page {page + 1}", err=True)


def _overlay(finder: "Finder", hit: "Hit", query: "Query", kind: str) -> "tuple[Image.Image, bool]":
    """Overlay of a hit, and whether no region of it raises the score, so that nothing is coloured."""
    if kind == "attention":
        return finder.explain_pooling(hit.id), False
    explanation = finder.explain(hit.id, query)
    return explanation.overlay, not explanation.contributions.peak


def _explain(result: "SearchResult", path: Path, overlay_of: "Callable[[Hit], tuple[Image.Image, bool]]") -> None:
    """Write the overlays of the hits: of the first to a file, or of all to a folder."""
    import io

    from image_finder.components.errors import ImageError
    from image_finder.components.storage import write_bytes_atomically

    single = path.suffix.lower() in _ONE_FILE and not path.is_dir()
    n_written, n_plain = 0, 0
    for hit in result.hits[:1] if single else result.hits:
        target = path if single else path / f"{hit.rank:03d}-{hit.id}.jpg"
        try:
            overlay, plain = overlay_of(hit)
        except ImageError as error:
            click.echo(f"not explained: {visible(str(error))}", err=True)
            continue
        stream = io.BytesIO()
        overlay.save(stream, "PNG" if target.suffix.lower() == ".png" else "JPEG", quality=90)
        write_bytes_atomically(target, stream.getvalue())
        n_written, n_plain = n_written + 1, n_plain + plain
    if n_written:
        where = shown_path(path)
        what = where if single else f"{n_written} image{'s' * (n_written > 1)} in {where}"
        nothing = f"; {n_plain} without colour: no region raises the score" if n_plain else ""
        click.echo(f"explained: {what}{nothing}", err=True)

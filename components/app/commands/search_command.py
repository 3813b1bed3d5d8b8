"""Command `image-finder search`: finds images by texts, images or both."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import click

from image_finder.components.app.commands.hits_table import hits_table, terminal_columns
from image_finder.components.app.commands.options import (
    FOLDER,
    QUERY_FIELDS,
    QueryCommand,
    bundle_option,
    index_of,
    index_option,
    library_option,
)
from image_finder.components.app.error_boundary import EMPTY_LIBRARY, shown_to_user
from image_finder.components.text import counted, shown_path, visible

if TYPE_CHECKING:
    from image_finder.components.records.search import Hit, SearchResult
    from image_finder.components.search.finder import Finder
    from image_finder.components.search.query import Query

_WEIGHTED = re.compile(r"(.*)\^(\d+\.?\d*|\.\d+)", re.DOTALL)
_ONE_FILE = {".jpg", ".jpeg", ".png"}


class _Options(TypedDict):
    """Options of the command itself. Those of the query (see options.py) come in addition."""

    also: tuple[str, ...]
    images: tuple[str, ...]
    like: tuple[str, ...]
    not_terms: tuple[str, ...]
    page: int
    explanations: Path | None
    explain_kind: Literal["query", "attention"]
    library: Path | None
    index_path: Path | None
    bundle: Path | None
    as_json: bool
    only_paths: bool
    nul: bool
    sheet: Path | None
    opening: bool
    preview: bool


@click.command(
    cls=QueryCommand,
    epilog="\b\nExamples:\n"
    "  image-finder search a dog running on the beach\n"
    "  image-finder search 'two cups of coffee' -k 3 --json\n"
    "  image-finder search a beach --not people --since 2023-06-01 --min-px 1000\n"
    "  image-finder search at night --image bridge.jpg^2\n"
    "  image-finder search a red car -k 50 -0 | xargs -0 ls -l\n"
    "  image-finder search a red car -k 50 --html cars.html --open\n"
    "\nAppend ^ and a number to a text, image or id to set its weight. The default is 1, or 0.65 for --not. In the "
    "fourth example the image counts twice as much as the text.",
)
@click.argument("words", nargs=-1, metavar="[TEXT]...")
@click.option("--also", multiple=True, metavar="TEXT", help="Also match this text (repeatable).")
@click.option("--image", "images", multiple=True, metavar="FILE", help="Find images like FILE (repeatable).")
@click.option("--like", multiple=True, metavar="ID", help="Find images like the indexed image ID (repeatable).")
@click.option(
    "--not",
    "not_terms",
    multiple=True,
    metavar="TEXT",
    help="Rank images that show TEXT lower (repeatable). They are not removed and may remain among the first hits.",
)
@click.option("--page", type=click.IntRange(min=1), default=1, metavar="N", help="Show page N.")
@click.option(
    "--explain",
    "explanations",
    type=FOLDER,
    metavar="PATH",
    help="Write images with the matching regions in colour. PATH is a folder for all hits, or a .jpg or .png file for "
    "the best one. Takes about a second per image. Terms of --not are not explained.",
)
@click.option(
    "--explain-kind",
    type=click.Choice(["query", "attention"]),
    default="query",
    show_default=True,
    help="What --explain colours. query: regions that raise the score; attention: weights of the attention pooling, "
    "which do not depend on the query.",
)
@library_option
@index_option
@bundle_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--paths", "only_paths", is_flag=True, help="Print paths only, one per line.")
@click.option("-0", "nul", is_flag=True, help="Print paths only, each ended by a NUL character, for xargs -0.")
@click.option(
    "--html", "sheet", type=FOLDER, metavar="FILE", help="Also write a contact sheet: a page with the images."
)
@click.option("--open", "opening", is_flag=True, help="Open the contact sheet of --html, else the best image.")
@click.option("--preview", is_flag=True, help="Show the images in the terminal, above their list.")
@click.pass_context
def search(context: click.Context, words: tuple[str, ...], **options: Unpack[_Options]) -> None:
    """Find the images that best match a text or an image.

    Prints rank, score (cosine, -1 to 1), id, caption and path of each image. TEXT, --also, --image and --like are combined
    into one query.
    """
    with shown_to_user():
        from image_finder.components.search.finder import Finder  # --help must not import numpy

        _require_compatible(options)
        query = _query(words, options, context.params)
        finder = Finder.open(index_of(options["library"], options["index_path"]), bundle=options["bundle"])
        if finder.bundle_manifest.starter:
            click.echo("using the starter model (details: image-finder info)", err=True)
        query = _with_labels(query, finder)
        result = finder.search(query)
        _show(finder, result, options)
        if not finder.index_manifest.count:
            raise click.ClickException(EMPTY_LIBRARY)
        _comment(result, query, options["page"])
        if options["explanations"]:
            _explain(finder, result.hits, query, options["explanations"], options["explain_kind"])
        if options["sheet"]:
            _sheet(finder, result, " ".join(words) or "Similar images", options["sheet"])
        if options["opening"]:
            _open(options["sheet"], result.hits)


def _query(words: tuple[str, ...], options: _Options, values: Mapping[str, Any]) -> "Query":
    from image_finder.components.search.query import Query

    text = " ".join(words)
    others = [
        *(_term("text", each) for each in options["also"]),
        *(_term("image", each) for each in options["images"]),
        *(_term("like", each) for each in options["like"]),
    ]
    # A single text needs no weight, so a ^2 at its end belongs to the text.
    first = [_term("text", text) if others else {"text": text}] if words else []
    fields = {name: values[name] for name in QUERY_FIELDS if values[name] is not None}
    return Query.of_terms(
        [*first, *others],
        [_term("text", each) for each in options["not_terms"]],
        offset=(options["page"] - 1) * values["k"],
        **fields,
    )


def _with_labels(query: "Query", finder: "Finder") -> "Query":
    """The query with folder paths, which only the command line accepts, as labels."""
    labels = tuple(finder.folder_label(folder) for folder in query.filters.folders)
    return query.model_copy(update={"filters": query.filters.model_copy(update={"folders": labels})})


def _term(kind: str, text: str) -> dict[str, Any]:
    """A term of a text, a file or an id, with its weight if it ends in one."""
    from image_finder.components.search.search_options import image_bytes

    found = None if kind == "image" and Path(text).exists() else _WEIGHTED.fullmatch(text)
    value = found[1] if found else text
    weight = {"weight": float(found[2])} if found else {}
    return {kind: image_bytes(Path(value)) if kind == "image" else value, **weight}


def _show(finder: "Finder", result: "SearchResult", options: _Options) -> None:
    """Print the hits in the form that the options name."""
    if options["as_json"]:
        click.echo(result.model_dump_json(indent=2))
    elif options["only_paths"] or options["nul"]:
        end = b"\0" if options["nul"] else b"\n"
        on_terminal = not options["nul"] and sys.stdout.isatty()
        paths = [shown_path(hit.uri).encode() if on_terminal else finder.engine.raw_path(hit.id) for hit in result.hits]
        click.echo(b"".join(path + end for path in paths), nl=False)
    elif result.hits:
        columns = terminal_columns()
        if options["preview"] and columns is not None:
            from image_finder.components.app.commands.preview import show_preview

            show_preview(finder.engine, result.hits, columns)
        click.echo(hits_table(result.hits, columns))


def _require_compatible(options: _Options) -> None:
    given = {
        "--json": options["as_json"],
        "--paths": options["only_paths"] or options["nul"],
        "--preview": options["preview"],
    }
    names = [name for name, value in given.items() if value]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} exclude each other")
    if options["preview"] and terminal_columns() is None:
        raise click.UsageError("--preview draws images on a terminal, and standard output is none; use --html FILE")


def _sheet(finder: "Finder", result: "SearchResult", title: str, path: Path) -> None:
    from image_finder.components.app.contact_sheet import contact_sheet
    from image_finder.components.storage import write_text_atomically

    page = contact_sheet(finder.engine, result.hits, title=title, notes=_notes(result))
    write_text_atomically(path, page)
    click.echo(f"wrote {counted(len(result.hits), 'image')} to {shown_path(path)}", err=True)


def _open(page: Path | None, hits: "Sequence[Hit]") -> None:
    """Open the contact sheet, else the best image, in the program that the system has for it."""
    target = str(page.absolute()) if page else hits[0].uri if hits else ""
    if target and click.launch(target) != 0:
        raise click.ClickException(f"no program opens {shown_path(target)}; on Linux, xdg-open must be installed")


def _comment(result: "SearchResult", query: "Query", page: int) -> None:
    if not result.hits:
        if not result.candidates:
            click.echo("no image matches the filters", err=True)
        elif query.min_score is not None and page == 1:
            click.echo(f"none of {counted(result.candidates, 'image')} scores {query.min_score:g} or more", err=True)
        else:
            click.echo(f"no images on page {page}", err=True)
        return
    for note in _notes(result):
        click.echo(note, err=True)
    if result.more:
        click.echo(f"more images: --page {page + 1}", err=True)


def _notes(result: "SearchResult") -> list[str]:
    """What limits the trust in an answer, a line each."""
    notes = ["no good match; these are the closest images"] if result.matches_well is False else []
    if result.unmet:
        words = visible(", ".join(f"'{word}'" for word in result.unmet))
        notes.append(f"{words} never occurred in the training captions; results may be unrelated")
    for text in result.truncated:
        used, unused = visible(text.used), visible(text.unused)
        notes.append(f"the query is too long for the model; used '{used}', ignored '{unused}'")
    return notes


def _explain(finder: "Finder", hits: "Sequence[Hit]", query: "Query", path: Path, kind: str) -> None:
    """Write the overlay of the first hit to a file, or those of all hits to a folder."""
    import io

    from image_finder.components.errors import ImageError
    from image_finder.components.storage import write_bytes_atomically

    single = path.suffix.lower() in _ONE_FILE and not path.is_dir()
    n_written, n_plain = 0, 0
    for hit in hits[:1] if single else hits:
        target = path if single else path / f"{hit.rank:03d}-{hit.id}.jpg"
        try:
            if kind == "attention":
                overlay, is_plain = finder.explain_pooling(hit.id), False
            else:
                explanation = finder.explain(hit.id, query)
                overlay, is_plain = explanation.overlay, not explanation.contributions.peak
        except ImageError as error:
            click.echo(f"could not explain: {visible(str(error))}", err=True)
            continue
        stream = io.BytesIO()
        overlay.save(stream, "PNG" if target.suffix.lower() == ".png" else "JPEG", quality=90)
        write_bytes_atomically(target, stream.getvalue())
        n_written, n_plain = n_written + 1, n_plain + is_plain
    if n_written:
        where = shown_path(path)
        written = where if single else f"{counted(n_written, 'image')} to {where}"
        nothing = f"; {n_plain} without colour: no region raises the score" if n_plain else ""
        click.echo(f"wrote {written}{nothing}", err=True)

"""Command `image-finder search`: finds images by texts, images or both."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import click

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
from image_finder.components.text import aligned, counted, shown_path, visible

if TYPE_CHECKING:
    from image_finder.components.records.search import Hit, SearchResult
    from image_finder.components.search.finder import Finder
    from image_finder.components.search.query import Query

_WEIGHTED = re.compile(r"(.*)\^(\d+\.?\d*|\.\d+)", re.DOTALL)
_ONE_FILE = {".jpg", ".jpeg", ".png"}
_GOOD, _LESS_CERTAIN = "Good matches", "Less certain"


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


@click.command(
    cls=QueryCommand,
    epilog="\b\nExamples:\n"
    "  image-finder search a dog running on the beach\n"
    "  image-finder search 'two cups of coffee' -k 3 --json\n"
    "  image-finder search a beach --not people --since 2023-06-01 --min-px 1000\n"
    "  image-finder search at night --image bridge.jpg^2\n"
    "\nAppend ^ and a number to a text, image or id to set its weight. The default is 1, or 0.65 for --not. In the last "
    "example the image counts twice as much as the text.",
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
@click.pass_context
def search(context: click.Context, words: tuple[str, ...], **options: Unpack[_Options]) -> None:
    """Find the images that best match a text or an image.

    Prints score (cosine, -1 to 1), id and file of each image. TEXT, --also, --image and --like are combined into one
    query.
    """
    with shown_to_user():
        from image_finder.components.search.finder import Finder  # --help must not import numpy

        query = _query(words, options, context.params)
        finder = Finder.open(index_of(options["library"], options["index_path"]), bundle=options["bundle"])
        if finder.bundle_manifest.starter:
            click.echo("using the starter model (details: image-finder info)", err=True)
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
            _explain(finder, result.hits, query, options["explanations"], options["explain_kind"])


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


def hits_table(hits: "Sequence[Hit]") -> str:
    """Rank, score, id, file, number of similar images and first caption of each hit, with a heading."""
    columns: dict[str, list[str]] = {
        "rank": [str(hit.rank) for hit in hits],
        "score": [f"{hit.score:.4f}" for hit in hits],
        "id": [hit.id for hit in hits],
        "image": [shown_path(hit.uri) for hit in hits],
        "similar": [f"+{len(hit.duplicates)} similar" if hit.duplicates else "" for hit in hits],
        "caption": [" ".join(hit.captions[0].split()) if hit.captions else "" for hit in hits],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells) or name not in {"similar", "caption"}}
    return aligned([list(shown), *zip(*shown.values(), strict=True)])


def _show(result: "SearchResult") -> None:
    if not result.hits:
        return
    heading, *lines = hits_table(result.hits).splitlines()
    n_good = sum(hit.good is True for hit in result.hits)
    if result.hits[0].good is not None:
        lines[n_good:n_good] = [_LESS_CERTAIN] if n_good < len(result.hits) else []
        lines[:0] = [_GOOD] if n_good else []
    click.echo("\n".join([heading, *lines]))


def _comment(result: "SearchResult", query: "Query", page: int) -> None:
    if not result.hits:
        if not result.candidates:
            click.echo("no image matches the filters", err=True)
        elif query.min_score is not None and page == 1:
            click.echo(f"none of {counted(result.candidates, 'image')} scores {query.min_score:g} or more", err=True)
        else:
            click.echo(f"no images on page {page}", err=True)
        return
    if result.matches_well is False:
        click.echo("no good match; these are the closest images", err=True)
    if result.unmet:
        words = visible(", ".join(f"'{word}'" for word in result.unmet))
        click.echo(f"{words} never occurred in the training captions; results may be unrelated", err=True)
    for text in result.truncated:
        used, unused = visible(text.used), visible(text.unused)
        click.echo(f"the query is too long for the model; used '{used}', ignored '{unused}'", err=True)
    if result.more:
        click.echo(f"more images: --page {page + 1}", err=True)


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

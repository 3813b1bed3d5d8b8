"""Command `image-finder search`: a sentence to the pictures nearest to it."""

import json
from pathlib import Path

import click

from components.app.paths import published_index
from components.app.rim import shown_to_user


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder search a dog running on the beach\n"
    "  image-finder search 'two cups of coffee' -k 3 --json"
)
@click.argument("words", nargs=-1, required=True, metavar="TEXT")
@click.option(
    "--index",
    "index_path",
    type=click.Path(path_type=Path),
    help="Folder of the index.  [default: index in the home, see IMAGE_FINDER_HOME]",
)
@click.option(
    "--bundle", "bundle_path", type=click.Path(path_type=Path), help="Folder of the model.  [default: the index's own]"
)
@click.option("-k", "k", type=int, default=10, show_default=True, help="How many pictures to show, at most 1000.")
@click.option("--json", "as_json", is_flag=True, help="Print the hits as a JSON list.")
def search(words: tuple[str, ...], *, index_path: Path | None, bundle_path: Path | None, k: int, as_json: bool) -> None:
    """Show the pictures that fit TEXT best, with their scores (cosine, -1 to 1) and addresses."""
    with shown_to_user():
        from components.app.tables import hits_table  # here, so that --help needs no numpy
        from components.search.engine import SearchEngine

        hits = SearchEngine.open(index_path or published_index(), bundle_path).search(" ".join(words), k)
        if as_json:
            click.echo(json.dumps([hit.model_dump(mode="json") for hit in hits], indent=2, ensure_ascii=False))
        else:
            click.echo(hits_table(hits))

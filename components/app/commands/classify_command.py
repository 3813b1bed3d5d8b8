"""Command `image-finder classify`: ranks given labels by how well they fit images."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.app.error_boundary import shown_to_user
from image_finder.components.home import home_root
from image_finder.components.text import aligned, counted, shown_path, visible

if TYPE_CHECKING:
    from image_finder.components.bundle.bundle import Bundle
    from image_finder.components.search.labels import LabelScore

    Answer = tuple[Path, list[LabelScore] | str]  # labels, or why the image could not be read

_IMAGES_A_CALL = 16


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder classify photo.jpg --labels 'dog,cat,bicycle'\n"
    "  image-finder classify *.jpg --labels-file labels.txt --top 1 --json"
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option("--labels", metavar="A,B,...", help="Labels to compare, separated by commas.")
@click.option(
    "--labels-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with one label per line, added to --labels.",
)
@click.option(
    "--bundle",
    "bundle_path",
    type=click.Path(path_type=Path),
    help="Folder of the model.  [default: the newest bundle, else the starter model]",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Labels to show per image.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per image.")
def classify(
    images: tuple[Path, ...],
    *,
    labels: str | None,
    labels_file: Path | None,
    bundle_path: Path | None,
    top: int,
    as_json: bool,
) -> None:
    """Show which of some labels fit each image best.

    The probabilities of the given labels add up to 1: they compare the labels, but do not say that any of them is right.
    Include likely alternatives. The score is a cosine, as in a search.
    """
    with shown_to_user():
        names = _labels(labels, labels_file)
        answers = []
        for answer in _answers(_bundle(bundle_path), images, names):
            answers.append(answer)
            if isinstance(answer[1], str):
                click.echo(answer[1], err=True)
        n_failed = sum(isinstance(found, str) for _, found in answers)
        if as_json:
            click.echo(_as_json(answers, top))
        elif n_failed < len(answers):
            click.echo(_as_table(answers, top))
        if n_failed:
            raise click.ClickException(f"could not read {n_failed} of {counted(len(answers), 'image')}")


def _labels(labels: str | None, path: Path | None) -> list[str]:
    from image_finder.components.errors import QueryError

    names = labels.split(",") if labels is not None else []
    if path is not None:
        try:
            names += [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise QueryError(f"could not read labels from {path} as UTF-8 text: {error}") from error
    return names


def _bundle(path: Path | None) -> "Bundle":
    """Bundle at path, else the newest published one, the current index's, or the starter."""
    from image_finder.components.app.starter_bundle import starter_bundle
    from image_finder.components.bundle.bundle import Bundle
    from image_finder.components.index.generations import is_published_root
    from image_finder.components.index.index import VectorIndex
    from image_finder.components.index.publish import default_bundle
    from image_finder.components.library.library import default_index

    if path is None:
        path = default_bundle(home_root() / "bundles")
    if path is None:
        index = default_index()
        if not is_published_root(index):
            return starter_bundle()
        path = Path(VectorIndex.open(index, verify=False).manifest.bundle_uri)
    return Bundle.open(path)


def _answers(bundle: "Bundle", images: tuple[Path, ...], labels: list[str]) -> Iterator["Answer"]:
    """Answers in the order of images, one batch in memory at a time."""
    from image_finder.components.bundle.encoder import OnnxEncoder
    from image_finder.components.errors import ImageError
    from image_finder.components.search.labels import Labels

    encoder = OnnxEncoder(bundle, device="cpu")
    known = Labels(encoder, labels)
    for start in range(0, len(images), _IMAGES_A_CALL):
        batch = images[start : start + _IMAGES_A_CALL]
        pixels, faults = [], {}
        for position, path in enumerate(batch):
            try:
                pixels.append(encoder.preprocess.load(path))
            except ImageError as error:
                faults[position] = visible(str(error))
        scored = iter(known.score(encoder.encode_image(pixels)))
        for position, path in enumerate(batch):
            yield path, faults[position] if position in faults else next(scored)


def _as_json(answers: "list[Answer]", top: int) -> str:
    objects = [
        {"image": str(path), "error": found}
        if isinstance(found, str)
        else {"image": str(path), "labels": [each.model_dump() for each in found[:top]]}
        for path, found in answers
    ]
    return json.dumps(objects, indent=2)  # ASCII: file names may hold unprintable characters


def _as_table(answers: "list[Answer]", top: int) -> str:
    rows = [
        (shown_path(path), each.label, f"{each.probability:.3f}", f"{each.score:.3f}")
        for path, found in answers
        if not isinstance(found, str)
        for each in found[:top]
    ]
    return aligned([("image", "label", "probability", "score"), *rows])

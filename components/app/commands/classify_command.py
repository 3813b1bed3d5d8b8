"""Command `image-finder classify`: which of some labels fit images best."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.app.error_boundary import shown_to_user
from image_finder.components.home import default_index, home_root
from image_finder.components.text import aligned, shown_path, visible

if TYPE_CHECKING:
    from image_finder.components.bundle.bundle import Bundle
    from image_finder.components.search.labels import LabelScore

    Answer = tuple[Path, list[LabelScore] | str]  # labels, or why the image cannot be read

_IMAGES_A_CALL = 16


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder classify photo.jpg --labels 'dog,cat,bicycle'\n"
    "  image-finder classify *.jpg --labels-file labels.txt --top 1 --json"
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option("--labels", metavar="A,B,...", help="What the images may show, with commas between.")
@click.option(
    "--labels-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file with one label on each line, in addition to --labels or instead.",
)
@click.option(
    "--bundle",
    "bundle_path",
    type=click.Path(path_type=Path),
    help="Folder of the model.  [default: the published one, else the starter]",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many labels to show.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with an object for each image.")
def classify(
    images: tuple[Path, ...],
    *,
    labels: str | None,
    labels_file: Path | None,
    bundle_path: Path | None,
    top: int,
    as_json: bool,
) -> None:
    """Show the labels that fit each IMAGE best, with their probabilities.

    The probabilities share out 1 among the labels given, so they say which fits better, not that one fits at all: add
    what else it may be. The score is the cosine, as in a search.
    """
    with shown_to_user():
        given = _labels(labels, labels_file)
        answers = []
        for answer in _answers(_bundle(bundle_path), images, given):
            answers.append(answer)
            if isinstance(answer[1], str):
                click.echo(answer[1], err=True)
        broken = sum(isinstance(found, str) for _, found in answers)
        if as_json:
            click.echo(_as_json(answers, top))
        elif broken < len(answers):
            click.echo(_as_table(answers, top))
        if broken:
            raise click.ClickException(f"{broken} of {len(answers)} images cannot be read")


def _labels(labels: str | None, path: Path | None) -> list[str]:
    from image_finder.components.errors import QueryError

    given = labels.split(",") if labels is not None else []
    if path is not None:
        try:
            given += [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise QueryError(f"labels of {path} cannot be read as UTF-8 text: {error}") from error
    return given


def _bundle(path: Path | None) -> "Bundle":
    """The named bundle, else the one that was published last, else that of the index that is searched, else the starter."""
    from image_finder.components.app.starter_bundle import starter_bundle
    from image_finder.components.bundle.bundle import Bundle
    from image_finder.components.index.generations import is_published_root
    from image_finder.components.index.index import VectorIndex
    from image_finder.components.index.publish import default_bundle

    if path is None:
        path = default_bundle(home_root() / "bundles")
    if path is None:
        index = default_index().path
        if not is_published_root(index):
            return starter_bundle()
        path = Path(VectorIndex.open(index, verify=False).manifest.bundle_uri)
    return Bundle.open(path)


def _answers(bundle: "Bundle", images: tuple[Path, ...], labels: list[str]) -> Iterator["Answer"]:
    """The answer for each image, in order; a batch is in memory at a time."""
    import numpy as np

    from image_finder.components.bundle.encoder import OnnxEncoder
    from image_finder.components.errors import ImageError
    from image_finder.components.search.labels import Labels

    encoder = OnnxEncoder(bundle, device="cpu")
    known = Labels(encoder, labels)
    for start in range(0, len(images), _IMAGES_A_CALL):
        batch = images[start : start + _IMAGES_A_CALL]
        pixels, faults = [], {}
        for place, path in enumerate(batch):
            try:
                pixels.append(encoder.preprocess.load(path))
            except ImageError as error:
                faults[place] = visible(str(error))
        found = iter(known.score(encoder.encode_image(np.stack(pixels))) if pixels else [])
        for place, path in enumerate(batch):
            yield path, faults[place] if place in faults else next(found)


def _as_json(answers: "list[Answer]", top: int) -> str:
    told = [
        {"image": str(path), "error": found}
        if isinstance(found, str)
        else {"image": str(path), "labels": [each.model_dump() for each in found[:top]]}
        for path, found in answers
    ]
    return json.dumps(told, indent=2)  # ASCII: a file name may hold what no terminal can print


def _as_table(answers: "list[Answer]", top: int) -> str:
    rows = [
        (shown_path(path), each.label, f"{each.probability:.3f}", f"{each.score:.3f}")
        for path, found in answers
        if not isinstance(found, str)
        for each in found[:top]
    ]
    return aligned([("image", "label", "probability", "score"), *rows])

"""Commands `image-finder models fetch`, `evaluate` and `pack`: models as folders."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from image_finder.components.records.base import PartName
from image_finder.components.starter import MAX_MB
from image_finder.components.text import counted, shown_path
from image_finder.pipelines.commands.options import ModelOptions, model_options, print_json

if TYPE_CHECKING:
    from image_finder.components.evaluation.folder_recall import CaptionedPart

_Folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(
    epilog="\b\nExample:\n  image-finder models fetch --alias champion --to champion && "
    "image-finder index IMAGES --bundle champion"
)
@click.option("--alias", "version", default="champion", show_default=True, metavar="ALIAS|N", help="Alias or version.")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="New folder for the bundle.")
@model_options
def fetch(version: str, *, to: Path, as_json: bool, options: ModelOptions) -> None:
    """Copy a version's bundle to a folder and verify it.

    The bundle can then be used without the registry. On an error no folder is left behind.
    """
    from image_finder.pipelines import model_operations

    registered = options.open()
    found = registered.registry.version(registered.name, version)
    bundle = model_operations.fetch(registered, found.version, to)
    if as_json:
        print_json(
            {"model": registered.name, "version": found.version, "path": str(bundle.path), "sha256": bundle.sha256}
        )
        return
    files = counted(len(bundle.manifest.files_sha256), "file")
    click.echo(f"{registered.name} version {found.version} in {shown_path(bundle.path)}, {files} verified")
    click.echo(f"To use it: image-finder index IMAGES --bundle {shlex.quote(str(bundle.path))}", err=True)


data_option = click.option(
    "--data",
    required=True,
    type=_Folder,
    help="Captioned images: annotations/captions_*.json (COCO) or huggingface/*.parquet.",
)
part_option = click.option(
    "--part", type=click.Choice(get_args(PartName)), help="Part to measure.  [default: test, val or train]"
)
captions_option = click.option(
    "--captions",
    type=click.IntRange(1),
    metavar="N",
    help="Use the first N captions of each image (usual for COCO: 5).",
)
seed_option = click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the bootstrap intervals."
)


@click.command(
    epilog="\b\nExamples:\n  image-finder models evaluate champion-bundle --data coco\n"
    "  image-finder models evaluate champion --data flickr8k --part val --json"
)
@click.argument("model_or_bundle", metavar="MODEL")
@data_option
@part_option
@captions_option
@seed_option
@model_options
def evaluate(
    model_or_bundle: str,
    *,
    data: Path,
    part: PartName | None,
    captions: int | None,
    seed: int,
    as_json: bool,
    options: ModelOptions,
) -> None:
    """Measure a model on your own captioned images.

    MODEL is the folder of a bundle, "starter", or a registered version or alias. Prints recall in both directions, recall
    of caption groups, time and size, measured through the exported towers as `models promote` does. The result is too
    high if the model was trained on the same images.
    """
    from image_finder.components.configs import EvaluationConfig
    from image_finder.components.temporaries import scratch_directory
    from image_finder.pipelines.report_text import measurement_text

    config = EvaluationConfig(captions_per_image=captions, seed=seed)
    found = captioned_part(data, part)
    with scratch_directory() as folder:
        opened = options.bundle(model_or_bundle, Path(folder) / "bundle")
        measurement = found.measured(opened, config).measurement
    if as_json:
        measured = measurement.model_dump(mode="json", exclude={"code_sha256"})
        counts = {"captions": found.n_captions, "left_out": found.n_left_out}
        print_json({**measured, **counts, "bundle_sha256": opened.sha256})
        return
    click.echo(measurement_text(measurement))


def captioned_part(data: Path, part: PartName | None) -> "CaptionedPart":
    """Captioned images to measure on; says on stderr how many captions are left out."""
    from image_finder.components.evaluation.folder_recall import read_part

    found = read_part(data.resolve(), part)
    if found.n_left_out:
        click.echo(
            f"skipped {found.n_left_out:,} of {found.n_captions:,} captions; for the reasons run: "
            f"image-finder data check {shlex.quote(str(data))}",
            err=True,
        )
    return found


@click.command(
    epilog="\b\nExample:\n  image-finder models pack champion --model image-finder-starter --to starter "
    "--measure-on flickr8k"
)
@click.argument("version")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="Folder to create or replace.")
@click.option(
    "--measure-on",
    multiple=True,
    type=_Folder,
    metavar="DIR",
    help="Captioned images to measure the packed model on, for its card: part test, else val (repeatable).",
)
@click.option(
    "--max-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=MAX_MB,
    show_default=True,
    help="Maximum size of the weights; trained trunk layers are compressed to fit.",
)
@model_options
def pack(
    version: str, *, to: Path, measure_on: tuple[Path, ...], max_mb: float, as_json: bool, options: ModelOptions
) -> None:
    """Write a version as a starter model for a package.

    A starter model holds the trained weights in 8 bits, without the trunks that come as packages. The run that trained
    the version must be in the home. The card reports that run's measurements and the recall of the packed weights on
    each --measure-on.
    """
    from image_finder.pipelines import packing

    packed = packing.pack(options.open(), version, to.resolve(), measure_on=measure_on, max_mb=max_mb)
    if as_json:
        measured = [each.measurement.model_dump(mode="json", exclude={"code_sha256"}) for each in packed.measured]
        print_json({"manifest": packed.manifest, "weights_bytes": packed.weights_bytes, "measured": measured})
    else:
        click.echo(packing.packed_text(packed, to))

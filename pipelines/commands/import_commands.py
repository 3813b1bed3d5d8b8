"""Commands `image-finder models import` and `known`: models of other libraries as bundles."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.text import aligned, counted, shown_path
from image_finder.pipelines.commands.options import json_option, print_json

if TYPE_CHECKING:
    from image_finder.components.bundle.bundle import Bundle


@click.command(
    "import",
    epilog="\b\nExamples:\n  image-finder models import openai/clip-vit-base-patch32 --use\n"
    "  image-finder models import ./siglip2 --to siglip2-bundle --int8-text\n"
    "  image-finder models import open_clip:MobileCLIP2-S0/dfndr2b --to mobileclip",
)
@click.argument("source")
@click.option("--to", type=click.Path(path_type=Path), help="New folder for the bundle.  [required without --use]")
@click.option("--use", is_flag=True, help="Make it the model of the home and embed the library again with it.")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit on the hub.  [default: the newest commit]")
@click.option("--int8-text", is_flag=True, help="Store the text tower in 8 bits.")
@click.option("--half-image", is_flag=True, help="Store the image tower in 16 bits: half the file, the same speed.")
@click.option(
    "--measure-on",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Captioned images to learn from which score on a hit is a good match. Without it, no hit is called good.",
)
@json_option
def import_command(
    source: str,
    *,
    to: Path | None,
    use: bool,
    revision: str | None,
    int8_text: bool,
    half_image: bool,
    measure_on: Path | None,
    as_json: bool,
) -> None:
    """Import a dual encoder from Hugging Face or open_clip.

    SOURCE is a folder, OWNER/MODEL on the hub, open_clip:NAME/TAG, or open_clip:NAME=FILE.safetensors. The bundle is
    compared with the original library first. Only safetensors are read, and no code of a repository is run.
    """
    if to is None and not use:
        raise click.UsageError("name a new folder with --to, or use the model at once with --use")
    from image_finder.components.home import home_root
    from image_finder.components.importing.importer import ImportOptions, import_model
    from image_finder.components.importing.source import find_source
    from image_finder.components.index.publish import publish_bundle
    from image_finder.components.storage import make_private

    found = find_source(source, revision=revision)
    options = ImportOptions(int8_text=int8_text, half_image=half_image)
    bundles = home_root() / "bundles"
    if to is None:
        make_private(bundles)
    target = (to or bundles / f"imported-{found.key}").resolve()
    bundle = import_model(found, target, options, measure_on=measure_on)
    if use:
        kept = publish_bundle(bundle, bundles)
        if to is None:
            shutil.rmtree(target)
        bundle = kept
        _index_again(bundles, quiet=as_json)
    if as_json:
        print_json({"path": str(bundle.path), "sha256": bundle.sha256, "imported": bundle.manifest.imported})
    else:
        click.echo(_text(bundle, used=use))


def _index_again(bundles: Path, *, quiet: bool) -> None:
    """Index the library with the default bundle; searches use the current index until the new one is published."""
    from image_finder.components.app.commands.index_command import summary_text
    from image_finder.components.configs import EmbeddingConfig
    from image_finder.components.home import default_library
    from image_finder.components.library.index_options import IndexOptions
    from image_finder.components.library.indexer import update
    from image_finder.components.library.library import Library

    library = Library(default_library())
    if not library.catalog.exists():
        return
    options = IndexOptions(config=EmbeddingConfig(), default_bundles=bundles, progress=not quiet)
    summary = update(library, [], options, warn=lambda message: click.echo(message, err=True))
    if not quiet:
        click.echo(summary_text(summary))


def _text(bundle: "Bundle", *, used: bool) -> str:
    imported = bundle.manifest.imported
    assert imported is not None, "just imported"
    rows = [
        ("source", f"{imported.source}, revision {imported.revision[:12]}"),
        ("licence", imported.licence + (" (not for commercial use)" if imported.non_commercial else "")),
        (
            "size",
            f"{counted(imported.parameters, 'parameter')}, {bundle.size_mb:,.0f} MB, {bundle.manifest.embedding_dim} dimensions",
        ),
        ("speed", f"{imported.image_ms:.1f} ms an image, {imported.text_ms:.1f} ms a text, {imported.threads} threads"),
        ("fidelity", f"vectors differ from {imported.library} by at most {imported.max_difference:.1e}"),
    ]
    if bundle.manifest.text_quantised or imported.image_cosine < imported.text_cosine:
        loss = (
            f"smallest cosine to the exact towers: text {imported.text_cosine:.4f}, image {imported.image_cosine:.4f}"
        )
        rows.append(("compression", loss))
    path = shown_path(bundle.path)
    hint = "" if used else f"\nTo use it: image-finder index IMAGES --bundle {shlex.quote(str(bundle.path))}"
    return f"imported to {path}\n{aligned(rows)}{hint}"


@click.command(epilog="\b\nExample:\n  image-finder models known")
@json_option
def known(*, as_json: bool) -> None:
    """List a few published models to choose from.

    Recall is text-to-image in % at 1, 5 and 10, as published; nothing is downloaded.
    """
    from image_finder.components.importing.known import KNOWN

    if as_json:
        print_json([{**each.model_dump(), "memory_gb": each.memory_gb} for each in KNOWN])
        return
    rows = [("source", "licence", "languages", "parameters", "dimension", "memory", "COCO 5k", "Flickr30k 1k")]
    rows += [
        (
            each.source,
            each.licence,
            each.languages,
            f"{each.parameters_m} M",
            str(each.dimension),
            f"{each.memory_gb} GB",
            _recalls(each.coco),
            _recalls(each.flickr30k),
        )
        for each in KNOWN
    ]
    click.echo(aligned(rows))
    click.echo("\nRecall@1/5/10 by open_clip, docs/openclip_retrieval_results.csv; -: not in that table.")


def _recalls(values: tuple[float, float, float] | None) -> str:
    return "-" if values is None else "/".join(f"{value:.0f}" for value in values)

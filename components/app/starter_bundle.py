"""Starter bundle: assembles the packaged model in the home on first use."""

from pathlib import Path

import click
from filelock import FileLock

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.errors import BundleError
from image_finder.components.home import home_root
from image_finder.components.starter import FOLDER, MANIFEST
from image_finder.components.starter.assembly import assemble_starter
from image_finder.components.storage import make_private, sha256_of_file, write_errors


def starter_bundle() -> Bundle:
    """Bundle of the packaged model; announced on stderr. Raises BundleError, StorageError."""
    if not (FOLDER / MANIFEST).is_file():
        raise BundleError("this installation has no starter model; name a model with --bundle, or train one")
    path = home_root() / "bundles" / f"starter-{sha256_of_file(FOLDER / MANIFEST)[:16]}"
    if (bundle := _existing(path)) is not None:
        click.echo("using the starter model (details: image-finder info)", err=True)
        return bundle
    click.echo("using the starter model, assembled now (details: image-finder info)", err=True)
    return _assembled(path)


def _assembled(path: Path) -> Bundle:
    with write_errors(path):
        make_private(path.parent)
    with FileLock(path.with_suffix(".lock")):  # a second process waits and finds the result
        return _existing(path) or assemble_starter(FOLDER, path)


def _existing(path: Path) -> Bundle | None:
    """The bundle of an earlier run; None if absent or damaged (it is then replaced)."""
    try:
        return Bundle.open(path)
    except BundleError:
        return None

"""Starter bundle: exports the packaged model to the home on first use."""

from pathlib import Path

import click
from filelock import FileLock

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.errors import BundleError
from image_finder.components.home import home_root
from image_finder.components.starter import FOLDER, MANIFEST
from image_finder.components.storage import make_private, sha256_of_file, write_errors


def starter_bundle() -> Bundle:
    """Bundle of the packaged model; announced on stderr. Raises BundleError, StorageError."""
    if not (FOLDER / MANIFEST).is_file():
        raise BundleError("this installation has no starter model; name a model with --bundle, or train one")
    path = home_root() / "bundles" / f"starter-{sha256_of_file(FOLDER / MANIFEST)[:16]}"
    if (bundle := _existing(path)) is not None:
        click.echo("using the starter model (details: image-finder info)", err=True)
        return bundle
    click.echo("preparing the starter model (once, about half a minute)", err=True)
    return _export(path)


def _export(path: Path) -> Bundle:
    with write_errors(path):
        make_private(path.parent)
    with FileLock(path.with_suffix(".lock")):  # a second process waits and finds the result
        if (bundle := _existing(path)) is not None:
            return bundle
        try:
            from image_finder.components.export.starter_packing import unpack_starter
        except ModuleNotFoundError as error:
            raise BundleError(
                f"preparing the starter model needs {error.name}, which is not installed: pip install "
                "'text-guided-image-finder[starter]', or name a model with --bundle"
            ) from error
        return unpack_starter(FOLDER, path)


def _existing(path: Path) -> Bundle | None:
    """The bundle of an earlier run; None if absent or damaged (it is then replaced)."""
    try:
        return Bundle.open(path)
    except BundleError:
        return None

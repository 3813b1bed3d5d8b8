"""The starter model as a bundle: put together at the first use of this home, kept for all later ones."""

from pathlib import Path

import click
from filelock import FileLock

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.errors import BundleError
from image_finder.components.home import home_root
from image_finder.components.starter import FOLDER, MANIFEST
from image_finder.components.storage import make_private, sha256_of_file, write_errors


def starter_bundle() -> Bundle:
    """The bundle of the packaged model; says in a line that it is used. Raises BundleError, DataError, StorageError."""
    if not (FOLDER / MANIFEST).is_file():
        raise BundleError("this installation holds no starter model; name one with --bundle, or train one")
    path = home_root() / "bundles" / f"starter-{sha256_of_file(FOLDER / MANIFEST)[:16]}"
    bundle = _kept(path)
    if bundle is None:
        click.echo(
            "no model of your own yet: the starter model is put together, once, in about half a minute", err=True
        )
        bundle = _put_together(path)
    else:
        click.echo("no model of your own yet: the starter model is used", err=True)
    return bundle


def _put_together(path: Path) -> Bundle:
    with write_errors(path):
        make_private(path.parent)
    with FileLock(path.with_suffix(".lock")):  # who comes second waits, and finds it done
        if (bundle := _kept(path)) is not None:
            return bundle
        try:
            from image_finder.components.export.starter_packing import export_starter
        except ModuleNotFoundError as error:
            raise BundleError(
                f"the starter model is put together with {error.name}, which is not installed: pip install "
                "'text-guided-image-finder[starter]', or name a bundle with --bundle"
            ) from error
        return export_starter(FOLDER, path)


def _kept(path: Path) -> Bundle | None:
    """The bundle of an earlier use; None if there is none, or only a damaged one, which is replaced."""
    try:
        return Bundle.open(path)
    except BundleError:
        return None

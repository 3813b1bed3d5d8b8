"""Models compared: any bundles, measured on the same captioned images, as a table and as a page."""

from collections.abc import Sequence
from typing import NamedTuple

from image_finder.components.evaluation.queries_compared import ComparedQuery
from image_finder.components.html_report import render_report
from image_finder.components.metrics.comparison import MeasuredBundle, compare_bundles
from image_finder.components.records.base import Record
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.promotion import Comparison
from image_finder.components.records.retrieval import Interval
from image_finder.components.text import aligned


class ComparedModel(Record):
    """gain: of this model over the first, query by query; None for the first."""

    name: str
    origin: str
    measurement: BundleMeasurement
    gain: Comparison | None


class Table(NamedTuple):
    """Columns: models; rows: a name and a cell for each model."""

    models: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def compared(models: Sequence[tuple[str, str, MeasuredBundle]]) -> tuple[ComparedModel, ...]:
    """Compare models, each with its name and origin, with the first. Raises DataError unless all were measured alike."""
    first = models[0][2]
    return tuple(
        ComparedModel(
            name=name,
            origin=origin,
            measurement=measured.measurement,
            gain=None if measured is first else compare_bundles(measured, first),
        )
        for name, origin, measured in models
    )


def comparison_table(models: Sequence[ComparedModel]) -> Table:
    reports = [each.measurement.report for each in models]
    rows = [("mean recall", tuple(_percent(each.mean_recall, each.mean_recall_interval) for each in reports))]
    for title, directions in (
        ("text to image", [each.text_to_image for each in reports]),
        ("image to text", [each.image_to_text for each in reports]),
    ):
        for k in sorted(directions[0].recall):
            found = [_percent(each.recall[k], each.interval[k]) for each in directions]
            rows.append((f"{title} R@{k}", tuple(found)))
    for group in reports[0].slices:
        k = max(group.recall)
        cells = []
        for report in reports:
            same = [each for each in report.slices if (each.slice, each.value) == (group.slice, group.value)]
            cells.append(_percent(same[0].recall[k], same[0].interval[k]) if same else "-")
        rows.append((f"{group.slice}: {group.value} R@{k}", tuple(cells)))
    costs = [each.measurement for each in models]
    rows += [
        ("one image, ms", tuple(f"{each.image_ms:.1f}" for each in costs)),
        ("one text, ms", tuple(f"{each.text_ms:.1f}" for each in costs)),
        ("size, MB", tuple(f"{each.bundle_mb:,.0f}" for each in costs)),
        ("dimensions", tuple(f"{each.embedding_dim}" for each in costs)),
    ]
    return Table(tuple(each.name for each in models), tuple(rows))


def verdicts(models: Sequence[ComparedModel]) -> list[str]:
    """One sentence for each model but the first."""
    return [_verdict(each, each.gain, models[0].name) for each in models if each.gain is not None]


def origins(models: Sequence[ComparedModel]) -> list[str]:
    return [f"{each.name}: {each.origin}" for each in models]


def comparison_text(models: Sequence[ComparedModel]) -> str:
    table = comparison_table(models)
    rows = [["", *table.models], *([name, *cells] for name, cells in table.rows)]
    return "\n".join([_title(models), *origins(models), aligned(rows), *verdicts(models)])


def comparison_page(models: Sequence[ComparedModel], queries: Sequence[ComparedQuery]) -> str:
    """The comparison as HTML, then the queries with their images."""
    return render_report(
        "comparison.html",
        title="Models compared",
        subtitle=_title(models),
        origins=origins(models),
        table=comparison_table(models),
        verdicts=verdicts(models),
        queries=queries,
    )


def _title(models: Sequence[ComparedModel]) -> str:
    measurement = models[0].measurement
    report = measurement.report
    return (
        f"{report.dataset} {report.split}: {report.n_images:,} images, {report.n_captions:,} captions, data version "
        f"{report.data_version}; recall in % with 95 % intervals; times on {measurement.threads} threads"
    )


def _verdict(model: ComparedModel, gain: Comparison, first: str) -> str:
    low, high = 100 * gain.interval.low, 100 * gain.interval.high
    better = "better" if low > 0 else "worse" if high < 0 else "neither better nor worse"
    return (
        f"{model.name} is {better} than {first}: mean recall {100 * gain.gain:+.1f} points [{low:+.1f}, {high:+.1f}], query "
        f"by query on {gain.n_images:,} images"
    )


def _percent(recall: float, interval: Interval) -> str:
    return f"{100 * recall:.1f} {interval.text()}"

"""Page of a data validation: a report in, one self-contained HTML text out; knows nothing of how it was measured."""

from image_finder.components.html_report import percent, render_report
from image_finder.components.records.data import ValidationReport
from image_finder.components.text import counted

_MAX_IDS = 20
_FAILURES = {"error": ("failed", "bad"), "quarantine": ("removed rows", "warn"), "warning": ("warning", "warn")}


def report_html(report: ValidationReport) -> str:
    return render_report(
        "validation.html",
        title=f"Data validation of {report.dataset}",
        report=report,
        summary=_summary(report),
        failures=_FAILURES,
        quarantined=sorted(report.quarantined.items(), key=lambda item: (-len(item[1]), item[0])),
        max_ids=_MAX_IDS,
    )


def _summary(report: ValidationReport) -> list[str]:
    captions, images = counted(report.n_captions, "caption"), counted(report.n_images, "image")
    n_quarantined = report.n_captions - report.n_valid_captions
    share, allowed = percent(report.quarantined_share), percent(report.max_quarantined_share)
    lines = [
        f"{report.n_valid_captions:,} of {captions} of {images} can be used.",
        f"Quarantined: {n_quarantined:,} ({share}, at most {allowed} allowed).",
    ]
    for severity, label in (("error", "Failed"), ("warning", "Warnings")):
        names = [each.name for each in report.expectations if each.severity == severity and not each.success]
        if names:
            lines.append(f"{label}: {', '.join(names)}.")
    return lines

"""Report text: formats records as tables for a terminal."""

from collections.abc import Sequence

from image_finder.components.index.format import IndexManifest
from image_finder.components.records.export import BundleMeasurement, ParityReport
from image_finder.components.records.promotion import PromotionCheck, PromotionDecision
from image_finder.components.records.retrieval import DirectionReport, RetrievalReport, SliceReport
from image_finder.components.text import aligned, counted


def training_text(report: RetrievalReport, parity: ParityReport, decision: PromotionDecision, model_name: str) -> str:
    """Report of a training; its last line is what was made and why it was promoted or not."""
    checks = [] if _stays(decision) else [checks_table(decision.checks)]
    return "\n".join([retrieval_table(report), parity_text(parity), *checks, verdict_text(decision, model_name)])


def retrieval_table(report: RetrievalReport) -> str:
    ks = sorted(report.text_to_image.recall)
    head = ["", "queries", "gallery", *(f"R@{k}" for k in ks), "median rank", *(f"random R@{k}" for k in ks)]
    rows = [
        _direction_row("text to image", report.text_to_image, ks),
        _direction_row("image to text", report.image_to_text, ks),
    ]
    title = (
        f"{report.dataset} {report.split}: {report.n_images:,} images, {report.n_captions:,} captions, "
        f"data version {report.data_version}; recall in %, 95 % intervals over images"
    )
    mean = f"mean recall {100 * report.mean_recall:.1f} {report.mean_recall_interval.text()}"
    lines = [title, aligned([head, *rows]), mean, *map(retrieval_table, report.extra_sets.values())]
    if report.extra_sets:
        lines.append(f"mean recall over {' and '.join(report.sets)}: {100 * report.mean_over_sets:.1f}")
    return "\n".join(lines)


def measurement_text(measurement: BundleMeasurement) -> str:
    report = measurement.report
    ks = sorted(report.text_to_image.recall)
    head = ["text to image, captions of", "queries", *(f"R@{k}" for k in ks)]
    slices = aligned([head, *(_slice_row(each, ks) for each in report.slices)]) if report.slices else ""
    cost = (
        f"one text {measurement.text_ms:.1f} ms, one image {measurement.image_ms:.1f} ms "
        f"(median, {measurement.threads} threads); {measurement.bundle_mb:.1f} MB, "
        f"{measurement.embedding_dim} dimensions"
    )
    return "\n\n".join(part for part in (retrieval_table(report), slices, cost) if part)


def decision_text(decision: PromotionDecision, model_name: str) -> str:
    text = verdict_text(decision, model_name)
    return text if _stays(decision) else f"{text}\n{checks_table(decision.checks)}"


def verdict_text(decision: PromotionDecision, model_name: str) -> str:
    if decision.promoted:
        verdict = "is the new champion by force" if decision.forced else "is the new champion"
    else:
        verdict = "stays champion" if _stays(decision) else "was not promoted"
    return f"{model_name} version {decision.challenger_version} {verdict}: {'; '.join(decision.reasons)}"


def checks_table(checks: Sequence[PromotionCheck]) -> str:
    rows = [
        ["ok" if check.passed else "FAILED", check.name, _measured(check.measured), check.required, check.detail]
        for check in checks
    ]
    return aligned([["", "check", "measured", "required", ""], *rows])


def parity_text(report: ParityReport) -> str:
    text = (
        f"ONNX against torch: smallest cosine {report.min_cosine:.6f}, largest difference {report.max_difference:.2g}"
    )
    ours, theirs = report.onnx_recall_at_10, report.torch_recall_at_10
    if ours is None or theirs is None:
        return text
    return f"{text}, R@10 {100 * ours:.1f} against {100 * theirs:.1f} on {report.n_images} images"


def indexed_text(manifest: IndexManifest) -> str:
    text = f"{counted(manifest.count, 'image')} indexed with the champion, {len(manifest.failed):,} failed"
    if (check := manifest.self_check) is None:
        return text
    return f"{text}; {check.found_themselves_first} of {check.n_images} sampled images find themselves first"


def _stays(decision: PromotionDecision) -> bool:
    return decision.challenger_version == decision.champion_version


def _measured(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}" if abs(value) < 1 else f"{value:.4g}"


def _slice_row(report: SliceReport, ks: Sequence[int]) -> list[str]:
    return [f"{report.slice}: {report.value}", f"{report.n_queries:,}", *_recalls(report, ks)]


def _recalls(report: DirectionReport | SliceReport, ks: Sequence[int]) -> list[str]:
    return [f"{100 * report.recall[k]:.1f} {report.interval[k].text()}" for k in ks]


def _direction_row(name: str, report: DirectionReport, ks: Sequence[int]) -> list[str]:
    return [
        name,
        f"{report.n_queries:,}",
        f"{report.gallery_size:,}",
        *_recalls(report, ks),
        f"{report.median_rank:g}",
        *(f"{100 * report.random_recall[k]:.2f}" for k in ks),
    ]

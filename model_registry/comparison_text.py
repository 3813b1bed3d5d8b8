"""Comparison text: registered versions, two reports side by side, and a ledger as tables."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from image_finder.components.records.promotion import Comparison
from image_finder.components.records.retrieval import Interval, RetrievalReport
from image_finder.components.text import aligned
from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import LedgerEntry, title
from image_finder.model_registry.registry import RegisteredVersion

_LINEAGE_TAGS = (
    *(names.DATASET, names.DATA_VERSION, names.SPLIT, names.CODE_VERSION, names.CONFIG_SHA256),
    *(names.ENVIRONMENT_SHA256, names.HARDWARE, names.SEEDS, names.PARENT_CHAMPION, names.RUN_NAME),
)
_HASH = 64  # characters; shown shortened


class Side(NamedTuple):
    version: RegisteredVersion
    report: RetrievalReport


def versions_table(versions: Sequence[RegisteredVersion]) -> str:
    head = ["version", "aliases", "registered (UTC)", "mean recall", "data", "code", "last event"]
    rows = [
        [
            each.version,
            ", ".join(each.aliases),
            f"{each.created:%Y-%m-%d %H:%M}",
            _percent_text(each.tags.get(names.MEAN_RECALL)),
            _data_text(each.tags),
            each.tags.get(names.CODE_VERSION, "?"),
            each.tags.get(names.LAST_EVENT, ""),
        ]
        for each in versions
    ]
    return aligned([head, *rows])


def _data_text(tags: Mapping[str, str]) -> str:
    data = "imported" if names.IMPORTED in tags else tags.get(names.DATASET, "")
    return f"{data} {tags.get(names.DATA_VERSION, '?')}".strip()


def origin_table(version: RegisteredVersion) -> str:
    tags = sorted(version.tags.items(), key=lambda item: (item[0] not in _LINEAGE_TAGS, item[0]))
    rows = [["run id", version.run_id or "?"], *([name.replace("_", " "), value] for name, value in tags)]
    return aligned(rows)


def history_text(entries: Sequence[LedgerEntry]) -> str:
    """One line for each entry, oldest first, then its reasons if they differ from the last."""
    heads = aligned([[each.at[:19].replace("T", " "), title(each), _short(each.actor)] for each in entries])
    lines: list[str] = []
    before: tuple[str, ...] = ()
    for head, entry in zip(heads.splitlines(), entries, strict=True):
        lines.append(head)
        if entry.reasons != before:
            lines += [f"    {reason}" for reason in entry.reasons]
        before = entry.reasons
    return "\n".join(lines)


def _short(actor: str) -> str:
    """Shorten MLflow's run ids from 32 to 8 digits, which suffice to find the run."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24}\b", r"\1", actor)


def compare_text(first: Side, second: Side, paired: Comparison | None) -> str:
    """Both reports side by side with 95 % intervals, and whether they are comparable.

    paired: first against second, query by query; None if not measured.
    """
    head = ["", f"version {first.version.version}", f"version {second.version.version}", "difference"]
    parts = [aligned([head, *_origin_rows(first, second), *_report_rows(first.report, second.report)])]
    if faults := _not_comparable(first.report, second.report):
        parts.append(f"NOT COMPARABLE: {'; '.join(faults)}. The differences above are meaningless.")
    elif paired is None:
        parts.append(
            "Each interval is of one version. The versions were not measured query by query with the same code, so the "
            "difference has no interval; a training run measures challenger and champion together."
        )
    else:
        over = f" over {' and '.join(each.name for each in paired.sets)}" if paired.sets else ""
        parts.append(
            f"Query by query, version {first.version.version} against {second.version.version}: mean recall{over} "
            f"{100 * paired.gain:+.1f} points {paired.interval.text('+.1f')}, {paired.n_images:,} images."
        )
    return "\n".join(parts)


def _origin_rows(first: Side, second: Side) -> list[list[str]]:
    rows = [["aliases", ", ".join(first.version.aliases), ", ".join(second.version.aliases), ""]]
    for name in _LINEAGE_TAGS:
        ours, theirs = first.version.tags.get(name, ""), second.version.tags.get(name, "")
        shown = [value[:12] if len(value) == _HASH else value for value in (ours, theirs)]
        rows.append([name.replace("_", " ").removesuffix(" sha256"), *shown, "" if ours == theirs else "differs"])
    return rows


def _report_rows(first: RetrievalReport, second: RetrievalReport) -> list[list[str]]:
    rows = [_mean_row("mean recall", first, second)]
    rows += [
        _mean_row(f"mean recall on {name}", first.extra_sets.get(name), second.extra_sets.get(name))
        for name in dict.fromkeys([*first.extra_sets, *second.extra_sets])
    ]
    pairs = (
        ("text to image", first.text_to_image, second.text_to_image),
        ("image to text", first.image_to_text, second.image_to_text),
    )
    for name, ours, theirs in pairs:
        rows += [
            _row(
                f"{name} R@{k}",
                (ours.recall[k], ours.interval[k]) if k in ours.recall else None,
                (theirs.recall[k], theirs.interval[k]) if k in theirs.recall else None,
            )
            for k in sorted({*ours.recall, *theirs.recall})
        ]
        rows.append([f"{name} median rank", f"{ours.median_rank:g}", f"{theirs.median_rank:g}", ""])
    return rows + _slice_rows(first, second)


def _mean_row(name: str, first: RetrievalReport | None, second: RetrievalReport | None) -> list[str]:
    ours, theirs = ((each.mean_recall, each.mean_recall_interval) if each else None for each in (first, second))
    return _row(name, ours, theirs)


def _slice_rows(first: RetrievalReport, second: RetrievalReport) -> list[list[str]]:
    ours, theirs = ({(part.slice, part.value): part for part in report.slices} for report in (first, second))
    rows = []
    for key in dict.fromkeys([*ours, *theirs]):
        sides = []
        for parts in (ours, theirs):
            part = parts.get(key)
            k = max(part.recall) if part else 0
            sides.append((part.recall[k], part.interval[k]) if part else None)
        rows.append(_row(f"{key[0]}: {key[1]}", *sides))
    return rows


def _row(name: str, ours: tuple[float, Interval] | None, theirs: tuple[float, Interval] | None) -> list[str]:
    difference = f"{100 * (ours[0] - theirs[0]):+.1f}" if ours and theirs else ""
    return [name, _measured(ours), _measured(theirs), difference]


def _measured(value: tuple[float, Interval] | None) -> str:
    if value is None:
        return "not measured"
    recall, interval = value
    return f"{100 * recall:.1f} % {interval.text()}"


def _not_comparable(first: RetrievalReport, second: RetrievalReport) -> list[str]:
    pairs = {
        "data version": (first.data_version, second.data_version),
        "split": (first.split, second.split),
        "images": (f"{first.n_images:,}", f"{second.n_images:,}"),
        "captions": (f"{first.n_captions:,}", f"{second.n_captions:,}"),
        "extra sets": (", ".join(first.extra_sets) or "none", ", ".join(second.extra_sets) or "none"),
    }
    return [f"{name} {ours} against {theirs}" for name, (ours, theirs) in pairs.items() if ours != theirs]


def _percent_text(value: str | None) -> str:
    return "?" if value is None else f"{100 * float(value):.1f} %"

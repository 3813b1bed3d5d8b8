"""Promotion rule: whether a candidate becomes champion, from two reports alone; knows nothing of any registry."""

import math

from components.records import PromotionDecision, RetrievalReport

_ROUNDING = 1e-12  # 0.58 - 0.57 is not 0.01 in binary; a gain of exactly min_gain must pass


def decide(
    candidate: RetrievalReport,
    champion: RetrievalReport | None,
    *,
    min_gain: float,
    candidate_version: str,
    champion_version: str | None,
) -> PromotionDecision:
    """Promote when mean recall rose by at least min_gain (a share: 0.01 is one point) on the same test, and rose at all.

    Without a champion's report a measured candidate is promoted: there is no champion yet (champion_version None), or
    its bundle cannot be opened any more. A recall that is missing (NaN) or outside 0 to 1 never passes,
    and neither do two reports that were not measured on the same pictures and captions.
    """
    faults = _faults(candidate, "the candidate")
    if not faults and champion is not None:
        faults = _faults(champion, f"champion {champion_version}") or _differences(candidate, champion)
    if not faults and candidate_version == champion_version:
        faults = [f"version {candidate_version} is champion already"]
    promoted, reasons = (False, faults) if faults else _compare(candidate, champion, min_gain, champion_version)
    return PromotionDecision(
        promoted=promoted,
        candidate_version=candidate_version,
        champion_version=champion_version,
        reasons=tuple(reasons),
        candidate_mean_recall=candidate.mean_recall,
        champion_mean_recall=None if champion is None else champion.mean_recall,
    )


def comparable(candidate: RetrievalReport, champion: RetrievalReport) -> bool:
    """Whether two reports were measured on the same pictures and captions."""
    return not _differences(candidate, champion)


def _faults(report: RetrievalReport, whose: str) -> list[str]:
    values = {"mean_recall": report.mean_recall}
    for name, direction in (("text_to_image", report.text_to_image), ("image_to_text", report.image_to_text)):
        values.update({f"{name} recall@{k}": value for k, value in direction.recall.items()})
    # `not 0 <= nan <= 1` holds, while `nan < 0 or nan > 1` does not
    return [f"{name} of {whose} is {value}, not a share" for name, value in values.items() if not 0 <= value <= 1]


def _differences(candidate: RetrievalReport, champion: RetrievalReport) -> list[str]:
    """What makes the two reports incomparable, in words."""

    def gallery(report: RetrievalReport) -> str:
        return f"{report.text_to_image.gallery_size} pictures and {report.image_to_text.gallery_size} captions"

    def cutoffs(report: RetrievalReport) -> str:
        return ", ".join(map(str, sorted(report.text_to_image.recall)))

    pairs = {
        "data version": (candidate.data_version, champion.data_version),
        "split": (candidate.split, champion.split),
        "gallery": (gallery(candidate), gallery(champion)),
        "k": (cutoffs(candidate), cutoffs(champion)),
    }
    return [
        f"not comparable: {name} of the candidate is {ours}, of the champion {theirs}; "
        "evaluate the champion on the candidate's data first"
        for name, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def _compare(
    candidate: RetrievalReport, champion: RetrievalReport | None, min_gain: float, champion_version: str | None
) -> tuple[bool, list[str]]:
    if champion is None and champion_version is not None:
        reason = f"champion {champion_version} replaced: its bundle is of a format this version cannot open"
        return True, [f"{reason}; mean recall {candidate.mean_recall:.4f}, not compared"]
    if champion is None:
        return True, [f"first champion: mean recall {candidate.mean_recall:.4f}, nothing to compare with"]
    gain = candidate.mean_recall - champion.mean_recall
    promoted = gain > _ROUNDING and gain >= min_gain - _ROUNDING and not math.isnan(min_gain)
    verdict = "promoted" if promoted else "kept"
    subject = "" if promoted else f"champion {champion_version} "
    reason = (
        f"{subject}{verdict}: mean recall {candidate.mean_recall:.4f} against {champion.mean_recall:.4f} of champion "
        f"{champion_version}, gain {gain:+.4f}, needed {max(min_gain, 0):.4f}{'' if min_gain > 0 else ' and above zero'}"
    )
    return promoted, [reason]

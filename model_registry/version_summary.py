"""Version summary: the sentence with which the description of a registered version begins; written from records alone."""

from datetime import datetime

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.text import one_line, shortened
from image_finder.model_registry.ledger.entries import LedgerEntry

LONGEST = 700  # characters of the sentence
UNDECIDED = "not compared with the champion yet"

_OUTCOMES = {
    "moved": "promoted on",
    "forced": "promoted by force on",
    "rollback": "champion again since",
}


def facts(report: RetrievalReport, bundle: Bundle, registered: datetime) -> str:
    """What a version finds, its size, its data and its date: the part of the sentence that never changes."""
    sets = " and ".join(_found(each) for each in report.sets.values())
    imported = bundle.manifest.imported
    origin = f"imported from {imported.origin}" if imported else f"trained on {report.dataset}"
    size = f"{bundle.preprocess().input_px} px, {bundle.size_mb:.1f} MB"
    return f"Finds {sets} ({size}); {origin} on {registered:%Y-%m-%d}"


def sentence(facts: str, outcome: str) -> str:
    return shortened(f"{facts}, {outcome.rstrip('.')}", LONGEST - 1) + "."


def outcome(entry: LedgerEntry) -> str:
    """What an entry means for the version it is about; "" if it changes nothing."""
    if entry.kind == "decision":
        verdict = (
            "" if entry.measurements.get("promoted") or entry.from_version == entry.to_version else "not promoted on"
        )
    else:
        verdict = _OUTCOMES.get(entry.kind, "")
    return f"{verdict} {entry.at[:10]}{_because(entry)}" if verdict else ""


def replaced(entry: LedgerEntry) -> str:
    """What an entry means for the version that was champion before; "" if it was no move."""
    if entry.kind not in _OUTCOMES:
        return ""
    if entry.kind == "rollback":
        return f"rolled back to version {entry.to_version} on {entry.at[:10]}{_because(entry)}"
    return f"champion until {entry.at[:10]}, when version {entry.to_version} replaced it"


def _found(report: RetrievalReport) -> str:
    k = min(report.text_to_image.recall)
    share = 100 * report.text_to_image.recall[k]
    rank = "first" if k == 1 else f"among the first {k}"
    return f"{share:.0f} of 100 images {rank} on {report.dataset} {report.split}"


def _because(entry: LedgerEntry) -> str:
    reasons = one_line("; ".join(reason.removeprefix("forced: ") for reason in entry.reasons), LONGEST)
    return f" because: {reasons}" if reasons else ""

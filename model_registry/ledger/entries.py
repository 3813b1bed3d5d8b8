"""Ledger entries: decisions about a model and moves of its aliases, chained by hashes; knows nothing of storage.

The hash of an entry covers all its fields and the hash of the entry before it.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from image_finder.components.records.base import Record
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.storage import sha256_of_bytes

# Of `text`, `title` and `display`, which are hashed or compared: a change of any needs a new number, and the old form
# for entries that have the old number.
FORMAT = 1
_NOTE = "mlflow.note.content"  # MLflow shows it as the description
FIRST = "0" * 64  # hash before the first entry

Kind = Literal[
    "registered",  # a version was registered and became challenger
    "decision",  # the rule or a person decided about a version
    "moving",  # the champion is about to change
    "moved",  # the champion changed by the rule
    "forced",  # a person changed the champion without the rule
    "rollback",  # the champion changed back; the rule does not promote the former one again
    "abandoned",  # a change that began cannot be completed
    "outside",  # an alias was changed by other means than our commands
    "index",  # searches use the index of another version
    "damaged",  # the ledger was damaged in a way that the next entry would hide
    "skipped",  # a scheduled run had nothing to do
    "failed",  # a scheduled run failed or was killed
]
DISPLAYED = ("kind", "alias", "from", "to", "actor", "reasons", "data_version", "code_version", _NOTE)
_LONGEST_SHOWN = 7500  # characters; MLflow's limit is 8000
_Number = float | str | None
_Check = dict[str, bool | float | str | None]

_TITLES = {
    "registered": "{new} registered",
    "moving": "{new} about to become champion, {old} until then",
    "moved": "{new} promoted{over}",
    "forced": "{new} promoted by force{over}",
    "rollback": "{new} is champion again, rolled back from {old}",
    "abandoned": "move to {new} abandoned, {old} stays",
    "outside": "alias {alias} found at {new} instead of {old}",
    "index": "searches answer with {new}",
    "damaged": "damage of this ledger noted",
    "skipped": "scheduled run: nothing to do",
    "failed": "scheduled run failed",
}


class _Content(Record):
    """Versions are numbers as text."""

    from_version: str | None = None
    to_version: str | None = None
    alias: str = "champion"
    reasons: tuple[str, ...] = ()
    measurements: dict[str, _Number] = Field(default_factory=dict)  # NaN and infinity as text
    checks: tuple[_Check, ...] = ()
    data_version: str = ""
    code_version: str = ""


class Event(_Content):
    kind: Kind


class LedgerEntry(_Content):
    """One entry. Unknown fields and kinds, which newer versions write, are accepted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    n: int  # from 1; entries are ordered by it, not by time
    at: str  # UTC, ISO 8601 with milliseconds, by the writer's clock
    model: str
    kind: str
    actor: str
    previous_sha256: str
    sha256: str = ""  # of `text`

    @property
    def text(self) -> str:
        """Hashed form: all fields except the hash as one line of ASCII JSON with sorted keys."""
        values = self.model_dump(mode="json", exclude={"sha256"})
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def milliseconds(self) -> int:
        return round(datetime.fromisoformat(self.at).timestamp() * 1000)


class Head(NamedTuple):
    """Number and hash of the last entry, stored apart from the entries; 0 without entries."""

    n: int
    sha256: str

    @classmethod
    def parse(cls, value: str) -> "Head | None":
        """Inverse of `str`; None for other text."""
        number, _, digest = value.partition(":")
        return cls(int(number), digest) if number.isdecimal() and len(digest) == len(FIRST) else None

    def __str__(self) -> str:
        return f"{self.n}:{self.sha256}"


def of_decision(decision: PromotionDecision, **changes: Any) -> Event:  # noqa: ANN401 - fields of Event
    interval = decision.gain_interval
    numbers: dict[str, float | None] = {
        "challenger_mean_recall": decision.challenger_mean_recall,
        "champion_mean_recall": decision.champion_mean_recall,
        "gain": decision.gain,
        "gain_low": None if interval is None else interval.low,
        "gain_high": None if interval is None else interval.high,
        "promoted": float(decision.promoted),
        **({"forced": 1.0} if decision.forced else {}),
    }
    event = Event(
        kind="decision",
        from_version=decision.champion_version,
        to_version=decision.challenger_version,
        reasons=decision.reasons,
        measurements={name: _number(value) for name, value in numbers.items()},
        checks=tuple(
            {key: _number(value) if isinstance(value, float) else value for key, value in check.model_dump().items()}
            for check in decision.checks
        ),
    )
    return Event.model_validate({**event.model_dump(), **changes})


def seal(model: str, event: Event, *, head: Head, at: datetime, actor: str) -> LedgerEntry:
    entry = LedgerEntry(
        n=head.n + 1,
        at=at.astimezone(UTC).isoformat(timespec="milliseconds"),
        model=model,
        actor=actor,
        previous_sha256=head.sha256,
        **event.model_dump(),
    )
    return entry.model_copy(update={"sha256": sha256_of_bytes(entry.text.encode())})


def title(entry: LedgerEntry) -> str:
    """Number and summary of an entry in one line; titles sort by number."""
    new, old, measured = _version(entry.to_version), _version(entry.from_version), entry.measurements
    over = f" over {old}" if entry.from_version else ", the first champion"
    if entry.kind != "decision":
        text = _TITLES.get(entry.kind, entry.kind).format(new=new, old=old, over=over, alias=entry.alias)
    elif measured.get("promoted"):
        text = f"{new} is to be promoted{' by force' if measured.get('forced') else ''}{over}"
    elif entry.from_version == entry.to_version:
        text = f"{new} stays champion"
    else:
        text = f"{new} not promoted, {old} stays"
    gain = measured.get("gain")
    shown = f", gain {100 * gain:+.1f} points" if isinstance(gain, float) and entry.kind != "moving" else ""
    return f"{entry.n:04d} {text}{shown}"


def display(entry: LedgerEntry) -> Mapping[str, str]:
    """Tags with which MLflow shows an entry; verification compares them with the text."""
    values = {
        "kind": entry.kind,
        "alias": entry.alias,
        "from": _version(entry.from_version),
        "to": _version(entry.to_version),
        "actor": entry.actor,
        "reasons": "; ".join(entry.reasons),
        "data_version": entry.data_version,
        "code_version": entry.code_version,
        _NOTE: _note(entry),
    }
    return {name: value[:_LONGEST_SHOWN] for name, value in values.items() if value}


def _note(entry: LedgerEntry) -> str:
    parts = [f"**{title(entry)}**, {entry.at} by {entry.actor}", *(f"- {reason}" for reason in entry.reasons)]
    if entry.checks:
        parts += ["", "| rule | measured | required | passed |", "| --- | --- | --- | --- |"]
        parts += [
            f"| {check.get('name')} | {_shown(check.get('measured'))} | {check.get('required')} | "
            f"{'yes' if check.get('passed') else 'NO'} |"
            for check in entry.checks
        ]
    numbers = {name: value for name, value in sorted(entry.measurements.items()) if value is not None}
    if numbers:
        parts += ["", *(f"- {name}: {_shown(value)}" for name, value in numbers.items())]
    return "\n".join(parts)


def _shown(value: bool | float | str | None) -> str:
    return "not measured" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _version(version: str | None) -> str:
    return f"v{version}" if version else "none"


def _number(value: float | None) -> _Number:
    """NaN and infinity as text, which JSON does not have."""
    return value if value is None or math.isfinite(value) else str(value)

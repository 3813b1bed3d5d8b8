"""Ledger: what was decided about a model and which alias was moved, as a chain of hashes; knows nothing of where it is kept.

An entry's hash covers all its fields and the hash of the entry before it: one that was edited, cut, deleted or put
elsewhere is named, and so is a ledger whose end was cut off, by the head that is kept apart from it. Whoever can rewrite
every entry and the head can forge it: keep the last line of `models history` elsewhere and hold the ledger against it
with `--anchor`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from image_finder.components.configs import first_fault
from image_finder.components.records.base import Record
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.storage import sha256_of_bytes

FORMAT = 1  # of the text and of `display`: both are hashed or compared, so a change of either needs a new number
_NOTE = "mlflow.note.content"  # MLflow shows it as the description
FIRST = "0" * 64  # what the first entry follows

Kind = Literal[
    "registered",  # a version came into being, alias challenger points to it
    "decision",  # the rule's verdict
    "moving",  # the champion is about to change
    "moved",  # it changed, by the rule
    "forced",  # it changed, against or without the rule
    "rollback",  # it changed back; the rule does not promote the version it changed from again
    "abandoned",  # a change that was begun cannot be finished
    "outside",  # an alias was found elsewhere than where these commands had put it
    "index",  # searches answer with the index of another version
    "damaged",  # the ledger was found damaged in a way that the next entry would hide
    "skipped",  # a scheduled run found nothing to do
    "failed",  # a scheduled run failed, or the system ended it
]
DISPLAYED = ("kind", "alias", "from", "to", "actor", "reasons", "data_version", "code_version", _NOTE)
_LONGEST_SHOWN = 7500  # characters, MLflow's limit is 8000
_Number = float | str | None


class Event(Record):
    """What happened, before it has a place in a ledger. Versions are numbers as text."""

    kind: Kind
    from_version: str | None = None
    to_version: str | None = None
    alias: str = "champion"
    reasons: tuple[str, ...] = ()
    measurements: dict[str, _Number] = Field(default_factory=dict)  # numbers that are none are kept as text
    checks: tuple[dict[str, bool | float | str | None], ...] = ()
    data_version: str = ""
    code_version: str = ""


class LedgerEntry(Record):
    """One entry. Its fields are frozen text once written, so unknown ones of newer versions are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    n: int  # counted from 1; the order, whatever the clocks say
    at: str  # UTC, ISO 8601 with milliseconds, by the writer's clock
    model: str
    kind: str
    alias: str
    from_version: str | None
    to_version: str | None
    actor: str
    reasons: tuple[str, ...]
    measurements: dict[str, _Number]
    checks: tuple[dict[str, bool | float | str | None], ...]
    data_version: str
    code_version: str
    previous_sha256: str
    sha256: str = ""  # of `text`

    @property
    def text(self) -> str:
        """What is hashed and stored: all fields but the hash, as JSON in one line, keys sorted, ASCII."""
        return _canonical(self.model_dump(mode="json", exclude={"sha256"}))

    @property
    def milliseconds(self) -> int:
        """`at` as milliseconds since 1970."""
        return round(datetime.fromisoformat(self.at).timestamp() * 1000)


class LedgerFault(Record):
    """What is wrong at one place of a ledger; `n` is None where it is no entry."""

    n: int | None
    run_id: str | None
    text: str


class Head(NamedTuple):
    """The last entry as it is remembered apart from the entries; n is 0 before the first."""

    n: int
    sha256: str

    @classmethod
    def parse(cls, value: str) -> "Head | None":
        """What `str` gives; None for anything else."""
        number, _, digest = value.partition(":")
        return cls(int(number), digest) if number.isdecimal() and len(digest) == len(FIRST) else None

    def __str__(self) -> str:
        return f"{self.n}:{self.sha256}"


class Stored(NamedTuple):
    """An entry as a store gives it back, damaged or not."""

    run_id: str
    deleted: bool  # marked as deleted, still to be read
    number: str  # by which the store finds it
    text: str
    sha256: str
    display: Mapping[str, str]
    name: str
    milliseconds: int


class Reading(NamedTuple):
    """Entries that can be read, in order, and everything that is wrong."""

    entries: tuple[LedgerEntry, ...]
    faults: tuple[LedgerFault, ...]


def of_decision(decision: PromotionDecision, **changes: Any) -> Event:  # noqa: ANN401 - fields of Event
    """The event of a decision, with its numbers and checks."""
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
    """The entry that follows head."""
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
    """What happened in a line, the number first so that names sort."""
    new, old = _version(entry.to_version), _version(entry.from_version)
    promoted = bool(entry.measurements.get("promoted"))
    by_force = " by force" if entry.measurements.get("forced") else ""
    kept = f"{new} stays champion" if entry.from_version == entry.to_version else f"{new} not promoted, {old} stays"
    over = f" over {old}" if entry.from_version else ", the first champion"
    texts = {
        "registered": f"{new} registered",
        "decision": f"{new} is to be promoted{by_force}{over}" if promoted else kept,
        "moving": f"{new} about to become champion, {old} until then",
        "moved": f"{new} promoted{over}",
        "forced": f"{new} promoted by force{over}",
        "rollback": f"{new} is champion again, rolled back from {old}",
        "abandoned": f"move to {new} abandoned, {old} stays",
        "outside": f"alias {entry.alias} found at {new} instead of {old}",
        "index": f"searches answer with {new}",
        "damaged": "damage of this ledger noted",
        "skipped": "scheduled run: nothing to do",
        "failed": "scheduled run failed",
    }
    gain = entry.measurements.get("gain")
    shown = f", gain {100 * gain:+.1f} points" if isinstance(gain, float) and entry.kind != "moving" else ""
    return f"{entry.n:04d} {texts.get(entry.kind, entry.kind)}{shown}"


def display(entry: LedgerEntry) -> dict[str, str]:
    """Fields of an entry as MLflow shows them, names are tags; compared with the text when the ledger is verified."""
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
    """The page of an entry, Markdown."""
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


def verify(model: str, stored: Sequence[Stored], head: Head | None) -> Reading:
    """Read what a store gives back and hold it against the chain and the head.

    A head one entry behind is no fault: a writer was stopped between the two.
    """
    faults: list[LedgerFault] = []
    chain: dict[int, Stored] = {}
    entries: dict[int, LedgerEntry] = {}
    for each in sorted(stored, key=lambda one: (_place(one), one.milliseconds)):
        place = _place(each)
        entry = _read(each, model, faults)
        if place in chain:
            faults.append(
                _fault(each, place, f"there are two entries {place}, {chain[place].run_id} and {each.run_id}")
            )
            continue
        if place:
            chain[place] = each
        if entry is not None:
            entries[entry.n] = entry
    faults += _chain_faults(chain, entries, head)
    ordered = sorted(faults, key=lambda fault: (fault.n is None, fault.n or 0))
    return Reading(tuple(entries[n] for n in sorted(entries)), tuple(ordered))


def _read(stored: Stored, model: str, faults: list[LedgerFault]) -> LedgerEntry | None:
    """The entry, or None with a fault. An entry whose hash does not fit is not given back: nothing of it can be trusted."""
    place = _place(stored)
    if sha256_of_bytes(stored.text.encode()) != stored.sha256:
        what = "was removed" if not stored.text else "was cut or edited: it does not have the hash it was written with"
        faults.append(_fault(stored, place, f"the text of entry {place or '?'} {what}"))
        return None
    try:
        entry = LedgerEntry.model_validate({**json.loads(stored.text), "sha256": stored.sha256})
    except (ValueError, TypeError, ValidationError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else str(error)
        faults.append(_fault(stored, place, f"entry {place or '?'} cannot be read: {reason}"))
        return None
    if entry.model != model or entry.n != place:
        told = f"entry {entry.n} of {entry.model} stands where entry {place or '?'} of {model} should"
        faults.append(_fault(stored, place, told))
        return None
    if stored.deleted:
        told = (
            f"entry {entry.n} was deleted in MLflow; bring it back with `mlflow runs restore --run-id {stored.run_id}`"
        )
        faults.append(_fault(stored, entry.n, told))
    if entry.format == FORMAT and (edited := _edited_display(stored, entry)):
        faults.append(
            _fault(stored, entry.n, f"what MLflow shows of entry {entry.n} was edited ({edited}); its text is whole")
        )
    return entry


def _edited_display(stored: Stored, entry: LedgerEntry) -> str:
    wanted = display(entry)
    edited = [name for name in sorted({*wanted, *stored.display}) if wanted.get(name) != stored.display.get(name)]
    if stored.name != title(entry):
        edited.append("name")
    if stored.milliseconds != entry.milliseconds:
        edited.append("time")
    return ", ".join(edited)


def _chain_faults(
    chain: Mapping[int, Stored], entries: Mapping[int, LedgerEntry], head: Head | None
) -> list[LedgerFault]:
    faults = []
    last = max(chain, default=0)
    for n in range(1, max(last, head.n if head else 0) + 1):
        if n not in chain:
            cut = n > last and head is not None
            told = (
                f"it was the last but {head.n - n}"
                if cut and head
                else f"the ledger goes on with entry {n + 1} or later"
            )
            faults.append(LedgerFault(n=n, run_id=None, text=f"entry {n} is missing; {told}"))
        elif (entry := entries.get(n)) is not None:
            expected = FIRST if n == 1 else chain[n - 1].sha256 if n - 1 in chain else entry.previous_sha256
            if entry.previous_sha256 != expected:
                told = (
                    f"entry {n} does not follow entry {n - 1} as it stands: one of them was written later or exchanged"
                )
                faults.append(_fault(chain[n], n, told))
    return faults + _head_faults(chain, head, last)


def _head_faults(chain: Mapping[int, Stored], head: Head | None, last: int) -> list[LedgerFault]:
    def fault(text: str) -> list[LedgerFault]:
        return [LedgerFault(n=None, run_id=None, text=text)]

    if head is None:
        return (
            fault("the head of the ledger was removed or edited: whether its end is missing cannot be told")
            if last
            else []
        )
    if head.n in chain and chain[head.n].sha256 != head.sha256:
        return fault(f"entry {head.n} is not the one that the head of the ledger names ({head.sha256[:12]})")
    if last > head.n + 1:
        return fault(f"the head of the ledger names entry {head.n}, but there are {last}: it was put back")
    return []


def _fault(stored: Stored, place: int, text: str) -> LedgerFault:
    return LedgerFault(n=place or None, run_id=stored.run_id, text=f"{text} (run {stored.run_id})")


def _place(stored: Stored) -> int:
    return int(stored.number) if stored.number.isdecimal() else 0


def _version(version: str | None) -> str:
    return f"v{version}" if version else "none"


def _number(value: float | None) -> _Number:
    """Infinite and NaN as text: JSON has none."""
    return value if value is None or math.isfinite(value) else str(value)


def _canonical(values: object) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

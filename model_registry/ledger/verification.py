"""Ledger verification: compares stored entries with their hashes, their chain, their head and what MLflow shows of them.

It finds entries that were edited, cut, deleted or exchanged, and a ledger whose end was removed. An attacker who rewrites
every entry and the head is not detected: keep the last line of `models history` elsewhere and pass it as `--anchor`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from image_finder.components.configs import first_fault
from image_finder.components.records.base import Record
from image_finder.components.storage import sha256_of_bytes
from image_finder.model_registry.ledger.entries import FIRST, FORMAT, Head, LedgerEntry, display, title


class LedgerFault(Record):
    """A fault of a ledger; `n` is None unless it concerns one entry."""

    n: int | None
    run_id: str | None
    text: str


class Stored(NamedTuple):
    """An entry as it was read from a store, before verification."""

    run_id: str
    deleted: bool  # marked as deleted but still readable
    number: str  # by which the store finds it
    text: str
    sha256: str
    display: Mapping[str, str]
    name: str
    milliseconds: int

    @property
    def n(self) -> int:
        """Number of the entry, 0 if it is not a number."""
        return int(self.number) if self.number.isdecimal() else 0


class Reading(NamedTuple):
    entries: tuple[LedgerEntry, ...]
    faults: tuple[LedgerFault, ...]


def verify(model: str, stored: Sequence[Stored], head: Head | None) -> Reading:
    """A head one entry behind is no fault: its writer was killed before it updated the head."""
    faults: list[LedgerFault] = []
    chain: dict[int, Stored] = {}
    entries: dict[int, LedgerEntry] = {}
    for each in sorted(stored, key=lambda one: (one.n, one.milliseconds)):
        entry = _read(each, model, faults)
        if each.n in chain:
            text = f"there are two entries {each.n}, {chain[each.n].run_id} and {each.run_id}"
            faults.append(_fault(each, each.n, text))
            continue
        if each.n:
            chain[each.n] = each
        if entry is not None:
            entries[entry.n] = entry
    faults += [*_chain_faults(chain, entries, head), *_head_faults(chain, head)]
    ordered = sorted(faults, key=lambda fault: (fault.n is None, fault.n or 0))
    return Reading(tuple(entries[n] for n in sorted(entries)), tuple(ordered))


def _read(stored: Stored, model: str, faults: list[LedgerFault]) -> LedgerEntry | None:
    """The entry; None and a fault if its hash is wrong and thus no field can be trusted."""
    n = stored.n or "?"
    if sha256_of_bytes(stored.text.encode()) != stored.sha256:
        what = "was cut or edited: its hash differs from the recorded one" if stored.text else "was removed"
        faults.append(_fault(stored, stored.n, f"the text of entry {n} {what}"))
        return None
    try:
        entry = LedgerEntry.model_validate({**json.loads(stored.text), "sha256": stored.sha256})
    except (ValueError, TypeError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else str(error)
        faults.append(_fault(stored, stored.n, f"entry {n} cannot be read: {reason}"))
        return None
    if entry.model != model or entry.n != stored.n:
        faults.append(_fault(stored, stored.n, f"entry {entry.n} of {entry.model} is stored as entry {n} of {model}"))
        return None
    if stored.deleted:
        restore = f"`mlflow runs restore --run-id {stored.run_id}`"
        faults.append(_fault(stored, entry.n, f"entry {entry.n} was deleted in MLflow; restore it with {restore}"))
    if entry.format == FORMAT and (edited := _edited_display(stored, entry)):
        text = f"MLflow shows an edited entry {entry.n} ({edited}); its text is intact"
        faults.append(_fault(stored, entry.n, text))
    return entry


def _edited_display(stored: Stored, entry: LedgerEntry) -> str:
    expected = display(entry)
    edited = [name for name in sorted({*expected, *stored.display}) if expected.get(name) != stored.display.get(name)]
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
            end = head.n if head is not None and n > last else 0
            detail = f"the head names entry {end} as the last" if end else f"entry {n + 1} or a later one exists"
            faults.append(LedgerFault(n=n, run_id=None, text=f"entry {n} is missing; {detail}"))
        elif (entry := entries.get(n)) is not None:
            expected = FIRST if n == 1 else chain[n - 1].sha256 if n - 1 in chain else entry.previous_sha256
            if entry.previous_sha256 != expected:
                text = f"entry {n} does not follow the stored entry {n - 1}: one of them was rewritten or exchanged"
                faults.append(_fault(chain[n], n, text))
    return faults


def _head_faults(chain: Mapping[int, Stored], head: Head | None) -> list[LedgerFault]:
    last, text = max(chain, default=0), ""
    if head is None:
        if last:
            text = "the head of the ledger was removed or edited, so missing entries at the end cannot be detected"
    elif head.n in chain and chain[head.n].sha256 != head.sha256:
        text = f"the head of the ledger names another entry {head.n} ({head.sha256[:12]})"
    elif last > head.n + 1:
        text = f"the head of the ledger was reset to entry {head.n}, but there are {last} entries"
    return [LedgerFault(n=None, run_id=None, text=text)] if text else []


def _fault(stored: Stored, n: int, text: str) -> LedgerFault:
    return LedgerFault(n=n or None, run_id=stored.run_id, text=f"{text} (run {stored.run_id})")

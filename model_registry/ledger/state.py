"""Ledger state: the aliases and rollbacks that follow from a ledger's entries; does not read the real aliases."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import LedgerEntry

_MOVES = {"moved", "forced", "rollback"}


@dataclass
class LedgerState:
    champion: str | None = None
    last_champion: str | None = None  # remains when there is no champion any more
    previous: str | None = None
    challenger: str | None = None
    last_registered: int = 0
    open_move: LedgerEntry | None = None

    @property
    def had_champion(self) -> bool:
        return self.last_champion is not None


def state_of(entries: Sequence[LedgerEntry]) -> LedgerState:
    state = LedgerState()
    for entry in entries:
        new = entry.to_version
        if entry.kind in _MOVES:
            before = state.previous if state.previous != new else None
            state.previous = entry.from_version or before
            state.champion, state.open_move = new, None
        elif entry.kind == "moving":
            state.open_move = entry
        elif entry.kind == "abandoned":
            state.open_move = None
        elif entry.kind == "registered" and new is not None:
            state.challenger, state.last_registered = new, max(state.last_registered, int(new))
        elif entry.kind == "outside":
            _apply_outside_change(state, entry.alias, new)
        state.last_champion = state.champion or state.last_champion
    return state


def current_rollback(entries: Sequence[LedgerEntry], versions: AbstractSet[str]) -> LedgerEntry | None:
    """The rollback from one of these versions that no later move of them supersedes."""
    for entry in reversed(entries):
        if entry.kind not in _MOVES and (entry.kind, entry.alias) != ("outside", names.CHAMPION):
            continue
        if entry.to_version in versions:
            return None
        if entry.from_version in versions:
            return entry if entry.kind == "rollback" else None
    return None


def _apply_outside_change(state: LedgerState, alias: str, new: str | None) -> None:
    if alias == names.CHAMPION:
        if state.champion and new and new != state.champion:
            state.previous = state.champion
        state.champion = new
    elif alias == names.PREVIOUS:
        state.previous = new
    elif alias == names.CHALLENGER:
        state.challenger = new

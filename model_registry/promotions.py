"""Promotions: moves the aliases of a registered model; every move is recorded and none is left incomplete.

A move of the champion is: an entry "moving", previous := the old champion, champion := the new one, an entry "moved". Each
step is one transaction, so there is always a champion, and `reconcile` completes a move that was interrupted between two.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import mlflow
import sqlalchemy.exc
from mlflow.exceptions import MlflowException

from image_finder.components.app.champion_index import ChampionNote, note_champion
from image_finder.components.errors import ConfigError
from image_finder.components.records.base import Record
from image_finder.components.records.promotion import PromotionDecision
from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import Event, Kind, LedgerEntry, of_decision, title
from image_finder.model_registry.ledger.state import LedgerState, current_rollback, state_of
from image_finder.model_registry.ledger.store import LedgerStore
from image_finder.model_registry.ledger.verification import LedgerFault
from image_finder.model_registry.registry import RegisteredVersion, Registry
from image_finder.model_registry.registry_errors import registry_error
from image_finder.model_registry.registry_lock import Check, locked, user_and_host
from image_finder.model_registry.rule import Rollback
from image_finder.model_registry.version_summary import outcome, replaced

_WAIT_S = 3600.0  # a comparison on the largest test set takes minutes


class ChampionStatus(Record):
    """The champion's version. `fault` says why there is none although there was one."""

    version: str | None
    fault: str = ""


class History(Record):
    entries: tuple[LedgerEntry, ...]
    faults: tuple[LedgerFault, ...]
    notes: tuple[str, ...] = ()


class Promotions:
    """Promotion, rollback and their ledger. Not thread-safe; writing takes the model's lock."""

    def __init__(self, registry: Registry, *, actor: str | None = None, home: Path | None = None) -> None:
        """actor: by default user@host. home: gets champion.json when the champion changes."""
        self.registry = registry
        self.tracking_uri = registry.tracking_uri
        self.ledger = LedgerStore(registry.client, registry.tracking_uri)
        self._actor = actor or user_and_host()
        self._home = home
        self._locks: dict[str, Check] = {}  # by model, while it is locked

    @classmethod
    def of_step(cls, *, home: Path | None = None) -> Self:
        """Promotions whose actor is the step's MLflow run. Raises ConfigError without a run."""
        registry = Registry.of_step()
        run = mlflow.active_run()
        assert run is not None, "Registry.of_step requires a run"
        return cls(registry, actor=f"run {run.info.run_name} ({run.info.run_id})", home=home)

    @contextmanager
    def exclusive(self, model: str, *, wait_s: float = _WAIT_S) -> Iterator[None]:
        """Hold the model's lock across processes and machines; reentrant.

        The registry may have changed while waiting. Raises BusyError naming the holder after wait_s seconds.
        """
        if model in self._locks:
            yield
            return
        with ExitStack() as stack:
            try:
                check = stack.enter_context(locked(self.registry.client, self.tracking_uri, model, wait_s=wait_s))
            except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
                raise registry_error(error, self.tracking_uri) from error
            self._locks[model] = check
            stack.callback(self._locks.pop, model)
            yield

    def champion(self, model: str) -> ChampionStatus:
        """The champion; with a fault, it was deleted, which is not "no champion yet"."""
        version = self._alias(model, names.CHAMPION)
        if version is not None and self.registry.has_version(model, version):
            return ChampionStatus(version=version)
        entries = self._entries(model)
        state = state_of(entries)
        if version is None and not state.had_champion:
            return ChampionStatus(version=None)
        lost = version or state.last_champion or "?"
        last = next((each for each in reversed(entries) if each.alias == names.CHAMPION and each.to_version), None)
        where = "" if last is None else f" (ledger entry {last.n})"
        rollback = ""
        if state.previous and state.previous != lost and self.registry.has_version(model, state.previous):
            rollback = f"`image-finder models rollback` goes back to version {state.previous}, "
        return ChampionStatus(
            version=None,
            fault=f"champion version {lost} of '{model}'{where} no longer exists: it or its alias was deleted; {rollback}"
            '`image-finder models promote V --force --reason "..."` makes version V champion',
        )

    def reconcile(self, model: str) -> tuple[LedgerEntry, ...]:
        """Complete an interrupted move and record outside changes; returns the new entries."""
        with self.exclusive(model):
            self.registry.ensure_model(model)
            state = state_of(self._entries(model))
            written = [*self._record_registered(model, state), *self._complete_move(model, state)]
            if written:
                state = state_of(self._entries(model))
            written += self._record_outside_changes(model, state)
            if written and (champion := self._alias(model, names.CHAMPION)):
                self.note_champion(model, champion)
            return tuple(written)

    def note_champion(self, model: str, version: str) -> None:
        """Write champion.json to the home, if there is a home. Raises StorageError."""
        if self._home is not None:
            note_champion(self._home, self.champion_note(model, version))

    def champion_note(self, model: str, version: str) -> ChampionNote:
        tags = {each.version: each.tags for each in self.registry.versions(model)}
        bundles = {name: found[names.BUNDLE_SHA256] for name, found in tags.items() if names.BUNDLE_SHA256 in found}
        return ChampionNote(model=model, version=version, bundles=bundles)

    def record(self, model: str, event: PromotionDecision | Event, *, actor: str | None = None) -> LedgerEntry:
        """Append an entry and tag its version. actor: by default that of this object."""
        if isinstance(event, PromotionDecision):
            event = of_decision(event)
        with self.exclusive(model):
            self.registry.ensure_model(model)
            self._locks[model]()
            entry = self.ledger.append(model, self._with_versions(model, event), actor=actor or self._actor)
            if entry.to_version and entry.kind not in {"moving", "outside"}:
                self.registry.tag_version(model, entry.to_version, names.LAST_EVENT, title(entry))
            self._describe(model, entry)
            return entry

    def move_champion(
        self, model: str, version: str, *, reason: str, decision: PromotionDecision | None = None
    ) -> LedgerEntry:
        """Make a version champion and the old champion previous; returns the ledger entry.

        A forced decision makes the entry "forced" instead of "moved". Raises ConfigError if there is no such version.
        """
        forced = decision is not None and decision.forced
        with self.exclusive(model):
            return self._change(model, version, "forced" if forced else "moved", reason, decision)

    def rollback(self, model: str, *, reason: str) -> LedgerEntry:
        """Make the previous version champion again. Raises ConfigError if there is none."""
        with self.exclusive(model):
            self.reconcile(model)
            version = self.previous(model)
            if version is None:
                raise ConfigError(
                    f"model '{model}' has no previous version to go back to: see 'image-finder models list', then "
                    "'image-finder models promote V --force --reason \"...\"'"
                )
            return self._change(model, version, "rollback", reason, None)

    def previous(self, model: str) -> str | None:
        """The version that a rollback makes champion."""
        version = self._alias(model, names.PREVIOUS)
        return version if version is not None and self.registry.has_version(model, version) else None

    def rollback_of(self, model: str, version: str) -> Rollback | None:
        """The rollback of this version, or of one with the same bundle, that bars its promotion.

        It ends when one of them is champion again. Raises ConfigError if there is no such version.
        """
        sha256 = self.registry.version(model, version).tags.get(names.BUNDLE_SHA256)
        equal = {each.version for each in self.registry.versions(model) if each.tags.get(names.BUNDLE_SHA256) == sha256}
        entry = current_rollback(self._entries(model), {version, *(equal if sha256 else ())})
        if entry is None or entry.from_version is None:
            return None
        return Rollback(entry.n, entry.from_version, "; ".join(entry.reasons))

    def history(self, model: str) -> History:
        reading = self.ledger.read(model)
        state, champion = state_of(reading.entries), self._alias(model, names.CHAMPION)
        notes = []
        if state.open_move is not None:
            move = title(state.open_move).partition(" ")[2]
            notes.append(f"interrupted: {move}; the next promotion, rollback or training completes it")
        elif champion != state.champion and (state.had_champion or champion):
            recorded = state.champion or "none"
            notes.append(f"not recorded yet: the champion is version {champion or 'none'}, in the ledger {recorded}")
        return History(entries=reading.entries, faults=reading.faults, notes=tuple(notes))

    def _change(
        self, model: str, version: str, kind: Kind, reason: str, decision: PromotionDecision | None
    ) -> LedgerEntry:
        self.reconcile(model)
        version = self.registry.version(model, version).version
        old = self.champion(model).version
        if version == old:
            entries = self._entries(model)
            return [each for each in entries if each.alias == names.CHAMPION and each.to_version == version][-1]
        facts = {} if decision is None else of_decision(decision).model_dump(include={"measurements", "checks"})
        facts["measurements"] = {**facts.get("measurements", {}), "move": kind}
        by_rule = () if decision is None else decision.reasons
        reasons = (*([reason] if reason else []), *(each for each in by_rule if each not in reason))
        event = Event.model_validate(
            {"kind": "moving", "from_version": old, "to_version": version, "reasons": reasons, **facts}
        )
        self.record(model, event)
        return self._move(model, event.model_copy(update={"kind": kind}))

    def _move(self, model: str, event: Event) -> LedgerEntry:
        assert event.to_version is not None, "a move has a target"
        self._locks[model]()
        if event.from_version and self.registry.has_version(model, event.from_version):
            self.registry.set_alias(model, names.PREVIOUS, event.from_version)
        self.note_champion(model, event.to_version)  # before the alias moves, so that a kill cannot hide it
        self.registry.set_alias(model, names.CHAMPION, event.to_version)
        if self._alias(model, names.PREVIOUS) == event.to_version:  # the old champion was deleted
            self.registry.delete_alias(model, names.PREVIOUS)
        if event.from_version:
            replaced = f"replaced as champion by v{event.to_version}"
            self.registry.tag_version(model, event.from_version, names.LAST_EVENT, replaced)
        return self.record(model, event)

    def _describe(self, model: str, entry: LedgerEntry) -> None:
        changed = {entry.to_version: outcome(entry), entry.from_version: replaced(entry)}
        for version, text in changed.items():
            if version and text:
                self.registry.describe(model, version, text)

    def _complete_move(self, model: str, state: LedgerState) -> list[LedgerEntry]:
        move = state.open_move
        if move is None or move.to_version is None:
            return []
        now = self._alias(model, names.CHAMPION)
        exists = self.registry.has_version(model, move.to_version)
        if now not in {move.from_version, move.to_version, None} or not exists:
            reason = (
                f"interrupted; since then the champion was set to {now or 'none'} or v{move.to_version} was deleted"
            )
            event = Event(
                kind="abandoned", from_version=move.from_version, to_version=move.to_version, reasons=(reason,)
            )
            return [self.record(model, event)]
        event = Event.model_validate(
            {
                **move.model_dump(include=set(Event.model_fields)),
                "kind": str(move.measurements.get("move", "moved")),
                "reasons": (*move.reasons, f"begun by {move.actor} at {move.at}, interrupted, completed later"),
            }
        )
        return [self._move(model, event)]

    def _record_registered(self, model: str, state: LedgerState) -> list[LedgerEntry]:
        new = [each for each in self.registry.versions(model) if int(each.version) > state.last_registered]
        written = []
        before = state.challenger
        for each in reversed(new):
            mean_recall = each.tags.get(names.MEAN_RECALL)
            event = Event(
                kind="registered",
                alias=names.CHALLENGER,
                from_version=before,
                to_version=each.version,
                reasons=(f"registered at {each.created:%Y-%m-%d %H:%M:%S} UTC", *_origin(each)),
                measurements={"mean_recall": float(mean_recall)} if mean_recall else {},
            )
            run = each.tags.get(names.RUN_NAME) or "unknown"
            written.append(self.record(model, event, actor=f"run {run} ({each.run_id})"))
            before = each.version
        if new and self._alias(model, names.CHALLENGER) != new[0].version:
            self.registry.set_alias(model, names.CHALLENGER, new[0].version)  # its registration was interrupted
        return written

    def _record_outside_changes(self, model: str, state: LedgerState) -> list[LedgerEntry]:
        aliases = self.registry.aliases(model)
        expected = {
            names.CHAMPION: state.champion,
            names.PREVIOUS: state.previous,
            names.CHALLENGER: state.challenger,
        }
        champion = aliases.get(names.CHAMPION)
        if champion and state.champion and champion != state.champion:
            if self.registry.has_version(model, state.champion):
                self.registry.set_alias(model, names.PREVIOUS, state.champion)
                aliases[names.PREVIOUS] = state.champion
            expected[names.PREVIOUS] = aliases.get(names.PREVIOUS)
        written = []
        for alias, version in expected.items():
            now = aliases.get(alias)
            if now != version:
                reason = "set in MLflow, before this ledger existed, or by an entry that is damaged now"
                event = Event(kind="outside", alias=alias, from_version=version, to_version=now, reasons=(reason,))
                written.append(self.record(model, event))
        return written

    def _with_versions(self, model: str, event: Event) -> Event:
        if not event.to_version or not self.registry.has_version(model, event.to_version):
            return event
        tags = self.registry.version(model, event.to_version).tags
        return event.model_copy(
            update={
                "data_version": event.data_version or tags.get(names.DATA_VERSION, ""),
                "code_version": event.code_version or tags.get(names.CODE_VERSION, ""),
            }
        )

    def _alias(self, model: str, alias: str) -> str | None:
        return self.registry.aliases(model).get(alias)

    def _entries(self, model: str) -> tuple[LedgerEntry, ...]:
        return self.ledger.read(model).entries


def _origin(version: RegisteredVersion) -> tuple[str, ...]:
    imported = version.tags.get(names.IMPORTED)
    return (f"imported from {imported}",) if imported else ()

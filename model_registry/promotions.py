"""Promotions: moves the aliases of a registered model so that every move is on record and none is left half done.

A move of the champion is: an entry "moving", previous := the old champion, champion := the new one, an entry "moved". Each
is one transaction, so there is a champion at any instant, and after a stop between two of them `reconcile` finishes it.
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
from image_finder.model_registry.ledger.ledger import Event, Kind, LedgerEntry, LedgerFault, of_decision, title
from image_finder.model_registry.ledger.state import LedgerState, current_rollback, state_of
from image_finder.model_registry.ledger.store import LedgerStore
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.registry_errors import guarded, registry_error
from image_finder.model_registry.registry_lock import Held, exclusive, user_and_host
from image_finder.model_registry.rule import Rollback

_WAIT_S = 3600.0  # a comparison on the largest test set takes minutes


class ChampionStatus(Record):
    """Which version is champion. `fault` says what is wrong when there should be one: it was deleted by hand, say."""

    version: str | None  # None: there never was a champion, or (with a fault) it has gone
    fault: str = ""


class History(Record):
    """The ledger of a model: entries in their order, what is wrong with them, and what has not been recorded yet."""

    entries: tuple[LedgerEntry, ...]
    faults: tuple[LedgerFault, ...]
    notes: tuple[str, ...] = ()


class Promotions:
    """Promotion, rollback and their ledger at one registry. Not for several threads at once."""

    def __init__(self, registry: Registry, *, actor: str | None = None, home: Path | None = None) -> None:
        """actor: who is written into the ledger; None: user@host. home: where the champion is noted for its indices."""
        self.registry = registry
        self.tracking_uri = registry.tracking_uri
        self.ledger = LedgerStore(registry.client, registry.tracking_uri)
        self._actor = actor or user_and_host()
        self._home = home
        self._held: dict[str, Held] = {}

    @classmethod
    def of_step(cls, *, home: Path | None = None) -> Self:
        """Those of the MLflow run ZenML opened for the current step, which is the actor. Raises ConfigError without one."""
        registry = Registry.of_step()
        run = mlflow.active_run()
        assert run is not None, "Registry.of_step has looked"
        return cls(registry, actor=f"run {run.info.run_name} ({run.info.run_id})", home=home)

    @contextmanager
    def exclusive(self, model: str, *, wait_s: float = _WAIT_S) -> Iterator[None]:
        """Hold the model's lock across processes and machines; may be nested. Waits at most wait_s seconds.

        What was read before may have changed when it is entered: read again. Raises BusyError naming the holder.
        """
        if model in self._held:
            yield
            return
        with ExitStack() as stack:
            try:
                held = stack.enter_context(exclusive(self.registry.client, self.tracking_uri, model, wait_s=wait_s))
            except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
                raise registry_error(error, self.tracking_uri) from error
            self._held[model] = held
            stack.callback(self._held.pop, model)
            yield

    def champion(self, model: str) -> ChampionStatus:
        """The champion, or why there is none although there should be: a step must not take that for "no champion yet"."""
        version = self.registry.aliases(model).get(names.CHAMPION)
        if version is not None and self.registry.has_version(model, version):
            return ChampionStatus(version=version)
        entries = self._read(model)
        last = next((each for each in reversed(entries) if each.alias == names.CHAMPION and each.to_version), None)
        known = state_of(entries)
        if version is None and not known.had_champion:
            return ChampionStatus(version=None)
        lost = version or known.last_champion or "?"
        place = "" if last is None else f" (ledger entry {last.n})"
        back = (
            f"`image-finder models rollback` goes back to version {known.previous}, "
            if known.previous and known.previous != lost and self.registry.has_version(model, known.previous)
            else ""
        )
        return ChampionStatus(
            version=None,
            fault=f"champion version {lost} of '{model}'{place} has gone: it or its alias was removed by hand; {back}"
            '`image-finder models promote V --force --reason "..."` makes another one champion',
        )

    def reconcile(self, model: str) -> tuple[LedgerEntry, ...]:
        """Finish a move that was interrupted, and record what was done by hand; the entries written. Takes the lock."""
        with self.exclusive(model):
            self.registry.ensure_model(model)
            state = state_of(self._read(model))
            written = [*self._note_registered(model, state), *self._finish_move(model, state)]
            if written:
                state = state_of(self._read(model))
            written += self._note_outside(model, state)
            if written and (champion := self.registry.aliases(model).get(names.CHAMPION)):
                self.note_champion(model, champion)
            return tuple(written)

    def note_champion(self, model: str, version: str) -> None:
        """Write champion.json of the home, if there is a home. Raises StorageError."""
        if self._home is not None:
            note_champion(self._home, self.champion_note(model, version))

    def champion_note(self, model: str, version: str) -> ChampionNote:
        """A version as champion, with the bundles of all versions."""
        tags = {each.version: each.tags for each in self.registry.versions(model)}
        bundles = {name: found[names.BUNDLE_SHA256] for name, found in tags.items() if names.BUNDLE_SHA256 in found}
        return ChampionNote(model=model, version=version, bundles=bundles)

    def record(self, model: str, event: PromotionDecision | Event, *, actor: str | None = None) -> LedgerEntry:
        """Append a decision or another event, and name it at the version it is about. Takes the lock.

        actor: None: the step's run, or user@host.
        """
        if isinstance(event, PromotionDecision):
            event = of_decision(event)
        with self.exclusive(model):
            self.registry.ensure_model(model)
            self._held[model].check()
            entry = self._append(model, self._with_versions(model, event), actor or self._actor)
            if entry.to_version and entry.kind not in {"moving", "outside"}:
                self.registry.tag_version(model, entry.to_version, names.LAST_EVENT, title(entry))
            return entry

    def move_champion(
        self,
        model: str,
        version: str,
        *,
        reason: str,
        actor: str | None = None,
        decision: PromotionDecision | None = None,
    ) -> LedgerEntry:
        """Make a version champion and the old champion previous; there is a champion at any instant. Takes the lock.

        decision.forced makes the entry "forced" instead of "moved". Does nothing but return the newest entry about the
        champion when the version is champion already. Raises ConfigError for a version that is not there.
        """
        forced = decision is not None and decision.forced
        with self.exclusive(model):
            return self._change(model, version, "forced" if forced else "moved", reason, actor, decision)

    def rollback(self, model: str, *, reason: str, actor: str | None = None) -> LedgerEntry:
        """Make the previous version champion again. Raises ConfigError when there is none. Takes the lock."""
        with self.exclusive(model):
            self.reconcile(model)
            version = self.previous(model)
            if version is None:
                raise ConfigError(
                    f"model '{model}' has no previous version to go back to: see 'image-finder models list', then "
                    "'image-finder models promote V --force --reason \"...\"'"
                )
            return self._change(model, version, "rollback", reason, actor, None)

    def previous(self, model: str) -> str | None:
        """The version a rollback would go back to."""
        version = self.registry.aliases(model).get(names.PREVIOUS)
        return version if version is not None and self.registry.has_version(model, version) else None

    def rollback_of(self, model: str, version: str) -> Rollback | None:
        """The rollback that keeps the rule from promoting a version: its own, or that of a version of the same bundle.

        It is over once one of them is champion again: a second rollback goes forth again, a person may force it. Raises
        ConfigError for a version that is not there.
        """
        sha256 = self.registry.version(model, version).tags.get(names.BUNDLE_SHA256)
        equal = {each.version for each in self.registry.versions(model) if each.tags.get(names.BUNDLE_SHA256) == sha256}
        entry = current_rollback(self._read(model), {version, *(equal if sha256 else ())})
        if entry is None or entry.from_version is None:
            return None
        return Rollback(entry.n, entry.from_version, "; ".join(entry.reasons))

    @guarded
    def history(self, model: str) -> History:
        """The whole ledger, verified; writes nothing."""
        reading = self.ledger.read(model)
        state, aliases = state_of(reading.entries), self.registry.aliases(model)
        notes = []
        if state.open_move is not None:
            told = title(state.open_move).partition(" ")[2]
            notes.append(f"interrupted: {told}; the next promotion, rollback or training finishes it")
        elif aliases.get(names.CHAMPION) != state.champion and (state.had_champion or aliases.get(names.CHAMPION)):
            now, then = aliases.get(names.CHAMPION), state.champion
            notes.append(f"not recorded yet: champion is version {now or 'none'}, by the ledger {then or 'none'}")
        return History(entries=reading.entries, faults=reading.faults, notes=tuple(notes))

    def _change(
        self,
        model: str,
        version: str,
        kind: Kind,
        reason: str,
        actor: str | None,
        decision: PromotionDecision | None,
    ) -> LedgerEntry:
        self.reconcile(model)
        version = self.registry.version(model, version).version
        old = self.champion(model).version
        if version == old:
            about = [each for each in self._read(model) if each.alias == names.CHAMPION and each.to_version == version]
            return about[-1]
        facts = {} if decision is None else of_decision(decision).model_dump(include={"measurements", "checks"})
        facts["measurements"] = {**facts.get("measurements", {}), "move": kind}
        by_rule = () if decision is None else decision.reasons
        reasons = (*([reason] if reason else []), *(each for each in by_rule if each not in reason))
        event = Event.model_validate(
            {"kind": "moving", "from_version": old, "to_version": version, "reasons": reasons, **facts}
        )
        self.record(model, event, actor=actor)
        return self._move(model, event.model_copy(update={"kind": kind}), actor)

    def _move(self, model: str, event: Event, actor: str | None) -> LedgerEntry:
        """The aliases, and the entry after them."""
        assert event.to_version is not None, "nothing is moved to nothing"
        self._held[model].check()
        if event.from_version and self.registry.has_version(model, event.from_version):
            self.registry.set_alias(model, names.PREVIOUS, event.from_version)
        self.note_champion(model, event.to_version)  # before the alias moves, so that a kill cannot hide it
        self.registry.set_alias(model, names.CHAMPION, event.to_version)
        if self.registry.aliases(model).get(names.PREVIOUS) == event.to_version:  # the champion before it has gone
            self.registry.delete_alias(model, names.PREVIOUS)
        if event.from_version:
            told = f"replaced as champion by v{event.to_version}"
            self.registry.tag_version(model, event.from_version, names.LAST_EVENT, told)
        return self.record(model, event, actor=actor)

    def _finish_move(self, model: str, state: LedgerState) -> list[LedgerEntry]:
        move = state.open_move
        if move is None or move.to_version is None:
            return []
        now = self.registry.aliases(model).get(names.CHAMPION)
        kind = str(move.measurements.get("move", "moved"))
        if now not in {move.from_version, move.to_version, None} or not self.registry.has_version(
            model, move.to_version
        ):
            told = f"it was interrupted, and meanwhile the champion was set to {now or 'none'} or v{move.to_version} removed"
            event = Event(kind="abandoned", from_version=move.from_version, to_version=move.to_version, reasons=(told,))
            return [self.record(model, event)]
        event = Event.model_validate(
            {
                **move.model_dump(include=set(Event.model_fields)),
                "kind": kind,
                "reasons": (*move.reasons, f"begun by {move.actor} at {move.at}, interrupted, finished later"),
            }
        )
        return [self._move(model, event, None)]

    def _note_registered(self, model: str, state: LedgerState) -> list[LedgerEntry]:
        """An entry for each version that came since, and the alias challenger to the newest of them."""
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
                reasons=(f"registered at {each.created:%Y-%m-%d %H:%M:%S} UTC",),
                measurements={"mean_recall": float(mean_recall)} if mean_recall else {},
            )
            run = each.tags.get(names.RUN_NAME) or "unknown"
            written.append(self.record(model, event, actor=f"run {run} ({each.run_id})"))
            before = each.version
        if new and self.registry.aliases(model).get(names.CHALLENGER) != new[0].version:
            self.registry.set_alias(model, names.CHALLENGER, new[0].version)  # its registration was interrupted
        return written

    def _note_outside(self, model: str, state: LedgerState) -> list[LedgerEntry]:
        """Entries for aliases that are not where the ledger has them; previous follows a champion moved by hand."""
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
            if now == version:
                continue
            told = "set in MLflow by hand, before this ledger began, or by an entry that is damaged now"
            event = Event(kind="outside", alias=alias, from_version=version, to_version=now, reasons=(told,))
            written.append(self.record(model, event))
        return written

    def _with_versions(self, model: str, event: Event) -> Event:
        """The event with the data and code version of the version it is about, where it does not name them."""
        if not event.to_version or not self.registry.has_version(model, event.to_version):
            return event
        tags = self.registry.version(model, event.to_version).tags
        return event.model_copy(
            update={
                "data_version": event.data_version or tags.get(names.DATA_VERSION, ""),
                "code_version": event.code_version or tags.get(names.CODE_VERSION, ""),
            }
        )

    @guarded
    def _append(self, model: str, event: Event, actor: str) -> LedgerEntry:
        return self.ledger.append(model, event, actor=actor)

    @guarded
    def _read(self, model: str) -> tuple[LedgerEntry, ...]:
        return self.ledger.read(model).entries

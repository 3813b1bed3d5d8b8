"""Ledger store: keeps a model's ledger in MLflow, each entry as a run of the experiment `<model> ledger`.

MLflow creates a run in one transaction on SQLite, on PostgreSQL and behind a server, and shows it on its page. Appending
needs the model's lock.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import (
    DISPLAYED,
    FIRST,
    Event,
    Head,
    LedgerEntry,
    display,
    seal,
    title,
)
from image_finder.model_registry.ledger.verification import LedgerFault, Reading, Stored, verify
from image_finder.model_registry.registry_errors import guarded, or_none
from image_finder.model_registry.registry_lock import sqlite_file

_PIECE = 7500  # characters of an entry's text in one tag; MLflow's limit is 8000
_PAGE = 1000


class LedgerStore:
    """Ledgers of one registry. now: the clock, UTC. Raises StorageError if the registry fails."""

    def __init__(
        self, client: MlflowClient, tracking_uri: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._client = client
        self.tracking_uri = tracking_uri
        self._now = now

    @guarded
    def append(self, model: str, event: Event, *, actor: str) -> LedgerEntry:
        """Append an entry. The caller holds the model's lock, and the model exists."""
        experiment = self._ensure_experiment(model)
        head, lost = self._end(model, experiment)
        if lost:
            damaged = Event(kind="damaged", reasons=(lost,))
            head = self._write(model, experiment, seal(model, damaged, head=head, at=self._now(), actor=actor))
        entry = seal(model, event, head=head, at=self._now(), actor=actor)
        self._write(model, experiment, entry)
        return entry

    @guarded
    def read(self, model: str) -> Reading:
        experiment = self._client.get_experiment_by_name(names.ledger_experiment(model))
        head = self._head(model)
        stored = [] if experiment is None else self._stored(str(experiment.experiment_id))
        reading = verify(model, stored, head)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            text = (
                f"the experiment of the ledger was deleted: `mlflow experiments restore -x {experiment.experiment_id}`"
            )
            reading = Reading(reading.entries, (LedgerFault(n=None, run_id=None, text=text), *reading.faults))
        return reading

    def _write(self, model: str, experiment: str, entry: LedgerEntry) -> Head:
        pieces = [entry.text[start : start + _PIECE] for start in range(0, len(entry.text), _PIECE)]
        tags = {
            **display(entry),
            "mlflow.user": entry.actor,
            names.ENTRY_NUMBER: f"{entry.n:08d}",  # sorts as text
            names.ENTRY_SHA256: entry.sha256,
            **{names.ENTRY_TEXT if i == 0 else f"{names.ENTRY_TEXT}.{i + 1}": piece for i, piece in enumerate(pieces)},
        }
        run = self._client.create_run(experiment, start_time=entry.milliseconds, tags=tags, run_name=title(entry))
        head = Head(entry.n, entry.sha256)
        self._client.set_registered_model_tag(model, names.LEDGER_HEAD, str(head))
        self._client.set_terminated(run.info.run_id, end_time=entry.milliseconds)
        return head

    def _end(self, model: str, experiment: str) -> tuple[Head, str]:
        """The head for the next entry, and what may be lost if the stored head is missing."""
        head = self._head(model)
        newest = self._client.search_runs(
            [experiment], run_view_type=ViewType.ALL, max_results=1, order_by=[f"tags.`{names.ENTRY_NUMBER}` DESC"]
        )
        last = _stored(newest[0]) if newest else None
        number = last.n if last is not None else 0
        if head is not None and last is not None and number in {head.n, head.n + 1}:
            if newest[0].info.status == "RUNNING":  # its writer was killed
                self._client.set_terminated(last.run_id, end_time=last.milliseconds)
            return (Head(number, last.sha256) if number > head.n else head), ""
        if head is None and last is None:
            return Head(0, FIRST), ""
        if head is not None and (last is None or 0 < number < head.n):
            return head, ""  # the end was cut off: its missing numbers remain visible
        whole = verify(model, self._stored(experiment), head).entries
        found = Head(whole[-1].n, whole[-1].sha256) if whole else Head(0, FIRST)
        if head is not None:
            return max(head, found), ""
        return found, "the head of the ledger had been removed or edited: entries may be missing before this one"

    def _head(self, model: str) -> Head | None:
        found = or_none(self._client.get_registered_model, model)
        return Head.parse(found.tags.get(names.LEDGER_HEAD, "")) if found else None

    def _stored(self, experiment: str) -> list[Stored]:
        found: list[Stored] = []
        token = None
        while True:
            page = self._client.search_runs(
                [experiment], run_view_type=ViewType.ALL, max_results=_PAGE, page_token=token
            )
            found += map(_stored, page)
            token = page.token
            if not token:
                return found

    def _ensure_experiment(self, model: str) -> str:
        name = names.ledger_experiment(model)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        database = sqlite_file(self.tracking_uri)
        # Nothing is stored there. Without it MLflow names a directory below the current one.
        location = None if database is None else (database.resolve().parent / "mlartifacts").as_uri()
        note = (
            f"Ledger of the registered model **{model}**: every decision, promotion and rollback, chained by hashes, oldest "
            f"at the bottom. Show and verify it with `image-finder models history --model {model}`. Edits are detected."
        )
        # The kind makes MLflow show the runs as a table, not as traces.
        tags = {"mlflow.note.content": note, "mlflow.experimentKind": "custom_model_development"}
        made = self._client.create_experiment(name, artifact_location=location, tags=tags)
        return str(made)


def _stored(run: Run) -> Stored:
    tags = dict(run.data.tags)
    pieces = [tags.get(names.ENTRY_TEXT, "")]
    while piece := tags.get(f"{names.ENTRY_TEXT}.{len(pieces) + 1}"):
        pieces.append(piece)
    return Stored(
        run_id=run.info.run_id,
        deleted=run.info.lifecycle_stage == "deleted",
        number=tags.get(names.ENTRY_NUMBER, ""),
        text="".join(pieces),
        sha256=tags.get(names.ENTRY_SHA256, ""),
        display={name: value for name, value in tags.items() if name in DISPLAYED},
        name=run.info.run_name or "",
        milliseconds=run.info.start_time or 0,
    )

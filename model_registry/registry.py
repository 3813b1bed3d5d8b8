"""Registry: versions, aliases and stored records of registered models in MLflow; each version is one bundle."""

import contextlib
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import ValidationError

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import first_fault
from image_finder.components.errors import BundleError, ConfigError
from image_finder.components.metrics.comparison import StoredMeasurement
from image_finder.components.records.base import Record
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.storage import new_directory
from image_finder.components.temporaries import scratch_directory
from image_finder.components.text import one_line
from image_finder.model_registry import names, tracking, version_summary
from image_finder.model_registry.lineage import Lineage
from image_finder.model_registry.registry_errors import guarded, limit_waiting, or_none, shown_address
from image_finder.model_registry.registry_lock import sqlite_file

_REQUEST_S, _RETRIES = 60, 3  # a server needs time to store a bundle of 100 MB
_Rec = TypeVar("_Rec", bound=Record)


class RegisteredVersion(Record):
    """One version of a registered model. Times are UTC."""

    name: str
    version: str
    run_id: str | None
    aliases: tuple[str, ...]
    tags: dict[str, str]
    created: datetime


class Registry:
    """The registry at a tracking URI; not MLflow's global one, which ZenML resets after a step.

    Methods raise StorageError, in one line, if the registry is unreachable, slow, full or read-only.
    """

    @guarded
    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        limit_waiting(_REQUEST_S, _RETRIES)
        self.client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    @classmethod
    def of_step(cls) -> Self:
        """The registry of the current step's MLflow run. Raises ConfigError without a run."""
        tracking.run_id()
        return cls(mlflow.get_tracking_uri())

    @classmethod
    def existing(cls, tracking_uri: str) -> Self:
        """An existing registry, where MLflow would create a SQLite file. Raises ConfigError."""
        database = sqlite_file(tracking_uri)
        if database is not None and not database.is_file():
            raise ConfigError(
                f"no registry at {shown_address(tracking_uri)}: run 'image-finder pipeline run training' first, or name "
                "another one with --home or --mlflow-uri"
            )
        return cls(tracking_uri)

    @guarded
    def model_names(self) -> list[str]:
        found = (model.name for model in self.client.search_registered_models())
        return sorted(name for name in found if names.LOCK_SUFFIX not in name)

    @guarded
    def versions(self, name: str) -> list[RegisteredVersion]:
        """All versions of a model, newest first; empty if the model does not exist."""
        aliases = self.aliases(name)
        found = [
            _registered(each, [alias for alias, number in aliases.items() if number == str(each.version)])
            for each in self.client.search_model_versions(f"name = '{name}'")  # does not return aliases
        ]
        return sorted(found, key=lambda each: int(each.version), reverse=True)

    @guarded
    def version(self, name: str, version_or_alias: str) -> RegisteredVersion:
        """A version by number or alias. Raises ConfigError if there is none."""
        found = self._find(name, version_or_alias)
        if found is None:
            raise ConfigError(
                f"model '{name}' has no version or alias '{version_or_alias}' at {shown_address(self.tracking_uri)}"
                + self._why_none(name, version_or_alias)
            )
        return _registered(found, found.aliases)

    @guarded
    def aliases(self, name: str) -> dict[str, str]:
        """Version of each alias, even if it was deleted; empty if the model does not exist."""
        model = or_none(self.client.get_registered_model, name)
        return {alias: str(number) for alias, number in model.aliases.items()} if model else {}

    @guarded
    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias to a version in one transaction. Raises ConfigError without the version."""
        version = self.version(name, version).version
        try:
            self.client.set_registered_model_alias(name, alias, version)
        except MlflowException as error:
            if "unique" not in str(error).lower():  # UniqueViolation of PostgreSQL, UNIQUE constraint of SQLite
                raise
            # MLflow reads the alias, then inserts it; another process inserted it in between.
            self.client.set_registered_model_alias(name, alias, version)

    @guarded
    def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias if it exists."""
        self.client.delete_registered_model_alias(name, alias)

    def has_version(self, name: str, version: str) -> bool:
        return self._find(name, version) is not None

    def champion_version(self, name: str) -> str | None:
        """Version of the champion; None without one or if it was deleted."""
        found = self._find(name, names.CHAMPION)
        return None if found is None else str(found.version)

    def version_of_bundle(self, name: str, sha256: str) -> str | None:
        """The newest version with this bundle."""
        found = (each.version for each in self.versions(name) if each.tags.get(names.BUNDLE_SHA256) == sha256)
        return next(found, None)

    @guarded
    def tag_version(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a version and of its run, if they exist."""
        found = self._find(name, version)
        if found is None:
            return
        self.client.set_model_version_tag(name, version, key, value)
        with contextlib.suppress(MlflowException):  # the run may have been deleted
            if found.run_id:
                self.client.set_tag(found.run_id, key, value)

    @guarded
    def store_text(self, name: str, version: str, text: str, artifact: str) -> None:
        """Store a file in the run of a version, if both exist."""
        found = self._find(name, version)
        if found is not None and found.run_id and or_none(self.client.get_run, found.run_id):
            self.client.log_text(found.run_id, text, artifact)

    @guarded
    def where(self, name: str, version: str, artifact: str) -> str | None:
        """Path of a file of the version's run, or its URI in a remote store; None if there is none."""
        run_id = self.version(name, version).run_id
        run = or_none(self.client.get_run, run_id) if run_id else None
        if run is None or artifact not in self._files(run.info.run_id, artifact):
            return None
        address = urlsplit(f"{run.info.artifact_uri}/{artifact}")
        return url2pathname(address.path) if address.scheme in {"", "file"} else address.geturl()

    @guarded
    def describe(self, name: str, version: str, outcome: str) -> None:
        """Renew the first sentence of a version's description; one without the tag `summary` keeps its description."""
        found = self._find(name, version)
        if found is None or (facts := found.tags.get(names.SUMMARY)) is None:
            return
        card = (found.description or "").partition("\n\n")[2]
        self.client.update_model_version(name, version, f"{version_summary.sentence(facts, outcome)}\n\n{card}")

    @guarded
    def ensure_model(self, name: str) -> None:
        if or_none(self.client.get_registered_model, name) is None:
            note = (
                "Text-guided image finder: each version is a bundle of an image tower and a text tower. Aliases: champion "
                "serves searches, a rollback returns to previous, challenger is the newest. Their history: experiment "
                f"'{names.ledger_experiment(name)}', or `image-finder models history --model {name}`."
            )
            with contextlib.suppress(MlflowException):  # another process created it
                self.client.create_registered_model(name, description=note)

    # Raise BundleError. None: the version was registered by older code, or its run did not measure.

    def report_of(self, name: str, version_or_alias: str) -> RetrievalReport:
        return self._record(name, version_or_alias, names.REPORT_ARTIFACT, RetrievalReport)

    def lineage_of(self, name: str, version_or_alias: str) -> Lineage | None:
        return self._optional(name, version_or_alias, names.LINEAGE_ARTIFACT, Lineage)

    def manifest_of(self, name: str, version_or_alias: str) -> DatasetManifest | None:
        return self._optional(name, version_or_alias, names.MANIFEST_ARTIFACT, DatasetManifest)

    def validation_of(self, name: str, version_or_alias: str) -> ValidationReport | None:
        return self._optional(name, version_or_alias, names.VALIDATION_ARTIFACT, ValidationReport)

    def measurement_of(self, name: str, version_or_alias: str) -> StoredMeasurement | None:
        return self._run_record(name, version_or_alias, names.MEASURED_ARTIFACT, StoredMeasurement)

    def parity_of(self, name: str, version_or_alias: str) -> ParityReport | None:
        return self._run_record(name, version_or_alias, names.PARITY_ARTIFACT, ParityReport)

    def card_of(self, name: str, version_or_alias: str) -> str:
        with scratch_directory() as folder:
            return self.fetch(name, version_or_alias, names.CARD_ARTIFACT, Path(folder)).read_text(encoding="utf-8")

    def download_bundle(self, name: str, version_or_alias: str, to: Path) -> Bundle:
        """Download to a new directory, completely or not at all. Raises BundleError if it is another bundle."""
        found = self.version(name, version_or_alias)
        with scratch_directory() as folder:
            bundle = Bundle.open(self.fetch(name, found.version, names.BUNDLE_ARTIFACT, Path(folder)))
            if bundle.sha256 != (expected := found.tags.get(names.BUNDLE_SHA256, "")):
                raise BundleError(
                    f"bundle of {name} version {found.version} has sha256 {bundle.sha256[:12]}, registered as "
                    f"{expected[:12] or 'nothing'}; restore the artefact store or promote another version"
                )
            with new_directory(to) as target:
                shutil.copytree(bundle.path, target, dirs_exist_ok=True)
        return Bundle.open(to, verify=False)

    @guarded
    def fetch(self, name: str, version_or_alias: str, artifact: str, to: Path) -> Path:
        """Download a file or directory of a version into the directory `to`. Raises BundleError.

        MLflow would resolve `models:/name/version` at its global tracking URI, whatever URI is passed.
        """
        source = self.client.get_model_version_download_uri(name, self.version(name, version_or_alias).version)
        try:
            address = f"{source}/artifacts/{artifact}"
            return Path(download_artifacts(artifact_uri=address, dst_path=str(to), tracking_uri=self.tracking_uri))
        except (MlflowException, OSError) as error:
            raise BundleError(
                f"{artifact} of {name} version {version_or_alias} cannot be fetched: {one_line(error)}"
            ) from error

    def _record(self, name: str, version_or_alias: str, artifact: str, kind: type[_Rec]) -> _Rec:
        with scratch_directory() as folder:
            path = self.fetch(name, version_or_alias, artifact, Path(folder))
            try:
                return kind.model_validate_json(path.read_bytes())
            except ValidationError as error:
                raise BundleError(
                    f"{artifact} of {name} version {version_or_alias} cannot be read: {first_fault(error)}"
                ) from error

    @guarded
    def _optional(self, name: str, version_or_alias: str, artifact: str, kind: type[_Rec]) -> _Rec | None:
        """A record, or None for versions that were registered without it."""
        source = self.client.get_model_version_download_uri(name, self.version(name, version_or_alias).version)
        kept = list_artifacts(artifact_uri=f"{source}/artifacts", tracking_uri=self.tracking_uri)
        if not any(Path(each.path).name == artifact for each in kept):
            return None
        return self._record(name, version_or_alias, artifact, kind)

    @guarded
    def _run_record(self, name: str, version_or_alias: str, path: str, kind: type[_Rec]) -> _Rec | None:
        run_id = self.version(name, version_or_alias).run_id
        if not run_id or path not in self._files(run_id, path):
            return None
        try:
            with scratch_directory() as folder:
                stored = Path(self.client.download_artifacts(run_id, path, str(folder)))
                return kind.model_validate_json(stored.read_bytes())
        except (ValidationError, OSError) as error:
            raise BundleError(f"{path} of {name} version {version_or_alias} cannot be read: {error}") from error

    def _files(self, run_id: str, path: str) -> set[str]:
        """Files of a run in the directory of path; none if the run was deleted."""
        kept = or_none(self.client.list_artifacts, run_id, str(Path(path).parent))
        return {each.path for each in kept or ()}

    @guarded
    def _find(self, name: str, version_or_alias: str) -> ModelVersion | None:
        by_number, by_alias = self.client.get_model_version, self.client.get_model_version_by_alias
        return or_none(by_number if version_or_alias.isdigit() else by_alias, name, version_or_alias)

    def _why_none(self, name: str, version_or_alias: str) -> str:
        number = self.aliases(name).get(version_or_alias)
        if number is not None:
            return f": the alias points to version {number}, which was deleted"
        if not self.aliases(name) and (known := self.model_names()) and name not in known:
            return f"; registered models are {', '.join(known)}: name one with --model"
        return ""


def _registered(found: ModelVersion, aliases: list[str]) -> RegisteredVersion:
    return RegisteredVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id,
        aliases=tuple(sorted(aliases)),
        tags=dict(found.tags),
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
    )

"""MLflow registry: one registered version is one bundle with its report and card; knows nothing of how they are made."""

import contextlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self, TypeVar

import mlflow
import numpy as np
import pandas as pd
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, DataType, Schema, TensorSpec
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
from image_finder.model_registry import names, tracking
from image_finder.model_registry.lineage import Lineage
from image_finder.model_registry.registry_errors import guarded, is_answer, limit_waiting, shown_address
from image_finder.model_registry.registry_lock import sqlite_file

_MODEL_CODE = Path(__file__).with_name("bundle_model.py")
_DISTRIBUTION = "text-guided-image-finder"
_REQUEST_S, _RETRIES = 60, 3  # a server that stores a bundle of 100 MB may take a while to answer
_Rec = TypeVar("_Rec", bound=Record)


class RegisteredVersion(Record):
    """One version of a registered model. Times are UTC."""

    name: str
    version: str
    run_id: str | None
    aliases: tuple[str, ...]
    tags: dict[str, str]
    created: datetime


class Evidence(Record):
    """What is kept with a bundle: how well it did, on what data, and its card in Markdown."""

    report: RetrievalReport
    card: str
    manifest: DatasetManifest | None = None
    validation: ValidationReport | None = None
    drift_reference: Path | None = None  # a folder


class Registry:
    """The registry at one tracking address. Every call names it: ZenML blanks MLflow's global address after a step.

    A registry that is away, slow, full or read-only is one line, a StorageError.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        limit_waiting(_REQUEST_S, _RETRIES)
        self.client = self._connect()

    @classmethod
    def of_step(cls) -> Self:
        """The registry of the MLflow run ZenML opened for the current step. Raises ConfigError without one."""
        tracking.run_id()
        return cls(mlflow.get_tracking_uri())

    @classmethod
    def existing(cls, tracking_uri: str) -> Self:
        """A registry that is there already: MLflow would make a SQLite file that is not. Raises ConfigError."""
        database = sqlite_file(tracking_uri)
        if database is not None and not database.is_file():
            raise ConfigError(
                f"no registry at {shown_address(tracking_uri)}: run 'image-finder pipeline run training' first, or name "
                "another one with --home or --mlflow-uri"
            )
        return cls(tracking_uri)

    @guarded
    def register_bundle(self, bundle: Bundle, name: str, lineage: Lineage, evidence: Evidence) -> RegisteredVersion:
        """Log the bundle to the active run as a model made of code and files, register it, and alias it challenger.

        The version comes into being with all its tags in one transaction, after its files; when anything fails before
        that, the files are removed again.
        """
        run_id = tracking.run_id()
        with self._removed_on_failure(run_id):
            uri, model_id = _log_model(bundle, evidence, lineage)
            self.ensure_model(name)
            made = self.client.create_model_version(
                name, uri, run_id, _tags(bundle, lineage, evidence), description=evidence.card, model_id=model_id
            )
        self._point(name, names.CHALLENGER, str(made.version))
        self._describe_run(run_id, f"{name} v{made.version}", lineage, evidence)
        return self.version(name, str(made.version))

    @guarded
    def model_names(self) -> list[str]:
        """Names of the registered models, sorted."""
        found = (model.name for model in self.client.search_registered_models())
        return sorted(name for name in found if names.LOCK_SUFFIX not in name)

    @guarded
    def versions(self, name: str) -> list[RegisteredVersion]:
        """All versions of a model, newest first; empty when the model does not exist."""
        aliases = self.aliases(name)
        found = [
            _registered(each, [alias for alias, number in aliases.items() if number == str(each.version)])
            for each in self.client.search_model_versions(f"name = '{name}'")  # leaves the aliases out
        ]
        return sorted(found, key=lambda each: int(each.version), reverse=True)

    @guarded
    def version(self, name: str, version_or_alias: str) -> RegisteredVersion:
        """A version by its number, or by the alias that points to it. Raises ConfigError when there is none."""
        found = self._find(name, version_or_alias)
        if found is None:
            told = self._why_none(name, version_or_alias)
            raise ConfigError(
                f"model '{name}' has no version or alias '{version_or_alias}' at {shown_address(self.tracking_uri)}{told}"
            )
        return _registered(found, found.aliases)

    @guarded
    def aliases(self, name: str) -> dict[str, str]:
        """Version number of each alias, also of one whose version has gone; empty when the model does not exist."""
        try:
            return {alias: str(number) for alias, number in self.client.get_registered_model(name).aliases.items()}
        except MlflowException as error:
            if is_answer(error):
                return {}
            raise

    @guarded
    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias to a version in one transaction. Raises ConfigError when there is no such version."""
        self._point(name, alias, self.version(name, version).version)

    def _point(self, name: str, alias: str, version: str) -> None:
        """MLflow looks whether there is the alias, then writes it: of two who do so at once, a database refuses one."""
        try:
            self.client.set_registered_model_alias(name, alias, version)
        except MlflowException as error:
            if "unique" not in str(error).lower():  # UniqueViolation of PostgreSQL, UNIQUE constraint of SQLite
                raise
            self.client.set_registered_model_alias(name, alias, version)  # it is there by now

    @guarded
    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away; nothing happens when there is none."""
        self.client.delete_registered_model_alias(name, alias)

    def has_version(self, name: str, version: str) -> bool:
        """Whether a version is there."""
        return self._find(name, version) is not None

    def champion_version(self, name: str) -> str | None:
        """Number of the champion, None before the first promotion and when it has gone; see Promotions.standing."""
        found = self._find(name, names.CHAMPION)
        return None if found is None else str(found.version)

    def version_of_bundle(self, name: str, sha256: str) -> str | None:
        """Number of the newest version that is this bundle."""
        found = (each.version for each in self.versions(name) if each.tags.get(names.BUNDLE_SHA256) == sha256)
        return next(found, None)

    @guarded
    def tag_version(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a version and of its run, as far as they are there."""
        found = self._find(name, version)
        if found is None:
            return
        self.client.set_model_version_tag(name, version, key, value)
        with contextlib.suppress(MlflowException):  # its run may have been deleted
            if found.run_id:
                self.client.set_tag(found.run_id, key, value)

    @guarded
    def ensure_model(self, name: str) -> None:
        """Make the registered model unless it is there."""
        try:
            self.client.get_registered_model(name)
        except MlflowException as error:
            if not is_answer(error):
                raise
            told = (
                "Text-guided image finder: each version is a bundle of an image and a text tower. Alias champion serves, "
                "previous is what a rollback goes back to, challenger is the newest. Why they moved: experiment "
                f"'{names.ledger_experiment(name)}', or `image-finder models history --model {name}`."
            )
            with contextlib.suppress(MlflowException):  # another process made it meanwhile
                self.client.create_registered_model(name, description=told)

    def report_of(self, name: str, version_or_alias: str) -> RetrievalReport:
        """The retrieval report that was registered with a version. Raises BundleError."""
        return self._record(name, version_or_alias, names.REPORT_ARTIFACT, RetrievalReport)

    def lineage_of(self, name: str, version_or_alias: str) -> Lineage | None:
        """Where a version comes from; None for one that was registered before this was kept."""
        return self._optional(name, version_or_alias, names.LINEAGE_ARTIFACT, Lineage)

    def manifest_of(self, name: str, version_or_alias: str) -> DatasetManifest | None:
        """The data a version was made from."""
        return self._optional(name, version_or_alias, names.MANIFEST_ARTIFACT, DatasetManifest)

    def validation_of(self, name: str, version_or_alias: str) -> ValidationReport | None:
        """The validation report of the data a version was made from."""
        return self._optional(name, version_or_alias, names.VALIDATION_ARTIFACT, ValidationReport)

    def measurement_of(self, name: str, version_or_alias: str) -> StoredMeasurement | None:
        """What the promotion rule measured of a version, with the rank of every query; None where it did not."""
        return self._run_record(name, version_or_alias, names.MEASURED_ARTIFACT, StoredMeasurement)

    def parity_of(self, name: str, version_or_alias: str) -> ParityReport | None:
        """The parity report of a version's export; None where its run did not measure it."""
        return self._run_record(name, version_or_alias, names.PARITY_ARTIFACT, ParityReport)

    def card_of(self, name: str, version_or_alias: str) -> str:
        """The model card of a version, Markdown. Raises BundleError."""
        with scratch_directory() as folder:
            return self.fetch(name, version_or_alias, names.CARD_ARTIFACT, Path(folder)).read_text(encoding="utf-8")

    def download_bundle(self, name: str, version_or_alias: str, to: Path) -> Bundle:
        """Bring a version's bundle to the directory `to`, whole or not at all, and open it there.

        Raises BundleError when it is not what was registered.
        """
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
        """Bring a file or folder of a version below the folder `to`. Raises BundleError when it cannot be had.

        Not through `models:/name/version`: MLflow resolves that at its global address, whatever is passed.
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
        """A record that versions of older code, or made with less at hand, do not have."""
        source = self.client.get_model_version_download_uri(name, self.version(name, version_or_alias).version)
        kept = list_artifacts(artifact_uri=f"{source}/artifacts", tracking_uri=self.tracking_uri)
        if not any(Path(each.path).name == artifact for each in kept):
            return None
        return self._record(name, version_or_alias, artifact, kind)

    @guarded
    def _run_record(self, name: str, version_or_alias: str, path: str, kind: type[_Rec]) -> _Rec | None:
        run_id = self.version(name, version_or_alias).run_id
        try:
            if not run_id or path not in {
                each.path for each in self.client.list_artifacts(run_id, str(Path(path).parent))
            }:
                return None
            with scratch_directory() as folder:
                return kind.model_validate_json(
                    Path(self.client.download_artifacts(run_id, path, str(folder))).read_bytes()
                )
        except MlflowException as error:  # its run was deleted
            if is_answer(error):
                return None
            raise
        except (ValidationError, OSError) as error:
            raise BundleError(f"{path} of {name} version {version_or_alias} cannot be read: {error}") from error

    @guarded
    def _connect(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    @guarded
    def _find(self, name: str, version_or_alias: str) -> ModelVersion | None:
        try:
            if version_or_alias.isdigit():
                return self.client.get_model_version(name, version_or_alias)
            return self.client.get_model_version_by_alias(name, version_or_alias)
        except MlflowException as error:
            if is_answer(error):
                return None
            raise

    def _why_none(self, name: str, version_or_alias: str) -> str:
        number = self.aliases(name).get(version_or_alias)
        if number is not None:
            return f": the alias points to version {number}, which was deleted"
        if not self.aliases(name) and (known := self.model_names()) and name not in known:
            return f"; there is {', '.join(known)}: name one with --model"
        return ""

    def _describe_run(self, run_id: str, registered: str, lineage: Lineage, evidence: Evidence) -> None:
        """What somebody who opens the run in MLflow reads first."""
        report = evidence.report
        low, high = report.mean_recall_interval.low, report.mean_recall_interval.high
        told = (
            f"Training on {report.dataset}, data version {report.data_version}. Registered as **{registered}**: mean recall "
            f"{100 * report.mean_recall:.1f} % [{100 * low:.1f}, {100 * high:.1f}] on {report.n_images:,} images of "
            f"{report.split}. Code {lineage.code_version}; {lineage.hardware or 'hardware not known'}. Whether it became "
            "champion: reports/promotion.json, tag last_event, and the ledger. What was measured: figures and reports."
        )
        self.client.set_tag(run_id, "registered_as", registered)
        self.client.set_tag(run_id, "mlflow.note.content", told)

    @contextlib.contextmanager
    def _removed_on_failure(self, run_id: str) -> Iterator[None]:
        """Remove the files of models this run logged in vain: nobody would ever look for them."""
        before = {model.model_id for model in self._logged(run_id)}
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # whatever was wrong may be wrong still; the first error is told
                for model in self._logged(run_id):
                    if model.model_id not in before:
                        get_artifact_repository(model.artifact_location).delete_artifacts()  # type: ignore[no-untyped-call]
                        self.client.delete_logged_model(model.model_id)
            raise

    def _logged(self, run_id: str) -> list[mlflow.entities.LoggedModel]:
        experiment = self.client.get_run(run_id).info.experiment_id
        return list(self.client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"))


def _registered(found: ModelVersion, aliases: list[str]) -> RegisteredVersion:
    return RegisteredVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id,
        aliases=tuple(sorted(aliases)),
        tags=dict(found.tags),
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
    )


def _tags(bundle: Bundle, lineage: Lineage, evidence: Evidence) -> dict[str, str]:
    validation = evidence.validation
    tags = {
        names.DATASET: bundle.manifest.dataset,
        names.DATA_VERSION: bundle.manifest.data_version,
        names.DATA_FINGERPRINT: lineage.data_fingerprint,
        names.CODE_VERSION: lineage.code_version,
        names.CODE_SHA256: lineage.code_sha256,
        names.CONFIG_SHA256: lineage.config_sha256,
        names.ENVIRONMENT_SHA256: lineage.environment_sha256,
        names.HARDWARE: lineage.hardware,
        names.SEEDS: ", ".join(f"{name} {seed}" for name, seed in sorted(lineage.seeds.items())),
        names.PARENT_CHAMPION: lineage.parent_champion or "none",
        names.BUNDLE_SHA256: bundle.sha256,
        names.BUNDLE_FORMAT: str(bundle.manifest.format_version),
        names.SPLIT: evidence.report.split,
        names.MEAN_RECALL: f"{evidence.report.mean_recall:.6f}",
        names.RUN_NAME: lineage.run_name,
    }
    if validation is not None:
        tags[names.VALIDATION] = (
            f"{'passed' if validation.success else 'FAILED'}, {validation.n_valid_captions} of {validation.n_captions} captions"
        )
    return {name: value for name, value in tags.items() if value}


def _log_model(bundle: Bundle, evidence: Evidence, lineage: Lineage) -> tuple[str, str | None]:
    with scratch_directory() as folder:
        # MLflow stores an artefact under its last name, not under its key, and refuses links.
        files = {"bundle": shutil.copytree(bundle.path, Path(folder, names.BUNDLE_ARTIFACT))}
        texts: dict[str, tuple[str, Record | None]] = {
            "report": (names.REPORT_ARTIFACT, evidence.report),
            "lineage": (names.LINEAGE_ARTIFACT, lineage),
            "manifest": (names.MANIFEST_ARTIFACT, evidence.manifest),
            "validation": (names.VALIDATION_ARTIFACT, evidence.validation),
        }
        for key, (file, record) in texts.items():
            if record is not None:
                files[key] = Path(folder, file)
                files[key].write_text(record.model_dump_json(indent=2), encoding="utf-8")
        files["card"] = Path(folder, names.CARD_ARTIFACT)
        files["card"].write_text(evidence.card, encoding="utf-8")
        if evidence.drift_reference is not None:
            files["drift"] = shutil.copytree(evidence.drift_reference, Path(folder, names.DRIFT_REFERENCE_ARTIFACT))
        info = mlflow.pyfunc.log_model(
            name=names.BUNDLE_ARTIFACT,
            python_model=str(_MODEL_CODE),  # as code: nothing is pickled
            model_config={"image_directory": ""},  # keys that are not registered cannot be set when it is loaded
            artifacts={key: str(path) for key, path in files.items()},
            signature=_signature(bundle.manifest.embedding_dim),
            input_example=pd.DataFrame({"text": ["two dogs play on a beach"]}),
            pip_requirements=_requirements(),  # inferring them would load the model in another process, about a minute
        )
    return info.model_uri, info.model_id


def _signature(embedding_dim: int) -> ModelSignature:
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, "text", required=False),
                ColSpec(DataType.string, "image", required=False),  # base64; MLflow lets bytes pass as well
                ColSpec(DataType.string, "image_path", required=False),
            ]
        ),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, embedding_dim))]),
    )


def _requirements() -> list[str]:
    try:
        return [f"{_DISTRIBUTION}[search]=={version(_DISTRIBUTION)}"]
    except PackageNotFoundError:  # a checkout on the path, not installed
        return [f"{_DISTRIBUTION}[search]"]

"""MLflow registry: one registered version is one bundle with its report and card; knows nothing of how they are made."""

import shutil
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

import mlflow
import numpy as np
import pandas as pd
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, DataType, Schema, TensorSpec

from components.bundle import FORMAT_VERSION, Bundle
from components.errors import BundleError, ConfigError
from components.records import Record, RetrievalReport
from components.storage import new_directory
from model_registry import names, tracking

_MODEL_CODE = Path(__file__).with_name("bundle_model.py")
_DISTRIBUTION = "text-guided-image-finder"


class RegisteredVersion(Record):
    """One version of a registered model. Times are UTC."""

    name: str
    version: str
    run_id: str | None
    aliases: tuple[str, ...]
    tags: dict[str, str]
    created: datetime


class Lineage(Record):
    """What a bundle was made from, apart from what the bundle says itself."""

    code_version: str  # commit, or hash of the sources
    config_sha256: str
    environment_sha256: str


class Evidence(Record):
    """What is kept with a bundle: how well it did, and its card in Markdown."""

    report: RetrievalReport
    card: str


class Registry:
    """The registry at one tracking address. Every call names it: ZenML blanks MLflow's global address after a step."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    @classmethod
    def of_step(cls) -> Self:
        """The registry of the MLflow run ZenML opened for the current step. Raises ConfigError without one."""
        tracking.run_id()
        return cls(mlflow.get_tracking_uri())

    def register_bundle(self, bundle: Bundle, name: str, lineage: Lineage, evidence: Evidence) -> RegisteredVersion:
        """Log the bundle to the active run as a model made of code and files, register it, and alias it challenger."""
        run_id = tracking.run_id()
        uri, model_id = _log_model(bundle, evidence)
        tags = {
            names.DATA_VERSION: bundle.manifest.data_version,
            names.CODE_VERSION: lineage.code_version,
            names.CONFIG_SHA256: lineage.config_sha256,
            names.ENVIRONMENT_SHA256: lineage.environment_sha256,
            names.BUNDLE_SHA256: bundle.sha256,
            names.BUNDLE_FORMAT: str(bundle.manifest.format_version),
            names.SPLIT: evidence.report.split,
            names.MEAN_RECALL: f"{evidence.report.mean_recall:.6f}",
        }
        self._ensure_model(name)
        made = self._client.create_model_version(name, uri, run_id, tags, description=evidence.card, model_id=model_id)
        self._client.set_registered_model_alias(name, names.CHALLENGER, str(made.version))
        return self.version(name, str(made.version))

    def versions(self, name: str) -> list[RegisteredVersion]:
        """All versions of a model, newest first; empty when the model does not exist."""
        found = self._client.search_model_versions(f"name = '{name}'")
        numbers = sorted((int(each.version) for each in found), reverse=True)
        return [self.version(name, str(number)) for number in numbers]  # a search leaves the aliases out

    def version(self, name: str, version_or_alias: str) -> RegisteredVersion:
        """A version by its number, or by the alias that points to it. Raises ConfigError when there is none."""
        found = self._find(name, version_or_alias)
        if found is None:
            raise ConfigError(f"model '{name}' has no version or alias '{version_or_alias}' at {self.tracking_uri}")
        return RegisteredVersion(
            name=found.name,
            version=str(found.version),
            run_id=found.run_id,
            aliases=tuple(sorted(found.aliases)),
            tags=dict(found.tags),
            created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        )

    def champion_version(self, name: str) -> str | None:
        """Number of the champion, None before the first promotion."""
        found = self._find(name, names.CHAMPION)
        return None if found is None else str(found.version)

    def is_readable(self, name: str, version_or_alias: str) -> bool:
        """Whether this code opens bundles of a version's format; the first format was registered without its number."""
        return self.version(name, version_or_alias).tags.get(names.BUNDLE_FORMAT, "1") == str(FORMAT_VERSION)

    def set_champion(self, name: str, version: str) -> None:
        """Point the alias champion to a version: towers, tokenizer and preprocessing change together."""
        self._client.set_registered_model_alias(name, names.CHAMPION, self.version(name, version).version)

    def report_of(self, name: str, version_or_alias: str) -> RetrievalReport:
        """The retrieval report that was registered with a version."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._download(name, version_or_alias, names.REPORT_ARTIFACT, Path(folder))
            return RetrievalReport.model_validate_json(path.read_text(encoding="utf-8"))

    def download_bundle(self, name: str, version_or_alias: str, to: Path) -> Bundle:
        """Bring a version's bundle to the directory `to`, whole or not at all, and open it there.

        Raises BundleError when it is not what was registered.
        """
        found = self.version(name, version_or_alias)
        with tempfile.TemporaryDirectory() as folder:
            bundle = Bundle.open(self._download(name, found.version, names.BUNDLE_ARTIFACT, Path(folder)))
            if bundle.sha256 != (expected := found.tags.get(names.BUNDLE_SHA256, "")):
                raise BundleError(
                    f"bundle of {name} version {found.version} has sha256 {bundle.sha256[:12]}, registered as "
                    f"{expected[:12] or 'nothing'}; restore the artefact store or promote another version"
                )
            with new_directory(to) as target:
                shutil.copytree(bundle.path, target, dirs_exist_ok=True)
        return Bundle.open(to, verify=False)

    def _ensure_model(self, name: str) -> None:
        try:
            self._client.get_registered_model(name)
        except MlflowException:
            self._client.create_registered_model(name, description="Text-guided image finder: bundles of two towers.")

    def _find(self, name: str, version_or_alias: str) -> ModelVersion | None:
        try:
            if version_or_alias.isdigit():
                return self._client.get_model_version(name, version_or_alias)
            return self._client.get_model_version_by_alias(name, version_or_alias)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise

    def _download(self, name: str, version_or_alias: str, artifact: str, to: Path) -> Path:
        """Not through `models:/name/version`: MLflow resolves that at its global address, whatever is passed."""
        source = self._client.get_model_version_download_uri(name, self.version(name, version_or_alias).version)
        try:
            address = f"{source}/artifacts/{artifact}"
            return Path(download_artifacts(artifact_uri=address, dst_path=str(to), tracking_uri=self.tracking_uri))
        except (MlflowException, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BundleError(f"{artifact} of {name} version {version_or_alias} cannot be fetched: {reason}") from error


def _log_model(bundle: Bundle, evidence: Evidence) -> tuple[str, str | None]:
    with tempfile.TemporaryDirectory() as folder:
        report, card = Path(folder, names.REPORT_ARTIFACT), Path(folder, names.CARD_ARTIFACT)
        # MLflow stores an artefact under its last name, not under its key, and refuses links.
        copy = shutil.copytree(bundle.path, Path(folder, names.BUNDLE_ARTIFACT))
        report.write_text(evidence.report.model_dump_json(indent=2), encoding="utf-8")
        card.write_text(evidence.card, encoding="utf-8")
        info = mlflow.pyfunc.log_model(
            name=names.BUNDLE_ARTIFACT,
            python_model=str(_MODEL_CODE),  # as code: nothing is pickled
            artifacts={"bundle": str(copy), "report": str(report), "card": str(card)},
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
                ColSpec(DataType.string, "image", required=False),
            ]
        ),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, embedding_dim))]),
    )


def _requirements() -> list[str]:
    try:
        return [f"{_DISTRIBUTION}[search]=={version(_DISTRIBUTION)}"]
    except PackageNotFoundError:  # a checkout on the path, not installed
        return [f"{_DISTRIBUTION}[search]"]

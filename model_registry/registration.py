"""Registration: stores a bundle with its reports, card and lineage as a new version of a registered model."""

import contextlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, DataType, Schema, TensorSpec

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.temporaries import scratch_directory
from image_finder.model_registry import names, tracking, version_summary
from image_finder.model_registry.evidence import Evidence
from image_finder.model_registry.registry import RegisteredVersion, Registry
from image_finder.model_registry.registry_errors import guarded

_MODEL_CODE = Path(__file__).with_name("bundle_model.py")
_DISTRIBUTION = "text-guided-image-finder"
_DESCRIPTION = 5000  # characters of a version's description in PostgreSQL and MySQL; SQLite accepts longer ones


@guarded
def register_bundle(
    registry: Registry, bundle: Bundle, name: str, evidence: Evidence, *, card: str
) -> RegisteredVersion:
    """Log the bundle to the active run and register it with alias challenger; card: Markdown.

    The version is created with all its tags in one transaction after its files. If anything fails before that, the files
    are removed. Raises ConfigError without an active run, StorageError.
    """
    run_id, facts = tracking.run_id(), version_summary.facts(evidence.report, bundle, datetime.now(UTC))
    with _removed_on_failure(registry.client, run_id):
        uri, model_id = _log_model(bundle, evidence, card)
        registry.ensure_model(name)
        made = registry.client.create_model_version(
            name,
            uri,
            run_id,
            {**_tags(bundle, evidence), names.SUMMARY: facts},
            description=f"{version_summary.sentence(facts, version_summary.UNDECIDED)}\n\n{_shortened(card)}",
            model_id=model_id,
        )
    registry.set_alias(name, names.CHALLENGER, str(made.version))
    _describe_run(registry.client, run_id, f"{name} v{made.version}", evidence, bundle)
    return registry.version(name, str(made.version))


@contextlib.contextmanager
def _removed_on_failure(client: MlflowClient, run_id: str) -> Iterator[None]:
    """If the block raises, remove the models that it logged; nothing else removes them."""
    before = {model.model_id for model in _logged(client, run_id)}
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # the store may still fail; the first error is raised
            for model in _logged(client, run_id):
                if model.model_id not in before:
                    get_artifact_repository(model.artifact_location).delete_artifacts()  # type: ignore[no-untyped-call]
                    client.delete_logged_model(model.model_id)
        raise


def _logged(client: MlflowClient, run_id: str) -> list[mlflow.entities.LoggedModel]:
    experiment = client.get_run(run_id).info.experiment_id
    return list(client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"))


def _shortened(card: str) -> str:
    """The card, or its first whole lines and the name of the file that holds all of it."""
    limit = _DESCRIPTION - version_summary.LONGEST
    if len(card) <= limit:
        return card
    rest = f"\n\nThe whole card is the file {names.CARD_ARTIFACT} in this version's artifacts.\n"
    return card[: limit - len(rest) + 1].rpartition("\n")[0].rstrip() + rest


def _describe_run(client: MlflowClient, run_id: str, registered: str, evidence: Evidence, bundle: Bundle) -> None:
    report, lineage, imported = evidence.report, evidence.lineage, bundle.manifest.imported
    what = f"Imported from {imported.origin}, measured" if imported else "Training"
    note = (
        f"{what} on {report.dataset}, data version {report.data_version}. Registered as **{registered}**: mean recall "
        f"{100 * report.mean_recall:.1f} % {report.mean_recall_interval.text()} on {report.n_images:,} images of "
        f"{report.split}{_on_extra_sets(report)}. Code {lineage.code_version}; {lineage.hardware or 'hardware unknown'}. Promotion: "
        f"{names.PROMOTION_ARTIFACT}, tag last_event, and the ledger. Measurements: figures and reports."
    )
    client.set_tag(run_id, "registered_as", registered)
    client.set_tag(run_id, "mlflow.note.content", note)


def _on_extra_sets(report: RetrievalReport) -> str:
    return "".join(
        f"; {100 * each.mean_recall:.1f} % {each.mean_recall_interval.text()} on {each.n_images:,} images of {name}"
        for name, each in report.extra_sets.items()
    )


def _tags(bundle: Bundle, evidence: Evidence) -> dict[str, str]:
    lineage, validation = evidence.lineage, evidence.validation
    passed = "passed" if validation.success else "FAILED"
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
        names.IMPORTED: bundle.manifest.imported.origin if bundle.manifest.imported else "",
        names.VALIDATION: f"{passed}, {validation.n_valid_captions} of {validation.n_captions} captions",
    }
    return {name: value for name, value in tags.items() if value}


def _log_model(bundle: Bundle, evidence: Evidence, card: str) -> tuple[str, str | None]:
    with scratch_directory() as folder:
        # MLflow stores an artefact under its file name, not under its key, and rejects links.
        files = {"bundle": shutil.copytree(bundle.path, Path(folder, names.BUNDLE_ARTIFACT))}
        texts = {
            "report": (names.REPORT_ARTIFACT, evidence.report.model_dump_json(indent=2)),
            "lineage": (names.LINEAGE_ARTIFACT, evidence.lineage.model_dump_json(indent=2)),
            "manifest": (names.MANIFEST_ARTIFACT, evidence.manifest.model_dump_json(indent=2)),
            "validation": (names.VALIDATION_ARTIFACT, evidence.validation.model_dump_json(indent=2)),
            "card": (names.CARD_ARTIFACT, card),
        }
        for key, (file, text) in texts.items():
            files[key] = Path(folder, file)
            files[key].write_text(text, encoding="utf-8")
        if evidence.drift_reference is not None:
            files["drift"] = shutil.copytree(evidence.drift_reference, Path(folder, names.DRIFT_REFERENCE_ARTIFACT))
        info = mlflow.pyfunc.log_model(
            name=names.BUNDLE_ARTIFACT,
            python_model=str(_MODEL_CODE),  # as code, so that nothing is pickled
            model_config={"image_directory": ""},  # only registered keys can be set when the model is loaded
            artifacts={key: str(path) for key, path in files.items()},
            signature=_signature(bundle.manifest.embedding_dim),
            input_example=pd.DataFrame({"text": ["two dogs play on a beach"]}),
            pip_requirements=_requirements(),  # to infer them, MLflow would load the model for a minute
        )
    return info.model_uri, info.model_id


def _signature(embedding_dim: int) -> ModelSignature:
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, "text", required=False),
                ColSpec(DataType.string, "image", required=False),  # base64; MLflow also accepts bytes
                ColSpec(DataType.string, "image_path", required=False),
            ]
        ),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, embedding_dim))]),
    )


def _requirements() -> list[str]:
    try:
        return [f"{_DISTRIBUTION}[search]=={version(_DISTRIBUTION)}"]
    except PackageNotFoundError:  # a checkout that is not installed
        return [f"{_DISTRIBUTION}[search]"]

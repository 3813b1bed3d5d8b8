"""Imported models in the registry: registers a bundle that was not trained here, measured on captioned images."""

import mlflow

from image_finder.components.bundle.bundle import CARD, Bundle
from image_finder.components.configs import EvaluationConfig, PromotionConfig, RegistryConfig
from image_finder.components.errors import BundleError
from image_finder.components.evaluation.folder_recall import CaptionedPart
from image_finder.components.importing.fidelity import parity_of
from image_finder.components.metrics.comparison import StoredMeasurement
from image_finder.components.storage import make_private
from image_finder.model_registry import data_sets, lineage, names, registration, tracking
from image_finder.model_registry.code_hash import code_hash
from image_finder.model_registry.evidence import Evidence
from image_finder.model_registry.registry import RegisteredVersion, Registry
from image_finder.pipelines.model_operations import quieten_mlflow
from image_finder.pipelines.stores import EXPERIMENT_NAME, Home, ensure_experiment


def register(
    home: Home, uri: str, name: str, bundle: Bundle, part: CaptionedPart, *, evaluation: EvaluationConfig
) -> RegisteredVersion:
    """Measure an imported bundle and register it as a version with alias challenger.

    uri: of MLflow; its experiment is created if missing. Raises BundleError for a bundle that was trained here, which its
    training registers; StorageError.
    """
    imported = bundle.manifest.imported
    if imported is None:
        raise BundleError(f"{bundle.path} was not imported; the training run of a model registers it")
    measured = part.measured(bundle, evaluation, code_sha256=code_hash())
    make_private(home.root)
    quieten_mlflow()
    ensure_experiment(home, uri)
    registry = Registry(uri)
    mlflow.set_tracking_uri(uri)
    run_name = f"import {imported.origin}"
    with mlflow.start_run(experiment_id=_experiment(registry), run_name=run_name):
        data_sets.log_data_sets(part.manifest, {part.identity.split: part.data.captions}, context=data_sets.EVALUATION)
        tracking.log_retrieval(measured.measurement.report)
        parity = parity_of(imported)
        tracking.log_record(parity, names.PARITY_ARTIFACT)
        tracking.log_record(StoredMeasurement.of(measured), names.MEASURED_ARTIFACT)
        origin = lineage.of_run(
            code_hash(),
            hardware=f"imported, measured on: {lineage.this_hardware()}",
            parent_champion=registry.champion_version(name),
            run_name=run_name,
            registry=RegistryConfig(model_name=name, promotion=PromotionConfig()),
            imported=imported,
        )
        evidence = Evidence(
            report=measured.measurement.report,
            manifest=part.manifest,
            validation=part.validation,
            parity=parity,
            lineage=origin,
        )
        card = (bundle.path / CARD).read_text(encoding="utf-8")
        return registration.register_bundle(registry, bundle, name, evidence, card=card)


def _experiment(registry: Registry) -> str:
    found = registry.client.get_experiment_by_name(EXPERIMENT_NAME)
    assert found is not None, "ensured by the caller"
    return str(found.experiment_id)

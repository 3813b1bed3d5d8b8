"""Step: register a bundle."""

from typing import Annotated

from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import TrainingParameters
from image_finder.components.drift.reference import DriftReference
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.model_registry import lineage, names, registration, tracking
from image_finder.model_registry.card import CardFacts, model_card
from image_finder.model_registry.registration import Evidence
from image_finder.model_registry.registry import RegisteredVersion, Registry
from image_finder.steps._cache import CODE_AWARE, code_hash


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def register_bundle(
    bundle: Bundle,
    report: RetrievalReport,
    parity: ParityReport,
    validated: ValidationReport,
    manifest: DatasetManifest,
    reference: DriftReference,
    parameters: TrainingParameters,
    data_fingerprint: str,
) -> Annotated[RegisteredVersion, "registered_version"]:
    """Register the bundle with reports, card and lineage as a version, alias challenger."""
    registry, name = Registry.of_step(), parameters.registry.model_name
    origin = lineage.of_run(
        code_hash(),
        data_fingerprint=data_fingerprint,
        hardware=tracking.trained_on(),
        parent_champion=registry.champion_version(name),
        run_name=tracking.run_name(),
        **parameters.parts(),
    )
    card = model_card(
        CardFacts(
            name=name,
            code_version=origin.code_version,
            manifest=manifest,
            model=parameters.model,
            training=parameters.training,
            report=report,
            scores=bundle.scores(),
            parity=parity,
            lineage=origin,
            validation=validated,
        )
    )
    evidence = Evidence(
        report=report, card=card, manifest=manifest, validation=validated, drift_reference=reference.path
    )
    tracking.log_record(parity, names.PARITY_ARTIFACT)  # an earlier run that was killed may have measured it
    registered = registration.register_bundle(registry, bundle, name, origin, evidence)
    log_metadata({"model": registered.name, "version": registered.version})
    return registered

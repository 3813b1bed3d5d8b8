"""Step: a bundle into the registry."""

from typing import Annotated

from zenml import log_metadata, step

from components.bundle import Bundle
from components.configs import ModelConfig, RegistryConfig, TrainingConfig
from components.records import DatasetManifest, ParityReport, RetrievalReport
from model_registry import lineage
from model_registry.mlflow_registry import Evidence, RegisteredVersion, Registry
from model_registry.model_card import CardFacts, model_card
from steps._cache import CODE_AWARE, code_hash


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def register_bundle(
    bundle: Bundle,
    report: RetrievalReport,
    parity: ParityReport,
    manifest: DatasetManifest,
    model: ModelConfig,
    training: TrainingConfig,
    config: RegistryConfig,
) -> Annotated[RegisteredVersion, "registered_version"]:
    """Register the bundle with its report and card as a new version, alias challenger."""
    origin = lineage.of_run(code_hash(), model=model, training=training)
    card = model_card(
        CardFacts(
            name=config.model_name,
            code_version=origin.code_version,
            manifest=manifest,
            model=model,
            training=training,
            report=report,
            scores=bundle.scores(),
            parity=parity,
        )
    )
    registered = Registry.of_step().register_bundle(
        bundle, config.model_name, origin, Evidence(report=report, card=card)
    )
    log_metadata({"model": registered.name, "version": registered.version})
    return registered

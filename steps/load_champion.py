"""Step: fetch the champion's bundle from the registry."""

from typing import Annotated

from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import RegistryConfig
from image_finder.components.errors import ConfigError
from image_finder.model_registry.promotions import Promotions
from image_finder.steps._workspace import home
from image_finder.steps.materializers import BundleMaterializer


@step(enable_cache=False, experiment_tracker=True, output_materializers=BundleMaterializer)
def load_champion(config: RegistryConfig) -> Annotated[Bundle, "champion_bundle"]:
    """Fetch the champion.

    Not cached, because the champion may change; an equal bundle keeps later steps cached.
    """
    promotions = Promotions.of_step()
    champion = promotions.champion(config.model_name)
    if champion.version is None:
        raise ConfigError(
            champion.fault
            or f"model '{config.model_name}' has no champion yet: run 'image-finder pipeline run training' first"
        )
    log_metadata({"model": config.model_name, "version": champion.version})
    return promotions.registry.download_bundle(config.model_name, champion.version, home() / "bundles" / "champion")

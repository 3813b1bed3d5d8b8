"""Step: the champion's bundle out of the registry."""

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
    """Bring the champion. Never cached: which version it is may have changed; an equal bundle keeps later steps cached."""
    promotions = Promotions.of_step()
    standing = promotions.champion(config.model_name)
    if standing.version is None:
        raise ConfigError(
            standing.fault
            or f"model '{config.model_name}' has no champion yet: run 'image-finder pipeline run training' first"
        )
    log_metadata({"model": config.model_name, "version": standing.version})
    return promotions.registry.download_bundle(config.model_name, standing.version, home() / "bundles" / "champion")

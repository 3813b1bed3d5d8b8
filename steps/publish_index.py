"""Step: publish an index and its bundle to the home."""

from typing import Annotated

from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import RegistryConfig
from image_finder.components.errors import ConfigError
from image_finder.components.index.index import IndexManifest, VectorIndex
from image_finder.components.index.publish import bundle_in_force, publish
from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import Event
from image_finder.model_registry.promotions import Promotions
from image_finder.steps._workspace import home


@step(enable_cache=False, experiment_tracker=True)
def publish_index(
    index: VectorIndex, bundle: Bundle, config: RegistryConfig
) -> Annotated[IndexManifest, "published_index"]:
    """Publish bundle and index if the bundle is still the champion's.

    The ledger records a change of model. Not cached, because the home may have been changed by hand.
    """
    promotions, model, target = Promotions.of_step(home=home()), config.model_name, home() / "index"
    with promotions.exclusive(model):
        standing = promotions.champion(model)
        if standing.version is None:
            raise ConfigError(standing.fault or f"model '{model}' no longer has a champion; nothing was published")
        champion = promotions.registry.version(model, standing.version)
        if champion.tags.get(names.BUNDLE_SHA256) != bundle.sha256:
            raise ConfigError(
                f"version {champion.version} became champion of '{model}' while the index of another version was being made, so "
                "that index was not published: run 'image-finder pipeline run indexing' again"
            )
        promotions.note_champion(model, champion.version)  # it may have been promoted on another machine
        before = bundle_in_force(target)
        published = publish(index, bundle, bundles=home() / "bundles", target=target)
        if before != bundle.sha256:
            old = promotions.registry.version_of_bundle(model, before) if before else None
            told = f"{published.manifest.count} images in {target}"
            event = Event(kind="index", from_version=old, to_version=champion.version, reasons=(told,))
            promotions.record(model, event)
    log_metadata({"path": str(published.path), "images": published.manifest.count})
    return published.manifest

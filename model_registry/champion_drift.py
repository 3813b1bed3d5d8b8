"""Drift against a registered version: brings its bundle and its drift reference and compares a data set with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import DriftConfig, EmbeddingConfig
from image_finder.components.drift.captioned_files import CaptionedFile
from image_finder.components.drift.drift import ComparedSample
from image_finder.components.drift.reference import DriftReference
from image_finder.components.drift.sample import Sampler
from image_finder.components.errors import ConfigError, StorageError
from image_finder.model_registry import names
from image_finder.model_registry.registry import Registry


class Referenced(NamedTuple):
    """A registered version with what it was trained on."""

    model: str
    version: str
    bundle: Bundle
    reference: DriftReference


class Subject(NamedTuple):
    """A data set that is compared. version: "" if it was not read as a whole."""

    name: str
    version: str
    files: Sequence[CaptionedFile]


def fetch_reference(registry: Registry, model: str, version_or_alias: str, folder: Path) -> Referenced:
    """Bring a version's bundle and reference below folder.

    Raises ConfigError if there is no such version, BundleError if it has no reference or cannot be fetched, StorageError
    if what came is damaged or does not belong together.
    """
    if version_or_alias == names.CHAMPION and registry.champion_version(model) is None:
        raise ConfigError(
            f"model '{model}' has no champion yet, so there is nothing to compare with: run 'image-finder pipeline run "
            "training' first"
        )
    version = registry.version(model, version_or_alias).version
    reference = DriftReference.open(registry.fetch(model, version, names.DRIFT_REFERENCE_ARTIFACT, folder))
    bundle = registry.download_bundle(model, version, folder / "compared_bundle")
    if reference.manifest.bundle_sha256 != bundle.sha256:
        raise StorageError(
            f"the drift reference of {model} version {version} was made with bundle "
            f"{reference.manifest.bundle_sha256[:12]}, the version's is {bundle.sha256[:12]}; train again"
        )
    return Referenced(model, version, bundle, reference)


def compare(
    registry: Registry,
    registered: tuple[str, str],
    subject: Subject,
    config: DriftConfig,
    *,
    embedding: EmbeddingConfig,
    cache_dir: Path,
    folder: Path,
    progress: bool = False,
) -> ComparedSample:
    """A sample of subject beside the reference of a model's version or alias (registered), brought below folder.

    cache_dir: keeps what was computed of each image. Raises as fetch_reference and Sampler.draw do.
    """
    found = fetch_reference(registry, *registered, folder)
    sampler = Sampler(found.bundle, config, embedding, cache_dir=cache_dir, progress=progress)
    without = found.reference.contents if config.images == "new" else None
    sample = sampler.draw(subject.files, config.compared_images, without=without)
    return ComparedSample(found.reference, (found.model, found.version), sample, subject.name, subject.version)

"""Champion drift: compares a data set with the drift reference of a registered version."""

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


class ReferencedVersion(NamedTuple):
    model: str
    version: str
    bundle: Bundle
    reference: DriftReference


class ComparedData(NamedTuple):
    """A data set to compare. version: "" if it was not read completely."""

    name: str
    version: str
    files: Sequence[CaptionedFile]


def fetch_reference(registry: Registry, model: str, version_or_alias: str, folder: Path) -> ReferencedVersion:
    """Download a version's bundle and drift reference into folder.

    Raises ConfigError if there is no such version, BundleError if it has no reference or cannot be fetched, StorageError
    if the files are damaged or do not match.
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
    return ReferencedVersion(model, version, bundle, reference)


def compare(
    registry: Registry,
    registered: tuple[str, str],
    data: ComparedData,
    config: DriftConfig,
    *,
    embedding: EmbeddingConfig,
    cache_dir: Path,
    folder: Path,
    progress: bool = False,
) -> ComparedSample:
    """Compare a sample of data with the reference of a version.

    registered: model, and version or alias. folder: for downloads. cache_dir: for computed features. Raises as fetch_reference and Sampler.draw do.
    """
    found = fetch_reference(registry, *registered, folder)
    sampler = Sampler(found.bundle, config, embedding, cache_dir=cache_dir, progress=progress)
    without = found.reference.contents if config.images == "new" else None
    sample = sampler.draw(data.files, config.compared_images, without=without)
    return ComparedSample(found.reference, (found.model, found.version), sample, data.name, data.version)

"""Champion drift: compares a data set with the drift reference of a registered version."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from image_finder.components.configs import DriftConfig, EmbeddingConfig
from image_finder.components.drift.drift import ComparedSample
from image_finder.components.drift.reference import DriftReference
from image_finder.components.drift.sample import CaptionedFile, Sampler
from image_finder.components.errors import ConfigError, StorageError
from image_finder.model_registry import names
from image_finder.model_registry.registry import Registry


class ComparedData(NamedTuple):
    """A data set to compare. version: "" if it was not read completely."""

    name: str
    version: str
    files: Sequence[CaptionedFile]


def compare(
    registry: Registry,
    registered: tuple[str, str],
    data: ComparedData,
    config: DriftConfig,
    *,
    embedding: EmbeddingConfig,
    cache_dir: Path,
    folder: Path,
) -> ComparedSample:
    """Compare a sample of data with the drift reference of a version.

    registered: model, and version or alias. folder: for downloads. Raises ConfigError if there is no such version,
    BundleError if it has no reference or cannot be fetched, StorageError if the files are damaged or do not match, and
    as Sampler.draw does.
    """
    model, version_or_alias = registered
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
    sampler = Sampler(bundle, config, embedding, cache_dir=cache_dir, progress=True)
    without = reference.contents if config.images == "new" else None
    sample = sampler.draw(data.files, config.compared_images, without=without)
    return ComparedSample(reference, (model, version), sample, data.name, data.version)

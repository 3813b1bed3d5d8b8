"""Previous version: the manifest of the last other version of the same data set that ZenML keeps."""

from zenml.client import Client

from image_finder.components.records.data import DatasetManifest

_LOOKED_AT = 20


def previous_manifest(current: DatasetManifest) -> DatasetManifest | None:
    """The newest stored manifest of this data set with another version, or None."""
    found = Client().list_artifact_versions(artifact="dataset_manifest", sort_by="desc:created", size=_LOOKED_AT)
    for version in found.items:
        manifest = version.load()
        if manifest.name == current.name and manifest.version != current.version:
            return DatasetManifest.model_validate(manifest.model_dump())
    return None

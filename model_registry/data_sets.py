"""Data sets of a run, as MLflow lists its inputs: name, digest, source and counts of each part; reads no image."""

import json
from collections.abc import Mapping

import mlflow
import pandas as pd
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.huggingface_dataset_source import HuggingFaceDatasetSource
from mlflow.data.meta_dataset import MetaDataset

from image_finder.components.configs import DatasetConfig
from image_finder.components.records.data import DatasetManifest
from image_finder.components.storage import sha256_of_bytes
from image_finder.model_registry import tracking

_CONTEXTS = {"train": "training", "val": "validation", "test": "test"}
EVALUATION = "evaluation"
_DIGITS = 8  # of a part's hash; MLflow's limit for a digest is 36 characters


class PartDataset(MetaDataset):
    """One part of a data set. profile: counts by name."""

    def __init__(self, source: DatasetSource, *, name: str, digest: str, profile: dict[str, int]) -> None:
        self._profile = profile
        super().__init__(source, name=name, digest=digest)

    @property
    def profile(self) -> dict[str, int]:
        return self._profile

    def to_dict(self) -> dict[str, str]:
        return {**super().to_dict(), "profile": json.dumps(self._profile)}


def log_data_sets(
    manifest: DatasetManifest,
    parts: Mapping[str, pd.DataFrame],
    *,
    origin: DatasetConfig | None = None,
    context: str = "",
) -> None:
    """Log each part that has captions as an input of the active run, in the context of its use.

    parts: captions by part or extra evaluation set. context: by default that of the part in a training. The digest is the data version and, because a part also depends on
    split and validation, digits of the hash of its captions. Raises ConfigError without a run.
    """
    tracking.run_id()
    for part, captions in parts.items():
        if len(captions):
            dataset = PartDataset(
                _source(manifest, origin),
                name=f"{manifest.name} {part}",
                digest=f"{manifest.version}-{_hash(captions)}",
                profile={"images": int(captions["image_id"].nunique()), "captions": len(captions)},
            )
            mlflow.log_input(dataset, context=context or _CONTEXTS.get(part, EVALUATION))


def _source(manifest: DatasetManifest, origin: DatasetConfig | None) -> DatasetSource:
    if origin is not None and origin.hub_dataset:
        return HuggingFaceDatasetSource(path=origin.hub_dataset, revision=origin.hub_revision)
    return get_dataset_source_from_json(json.dumps({"uri": manifest.root}), "local")


def _hash(captions: pd.DataFrame) -> str:
    rows = pd.util.hash_pandas_object(captions[["image_id", "caption"]], index=False)
    return sha256_of_bytes(rows.to_numpy().tobytes())[:_DIGITS]

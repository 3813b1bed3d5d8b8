"""Materializers: store artefacts in ZenML's artefact store as plain files with content hashes; nothing is pickled.

If a step runs again with an equal output, the content hash keeps the steps after it cached.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import pandas as pd
from pydantic import BaseModel
from zenml.artifacts.utils import _get_artifact_store_from_response_or_from_active_stack
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.materializers.materializer_registry import materializer_registry
from zenml.materializers.pydantic_materializer import PydanticMaterializer

from image_finder.components.bundle import bundle
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.drift import reference
from image_finder.components.drift import report_page as drift_page
from image_finder.components.drift.reference import DriftReference
from image_finder.components.drift.report import DriftReport
from image_finder.components.errors import StorageError
from image_finder.components.records.base import Record
from image_finder.components.records.data import ValidationReport
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.storage import hash_directory
from image_finder.components.temporaries import process_directory
from image_finder.components.validation import report_page as validation_page
from image_finder.model_registry.promotion_page import promotion_page

if TYPE_CHECKING:
    from zenml.metadata.metadata_types import MetadataType
    from zenml.models import ArtifactVersionResponse

_LONGEST_FACT = 80  # characters of a string worth a line in the dashboard
_SAMPLE_ROWS = 10
_T = TypeVar("_T")


class DirectoryArtifact(Protocol):
    """An artefact that is a directory."""

    @property
    def path(self) -> Path:
        """Path of the directory."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and check the directory at path."""


class DirectoryMaterializer(BaseMaterializer):
    """Base for DirectoryArtifact classes: stores the files unchanged below the artefact's URI.

    A subclass sets ASSOCIATED_TYPES and MANIFEST. With a local store, `load` opens the stored directory itself, so it
    must not be written to; with a remote store it opens a copy that is deleted when the process ends.
    """

    SKIP_REGISTRATION: ClassVar[bool] = True
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    MANIFEST: ClassVar[str] = ""  # JSON file whose numbers, flags and short strings become metadata

    def save(self, data: DirectoryArtifact) -> None:
        for source in sorted(path for path in data.path.rglob("*") if path.is_file()):
            target = f"{self.uri}/{source.relative_to(data.path).as_posix()}"
            self.artifact_store.makedirs(target.rpartition("/")[0])
            with source.open("rb") as reader, self.artifact_store.open(target, "wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)

    def load(self, data_type: type[DirectoryArtifact]) -> DirectoryArtifact:
        """Open the directory. Raises StorageError if its content hash is not the recorded one."""
        local = Path(self.uri)
        if not local.is_dir():
            local = process_directory()
            self._fetch(self.uri, local)
        if self.expected_content_hash and self._hash(local) != self.expected_content_hash:
            raise StorageError(f"artefact {self.uri} was changed after it was written: run the step that made it again")
        return data_type.open(local)

    def extract_metadata(self, data: DirectoryArtifact) -> "dict[str, MetadataType]":
        files = [path for path in data.path.rglob("*") if path.is_file()]
        facts: dict[str, MetadataType] = {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
        manifest = data.path / self.MANIFEST
        if self.MANIFEST and manifest.is_file():
            facts.update(_plain_facts(json.loads(manifest.read_text(encoding="utf-8"))))
        return facts

    def compute_content_hash(self, data: DirectoryArtifact) -> str:
        return self._hash(data.path)

    @staticmethod
    def _hash(directory: Path) -> str:
        return hashlib.sha256(json.dumps(hash_directory(directory)).encode()).hexdigest()

    def _fetch(self, source: str, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for name in map(str, self.artifact_store.listdir(source)):
            address = f"{source}/{name}"
            if self.artifact_store.isdir(address):
                self._fetch(address, target / name)
                continue
            with self.artifact_store.open(address, "rb") as reader, (target / name).open("wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)


class BundleMaterializer(DirectoryMaterializer):
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Bundle,)
    MANIFEST = bundle.MANIFEST


class DriftReferenceMaterializer(DirectoryMaterializer):
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (DriftReference,)
    MANIFEST = reference.MANIFEST


class RecordMaterializer(PydanticMaterializer):
    """Records as JSON. The metadata are values, not ZenML's default, the schema."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Record,)

    def extract_metadata(self, data: BaseModel) -> "dict[str, MetadataType]":
        return _plain_facts(data.model_dump(mode="json"))


class PageMaterializer(RecordMaterializer):
    """Base for records with an HTML page for ZenML's dashboard. A subclass sets ASSOCIATED_TYPES and PAGE."""

    SKIP_REGISTRATION: ClassVar[bool] = True
    PAGE: ClassVar[Callable[[Any], str]]

    def save_visualizations(self, data: BaseModel) -> dict[str, VisualizationType]:
        address = f"{self.uri}/report.html"
        with self.artifact_store.open(address, "w") as stream:
            stream.write(type(self).PAGE(data))
        return {address: VisualizationType.HTML}


class ValidationReportMaterializer(PageMaterializer):
    SKIP_REGISTRATION = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ValidationReport,)
    PAGE = validation_page.report_html


class DriftReportMaterializer(PageMaterializer):
    SKIP_REGISTRATION = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (DriftReport,)
    PAGE = drift_page.report_html


class PromotionDecisionMaterializer(PageMaterializer):
    SKIP_REGISTRATION = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (PromotionDecision,)
    PAGE = promotion_page


class TableMaterializer(BaseMaterializer):
    """DataFrames as Parquet with a content hash, which ZenML's own materializer lacks."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (pd.DataFrame,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: pd.DataFrame) -> None:
        with self.artifact_store.open(f"{self.uri}/table.parquet", "wb") as stream:
            data.to_parquet(stream, compression="zstd")

    def load(self, data_type: type[Any]) -> pd.DataFrame:
        with self.artifact_store.open(f"{self.uri}/table.parquet", "rb") as stream:
            return pd.read_parquet(stream)

    def save_visualizations(self, data: pd.DataFrame) -> dict[str, VisualizationType]:
        address = f"{self.uri}/sample.csv"
        with self.artifact_store.open(address, "w") as stream:
            stream.write(data.head(_SAMPLE_ROWS).to_csv())
        return {address: VisualizationType.CSV}

    def extract_metadata(self, data: pd.DataFrame) -> "dict[str, MetadataType]":
        return {"rows": len(data), "columns": {str(name): str(dtype) for name, dtype in data.dtypes.items()}}

    def compute_content_hash(self, data: pd.DataFrame) -> str:
        """SHA-256 over column names, types, index and values, in order."""
        digest = hashlib.sha256(repr([(str(name), str(dtype)) for name, dtype in data.dtypes.items()]).encode())
        digest.update(pd.util.hash_pandas_object(data, index=True).to_numpy().tobytes())
        return digest.hexdigest()


def load_artifact(stored: "ArtifactVersionResponse", kind: type[_T]) -> _T:
    """Load an artefact as `kind`; unlike ZenML's `load`, also if `kind` was renamed since."""
    store = _get_artifact_store_from_response_or_from_active_stack(stored)
    materializer = materializer_registry[kind](stored.uri, store)
    materializer.expected_content_hash = stored.content_hash
    loaded: _T = materializer.load(kind)
    return loaded


# ZenML's pandas integration registers its own materializer for DataFrame before every run, if there is none.
materializer_registry.register_and_overwrite_type(pd.DataFrame, TableMaterializer)


def _plain_facts(values: dict[str, Any]) -> "dict[str, MetadataType]":
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, bool | int | float) or (isinstance(value, str) and 0 < len(value) <= _LONGEST_FACT)
    }

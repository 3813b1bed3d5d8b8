"""Materializers: how artefacts lie in ZenML's artifact store, as plain files with content hashes; nothing is pickled.

A content hash lets the steps downstream stay cached when a step ran again and its output came out the same.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import pandas as pd
from pydantic import BaseModel
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.materializers.materializer_registry import materializer_registry
from zenml.materializers.pydantic_materializer import PydanticMaterializer

from image_finder.components.bundle import bundle
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.drift import reference
from image_finder.components.drift.reference import DriftReference
from image_finder.components.errors import StorageError
from image_finder.components.index import index
from image_finder.components.index.index import VectorIndex
from image_finder.components.records.base import Record
from image_finder.components.records.data import ValidationReport
from image_finder.components.storage import hash_directory
from image_finder.components.temporaries import process_directory
from image_finder.components.validation.report_page import report_html

if TYPE_CHECKING:
    from zenml.metadata.metadata_types import MetadataType

_LONGEST_FACT = 80  # characters of a string worth a line in the dashboard
_SAMPLE_ROWS = 10


class DirectoryArtifact(Protocol):
    """An artefact that is a directory of files."""

    @property
    def path(self) -> Path:
        """Where the files are."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and check the directory at path."""


class DirectoryMaterializer(BaseMaterializer):
    """Base for DirectoryArtifact classes: the directory's files as they are, below the artefact's address.

    A subclass names its class in ASSOCIATED_TYPES and its manifest in MANIFEST. With a local store `load` opens the
    stored directory itself, which therefore must not be written to; otherwise a copy that lasts as long as the step.
    """

    SKIP_REGISTRATION: ClassVar[bool] = True
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    MANIFEST: ClassVar[str] = ""  # JSON file whose plain values are shown as metadata

    def save(self, data: DirectoryArtifact) -> None:
        """Copy every file of the directory below self.uri."""
        for source in sorted(path for path in data.path.rglob("*") if path.is_file()):
            target = f"{self.uri}/{source.relative_to(data.path).as_posix()}"
            self.artifact_store.makedirs(target.rpartition("/")[0])
            with source.open("rb") as reader, self.artifact_store.open(target, "wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)

    def load(self, data_type: type[DirectoryArtifact]) -> DirectoryArtifact:
        """Open the stored directory. Raises StorageError when its content is not what was saved."""
        local = Path(self.uri)
        if not local.is_dir():
            local = process_directory()
            self._fetch(self.uri, local)
        if self.expected_content_hash and self._hash(local) != self.expected_content_hash:
            raise StorageError(f"artefact {self.uri} was changed after it was written: run the step that made it again")
        return data_type.open(local)

    def extract_metadata(self, data: DirectoryArtifact) -> "dict[str, MetadataType]":
        """Number and size of the files, and the manifest's plain values."""
        files = [path for path in data.path.rglob("*") if path.is_file()]
        facts: dict[str, MetadataType] = {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
        manifest = data.path / self.MANIFEST
        if self.MANIFEST and manifest.is_file():
            facts.update(_plain_facts(json.loads(manifest.read_text(encoding="utf-8"))))
        return facts

    def compute_content_hash(self, data: DirectoryArtifact) -> str:
        """Hash over the hashes of all files and their names."""
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
    """An exported bundle."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Bundle,)
    MANIFEST = bundle.MANIFEST


class IndexMaterializer(DirectoryMaterializer):
    """A vector index."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (VectorIndex,)
    MANIFEST = index.MANIFEST


class DriftReferenceMaterializer(DirectoryMaterializer):
    """What a model's training images are like."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (DriftReference,)
    MANIFEST = reference.MANIFEST


class RecordMaterializer(PydanticMaterializer):
    """Records as JSON with a content hash (ZenML's own), and their plain values as metadata instead of the schema."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Record,)

    def extract_metadata(self, data: BaseModel) -> "dict[str, MetadataType]":
        """The record's numbers, flags and short strings."""
        return _plain_facts(data.model_dump(mode="json"))


class ValidationReportMaterializer(RecordMaterializer):
    """A validation report, shown as a page in ZenML's dashboard."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ValidationReport,)

    def save_visualizations(self, data: ValidationReport) -> dict[str, VisualizationType]:
        """Write the page beside the report."""
        address = f"{self.uri}/report.html"
        with self.artifact_store.open(address, "w") as stream:
            stream.write(report_html(data))
        return {address: VisualizationType.HTML}


class TableMaterializer(BaseMaterializer):
    """DataFrames as Parquet. ZenML's own has no content hash, so that every table would run all that follows it again."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (pd.DataFrame,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: pd.DataFrame) -> None:
        """Write table.parquet."""
        with self.artifact_store.open(f"{self.uri}/table.parquet", "wb") as stream:
            data.to_parquet(stream, compression="zstd")

    def load(self, data_type: type[Any]) -> pd.DataFrame:
        """Read table.parquet."""
        with self.artifact_store.open(f"{self.uri}/table.parquet", "rb") as stream:
            return pd.read_parquet(stream)

    def save_visualizations(self, data: pd.DataFrame) -> dict[str, VisualizationType]:
        """The first ten rows."""
        address = f"{self.uri}/sample.csv"
        with self.artifact_store.open(address, "w") as stream:
            stream.write(data.head(_SAMPLE_ROWS).to_csv())
        return {address: VisualizationType.CSV}

    def extract_metadata(self, data: pd.DataFrame) -> "dict[str, MetadataType]":
        """Number of rows, and each column's type."""
        return {"rows": len(data), "columns": {str(name): str(dtype) for name, dtype in data.dtypes.items()}}

    def compute_content_hash(self, data: pd.DataFrame) -> str:
        """Hash over column names, types, index and values, in their order."""
        digest = hashlib.sha256(repr([(str(name), str(dtype)) for name, dtype in data.dtypes.items()]).encode())
        digest.update(pd.util.hash_pandas_object(data, index=True).to_numpy().tobytes())
        return digest.hexdigest()


# ZenML's pandas integration registers its own materializer for DataFrame before every run, if there is none.
materializer_registry.register_and_overwrite_type(pd.DataFrame, TableMaterializer)


def _plain_facts(values: dict[str, Any]) -> "dict[str, MetadataType]":
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, bool | int | float) or (isinstance(value, str) and 0 < len(value) <= _LONGEST_FACT)
    }

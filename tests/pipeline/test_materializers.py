"""Materializers over a real local artifact store, without a pipeline."""

from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
from zenml.artifact_stores import LocalArtifactStore
from zenml.artifact_stores.local_artifact_store import LocalArtifactStoreConfig
from zenml.enums import StackComponentType
from zenml.materializers.materializer_registry import materializer_registry

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.errors import StorageError
from image_finder.components.records.data import ExpectationResult, ValidationReport
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.steps.materializers import (
    BundleMaterializer,
    RecordMaterializer,
    TableMaterializer,
    ValidationReportMaterializer,
)


@pytest.fixture
def store(tmp_path):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return LocalArtifactStore(
        name="scratch",
        id=uuid4(),
        config=LocalArtifactStoreConfig(path=str(tmp_path / "store")),
        flavor="local",
        type=StackComponentType.ARTIFACT_STORE,
        user=uuid4(),
        created=now,
        updated=now,
    )


@pytest.fixture
def place(store, tmp_path):
    address = str(tmp_path / "store" / "artefact")
    store.makedirs(address)
    return address, store


def test_a_bundle_is_stored_as_its_files_and_opened_in_the_store(place, tiny_bundle):
    materializer = BundleMaterializer(*place)
    materializer.save(tiny_bundle)
    materializer.expected_content_hash = materializer.compute_content_hash(tiny_bundle)
    loaded = materializer.load(Bundle)
    assert isinstance(loaded, Bundle)
    assert str(loaded.path) == place[0]
    assert loaded.sha256 == tiny_bundle.sha256
    facts = materializer.extract_metadata(tiny_bundle)
    assert (facts["embedding_dim"], facts["files"], facts["data_version"]) == (2, 6, "0123456789ab")


def test_a_changed_artefact_is_rejected(place, tiny_bundle, tmp_path):
    materializer = BundleMaterializer(*place)
    materializer.save(tiny_bundle)
    materializer.expected_content_hash = materializer.compute_content_hash(tiny_bundle)
    (tmp_path / "store" / "artefact" / "stray.txt").write_text("not saved by the step")
    with pytest.raises(StorageError, match="was changed after it was written"):
        materializer.load(Bundle)


def test_fetching_from_a_store_copies_nested_files_with_equal_hash(place, tmp_path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "a.bin").write_bytes(bytes(range(256)) * 9000)
    (source / "top.txt").write_text("top")
    materializer = BundleMaterializer(*place)
    materializer.save(Bundle(source, None))
    materializer._fetch(place[0], tmp_path / "copy")
    assert materializer._hash(tmp_path / "copy") == materializer._hash(source)


@pytest.mark.parametrize(
    ("kind", "materializer"),
    [
        (Bundle, BundleMaterializer),
        (pd.DataFrame, TableMaterializer),
        (RetrievalReport, RecordMaterializer),
        (ValidationReport, ValidationReportMaterializer),
    ],
)
def test_every_artefact_type_has_its_materializer(kind, materializer):
    assert materializer_registry[kind] is materializer


def test_a_table_is_loaded_equal_and_its_hash_depends_on_values_names_types_and_order(place):
    table = pd.DataFrame({"image_id": np.array([3, 1], np.int64), "caption": ["ein Hündchen", ""]})
    materializer = TableMaterializer(*place)
    materializer.save(table)
    pd.testing.assert_frame_equal(materializer.load(pd.DataFrame), table)
    hashes = [
        materializer.compute_content_hash(each)
        for each in (
            table,
            table.assign(caption=["ein Hündchen", "x"]),
            table.rename(columns={"caption": "text"}),
            table.astype({"image_id": "int32"}),
            table.iloc[::-1],
            table.iloc[:1],
        )
    ]
    assert len(set(hashes)) == 6
    assert materializer.compute_content_hash(materializer.load(pd.DataFrame)) == hashes[0]


def test_a_record_is_loaded_equal_with_integer_keys(place, report):
    materializer = RecordMaterializer(*place)
    materializer.save(report)
    assert materializer.load(RetrievalReport) == report
    assert materializer.extract_metadata(report)["mean_recall"] == 0.5


def test_the_page_of_a_validation_report_names_the_failed_expectation(place, tmp_path):
    result = ExpectationResult(
        name="caption_not_empty",
        column="caption",
        description="has text",
        severity="error",
        success=False,
        n_checked=9,
        n_failed=2,
    )
    found = ValidationReport(
        dataset="scratch",
        data_version="0123456789ab",
        n_images=3,
        n_captions=9,
        n_valid_captions=7,
        expectations=(result,),
        quarantined={"empty": (4, 5)},
        max_quarantined_share=0.02,
        success=False,
    )
    (address,) = ValidationReportMaterializer(*place).save_visualizations(found)
    assert "caption_not_empty" in (tmp_path / "store" / "artefact" / "report.html").read_text()
    assert address.endswith("/report.html")

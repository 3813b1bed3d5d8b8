"""Evidence of a scratch model: what a training run would register with its bundle."""

from image_finder.components.records.data import DatasetManifest
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.model_registry.evidence import Evidence
from image_finder.model_registry.lineage import Lineage
from tests.support.tiny_bundle import PARITY, VALIDATION

LINEAGE = Lineage(code_version="c0de", config_sha256="c" * 64, environment_sha256="e" * 64)
MANIFEST = DatasetManifest(
    name="scratch", layout="coco", root="/data", n_images=17, n_captions=17, n_images_of_part={"test": 17},
    annotations_sha256={"test": "a" * 64}, images_sha256="b" * 64, mean_caption_characters=60.0, unreadable_images=0,
)  # fmt: skip


def evidence_of(report: RetrievalReport, **changes: object) -> Evidence:
    values = {"report": report, "manifest": MANIFEST, "validation": VALIDATION, "parity": PARITY, "lineage": LINEAGE}
    return Evidence.model_validate({**values, **changes})

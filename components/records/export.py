"""Records of an exported bundle: parity, recall, latency and size."""

from typing import ClassVar, Literal

from image_finder.components.records.base import Record
from image_finder.components.records.retrieval import RetrievalReport


class ParityCase(Record):
    """Torch against ONNX for one tower, batch size and input."""

    tower: Literal["image", "text"]
    batch: int
    case: str
    min_cosine: float
    max_difference: float


class ParityReport(Record):
    """Torch against ONNX over all cases, with the limits."""

    former_names: ClassVar = {"n_pictures": "n_images"}

    cases: tuple[ParityCase, ...]
    min_cosine: float
    max_difference: float
    torch_recall_at_10: float | None  # None: of an imported model, compared by its vectors alone
    onnx_recall_at_10: float | None
    n_images: int
    passed: bool
    reasons: tuple[str, ...]


class BundleMeasurement(Record):
    """Measurement of a bundle's ONNX towers, as the promotion rule needs it."""

    report: RetrievalReport
    text_ms: float  # median time to encode one caption, on the CPU
    image_ms: float  # median time to encode the pixels of one image, decoded and resized before, on the CPU
    bundle_mb: float  # all files, 1 MB = 10^6 bytes
    embedding_dim: int
    device: Literal["cpu", "cuda"]  # on which the vectors of the report were computed
    threads: int  # processor cores that ONNX Runtime may use
    test_sha256: str  # of the test captions and their images
    code_sha256: str  # of the code that measured

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
    """Torch against ONNX over all cases, with the limits they were held to."""

    former_names: ClassVar = {"n_pictures": "n_images"}

    cases: tuple[ParityCase, ...]
    min_cosine: float
    max_difference: float
    torch_recall_at_10: float
    onnx_recall_at_10: float
    n_images: int
    passed: bool
    reasons: tuple[str, ...]


class BundleMeasurement(Record):
    """What a promotion asks of a bundle, measured on its ONNX towers as they would serve."""

    report: RetrievalReport
    text_ms: float  # median from one caption to its vector, on the CPU
    image_ms: float  # median from the pixels of one image, decoded and resized before, to its vector, on the CPU
    bundle_mb: float  # all files, 1 MB = 10^6 bytes
    embedding_dim: int
    device: Literal["cpu", "cuda"]  # that found the vectors of the report
    threads: int  # processor cores that ONNX Runtime may use
    test_sha256: str  # over the captions searched with and their images: the same test has the same
    code_sha256: str  # of the code that measured

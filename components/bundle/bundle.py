"""Bundle: a directory with everything a search needs of a model, and its identity; knows nothing of torch.

image_encoder.onnx   pixels (batch, px, px, 3) uint8 -> embedding (batch, dim) float32; ours: attention (batch, h, w)
text_encoder.onnx    ids, mask (batch, length) int64 -> embedding (batch, dim) float32
tokenizer.json       Hugging Face tokenizers definition
preprocess.json      components.images.preprocess.Preprocess
scores.json          components.records.calibration.Scores or ScoreCalibration: interpretation of its cosines
vocabulary.json      components.captions.vocabulary.Vocabulary: training words; absent where they are unknown
MODEL_CARD.md        of an imported model
bundle.json          BundleManifest: format, dimension, sha256 of every other file and of itself, training data

Bundles of imported models differ in these files alone: code that uses a bundle has no case for them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from image_finder.components.captions.tokens import DEFAULT_PADDING, Padding, Tokenizer
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import first_fault
from image_finder.components.errors import BundleError
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.manifest import Manifest
from image_finder.components.records.base import Record
from image_finder.components.records.calibration import ScoreCalibration, Scores
from image_finder.components.storage import sha256_of_file

FORMAT_VERSION = 2  # 2: scores.json
MANIFEST = "bundle.json"
IMAGE_ENCODER = "image_encoder.onnx"
TEXT_ENCODER = "text_encoder.onnx"
TOKENIZER = "tokenizer.json"
PREPROCESS = "preprocess.json"
SCORES = "scores.json"
VOCABULARY = "vocabulary.json"
CARD = "MODEL_CARD.md"
_R = TypeVar("_R", bound=Record)
_FILES = {IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER, PREPROCESS, SCORES}
_OPTIONAL = {VOCABULARY, CARD}


class ImportedModel(Record):
    """Origin of a model that was not trained here.

    source: as given to `models import`; revision: commit on the hub, or the SHA-256 of local weights. Times are medians
    per item on the importing machine's CPU, see threads.
    """

    source: str
    revision: str
    architecture: str  # e.g. "clip" of Transformers, "ViT-B-32" of open_clip
    library: str  # with version
    licence: str  # "unknown" if the source states none
    non_commercial: bool
    training_data: str  # "unknown" if the source states none
    parameters: int
    image_ms: float
    text_ms: float
    threads: int
    max_difference: float  # of a component from the original library's vectors, before compression
    text_cosine: float = 1.0  # smallest, of the compressed towers to the exact ones
    image_cosine: float = 1.0

    @property
    def origin(self) -> str:
        return f"{self.source} at {self.revision[:12]}"


class BundleManifest(Manifest):
    file_name = MANIFEST
    artefact = "a bundle"
    version = FORMAT_VERSION
    error = BundleError
    missing = f"no bundle at {{}}: {MANIFEST} is missing; give the folder of an exported bundle"
    repair = "fetch or export the bundle again"
    upgrade = "train again with this version"

    embedding_dim: int
    max_tokens: int
    files_sha256: dict[str, str]
    dataset: str
    data_version: str
    image_trunk: str
    text_trunk: str
    text_quantised: bool
    config: dict[str, object]
    starter: bool = False  # assembled from the packaged weights, not trained here
    padding: Padding = DEFAULT_PADDING
    imported: ImportedModel | None = None

    @property
    def sha256(self) -> str:
        """Identity of the bundle: hash of the names and hashes of its files, 64 hex digits."""
        lines = [f"{name}:{digest}" for name, digest in sorted(self.files_sha256.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened and verified bundle. Use Bundle.open."""

    path: Path
    manifest: BundleManifest

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> "Bundle":
        """Open a bundle directory. verify: compare hashes (0.1 s per 100 MB). Raises BundleError."""
        manifest = BundleManifest.read(path)
        if (listed := set(manifest.files_sha256) - _OPTIONAL) != _FILES:
            raise BundleError(
                f"{path / MANIFEST} does not list the files of a bundle: {', '.join(sorted(listed ^ _FILES))}; export it again"
            )
        # An update of the library replaces a starter model's damaged copy.
        repair = "run: image-finder index" if manifest.starter else "fetch or export it again"
        for name, expected in manifest.files_sha256.items():
            _check_file(path / name, expected, repair, verify=verify)
        return cls(path, manifest)

    @property
    def sha256(self) -> str:
        return self.manifest.sha256

    @property
    def size_mb(self) -> float:
        """Size of its files in 10^6 bytes."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file()) / 1e6

    def preprocess(self) -> Preprocess:
        return self._read(PREPROCESS, Preprocess)

    def scores(self) -> Scores:
        """The model's scores: a ScoreCalibration if they were measured."""
        measured = b'"quantiles"' in (self.path / SCORES).read_bytes()
        return self._read(SCORES, ScoreCalibration if measured else Scores)

    def vocabulary(self) -> Vocabulary | None:
        """Words of the training captions; None if unknown. Raises BundleError."""
        return self._read(VOCABULARY, Vocabulary) if VOCABULARY in self.manifest.files_sha256 else None

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(self.path / TOKENIZER, self.manifest.max_tokens, self.manifest.padding)

    def _read(self, name: str, kind: type[_R]) -> _R:
        try:
            return kind.model_validate_json((self.path / name).read_bytes())
        except ValidationError as error:
            raise BundleError(f"{self.path / name}: {first_fault(error)}; fetch or export the bundle again") from error


def _check_file(path: Path, expected: str, repair: str, *, verify: bool) -> None:
    if not path.is_file():
        raise BundleError(f"bundle {path.parent} is incomplete: {path.name} is missing; {repair}")
    if verify and (measured := sha256_of_file(path)) != expected:
        raise BundleError(
            f"bundle {path.parent} is corrupted: {path.name} has sha256 {measured[:12]}, expected {expected[:12]}; "
            f"{repair}"
        )

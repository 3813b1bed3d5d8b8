"""Bundle: a directory with everything a search needs of a model, and its identity; knows nothing of torch.

image_encoder.onnx   pixels (batch, px, px, 3) uint8 -> embedding (batch, dim) float32, attention (batch, h, w)
text_encoder.onnx    ids, mask (batch, length) int64 -> embedding (batch, dim) float32
tokenizer.json       Hugging Face tokenizers definition
preprocess.json      components.images.preprocess.Preprocess
scores.json          components.records.calibration.ScoreCalibration: interpretation of its cosines
vocabulary.json      components.captions.vocabulary.Vocabulary: training words; missing in bundles before 2026-11-29
bundle.json          BundleManifest: format, dimension, sha256 of every other file and of itself, training data
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import ValidationError

from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import first_fault
from image_finder.components.errors import BundleError, FinderError
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.records.base import Record
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.storage import sealed, sha256_of_file, unsealed

FORMAT_VERSION = 2  # 2: scores.json
MANIFEST = "bundle.json"
IMAGE_ENCODER = "image_encoder.onnx"
TEXT_ENCODER = "text_encoder.onnx"
TOKENIZER = "tokenizer.json"
PREPROCESS = "preprocess.json"
SCORES = "scores.json"
VOCABULARY = "vocabulary.json"
_R = TypeVar("_R", bound=Record)
_FILES = {IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER, PREPROCESS, SCORES}  # VOCABULARY is optional


class Manifest(Record):
    """Base of the sealed JSON file that describes a directory."""

    file_name: ClassVar[str]
    artefact: ClassVar[str]  # with its article
    version: ClassVar[int]  # of the format
    error: ClassVar[type[FinderError]]
    missing: ClassVar[str]  # message without the directory
    repair: ClassVar[str]  # advice for a damaged file
    upgrade: ClassVar[str]  # advice for an older format

    format_version: int

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a directory. Raises cls.error if it is missing, damaged or of another format."""
        path = folder / cls.file_name
        if not path.is_file():
            raise cls.error(cls.missing.format(folder))
        try:
            manifest = cls.model_validate(unsealed(path.read_bytes())[0])
        except ValidationError as error:
            raise cls.error(f"{path} is not {cls.artefact} manifest: {first_fault(error)}; {cls.repair}") from error
        except (ValueError, RecursionError) as error:
            raise cls.error(f"{path} is not {cls.artefact} manifest, or damaged: {error}; {cls.repair}") from error
        if (found := manifest.format_version) != cls.version:
            noun = cls.artefact.split()[-1]
            advice = cls.upgrade if found < cls.version else "install a newer text-guided-image-finder"
            raise cls.error(f"{noun} {folder} has format {found}, this version reads {cls.version}; {advice}")
        return manifest

    def write(self, folder: Path) -> None:
        (folder / self.file_name).write_text(sealed(self.model_dump_json()), encoding="utf-8", newline="\n")


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
        if (listed := set(manifest.files_sha256) - {VOCABULARY}) != _FILES:
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

    def preprocess(self) -> Preprocess:
        return self._read(PREPROCESS, Preprocess)

    def scores(self) -> ScoreCalibration:
        return self._read(SCORES, ScoreCalibration)

    def vocabulary(self) -> Vocabulary | None:
        """Words of the training captions; None if unknown. Raises BundleError."""
        return self._read(VOCABULARY, Vocabulary) if VOCABULARY in self.manifest.files_sha256 else None

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(self.path / TOKENIZER, self.manifest.max_tokens)

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

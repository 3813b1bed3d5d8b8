"""Manifest of a starter model: its files, its trunks in packages, and the source of each weight."""

from pathlib import Path
from typing import Literal

from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.errors import BundleError
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.installation import install_command
from image_finder.components.manifest import Manifest
from image_finder.components.records.base import Record
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.starter import MANIFEST
from image_finder.components.storage import sha256_of_file

WeightForm = Literal["same", "transposed", "int8", "int8_scale", "folded", "folded_bias"]
STARTER_FORMAT = 5  # 5: the tokenizer's package and hash, sizes of packaged files


class TrunkFile(Record):
    """A file of a trunk's package: float32 tensors at fixed offsets, or the tokenizer."""

    package: str  # as pip knows it
    version: str
    path: str  # below the site-packages
    sha256: str
    size_bytes: int


class TrunkTensor(Record):
    """A tensor of a trunk file."""

    file: str  # key of StarterManifest.trunks
    offset: int  # bytes
    shape: tuple[int, ...]  # as stored
    axes: tuple[int, ...]  # order in which the tensor has the stored axes


class WeightSource(Record):
    """How an initializer of a tower's graph is computed from a tensor W of the model.

    same: W. transposed: W.T. int8, int8_scale: W.T in 8 bits per column, and the scales. With a batch norm (gamma, beta,
    mean, variance) of the same channels, s = gamma / sqrt(variance + epsilon): folded: W * s; folded_bias: beta - mean * s.
    """

    name: str
    tensor: str
    form: WeightForm
    norm: str = ""  # prefix of the batch norm's tensors
    epsilon: float = 0.0


class StarterManifest(Manifest):
    """Content of starter.json."""

    file_name = MANIFEST
    artefact = "a starter model"
    version = STARTER_FORMAT
    error = BundleError
    missing = f"no starter model at {{}}: {MANIFEST} is missing. Run: {install_command(again=True)}"
    repair = f"run: {install_command(again=True)}"
    upgrade = "pack it again with this version"

    files_sha256: dict[str, str]
    config: dict[str, object]  # ModelConfig
    preprocess: Preprocess
    dataset: str
    data_version: str
    scores: ScoreCalibration
    vocabulary: Vocabulary | None = None
    trunks: dict[str, TrunkFile]
    tokenizer: TrunkFile
    packaged: dict[str, TrunkTensor]  # by name of the model's tensor
    towers: dict[str, tuple[WeightSource, ...]]  # by name of the graph's file

    @property
    def packaged_files(self) -> tuple[TrunkFile, ...]:
        """Every file that the assembly takes from a package."""
        return (*self.trunks.values(), self.tokenizer)

    @classmethod
    def verified(cls, folder: Path) -> "StarterManifest":
        """The manifest of a folder whose files are as they were written. Raises BundleError."""
        manifest = cls.read(folder)
        for name, expected in manifest.files_sha256.items():
            if not (folder / name).is_file() or sha256_of_file(folder / name) != expected:
                raise BundleError(f"starter model {folder}: {name} is missing or has changed; {cls.repair}")
        return manifest

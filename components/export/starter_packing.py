"""Starter packing: stores a trained model without its packaged trunks, small enough for a wheel, and restores it.

starter.json          StarterManifest
weights.safetensors   8-bit rows with a scale each, 16-bit vectors:
    heads             vectors NAME float16; matrices NAME:rows (out, ...) int8 times NAME:scale (out,) float32
    trunk             difference to the packaged trunk: vectors NAME float16; matrices as low-rank products
                      NAME:left (out, rank) int8 * NAME:scale (rank,) float32 @ NAME:right (rank, in) int8

Fine-tuning changes a trunk by matrices of low rank (Aghajanyan et al. 2021; Hu et al. 2022). The size that the heads
leave free goes to the directions with the largest change, relative to the norm of their matrix, per byte. 8 bits change
a row by 1 %; at 16 bits, fewer directions would fit, which costs more.
"""

from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import ExportConfig, ModelConfig, first_fault
from image_finder.components.encoders.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    CheckpointManifest,
    load_tensors,
    model_tensors,
    save_checkpoint,
)
from image_finder.components.encoders.dual_encoder import Assembled, assemble
from image_finder.components.errors import BundleError, ConfigError
from image_finder.components.export.exporter import export_bundle
from image_finder.components.records.base import Record
from image_finder.components.records.calibration import MatchModels, ScoreCalibration
from image_finder.components.starter import MANIFEST, MAX_MB, WEIGHTS
from image_finder.components.storage import new_directory, sha256_of_file, write_bytes_atomically
from image_finder.components.temporaries import scratch_directory
from image_finder.components.text import one_line

STARTER_FORMAT = 3
_MB = 1e6
_INT8_MAX = 127
_SCALE_BYTES = 4
_NEGLIGIBLE = 1e-5  # share of a matrix's norm; rounding errors are larger
_EXPORT = ExportConfig(int8_text=True)  # twice as fast for 0.3 points of R@1 (bench_int8_text.py)


class StarterManifest(Record):
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
    """Write the trained tensors of a checkpoint to a directory, completely or not at all.

    vocabulary: of the training captions. max_mb: limit of all tensors. Raises ConfigError for trunks that are not
    packaged and for heads above max_mb, BundleError, StorageError.
    """
    config = checkpoint.config
    if {config.image.weights, config.text.weights} != {"packaged"}:
        raise ConfigError("a starter model needs packaged trunks; train with image.weights and text.weights packaged")
    trained = model_tensors(checkpoint.load().model)
    packaged = model_tensors(_packaged(config).model)
    learned = {name: tensor for name, tensor in trained.items() if not torch.equal(tensor, packaged[name])}
    if broken := [name for name, tensor in learned.items() if tensor.ndim > 1 and not torch.isfinite(tensor).all()]:
        raise BundleError(f"{broken[0]} has values that are not finite; this model cannot be a starter model")
    own = {name: tensor - packaged[name] if _of_trunk(name) else tensor for name, tensor in learned.items()}
    matrices = {name: own.pop(name) for name in list(own) if _of_trunk(name) and own[name].ndim > 1}
    tensors: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if tensor.ndim > 1:
            tensors[f"{name}:rows"], tensors[f"{name}:scale"] = _in_eight_bits(tensor)
        else:
            tensors[name] = _halved(name, tensor)
    max_bytes = round(max_mb * _MB)
    spare = max_bytes - sum(tensor.nbytes for tensor in tensors.values())
    if spare < 0:
        raise ConfigError(
            f"the heads of this model take {(max_bytes - spare) / _MB:.1f} MB, a starter model at most {max_mb:g}: "
            "raise --max-mb, or train with a smaller image.pool_width, embedding_dim or ensemble_heads"
        )
    tensors |= _approximated(matrices, packaged, spare)
    with new_directory(path) as folder:
        save_file(tensors, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)  # safetensors writes 0600, which a wheel would keep
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


def with_matches(source: Path, matches: MatchModels) -> StarterManifest:
    """Store models of good matches in a starter model. Raises BundleError, StorageError."""
    manifest = _read(source)
    scores = manifest.scores.model_copy(update={"matches": matches})
    changed = manifest.model_copy(update={"scores": scores})
    write_bytes_atomically(source / MANIFEST, (changed.model_dump_json(indent=2) + "\n").encode())
    return changed


def unpack_starter(source: Path, path: Path) -> Bundle:
    """Combine a starter model with its trunks to a bundle. Raises BundleError, DataError, StorageError."""
    manifest = _read(source)
    config = ModelConfig.parse(manifest.config)
    assembled = _packaged(config)
    try:
        own = restored(load_tensors(source / WEIGHTS), model_tensors(assembled.model))
        found = assembled.model.load_state_dict(own, strict=False)
    except (SafetensorError, RuntimeError, OSError, KeyError) as error:
        reason = one_line(error)
        raise BundleError(f"{source / WEIGHTS} does not fit its configuration: {reason}; reinstall") from error
    if found.unexpected_keys:
        raise BundleError(f"{source / WEIGHTS} has {found.unexpected_keys[0]}, which the model lacks; reinstall")
    with scratch_directory() as folder:
        trained = CheckpointManifest(
            format_version=FORMAT_VERSION,
            dataset=manifest.dataset,
            data_version=manifest.data_version,
            epoch=manifest.epoch,
            history=(),
            files_sha256={},
        )
        checkpoint = save_checkpoint(Path(folder) / "checkpoint", assembled, config, trained)
        return export_bundle(
            checkpoint, path, _EXPORT, scores=manifest.scores, vocabulary=manifest.vocabulary, starter=True
        )


def _read(source: Path) -> StarterManifest:
    try:
        manifest = StarterManifest.model_validate_json((source / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else error.strerror
        raise BundleError(f"no starter model at {source}: {MANIFEST}: {reason}; reinstall") from error
    if manifest.format_version != STARTER_FORMAT:
        raise BundleError(
            f"starter model {source} has format {manifest.format_version}, this version reads {STARTER_FORMAT}; reinstall"
        )
    if not (source / WEIGHTS).is_file() or sha256_of_file(source / WEIGHTS) != manifest.weights_sha256:
        raise BundleError(f"starter model {source}: {WEIGHTS} is missing or has changed; reinstall")
    return manifest


def _packaged(config: ModelConfig) -> Assembled:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return assemble(config)


def _of_trunk(name: str) -> bool:
    return ".stem." in name or ".tails." in name


def _approximated(differences: dict[str, Tensor], packaged: dict[str, Tensor], max_bytes: int) -> dict[str, Tensor]:
    """Low-rank factors of the differences (out, ...) to packaged tensors; at most max_bytes."""
    parts = {name: torch.linalg.svd(each.flatten(1), full_matrices=False) for name, each in differences.items()}
    cost = {name: sum(each.flatten(1).shape) + _SCALE_BYTES for name, each in differences.items()}
    directions = sorted(
        (
            (share**2 / cost[name], name)
            for name, (_, scales, _) in parts.items()
            for share in (scales / packaged[name].norm()).tolist()
            if share > _NEGLIGIBLE
        ),
        reverse=True,
    )
    ranks = dict.fromkeys(parts, 0)
    for _, name in directions:  # within a matrix, the largest come first
        if cost[name] <= max_bytes:
            ranks[name] += 1
            max_bytes -= cost[name]
    tensors = {}
    for name, (left, scales, right) in parts.items():
        if rank := ranks[name]:
            columns, column_scales = _in_eight_bits(left[:, :rank].T)
            tensors[f"{name}:left"] = columns.T.contiguous()
            tensors[f"{name}:right"], row_scales = _in_eight_bits(right[:rank])
            tensors[f"{name}:scale"] = scales[:rank] * column_scales * row_scales
    return tensors


def restored(stored: dict[str, Tensor], packaged: dict[str, Tensor]) -> dict[str, Tensor]:
    """Restore float32 tensors from those of weights.safetensors and the packaged ones."""
    tensors = {}
    for key, tensor in stored.items():
        name, _, form = key.partition(":")
        if form == "rows":
            tensors[name] = (tensor.flatten(1).float() * stored[f"{name}:scale"][:, None]).view_as(tensor)
        elif form == "left":
            difference = (tensor.float() * stored[f"{name}:scale"]) @ stored[f"{name}:right"].float()
            tensors[name] = packaged[name] + difference.view_as(packaged[name])
        elif not form:
            tensors[name] = packaged[name] + tensor.float() if _of_trunk(name) else tensor.float()
    return tensors


def _in_eight_bits(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (rows, ...) as int8 values from -127 to 127 and the scale of each row: (rows,)."""
    scale = matrix.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / _INT8_MAX
    rows = (matrix.flatten(1) / scale[:, None]).round().to(torch.int8)
    return rows.view(matrix.shape).contiguous(), scale


def _halved(name: str, tensor: Tensor) -> Tensor:
    halved = tensor.half()
    if not torch.equal(torch.isinf(halved), torch.isneginf(tensor)) or torch.isnan(halved).any():
        # -inf is allowed: the log weight of an unused hubness centre
        raise BundleError(f"{name} has values outside half precision; this model cannot be a starter model")
    return halved

"""Starter: a trained model without its packaged trunks, small enough for a wheel, and its way back to a bundle.

weights.safetensors   of heads: vectors NAME float16, matrices NAME:rows (out, ...) int8, a row times its NAME:scale (out,)
                      float32; of the trunk the difference to what its package brings: vectors NAME float16, of matrices the
                      best approximation of low rank, a direction a column of NAME:left (out, rank) int8 times a row of
                      NAME:right (rank, in) int8 times its NAME:scale (rank,) float32
starter.json          StarterManifest

Fine-tuning changes a trunk by matrices of low rank (Aghajanyan et al. 2021; Hu et al. 2022). What the heads leave of the
size goes to those directions of all matrices that change most, against the matrix's own norm, for their bytes. With 8 bits a
row is off by 1 % of itself; what 16 would tell more is worth less than the directions that have room instead.
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
_STEPS = 127  # of a number of 8 bits, either way
_SCALE_BYTES = 4
_NEGLIGIBLE = 1e-5  # of a matrix's norm; rounding costs more
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
    if broken := [name for name, tensor in learned.items() if tensor.ndim > 1 and not torch.isfinite(tensor).all()]:
        raise BundleError(f"{broken[0]} holds numbers that are not finite; this model cannot be a starter")
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
            f"the heads of this model take {(max_bytes - spare) / _MB:.1f} MB, a starter at most {max_mb:g}: "
            "allow more (--max-mb), or train with a smaller image.pool_width, embedding_dim or number of heads"
        )
    tensors |= _approximated(matrices, packaged, spare)
    with new_directory(path) as folder:
        save_file(tensors, folder / WEIGHTS)
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


def with_matches(source: Path, matches: MatchModels) -> StarterManifest:
    """Record in a packed starter when its hits are good matches. Raises BundleError, StorageError."""
    manifest = _read(source)
    scores = manifest.scores.model_copy(update={"matches": matches})
    changed = manifest.model_copy(update={"scores": scores})
    write_bytes_atomically(source / MANIFEST, (changed.model_dump_json(indent=2) + "\n").encode())
    return changed


def export_starter(source: Path, path: Path) -> Bundle:
    """Put a starter together with the packaged trunks and write it as a bundle, whole or not at all.

    Raises BundleError, DataError for a package that is not installed, StorageError.
    """
    manifest = _read(source)
    assembled = _packaged(ModelConfig.parse(manifest.config))
    try:
        own = restored(load_tensors(source / WEIGHTS), model_tensors(assembled.model))
        found = assembled.model.load_state_dict(own, strict=False)
    except (SafetensorError, RuntimeError, OSError, KeyError) as error:
        reason = one_line(error)
        raise BundleError(f"{source / WEIGHTS} does not fit its configuration: {reason}; install again") from error
    if found.unexpected_keys:
        raise BundleError(f"{source / WEIGHTS} holds {found.unexpected_keys[0]}, which the model lacks; install again")
    with scratch_directory() as folder:
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
    for _, name in directions:  # those of one matrix come in their order, the largest first
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
    """The tensors that those of weights.safetensors were made of, float32. packaged: the model without them."""
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
    """A matrix (rows, ...) as whole numbers of -127 to 127 and the number (rows,) that each row's are times."""
    scale = matrix.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / _STEPS
    rows = (matrix.flatten(1) / scale[:, None]).round().to(torch.int8)
    return rows.view(matrix.shape).contiguous(), scale


def _halved(name: str, tensor: Tensor) -> Tensor:
    halved = tensor.half()
    if not torch.equal(torch.isinf(halved), torch.isneginf(tensor)) or torch.isnan(halved).any():
        # -inf is a number here: the logarithm of the weight of a centre of no caption
        raise BundleError(f"{name} holds numbers that half precision cannot; this model cannot be a starter")
    return halved

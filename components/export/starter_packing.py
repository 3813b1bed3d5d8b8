"""Starter packing: stores a trained model without its packaged trunks, small enough for a wheel.

Fine-tuning changes a trunk by matrices of low rank (Aghajanyan et al. 2021; Hu et al. 2022). The size that the heads
leave free goes to the directions with the largest change, relative to the norm of their matrix, per byte. 8 bits change
a row by 1 %; at 16 bits, fewer directions would fit, which costs more.

The towers are exported once, here; their graphs are stored without weights, each with the source of every weight. So a
starter model is assembled without torch (components/starter).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from image_finder.components.arrays import FloatArray
from image_finder.components.bundle.bundle import IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.checkpoint import Checkpoint, model_tensors
from image_finder.components.encoders.dual_encoder import Assembled, assemble
from image_finder.components.encoders.weights import packaged_trunks
from image_finder.components.errors import BundleError, ConfigError
from image_finder.components.export.exporter import export_towers
from image_finder.components.export.weight_sources import find_trunks, packaged_file, strip_tower
from image_finder.components.records.calibration import MatchModels, ScoreCalibration
from image_finder.components.starter import MAX_MB, WEIGHTS
from image_finder.components.starter.manifest import STARTER_FORMAT, StarterManifest, WeightSource
from image_finder.components.starter.weights import INT8_MAX, ModelTensors, of_trunk, tensors_of
from image_finder.components.storage import hash_directory, new_directory

_MB = 1e6
_SCALE_BYTES = 4
_NEGLIGIBLE = 1e-5  # share of a matrix's norm; rounding errors are larger


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
    assembled = _packaged(config)
    stored = starter_weights(model_tensors(checkpoint.load().model), model_tensors(assembled.model), max_mb)
    with new_directory(path) as folder:
        save_file(stored, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)  # safetensors writes 0600, which a wheel would keep
        towers, packaged = _write_graphs(folder, assembled, stored)
        packages = packaged_trunks(config)
        trunks, places = find_trunks(packages, packaged)
        manifest = StarterManifest(
            format_version=STARTER_FORMAT,
            files_sha256=hash_directory(folder),
            config=config.model_dump(mode="json"),
            preprocess=assembled.preprocess,
            dataset=checkpoint.manifest.dataset,
            data_version=checkpoint.manifest.data_version,
            scores=scores,
            vocabulary=vocabulary,
            trunks=trunks,
            tokenizer=packaged_file(packages["text"].name, packages["text"].path.with_name(TOKENIZER)),
            packaged=places,
            towers=towers,
        )
        manifest.write(folder)
    return manifest


def with_matches(source: Path, matches: MatchModels) -> StarterManifest:
    """Store models of good matches in a starter model. Raises BundleError, StorageError."""
    manifest = StarterManifest.verified(source)
    changed = manifest.model_copy(update={"scores": manifest.scores.model_copy(update={"matches": matches})})
    changed.write(source)
    return changed


def _write_graphs(
    folder: Path, assembled: Assembled, stored: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[WeightSource, ...]], dict[str, FloatArray]]:
    """Write the towers' graphs without weights; returns their sources, and the trunks' tensors among them.

    The towers are those of the stored weights, not of the trained ones.
    """
    packaged = {name: tensor.numpy().copy() for name, tensor in model_tensors(assembled.model).items()}
    restored = ModelTensors({name: tensor.numpy() for name, tensor in stored.items()}, packaged)
    tensors = {name: restored[name] for name, tensor in packaged.items() if tensor.dtype == np.float32}
    assembled.model.load_state_dict({name: torch.from_numpy(each) for name, each in tensors.items()}, strict=False)
    norms = {name: module.eps for name, module in assembled.model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    export_towers(assembled, folder, int8_text=True)  # twice as fast for 0.3 points of R@1 (bench_int8_text.py)
    towers = {
        name: strip_tower(folder / name, tower, tensors, norms)
        for name, tower in ((IMAGE_ENCODER, "image_tower"), (TEXT_ENCODER, "text_tower"))
    }
    needed = {name for sources in towers.values() for source in sources for name in tensors_of(source)}
    return towers, {name: packaged[name] for name in sorted(needed) if of_trunk(name)}


def starter_weights(trained: dict[str, Tensor], packaged: dict[str, Tensor], max_mb: float) -> dict[str, Tensor]:
    """Content of weights.safetensors: all tensors of the heads, and what the trunks learned. Raises BundleError, ConfigError."""
    learned = {
        name: tensor
        for name, tensor in trained.items()
        if tensor.is_floating_point() and not (of_trunk(name) and torch.equal(tensor, packaged[name]))
    }
    if broken := [name for name, tensor in learned.items() if tensor.ndim > 1 and not torch.isfinite(tensor).all()]:
        raise BundleError(f"{broken[0]} has values that are not finite; this model cannot be a starter model")
    own = {name: tensor - packaged[name] if of_trunk(name) else tensor for name, tensor in learned.items()}
    matrices = {name: own.pop(name) for name in list(own) if of_trunk(name) and own[name].ndim > 1}
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
    return tensors | _approximated(matrices, packaged, spare)


def _packaged(config: ModelConfig) -> Assembled:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return assemble(config)


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


def _in_eight_bits(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (rows, ...) as int8 values from -127 to 127 and the scale of each row: (rows,)."""
    scale = matrix.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / INT8_MAX
    rows = (matrix.flatten(1) / scale[:, None]).round().to(torch.int8)
    return rows.view(matrix.shape).contiguous(), scale


def _halved(name: str, tensor: Tensor) -> Tensor:
    halved = tensor.half()
    if not torch.equal(torch.isinf(halved), torch.isneginf(tensor)) or torch.isnan(halved).any():
        # -inf is allowed: the log weight of an unused hubness centre
        raise BundleError(f"{name} has values outside half precision; this model cannot be a starter model")
    return halved

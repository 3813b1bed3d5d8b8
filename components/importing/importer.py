"""Importer: writes a dual encoder of another library as a bundle that answers as the original does."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from image_finder.components.bundle.bundle import (
    CARD,
    FORMAT_VERSION,
    IMAGE_ENCODER,
    PREPROCESS,
    SCORES,
    TEXT_ENCODER,
    TOKENIZER,
    Bundle,
    BundleManifest,
    ImportedModel,
)
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.encoders.onnx_graph import export_image_module, export_module
from image_finder.components.errors import BundleError, StorageError
from image_finder.components.export.exporter import quantise_text_tower
from image_finder.components.importing.card import card_text
from image_finder.components.importing.fidelity import (
    PROBES,
    measure_fidelity,
    probe_vectors,
    require_fidelity,
    smallest_cosine,
)
from image_finder.components.importing.half_weights import halve_weights
from image_finder.components.importing.original import Original, TextTower
from image_finder.components.importing.source import Source, load_original
from image_finder.components.records.base import Record
from image_finder.components.storage import hash_directory, new_directory
from image_finder.components.system import available_cores, available_memory_mb

_MAX_TOWER_BYTES = 2**31 - 2**24  # protobuf's limit, less the graph
# Memory of an import: 3.8 GB for the 605 MB of ViT-B/32. The libraries' part, and copies of the weights.
_LIBRARIES_MB, _COPIES = 900, 5
_TIMED = 9


class ImportOptions(Record):
    int8_text: bool = False
    half_image: bool = False


def import_model(source: Source, path: Path, options: ImportOptions, *, measure_on: Path | None = None) -> Bundle:
    """Write a model as a bundle, completely or not at all.

    Tokens, pixels and vectors are compared with the original library's first. measure_on: captioned images, to learn which
    hits are good matches. Raises BundleError, QualityError, StorageError, DataError.
    """
    if path.exists():
        raise BundleError(f"{path} exists and may be in use; remove it, or name a new folder with --to")
    if measure_on is not None:  # its packages may be missing, which must show before the work
        from image_finder.components.importing.measured_scores import measured_scores
    _require_memory(source)
    original = load_original(source)
    _require_room(original, path)
    with new_directory(path) as folder:
        export_image_module(
            original.image_tower, folder / IMAGE_ENCODER, input_px=original.preprocess.input_px, outputs=("embedding",)
        )
        _export_text(original.text_tower, folder / TEXT_ENCODER, original)
        (folder / TOKENIZER).write_text(original.tokenizer.definition, encoding="utf-8", newline="\n")
        (folder / PREPROCESS).write_text(original.preprocess.model_dump_json(indent=2), encoding="utf-8", newline="\n")
        (folder / SCORES).write_text(original.scores.model_dump_json(indent=2), encoding="utf-8", newline="\n")
        manifest = _manifest(source, original)
        exact = OnnxEncoder(Bundle(folder, manifest), device="cpu")
        fidelity = measure_fidelity(original, exact)
        require_fidelity(fidelity, original)
        vectors = probe_vectors(exact)
        del exact
        if options.int8_text:
            quantise_text_tower(folder / TEXT_ENCODER, folder / TEXT_ENCODER)
        if options.half_image:
            halve_weights(folder / IMAGE_ENCODER)
        served = OnnxEncoder(Bundle(folder, manifest), device="cpu")
        if measure_on is not None:
            scores = measured_scores(served, original.scores, measure_on)
            (folder / SCORES).write_text(scores.model_dump_json(indent=2), encoding="utf-8", newline="\n")
        text_cosine, image_cosine = map(smallest_cosine, probe_vectors(served), vectors)
        text_ms, image_ms = _times(served)
        imported = ImportedModel(
            source=source.name,
            revision=source.revision,
            architecture=original.architecture,
            library=original.library,
            licence=source.facts.licence,
            non_commercial=source.facts.non_commercial,
            training_data=source.facts.training_data,
            parameters=original.parameters,
            image_ms=image_ms,
            text_ms=text_ms,
            threads=available_cores(),
            max_difference=fidelity.max_difference,
            text_cosine=text_cosine,
            image_cosine=image_cosine,
        )
        (folder / CARD).write_text(card_text(imported, manifest, original), encoding="utf-8", newline="\n")
        manifest = manifest.model_copy(
            update={
                "imported": imported,
                "text_quantised": options.int8_text,
                "embedding_dim": vectors[0].shape[1],
                "files_sha256": hash_directory(folder),
            }
        )
        manifest.write(folder)
    return Bundle(path, manifest)


def _manifest(source: Source, original: Original) -> BundleManifest:
    return BundleManifest(
        format_version=FORMAT_VERSION,
        embedding_dim=_dim(original),
        max_tokens=original.tokenizer.max_tokens,
        files_sha256={},
        dataset=source.facts.training_data,
        data_version=source.revision[:12],
        image_trunk=original.architecture,
        text_trunk=original.architecture,
        text_quantised=False,
        config={},
        padding=original.tokenizer.padding,
    )


def _dim(original: Original) -> int:
    return int(original.reference.texts(PROBES[:1]).shape[1])


def _export_text(tower: TextTower, path: Path, original: Original) -> None:
    tokens = original.tokenizer(["two dogs play on a beach", "a cat"])
    example = (torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))
    shape: tuple[str | None, ...] = ("batch", None if original.tokenizer.padding.full else "length")
    export_module(tower, example, path, inputs={"ids": shape, "mask": shape}, outputs=("embedding",))


def _require_memory(source: Source) -> None:
    """Refuse weights whose copies in library, exporter and graph do not fit. Raises StorageError."""
    files = source.files.glob("*.safetensors") if source.files.is_dir() else [source.files]
    needed = _LIBRARIES_MB + _COPIES * sum(path.stat().st_size for path in files) / 1e6
    free = available_memory_mb()
    if free is not None and needed > free:
        raise StorageError(
            f"{free:,.0f} MB of memory are free, the import needs about {needed:,.0f} MB; close other programs or import a "
            "smaller model"
        )


def _require_room(original: Original, path: Path) -> None:
    """Refuse a tower that ONNX cannot store in one file, and a disk that is too small. Raises BundleError, StorageError."""
    sizes = {
        name: sum(each.numel() * 4 for each in tower.model.parameters())
        for name, tower in (("image", original.image_tower), ("text", original.text_tower))
    }
    if original.image_tower.model is original.text_tower.model:  # one module holds both
        sizes = {"both towers": original.parameters * 4}
    parent = next(each for each in path.absolute().parents if each.exists())
    needed, free = sum(sizes.values()), shutil.disk_usage(parent).free
    if needed > free:
        raise StorageError(
            f"{parent} has {free / 1e6:,.0f} MB free, the model needs {needed / 1e6:,.0f} MB; free some space or name "
            "another disk with --to"
        )
    for name, size in sizes.items():
        if name != "both towers" and size > _MAX_TOWER_BYTES:
            raise BundleError(
                f"the {name} tower has {size / 1e9:.1f} GB of weights, an ONNX file holds at most 2.1 GB; import a smaller model"
            )


def _times(encoder: OnnxEncoder) -> tuple[float, float]:
    """Median ms of one text and of one image, without the first call, which prepares the session."""
    px = encoder.preprocess.input_px
    image = np.random.default_rng(0).integers(0, 256, (1, px, px, 3), dtype=np.uint8)
    return _median_ms(lambda: encoder.encode_text([PROBES[4]])), _median_ms(lambda: encoder.encode_image(image))


def _median_ms(encode: Callable[[], object]) -> float:
    encode()
    seconds = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        encode()
        seconds.append(time.perf_counter() - started)
    return round(float(np.median(seconds)) * 1000, 2)

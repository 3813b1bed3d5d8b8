"""Exporter: writes a checkpoint as a bundle of ONNX towers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from image_finder.components.bundle.bundle import (
    FORMAT_VERSION,
    IMAGE_ENCODER,
    PREPROCESS,
    SCORES,
    TEXT_ENCODER,
    TOKENIZER,
    VOCABULARY,
    Bundle,
    BundleManifest,
)
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import ExportConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.encoders.dual_encoder import Assembled
from image_finder.components.encoders.onnx_graph import export_image_module, export_text_module
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.storage import hash_directory, new_directory

if TYPE_CHECKING:
    from image_finder.components.captions.captioned import CaptionedImages


def export_bundle(
    checkpoint: Checkpoint,
    path: Path,
    config: ExportConfig,
    *,
    scores: ScoreCalibration,
    vocabulary: Vocabulary | None = None,
    calibration: "Sequence[CaptionedImages]" = (),
) -> Bundle:
    """Write a checkpoint as a bundle, completely or not at all.

    vocabulary: of the training captions. calibration: captioned images outside the training part, to fit the models of
    good matches; without them, those in scores are kept. Raises BundleError, StorageError, ImageError.
    """
    assembled = checkpoint.load()
    with new_directory(path) as folder:
        export_towers(assembled, folder, int8_text=config.int8_text)
        (folder / TOKENIZER).write_text(assembled.tokenizer.definition, encoding="utf-8", newline="\n")
        (folder / PREPROCESS).write_text(assembled.preprocess.model_dump_json(indent=2), encoding="utf-8", newline="\n")
        if vocabulary is not None:
            (folder / VOCABULARY).write_text(vocabulary.model_dump_json(), encoding="utf-8", newline="\n")
        model_config = checkpoint.config
        manifest = BundleManifest(
            format_version=FORMAT_VERSION,
            embedding_dim=model_config.embedding_dim,
            max_tokens=model_config.text.max_tokens,
            files_sha256={},
            dataset=checkpoint.manifest.dataset,
            data_version=checkpoint.manifest.data_version,
            image_trunk=model_config.image.origin,
            text_trunk=model_config.text.origin,
            text_quantised=config.int8_text,
            config=model_config.model_dump(mode="json"),
        )
        if vocabulary is not None and calibration:
            # imported here: needs pandas and scikit-learn
            from image_finder.components.evaluation.match_calibration import calibrate_matches

            matches = calibrate_matches(OnnxEncoder(Bundle(folder, manifest)), vocabulary, calibration)
            scores = scores.model_copy(update={"matches": matches})
        (folder / SCORES).write_text(scores.model_dump_json(indent=2), encoding="utf-8", newline="\n")
        manifest = manifest.model_copy(update={"files_sha256": hash_directory(folder)})
        manifest.write(folder)
    return Bundle(path, manifest)


def export_towers(assembled: Assembled, folder: Path, *, int8_text: bool) -> None:
    """Export both towers to a folder; int8_text: the text tower with 8-bit weights. Raises BundleError."""
    model, preprocess, _ = assembled
    export_image_module(
        model.image_tower,
        folder / IMAGE_ENCODER,
        input_px=preprocess.input_px,
        outputs=("embedding", "attention"),  # (batch, dim), (batch, h, w)
    )
    export_text_module(model.text_tower, folder / TEXT_ENCODER, outputs=("embedding",))
    if int8_text:
        quantise_text_tower(folder / TEXT_ENCODER, folder / TEXT_ENCODER)


def quantise_text_tower(source: Path, path: Path) -> None:
    """Quantise the trunk of an exported text tower: 8-bit weights, dynamic, per channel.

    Embeddings and heads stay float: quantised, they make a text's vector depend more on its batch and are no faster.
    """
    model = onnx.load(source)
    add_pre_process_metadata(model)  # otherwise the quantiser logs advice to preprocess
    del model.graph.value_info[:]  # the quantiser transposes weights, which contradicts these shapes
    head_nodes = [
        node.name for node in model.graph.node if any(each.startswith(("heads.", "concepts.")) for each in node.input)
    ]
    quantize_dynamic(
        model,
        path,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=[*head_nodes, *(f"{name}_MatMul" for name in head_nodes)],  # it first turns Gemm into MatMul
        per_channel=True,
        weight_type=QuantType.QInt8,
    )

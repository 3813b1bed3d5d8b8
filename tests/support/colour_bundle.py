"""A bundle whose answers are known: an image's vector is its mean colour, a text's the sum of its colour words."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from image_finder.components.bundle.bundle import (
    CARD,
    FORMAT_VERSION,
    IMAGE_ENCODER,
    PREPROCESS,
    SCORES,
    TEXT_ENCODER,
    TOKENIZER,
    VOCABULARY,
    Bundle,
    BundleManifest,
    ImportedModel,
)
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.records.calibration import MATCH_FEATURES, MatchModel, MatchModels, ScoreCalibration
from image_finder.components.storage import hash_directory

WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1), "yellow": (1, 1, 0)}


def write_colour_bundle(
    path: Path,
    *,
    dataset: str = "colours",
    input_px: int = 8,
    vocabulary: Vocabulary | None = None,
    matches: MatchModels | None = None,
    imported: ImportedModel | None = None,
    confused: bool = False,
) -> Bundle:
    """confused: every word means another colour."""
    path.mkdir(parents=True)
    onnx.save(_image_encoder(input_px), path / IMAGE_ENCODER)
    onnx.save(_text_encoder(confused=confused), path / TEXT_ENCODER)
    if imported is not None:
        (path / CARD).write_text(f"# {imported.source}\n", encoding="utf-8")
    tokens = {"[UNK]": 0, **{word: row for row, word in enumerate(WORDS, start=1)}}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (path / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    preprocess = Preprocess(input_px=input_px, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    (path / PREPROCESS).write_text(preprocess.model_dump_json(), encoding="utf-8")
    scores = colour_scores().model_copy(update={"matches": matches})
    (path / SCORES).write_text(scores.model_dump_json(), encoding="utf-8")
    if vocabulary is not None:
        (path / VOCABULARY).write_text(vocabulary.model_dump_json(), encoding="utf-8")
    manifest = BundleManifest(
        format_version=FORMAT_VERSION,
        embedding_dim=3,
        max_tokens=8,
        files_sha256=hash_directory(path),
        dataset=dataset,
        data_version="0",
        image_trunk="mean colour",
        text_trunk="word table",
        text_quantised=False,
        config={},
        imported=imported,
    )
    manifest.write(path)
    return Bundle.open(path)


def imported_model(source: str = "team/clip") -> ImportedModel:
    return ImportedModel(
        source=source, revision="c" * 40, architecture="clip", library="transformers 5", licence="mit", non_commercial=False,
        training_data="unknown", parameters=12, image_ms=0.1, text_ms=0.1, threads=2, max_difference=1e-7,
    )  # fmt: skip


def good_from(cosine: float) -> MatchModels:
    """A hit is a good match of a short text from this cosine on; of a long text none is."""
    coefficients = tuple(1000.0 if name == "cosine" else 0.0 for name in MATCH_FEATURES)
    model = MatchModel(
        coefficients=coefficients, intercept=-1000 * cosine, min_probability=0.5, precision=1, n_queries=1
    )
    return MatchModels(short=model, long=None)


def colour_scores() -> ScoreCalibration:
    """Pairs score 0.8 to 1; a best hit below 0.9 is of another colour: red and white are 0.58, red and yellow 0.71."""
    return ScoreCalibration(
        logit_scale=20.0,
        good_match=0.9,
        quantiles=tuple(round(0.8 + 0.01 * step, 2) for step in range(21)),
        n_captions=100,
        gallery_size=20,
        dataset="colours",
        data_version="0",
        split="val",
    )


def _image_encoder(input_px: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "height_width"], ["colour"], keepdims=0),
        *_unit("colour"),
        helper.make_node("ReduceMean", ["values", "channels"], ["grey"], keepdims=0),
        helper.make_node("Mul", ["grey", "zero"], ["attention"]),
    ]
    constants: dict[str, np.ndarray] = {
        "height_width": np.array([1, 2], np.int64),
        "channels": np.array([3], np.int64),
        "zero": np.array(0, np.float32),
    }
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", input_px, input_px, 3])
    attention = helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["batch", input_px, input_px])
    return _model(nodes, [pixels], [_embedding(), attention], constants)


def _text_encoder(*, confused: bool = False) -> onnx.ModelProto:
    colours = list(WORDS.values())
    table = np.array([(0.01, 0.01, 0.01), *(colours[1:] + colours[:1] if confused else colours)], np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["kept_column"]),
        helper.make_node("Mul", ["rows", "kept_column"], ["kept_rows"]),
        helper.make_node("ReduceSum", ["kept_rows", "tokens"], ["colour"], keepdims=0),
        *_unit("colour"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")]
    constants: dict[str, np.ndarray] = {
        "table": table,
        "last": np.array([-1], np.int64),
        "tokens": np.array([1], np.int64),
    }
    return _model(nodes, inputs, [_embedding()], constants)


def _unit(name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Add", [name, "tiny"], ["above_zero"]),
        helper.make_node("ReduceL2", ["above_zero", "dimension"], ["norm"], keepdims=1),
        helper.make_node("Div", ["above_zero", "norm"], ["embedding"]),
    ]


def _embedding() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3])


def _model(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    constants = {**constants, "tiny": np.array(1e-3, np.float32), "dimension": np.array([1], np.int64)}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "colours", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

"""A bundle of two tiny towers whose search results can be worked out by hand, images for it, and its reports."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from image_finder.components.bundle.bundle import FORMAT_VERSION, Bundle, BundleManifest
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.data import ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.retrieval import DirectionReport, Interval, RetrievalReport
from image_finder.components.storage import sha256_of_file

Rows = Sequence[Sequence[float]]

WORDS = 16
FAIR = {"words": ((1, 0), (0.25, 1))}  # too near to "dog" for captions that mention both animals
GOOD = {"words": ((1, 0), (0, 1))}
BAD = {"words": ((0, 1), (1, 0))}
VALIDATION = ValidationReport(
    dataset="scratch", data_version="0123456789ab", n_images=17, n_captions=17, n_valid_captions=17, expectations=(),
    quarantined={}, max_quarantined_share=0.02, success=True,
)  # fmt: skip
PARITY = ParityReport(
    cases=(), min_cosine=0.9999, max_difference=0.001, torch_recall_at_10=0.6, onnx_recall_at_10=0.6, n_images=17,
    passed=True, reasons=(),
)  # fmt: skip


def draw_images(root: Path) -> CaptionedImages:
    """17 images from red to green, with captions from 16 words "dog" to 16 words "cat"."""
    root.mkdir(exist_ok=True)
    captions, files = [], []
    for cats in range(WORDS + 1):
        angle = math.atan2(cats, WORDS - cats)
        colour = np.array([250 * math.cos(angle), 250 * math.sin(angle), 0]).round().astype(np.uint8)
        Image.fromarray(np.tile(colour, (8, 8, 1))).save(root / f"{cats}.png")
        files.append({"image_id": cats, "file_name": f"{cats}.png", "sha256": sha256_of_file(root / f"{cats}.png")})
        captions.append({"image_id": cats, "caption_id": cats, "caption": "dog " * (WORDS - cats) + "cat " * cats})
    table = pd.DataFrame(captions).assign(width_px=8, height_px=8, license=0, part="test")
    return CaptionedImages(table, pd.DataFrame(files), root)


def retrieval_report(mean_recall: float = 0.5, **changes: object) -> RetrievalReport:
    """A report whose recalls are all mean_recall, over 10 images and 50 captions."""
    near = Interval(low=max(mean_recall - 0.1, 0), high=min(mean_recall + 0.1, 1))

    def direction(n_queries: int, gallery_size: int) -> DirectionReport:
        ks = (1, 5, 10)
        return DirectionReport(
            n_queries=n_queries,
            gallery_size=gallery_size,
            recall=dict.fromkeys(ks, mean_recall),
            interval=dict.fromkeys(ks, near),
            random_recall={k: k / gallery_size for k in ks},
            median_rank=2.0,
        )

    return RetrievalReport(
        dataset="scratch",
        data_version="0123456789ab",
        split="val",
        n_images=10,
        n_captions=50,
        text_to_image=direction(50, 10),
        image_to_text=direction(10, 50),
        mean_recall=mean_recall,
        mean_recall_interval=near,
        slices=(),
        bootstrap_samples=1000,
        seed=0,
    ).model_copy(update=changes)


def score_calibration() -> ScoreCalibration:
    """Scores of pairs evenly from 0 to 1, over 10 images and 50 captions."""
    return ScoreCalibration(
        logit_scale=10.0,
        good_match=0.5,
        quantiles=tuple(step / 20 for step in range(21)),
        n_captions=50,
        gallery_size=10,
        dataset="scratch",
        data_version="0123456789ab",
        split="val",
    )


def write_tiny_bundle(folder: Path, words: Rows = ((1, 0), (0, 1)), colours: Rows = ((1, 0), (0, 1), (0, 0))) -> Bundle:
    """A bundle: a text is the sum of its words' vectors, an image its mean colour @ colours."""
    dim = len(words[0])
    folder.mkdir()
    vocabulary = {"[UNK]": 0, "dog": 1, "cat": 2}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    preprocess = Preprocess(input_px=8, mean=(0, 0, 0), std=(1, 1, 1))
    (folder / "preprocess.json").write_text(preprocess.model_dump_json())
    (folder / "scores.json").write_text(score_calibration().model_dump_json())
    _save(folder / "text_encoder.onnx", *_text_tower(words))
    _save(folder / "image_encoder.onnx", *_image_tower(colours))
    manifest = BundleManifest(
        format_version=FORMAT_VERSION,
        embedding_dim=dim,
        max_tokens=16,
        files_sha256={path.name: sha256_of_file(path) for path in sorted(folder.iterdir())},
        dataset="scratch",
        data_version="0123456789ab",
        image_trunk="none",
        text_trunk="none",
        text_quantised=False,
        config={},
    )
    (folder / "bundle.json").write_text(manifest.model_dump_json())
    return Bundle.open(folder)


def _text_tower(words: Rows) -> tuple[list, list, list, list]:
    dim = len(words[0])
    table = np.array([[1e-6] * dim, *words], np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=-1, p=2),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.array([1], np.int64), "middle"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")]
    return nodes, inputs, [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])], constants


def _image_tower(colours: Rows) -> tuple[list, list, list, list]:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "sides"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "pick"], ["sum"]),
        helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=-1, p=2),
        helper.make_node("ReduceMean", ["floats", "depth"], ["attention"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "sides"),
        numpy_helper.from_array(np.array([3], np.int64), "depth"),
        numpy_helper.from_array(np.array(colours, np.float32), "pick"),
    ]
    outputs = [
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", len(colours[0])]),
        helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["batch", 8, 8]),
    ]
    return nodes, [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 8, 8, 3])], outputs, constants


def _save(path: Path, nodes: list, inputs: list, outputs: list, constants: list) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)

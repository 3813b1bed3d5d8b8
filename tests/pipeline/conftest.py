"""Fixtures of the pipeline tests: a bundle of two tiny towers, and a report with known numbers."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from image_finder.components.bundle.bundle import FORMAT_VERSION, Bundle, BundleManifest
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.retrieval import DirectionReport, Interval, RetrievalReport
from image_finder.components.storage import sha256_of_file

Rows = Sequence[Sequence[float]]


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
    """Pairs that score 0 to 1, evenly, over 10 images and 50 captions."""
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


@pytest.fixture(scope="module", autouse=True)
def _forget_mlflow_address() -> Iterator[None]:
    """MLflow keeps its address in the environment too: commands of the modules behind this one would follow it there."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def scores() -> ScoreCalibration:
    return score_calibration()


@pytest.fixture
def report() -> RetrievalReport:
    return retrieval_report()


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Bundle:
    """Two dimensions: a text is (share of "dog", share of "cat"), an image is (red, green), both as unit vectors."""
    return write_tiny_bundle(tmp_path / "tiny_bundle")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Makes tiny bundles: words are the rows of "dog" and "cat", colours those of red, green and blue."""
    return lambda name, **tables: write_tiny_bundle(tmp_path / name, **tables)


def write_tiny_bundle(folder: Path, words: Rows = ((1, 0), (0, 1)), colours: Rows = ((1, 0), (0, 1), (0, 0))) -> Bundle:
    """A bundle whose text is the sum of its words' rows and whose image is its mean colour times colours."""
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


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without anything in it: making one takes 4 s, copying it none."""
    from mlflow.tracking import MlflowClient

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    path = tmp_path_factory.mktemp("mlflow") / "template.db"
    uri = f"sqlite:///{path}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments()
    return path


@pytest.fixture(scope="module")
def registry_uri(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a registry for the tests of one module; each takes a model of its own."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"

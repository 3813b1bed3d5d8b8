"""Export: what ONNX Runtime computes from the files is what torch computes, for free batch sizes and lengths."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.bundle.onnx_session import open_session
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import ExportConfig, ModelConfig
from image_finder.components.encoders import checkpoint as checkpoints
from image_finder.components.encoders.checkpoint import CheckpointManifest, save_checkpoint
from image_finder.components.encoders.onnx_graph import export_module
from image_finder.components.errors import BundleError
from image_finder.components.export.exporter import export_bundle, quantise_text_tower
from image_finder.components.training.trainer import untrained

TEXTS = ["a dog", "", "two children in red coats play in the deep snow near a frozen lake", "one", "a red circle"]
VOCABULARY = Vocabulary.of(["a dog", "a red dog", "a red circle"])


@pytest.fixture(scope="module")
def exported(tiny_model, colour_scores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    values = {
        **tiny_model,
        "image": {**tiny_model["image"], "trained_stages": 1},
        "projection": "mlp",
        "ensemble_heads": 2,
    }
    config = ModelConfig.parse({**values, "text": {**values["text"], "pooling": "attention"}})
    assembled = untrained(config, 0)
    manifest = CheckpointManifest(
        format_version=checkpoints.FORMAT_VERSION, dataset="d", data_version="v", epoch=1, history=(), files_sha256={}
    )
    checkpoint = save_checkpoint(folder / "checkpoint", assembled, config, manifest)
    bundle = export_bundle(checkpoint, folder / "bundle", ExportConfig(), scores=colour_scores, vocabulary=VOCABULARY)
    small = export_bundle(
        checkpoint, folder / "small", ExportConfig(int8_text=True), scores=colour_scores, vocabulary=VOCABULARY
    )
    return checkpoint, bundle, small


def session(bundle, name):
    return open_session(bundle.path / name, device="cpu", threads=1)


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_the_image_tower_gives_torchs_vectors_and_attention(exported, batch):
    checkpoint, bundle, _ = exported
    pixels = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
    vectors, attention = session(bundle, "image_encoder.onnx").run(None, {"pixels": pixels})
    with torch.no_grad():
        expected, shares = checkpoint.load().model.image_tower(torch.from_numpy(pixels))
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(attention, shares, atol=1e-5)


@pytest.mark.parametrize("rows", [[0], [1], [2], [0, 1], [0, 1, 2, 3, 4]])
def test_the_text_tower_gives_torchs_vectors_for_any_batch_and_length(exported, rows):
    checkpoint, bundle, _ = exported
    tokens = bundle.tokenizer()([TEXTS[row] for row in rows])
    (vectors,) = session(bundle, "text_encoder.onnx").run(None, {"ids": tokens.ids, "mask": tokens.mask})
    with torch.no_grad():
        expected = checkpoint.load().model.encode_text(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_bundle_is_whole_and_carries_its_training_and_scores(exported, colour_scores):
    checkpoint, bundle, _ = exported
    names = {
        "image_encoder.onnx",
        "text_encoder.onnx",
        "tokenizer.json",
        "preprocess.json",
        "scores.json",
        "vocabulary.json",
        "bundle.json",
    }
    assert {path.name for path in bundle.path.iterdir()} == names
    opened = Bundle.open(bundle.path)
    assert opened.manifest.embedding_dim == 16
    assert opened.manifest.max_tokens == 16
    assert opened.manifest.config == json.loads(checkpoint.config.model_dump_json())
    assert set(opened.manifest.files_sha256) == names - {"bundle.json"}
    assert opened.scores() == colour_scores
    assert opened.vocabulary() == VOCABULARY
    for name in ("image_encoder.onnx", "text_encoder.onnx"):
        onnx.checker.check_model(str(bundle.path / name))


def test_quantising_says_nothing(exported, tmp_path, caplog):
    _, bundle, _ = exported
    quantise_text_tower(bundle.path / "text_encoder.onnx", tmp_path / "small.onnx")
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []


def test_an_8_bit_text_tower_is_smaller_and_nearly_the_same(exported):
    checkpoint, bundle, small = exported
    sizes = [(b.path / "text_encoder.onnx").stat().st_size for b in (bundle, small)]
    assert sizes[1] < 0.99 * sizes[0]  # nearly all of this tiny tower is embeddings, which stay float
    tokens = bundle.tokenizer()(TEXTS)
    feed = {"ids": tokens.ids, "mask": tokens.mask}
    whole, quantised = (session(b, "text_encoder.onnx").run(None, feed)[0] for b in (bundle, small))
    assert (whole * quantised).sum(axis=1).min() > 0.98
    assert not np.array_equal(whole, quantised)
    assert {path.name for path in small.path.iterdir()} == {path.name for path in bundle.path.iterdir()}
    assert small.sha256 != bundle.sha256
    nodes = onnx.load(small.path / "text_encoder.onnx").graph.node
    n_layers = json.loads((checkpoint.path / "text_trunk.json").read_text())["n_layers"]
    assert sum(node.op_type == "MatMulInteger" for node in nodes) == 6 * n_layers, "the heads stay float"


def test_a_text_of_an_8_bit_tower_has_one_vector_in_any_company(exported):
    _, _, small = exported
    encoder = OnnxEncoder(small, device="cpu", threads=1)
    together = encoder.encode_text(TEXTS)
    for row, text in enumerate(TEXTS):
        np.testing.assert_array_equal(together[row], encoder.encode_text([text])[0])
    padded = encoder.encode_tokens(encoder.tokenizer(TEXTS))
    assert np.abs(padded - together).max() > 1e-4, "in one batch they would move"


class Fixed(nn.Module):
    """A module that is made for two rows; the exporter says nothing of it and fixes the batch."""

    def forward(self, x):
        return x + torch.zeros(2, 1)


def test_a_batch_that_cannot_vary_is_refused(tmp_path):
    with pytest.raises(
        BundleError, match=r"^cannot export fixed.onnx: dimension 0 \('batch'\) of input 'x' is fixed to 2"
    ):
        export_module(
            Fixed(), (torch.zeros(2, 3),), tmp_path / "fixed.onnx", inputs={"x": ("batch", None)}, outputs=("y",)
        )


def test_a_damaged_graph_is_a_one_line_error(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"garbage")
    with pytest.raises(BundleError, match=r"^cannot open ONNX graph \S+x.onnx: [^\n]*; restore or export it again$"):
        open_session(tmp_path / "x.onnx", device="cpu")

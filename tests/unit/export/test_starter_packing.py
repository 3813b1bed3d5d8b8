import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from image_finder.components import starter as box
from image_finder.components.app import starter_bundle as starter
from image_finder.components.app.commands.classify_command import classify
from image_finder.components.app.commands.index_command import index
from image_finder.components.app.commands.info_command import info
from image_finder.components.app.commands.search_command import search
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.checkpoint import (
    FORMAT_VERSION,
    CheckpointManifest,
    model_tensors,
    save_checkpoint,
)
from image_finder.components.errors import BundleError, ConfigError
from image_finder.components.export.starter_packing import pack_starter, restored, unpack_starter
from image_finder.components.records.calibration import N_QUANTILES, ScoreCalibration
from image_finder.components.training.trainer import untrained

PACKAGED = {
    "image": {"trained_stages": 1, "pool_width": 32, "pool_heads": 4, "input_px": 96},
    "text": {"pooling": "mean_end"},
    "embedding_dim": 24,
    "hubness": {"centres": 3},
}
SCORES = ScoreCalibration(
    logit_scale=20,
    good_match=0.3,
    quantiles=tuple(np.linspace(0, 0.9, N_QUANTILES).tolist()),
    n_captions=10,
    gallery_size=5,
    dataset="tests",
    data_version="0",
    split="val",
)
WORDS = Vocabulary.of(["a dog", "a dog on the beach"])


def checkpoint_of(values, path):
    config = ModelConfig.parse(values)
    assembled = untrained(config, 3)
    with torch.no_grad():
        for parameter in assembled.model.image_tower.tails.parameters():  # as if it had learned
            matrix = parameter.flatten(1) if parameter.ndim > 1 else parameter.unsqueeze(0)
            matrix += matrix.std() * torch.randn(len(matrix), 2) @ torch.randn(2, matrix.shape[1]) / 4
    manifest = CheckpointManifest(
        format_version=FORMAT_VERSION, dataset="tests", data_version="0", epoch=1, history=(), files_sha256={}
    )
    return save_checkpoint(path, assembled, config, manifest)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return checkpoint_of(PACKAGED, tmp_path_factory.mktemp("trained") / "checkpoint")


@pytest.fixture(scope="module")
def packed(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "starter"
    pack_starter(trained, SCORES, folder, vocabulary=WORDS)
    return folder


@pytest.fixture(scope="module")
def put_together(packed, tmp_path_factory):
    return unpack_starter(packed, tmp_path_factory.mktemp("bundle") / "bundle")


def test_only_what_learned_is_packed_matrices_in_8_bits_and_vectors_in_16(packed, trained):
    own = load_file(packed / box.WEIGHTS)
    names = set(own)
    assert {own[name].dtype for name in names if name.endswith((":rows", ":left", ":right"))} == {torch.int8}
    assert {own[name].dtype for name in names if ":" not in name} == {torch.float16}
    assert "image_tower.heads.0.pool.query.weight:rows" in names
    assert any(name.startswith("image_tower.tails.") and name.endswith(":left") for name in names)
    assert not any(name.startswith(("image_tower.stem.", "text_tower.stem.")) for name in names)
    whole = (trained.path / "model.safetensors").stat().st_size
    assert (packed / box.WEIGHTS).stat().st_size < 0.03 * whole


def test_heads_come_back_to_a_hundredth_of_each_row(packed, trained):
    after = model_tensors(trained.load().model)
    again = restored(load_file(packed / box.WEIGHTS), after)
    heads = [name for name in again if ".heads." in name and after[name].ndim > 1]
    assert heads
    for name in heads:
        rows, wanted = again[name].flatten(1), after[name].flatten(1)
        assert ((rows - wanted).norm(dim=1) <= 0.015 * wanted.norm(dim=1)).all(), name


def test_a_model_that_went_astray_is_refused(trained, tmp_path):
    assembled = trained.load()
    with torch.no_grad():
        assembled.model.text_tower.heads[0].projection.linear.weight[0, 0] = torch.nan
    broken = save_checkpoint(tmp_path / "broken", assembled, trained.config, trained.manifest)
    with pytest.raises(BundleError, match="projection.linear.weight has values that are not finite"):
        pack_starter(broken, SCORES, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("number", [torch.nan, torch.inf, 1e6])
def test_a_vector_that_half_precision_cannot_hold_is_refused(trained, tmp_path, number):
    assembled = trained.load()
    assembled.model.image_tower.hubness.log_weights[0] = number
    broken = save_checkpoint(tmp_path / "broken", assembled, trained.config, trained.manifest)
    with pytest.raises(BundleError, match="hubness.log_weights has values outside half precision"):
        pack_starter(broken, SCORES, tmp_path / "packed")


def test_a_centre_of_no_caption_stays_one(trained, tmp_path):
    assembled = trained.load()
    assembled.model.image_tower.hubness.log_weights[0] = -torch.inf  # fewer captions than centres
    changed = save_checkpoint(tmp_path / "changed", assembled, trained.config, trained.manifest)
    pack_starter(changed, SCORES, tmp_path / "packed")
    again = restored(load_file(tmp_path / "packed" / box.WEIGHTS), model_tensors(assembled.model))
    assert again["image_tower.hubness.log_weights"][0] == -torch.inf


def test_a_row_of_zeros_comes_back_as_zeros(trained, tmp_path):
    assembled = trained.load()
    with torch.no_grad():
        assembled.model.text_tower.heads[0].projection.linear.weight[0] = 0
    changed = save_checkpoint(tmp_path / "changed", assembled, trained.config, trained.manifest)
    pack_starter(changed, SCORES, tmp_path / "packed")
    again = restored(load_file(tmp_path / "packed" / box.WEIGHTS), model_tensors(assembled.model))
    zeros, others = again["text_tower.heads.0.projection.linear.weight"][:2]
    assert torch.equal(zeros, torch.zeros_like(zeros))
    assert others.abs().max() > 0


def test_the_size_that_is_left_goes_to_what_changed_most(packed, trained, tmp_path):
    stored = load_file(packed / box.WEIGHTS)
    directions = {name.partition(":")[0] for name in stored if name.endswith(":left")}
    heads_mb = sum(tensor.nbytes for name, tensor in stored.items() if name.partition(":")[0] not in directions) / 1e6
    before = model_tensors(untrained(ModelConfig.parse(PACKAGED), 0).model)
    after = model_tensors(trained.load().model)
    learned = [name for name in before if ".tails." in name and not torch.equal(before[name], after[name])]
    sizes, missing = [], []
    for max_mb in (heads_mb + 0.002, 0.9):  # what the tail learned takes 0.02
        pack_starter(trained, SCORES, tmp_path / str(max_mb), max_mb=max_mb)
        weights = tmp_path / str(max_mb) / box.WEIGHTS
        sizes.append(weights.stat().st_size)
        again = {**before, **restored(load_file(weights), before)}
        missing.append(sum(float((again[name] - after[name]).norm() / after[name].norm()) for name in learned))
        assert sizes[-1] <= 1e6 * max_mb + 20_000, "tensors and their names"
    assert sizes[0] < sizes[1]
    assert missing[0] > missing[1]
    with pytest.raises(ConfigError, match=r"the heads of this model take 0\.\d MB, a starter model at most 0\.1"):
        pack_starter(trained, SCORES, tmp_path / "none", max_mb=0.1)
    assert not (tmp_path / "none").exists()


def test_put_together_again_it_sees_and_reads_as_it_did(put_together, trained):
    encoder = OnnxEncoder(put_together, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3), np.uint8)
    assembled = trained.load()
    tokens = assembled.tokenizer(["a dog on the beach"])
    with torch.no_grad():
        image = assembled.model.encode_image(torch.from_numpy(pixels))
        text = assembled.model.encode_text(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))
    assert (encoder.encode_image(pixels) * image.numpy()).sum(axis=1).min() > 0.9999
    assert (encoder.encode_text(["a dog on the beach"]) * text.numpy()).sum() > 0.97  # weights of 8 bits
    assert put_together.manifest.text_quantised
    assert put_together.scores() == SCORES
    assert put_together.vocabulary() == WORDS
    assert (put_together.manifest.dataset, put_together.manifest.embedding_dim) == ("tests", 24)


@pytest.mark.parametrize("damage", ["weights", "manifest", "format", "other", "gone"])
def test_a_damaged_starter_is_refused_in_one_line(packed, tmp_path, damage):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (box.WEIGHTS, box.MANIFEST):
        (copy / name).write_bytes((packed / name).read_bytes())
    manifest = json.loads((copy / box.MANIFEST).read_text())
    if damage == "weights":
        (copy / box.WEIGHTS).write_bytes(b"cut")
    elif damage == "manifest":
        (copy / box.MANIFEST).write_text("{")
    elif damage == "format":
        (copy / box.MANIFEST).write_text(json.dumps({**manifest, "format_version": 99}))
    elif damage == "other":
        (copy / box.MANIFEST).write_text(
            json.dumps({**manifest, "config": {**manifest["config"], "embedding_dim": 48}})
        )
    else:
        (copy / box.MANIFEST).unlink()
    with pytest.raises(BundleError, match="reinstall"):
        unpack_starter(copy, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_trunks_of_no_package_cannot_be_a_starter(tiny_model, tmp_path):
    checkpoint = checkpoint_of(tiny_model, tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="packaged"):
        pack_starter(checkpoint, SCORES, tmp_path / "starter")


@pytest.fixture
def home(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(starter, "FOLDER", packed)
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_it_is_made_once_and_made_again_when_it_is_damaged(home, capsys):
    bundle = starter.starter_bundle()
    assert capsys.readouterr().err.count("\n") == 1
    assert bundle.path.parent == home / "bundles"
    made = (bundle.path / "bundle.json").stat().st_mtime_ns
    assert starter.starter_bundle().sha256 == bundle.sha256
    assert (bundle.path / "bundle.json").stat().st_mtime_ns == made
    assert "using the starter model" in capsys.readouterr().err
    (bundle.path / "image_encoder.onnx").write_bytes(b"cut")
    Bundle.open(starter.starter_bundle().path)


def test_index_search_and_classify_need_no_model_of_ones_own(home, tmp_path, album_tools):
    images = tmp_path / "images"
    images.mkdir()
    for number, name in enumerate(("red", "blue")):
        noise = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(noise).resize((80, 60)).save(images / f"{name}.jpg")
    run = CliRunner().invoke
    indexed = run(index, [str(images)], catch_exceptions=False)
    assert indexed.exit_code == 0, indexed.output
    assert indexed.stderr.count("starter model") == 1
    found = run(search, ["something colourful", "--json"], catch_exceptions=False)
    assert len(json.loads(found.stdout)["hits"]) == 2
    assert found.stderr.count("starter model") == 1
    assert "the starter model, trained on tests 0" in run(info, []).stdout
    with album_tools.serving(home / "library" / "index") as client:
        assert client.get("/api/v1/info").json()["bundle"]["starter"] is True
    again = run(index, [], catch_exceptions=False)
    assert "starter model" not in again.stderr, "the library has its own copy now"
    labelled = run(classify, [str(images / "red.jpg"), "--labels", "red,blue"], catch_exceptions=False)
    assert labelled.exit_code == 0, labelled.output


def test_without_torch_the_way_out_is_told(home, monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "image_finder.components.export.starter_packing", None)
    with pytest.raises(BundleError, match=r"\[starter\]"):
        starter.starter_bundle()


def test_the_packed_model_of_this_package_is_whole_and_small():
    manifest = json.loads((box.FOLDER / box.MANIFEST).read_text())
    weights = box.FOLDER / box.WEIGHTS
    assert weights.stat().st_size < 12_000_000
    card = (box.FOLDER / box.CARD).read_text()
    for word in ("Licence", "flickr8k", "coco", "Limits of its training data", "Scores", "Slices"):
        assert word in card
    ModelConfig.parse(manifest["config"])
    vocabulary = Vocabulary.model_validate(manifest["vocabulary"])
    assert vocabulary.unmet("an astronaut walks a dog on the beach") == ("astronaut",)

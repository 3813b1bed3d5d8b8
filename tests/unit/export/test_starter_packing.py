import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from PIL import Image
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from image_finder.components import starter as box
from image_finder.components.app import starter_bundle as starter
from image_finder.components.app.commands.classify_command import classify
from image_finder.components.app.commands.index_command import index
from image_finder.components.app.commands.info_command import info
from image_finder.components.app.commands.search_command import search
from image_finder.components.app.commands.starter_commands import starter as starter_commands
from image_finder.components.bundle.bundle import IMAGE_ENCODER, TEXT_ENCODER, Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.checkpoint import (
    FORMAT_VERSION,
    CheckpointManifest,
    model_tensors,
    save_checkpoint,
)
from image_finder.components.errors import BundleError, ConfigError, StorageError
from image_finder.components.export.exporter import export_towers
from image_finder.components.export.starter_packing import pack_starter, starter_weights
from image_finder.components.records.calibration import N_QUANTILES, ScoreCalibration
from image_finder.components.starter import fetching
from image_finder.components.starter.assembly import assemble_starter
from image_finder.components.starter.manifest import StarterManifest
from image_finder.components.starter.trunk_files import TrunkError, located
from image_finder.components.starter.weights import ModelTensors
from image_finder.components.training.trainer import untrained
from tests.support.checkout import CHECKOUT
from tests.support.package_index import package_index

PACKAGED = {
    "image": {"trained_stages": 1, "pool_width": 32, "pool_heads": 4, "input_px": 96},
    "text": {"pooling": "mean_end"},
    "embedding_dim": 32,
    "hubness": {"centres": 3},
    "concepts": {"dims": 8},
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


def restored(stored, packaged):
    """Tensors of the model by name, as a starter model's assembly computes them."""
    tensors = ModelTensors(stored, {name: tensor.numpy() for name, tensor in packaged.items()})
    return {name: torch.from_numpy(tensors[name].copy()) for name in packaged}


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
    return assemble_starter(packed, tmp_path_factory.mktemp("bundle") / "bundle")


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
    again = restored(load_arrays(packed / box.WEIGHTS), after)
    heads = [name for name in again if ".heads." in name and after[name].ndim > 1]
    assert heads
    for name in heads:
        rows, wanted = again[name].flatten(1), after[name].flatten(1)
        assert ((rows - wanted).norm(dim=1) <= 0.015 * wanted.norm(dim=1)).all(), name


def test_a_model_with_values_that_are_not_finite_is_refused(trained, tmp_path):
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


def packed_and_restored(assembled):
    packaged = model_tensors(untrained(ModelConfig.parse(PACKAGED), 0).model)
    stored = starter_weights(model_tensors(assembled.model), packaged, box.MAX_MB)
    return restored({name: tensor.numpy() for name, tensor in stored.items()}, packaged)


def test_a_centre_of_no_caption_stays_one(trained):
    assembled = trained.load()
    assembled.model.image_tower.hubness.log_weights[0] = -torch.inf  # fewer captions than centres
    again = packed_and_restored(assembled)
    assert again["image_tower.hubness.log_weights"][0] == -torch.inf


def test_a_row_of_zeros_comes_back_as_zeros(trained):
    assembled = trained.load()
    with torch.no_grad():
        assembled.model.text_tower.heads[0].projection.linear.weight[0] = 0
    zeros, others = packed_and_restored(assembled)["text_tower.heads.0.projection.linear.weight"][:2]
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
        weights = starter_weights(after, before, max_mb)
        sizes.append(sum(tensor.nbytes for tensor in weights.values()))
        again = restored({name: tensor.numpy() for name, tensor in weights.items()}, before)
        missing.append(sum(float((again[name] - after[name]).norm() / after[name].norm()) for name in learned))
        assert sizes[-1] <= 1e6 * max_mb
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
    assert (put_together.manifest.dataset, put_together.manifest.embedding_dim) == ("tests", 32)


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
    advice = "pip install --force-reinstall --no-deps text-guided-image-finder|pack it again|install a newer"
    with pytest.raises(BundleError, match=advice):
        assemble_starter(copy, tmp_path / "bundle")
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


def test_a_damaged_copy_in_a_library_names_the_command_that_replaces_it(home, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(images / "noise.png")
    run = CliRunner().invoke
    assert run(index, [str(images)], catch_exceptions=False).exit_code == 0
    (copy,) = (home / "library" / "bundles").iterdir()
    (made,) = (path for path in (home / "bundles").iterdir() if path.is_dir())
    for folder in (copy, made):
        (folder / TEXT_ENCODER).write_bytes(b"cut")
    done = run(search, ["noise"])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: bundle {copy} is corrupted: {TEXT_ENCODER} has sha256 ")
    assert done.stderr.endswith("; run: image-finder index\n")
    assert run(index, [], catch_exceptions=False).exit_code == 0
    assert run(search, ["noise"], catch_exceptions=False).exit_code == 0


ASSEMBLE = """
import sys
from pathlib import Path
from image_finder.components.starter.assembly import assemble_starter
assemble_starter(*map(Path, sys.argv[1:]))
print({name.partition(".")[0] for name in sys.modules} & {"torch", "onnx", "onnxruntime", "transformers", "timm"})
"""


def test_it_is_assembled_without_torch_and_onnx(packed, put_together, tmp_path):
    words = [sys.executable, "-c", ASSEMBLE, packed, tmp_path / "bundle"]
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")
    assert Bundle.open(tmp_path / "bundle").sha256 == put_together.sha256


def test_its_towers_are_those_that_the_exporter_makes_of_the_same_weights(packed, put_together, tmp_path):
    assembled = untrained(ModelConfig.parse(PACKAGED), 0)
    stored = load_arrays(packed / box.WEIGHTS)
    state = {
        name: each
        for name, each in restored(stored, model_tensors(assembled.model)).items()
        if each.is_floating_point()
    }
    assembled.model.load_state_dict(state, strict=False)
    export_towers(assembled, tmp_path, int8_text=True)
    for name in (IMAGE_ENCODER, TEXT_ENCODER):
        exported, made = (
            {each.name: numpy_helper.to_array(each) for each in onnx.load(folder / name).graph.initializer}
            for folder in (tmp_path, put_together.path)
        )
        assert exported.keys() == made.keys()
        for each, weight in exported.items():
            assert weight.dtype == made[each].dtype, each
            np.testing.assert_allclose(made[each], weight, rtol=1e-4, atol=1e-6, err_msg=each)


@pytest.mark.parametrize("name", ["image", "text", "tokenizer"])
def test_a_missing_or_changed_file_of_a_package_is_one_line_with_the_command_that_fetches_it(packed, tmp_path, name):
    manifest = StarterManifest.verified(packed)
    shutil.copytree(packed, tmp_path / "starter")
    file = manifest.tokenizer if name == "tokenizer" else manifest.trunks[name]
    for change, reason in (
        ({"package": "no-such-trunk"}, "needs no-such-trunk 0.1.0, which is not installed"),
        ({"path": "gone.pth"}, f"{file.package} 0.1.0 has no file gone.pth"),
        ({"sha256": "0" * 64}, f"{file.path} of {file.package} 0.1.0 has sha256 .* needs 000000000000"),
    ):
        changed = file.model_copy(update=change)
        update = {"tokenizer": changed} if name == "tokenizer" else {"trunks": {**manifest.trunks, name: changed}}
        manifest.model_copy(update=update).write(tmp_path / "starter")
        with pytest.raises(TrunkError, match=rf"^[^\n]*{reason}[^\n]*\. Run: image-finder starter fetch$"):
            assemble_starter(tmp_path / "starter", tmp_path / "bundle")
        assert not (tmp_path / "bundle").exists()


@pytest.fixture
def no_text_package(packed, home, tmp_path, monkeypatch):
    """A starter model whose text trunk is in no installed package, and an index that has it."""
    manifest = StarterManifest.verified(packed)
    files = {file.path: file for file in (manifest.trunks["text"], manifest.tokenizer)}
    content = {path: located(file).read_bytes() for path, file in files.items()}
    folder = tmp_path / "lacking"
    shutil.copytree(packed, folder)
    renamed = {"package": "trunk-of-tests"}
    trunks = {**manifest.trunks, "text": manifest.trunks["text"].model_copy(update=renamed)}
    tokenizer = manifest.tokenizer.model_copy(update=renamed)
    manifest.model_copy(update={"trunks": trunks, "tokenizer": tokenizer}).write(folder)
    monkeypatch.setattr(starter, "FOLDER", folder)
    monkeypatch.setattr(fetching, "has_pip", lambda: False)
    monkeypatch.setattr(starter, "has_pip", lambda: False)
    with package_index(tmp_path / "served") as index:
        index.add("trunk-of-tests", "0.1.0", content)
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        yield index


def test_without_the_package_every_command_names_the_one_that_fetches_it(no_text_package, tmp_path):
    (tmp_path / "images").mkdir()
    done = CliRunner().invoke(index, [str(tmp_path / "images")])
    line = (
        "Error: the starter model needs trunk-of-tests 0.1.0, which is not installed. Run: image-finder starter fetch\n"
    )
    assert (done.exit_code, done.stderr) == (1, line)
    assert no_text_package.authorizations == [], "nothing is downloaded without consent"


def test_fetch_downloads_once_and_keeps_the_assembled_model_only(no_text_package, home):
    done = CliRunner().invoke(starter_commands, ["fetch"], catch_exceptions=False)
    address = no_text_package.url
    assert done.stderr == f"downloading trunk-of-tests 0.1.0 from {address}, about 91 MB\n"
    assert done.stdout.startswith(f"starter model ready: {home}/bundles/starter-")
    n_requests = len(no_text_package.authorizations)
    assert n_requests == 2
    again = CliRunner().invoke(starter_commands, ["fetch"], catch_exceptions=False)
    assert (again.stdout, again.stderr) == (done.stdout, "")
    assert len(no_text_package.authorizations) == n_requests
    kept = sorted(path.name for path in (home / "bundles").iterdir())
    assert [name.partition("-")[0] for name in kept] == ["starter", "starter"]
    assert kept[1] == f"{kept[0]}.lock"
    assert starter.starter_bundle().path.name == kept[0]


@pytest.mark.parametrize(("answer", "n_requests"), [("y", 2), ("", 2), ("n", 0)])
def test_a_terminal_is_asked_before_the_download(no_text_package, monkeypatch, capsys, answer, n_requests):
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: answer)
    if n_requests:
        assert starter.starter_bundle().path.is_dir()
    else:
        with pytest.raises(TrunkError):
            starter.starter_bundle()
    assert len(no_text_package.authorizations) == n_requests
    printed = capsys.readouterr().err
    assert "needs trunk-of-tests 0.1.0, which is not installed" in printed


def test_an_installed_package_is_not_downloaded(home, capsys):
    assert starter.fetched_starter().path.is_dir()
    assert capsys.readouterr().err == ""


def test_a_disk_that_is_too_small_is_reported_before_the_download(no_text_package, monkeypatch):
    free = shutil.disk_usage("/")._replace(free=200_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(
        StorageError, match=r"^disk too small: .* has 200 MB free, the starter model needs 274 MB; free "
    ):
        starter.fetched_starter()
    assert no_text_package.authorizations == []


def test_the_packed_model_of_this_package_is_whole_and_small():
    manifest = json.loads((box.FOLDER / box.MANIFEST).read_text())
    weights = box.FOLDER / box.WEIGHTS
    assert weights.stat().st_size < (box.MAX_MB + 0.1) * 1_000_000
    card = (box.FOLDER / box.CARD).read_text()
    for word in ("Licence", "flickr8k", "coco", "Limits of its training data", "Scores", "Slices"):
        assert word in card
    assert sum(file.stat().st_size for file in box.FOLDER.iterdir()) < 14_000_000
    ModelConfig.parse(manifest["config"])
    vocabulary = Vocabulary.model_validate(manifest["vocabulary"])
    assert vocabulary.unmet("an astronaut walks a dog on the beach") == ("astronaut",)

"""Checkpoints: what was saved is what is loaded; whatever is wrong with one is one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from image_finder.components.configs import ModelConfig
from image_finder.components.encoders import checkpoint as module
from image_finder.components.encoders.checkpoint import Checkpoint, CheckpointManifest, save_checkpoint
from image_finder.components.errors import BundleError
from image_finder.components.storage import sealed, sha256_of_file
from image_finder.components.training.trainer import untrained


@pytest.fixture
def saved(tmp_path, tiny_assembled, tiny_model):
    manifest = CheckpointManifest(
        format_version=module.FORMAT_VERSION, dataset="d", data_version="v", epoch=3, history=(), files_sha256={}
    )
    return save_checkpoint(tmp_path / "c", tiny_assembled, ModelConfig.parse(tiny_model), manifest)


def rehash(folder, name):
    """As if the file had been written that way: its hash fits."""
    manifest = json.loads((folder / "checkpoint.json").read_text())
    manifest["files_sha256"][name] = sha256_of_file(folder / name)
    (folder / "checkpoint.json").write_text(sealed(json.dumps(manifest)))


def test_a_loaded_model_gives_the_saved_ones_vectors(saved, tiny_assembled, pixels):
    loaded = Checkpoint.open(saved.path).load()
    tokens = tiny_assembled.tokenizer(["a red circle", "blue"])
    ids, mask = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask)
    with torch.no_grad():
        before, after = (
            (model.encode_image(torch.from_numpy(pixels)), model.encode_text(ids, mask))
            for model in (tiny_assembled.model.eval(), loaded.model)
        )
    assert not loaded.model.training
    assert all(map(torch.equal, before, after))
    assert loaded.preprocess == tiny_assembled.preprocess
    assert loaded.tokenizer.definition == tiny_assembled.tokenizer.definition


def test_the_logit_scale_is_read_without_loading_the_model(saved, tiny_assembled):
    assert saved.logit_scale == pytest.approx(tiny_assembled.model.logit_scale().item(), rel=1e-6)
    assert saved.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)  # untrained


def test_loading_needs_no_hub_and_draws_nothing(saved, tiny_model, tmp_path):
    gone = {**tiny_model, "text": {**tiny_model["text"], "trunk": "no-such-place/distilbert"}}
    (saved.path / "config.json").write_text(ModelConfig.parse(gone).model_dump_json())
    rehash(saved.path, "config.json")
    state = torch.get_rng_state()
    Checkpoint.open(saved.path).load()
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_in_it_is_pickled(saved):
    assert {path.name: path.suffix for path in saved.path.iterdir()} == {
        "model.safetensors": ".safetensors",
        **{f"{n}.json": ".json" for n in ("checkpoint", "config", "text_trunk", "tokenizer", "preprocess")},
    }
    for path in saved.path.glob("*.json"):
        json.loads(path.read_text())
    header = (saved.path / "model.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_single_flipped_bit_is_found_in_every_file(saved, tmp_path):
    for name in json.loads((saved.path / "checkpoint.json").read_text())["files_sha256"]:
        copy = tmp_path / "copy"
        shutil.copytree(saved.path, copy)
        flip(copy / name)
        with pytest.raises(BundleError, match=rf"^checkpoint \S+ is corrupted: {name} is missing or has changed"):
            Checkpoint.open(copy)
        (copy / name).unlink()
        with pytest.raises(BundleError, match=rf"^checkpoint \S+ is corrupted: {name} is missing or has changed"):
            Checkpoint.open(copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"format_version": 3, "future": 1}',
            "has format 3, this version reads 2; install a newer text-guided-image-finder$",
        ),
        (b'{"format_version": 0}', "has format 0, this version reads 2; train again$"),
        (b"{}", "is not a checkpoint manifest: format_version: Field required"),
        (b'{"format_version": 2}', "is not a checkpoint manifest: dataset: Field required"),
        (b"", "is not a checkpoint manifest, or damaged: "),
        (b"\xff\xfe\x00", "is not a checkpoint manifest, or damaged: .*; train again$"),
        (b'{"format_version": 2, "content_sha256": ""}', "its values have sha256 .*; train again$"),
    ],
)
def test_another_manifest_is_a_one_line_error(saved, content, message):
    (saved.path / "checkpoint.json").write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        Checkpoint.open(saved.path)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_names_no_files_hides_nothing(saved):
    manifest = json.loads((saved.path / "checkpoint.json").read_text())
    (saved.path / "checkpoint.json").write_text(sealed(json.dumps({**manifest, "files_sha256": {}})))
    with pytest.raises(BundleError, match=r"is corrupted: model.safetensors"):
        Checkpoint.open(saved.path)


def test_an_absent_checkpoint_is_a_one_line_error(tmp_path):
    with pytest.raises(BundleError, match=r"^no checkpoint at \S+: checkpoint.json is missing; train again$"):
        Checkpoint.open(tmp_path / "nowhere")


def test_tensors_that_do_not_fit_the_config_are_a_one_line_error(saved, tiny_model):
    (saved.path / "config.json").write_text(ModelConfig.parse({**tiny_model, "embedding_dim": 24}).model_dump_json())
    rehash(saved.path, "config.json")
    with pytest.raises(BundleError, match=r"^checkpoint \S+ does not fit its config: .*size mismatch.*; train again$"):
        Checkpoint.open(saved.path).load()


def test_a_config_of_another_version_is_a_one_line_error(saved):
    (saved.path / "config.json").write_text('{"new_key": 1}')
    rehash(saved.path, "config.json")
    with pytest.raises(
        BundleError, match=r"^\S+config.json is not readable by this version: new_key: [^\n]*; train again$"
    ):
        Checkpoint.open(saved.path).load()


def test_a_checkpoint_with_former_names_gives_the_same_vectors(tiny_model, tmp_path, pixels):
    image = {**tiny_model["image"], "tta": ["whole", "mirrored"]}
    config = ModelConfig.parse(
        {**tiny_model, "image": image, "embedding_dim": 18, "ensemble_heads": 2, "hubness": {"centres": 3}}
    )
    assembled = untrained(config, 0)
    assembled.model.image_tower.hubness.log_weights[0] = -7.0
    manifest = CheckpointManifest(
        format_version=module.FORMAT_VERSION, dataset="d", data_version="v", epoch=3, history=(), files_sha256={}
    )
    folder = save_checkpoint(tmp_path / "c", assembled, config, manifest).path
    values = json.loads((folder / "config.json").read_text())
    values |= {"hubs": values.pop("hubness"), "heads": values.pop("ensemble_heads")}
    values["image"]["looks"] = values["image"].pop("tta")
    (folder / "config.json").write_text(json.dumps(values))
    tensors = load_file(folder / "model.safetensors")
    former = {name.replace("image_tower.hubness.", "image_tower.hubs."): each for name, each in tensors.items()}
    assert "image_tower.hubs.log_weights" in former
    save_file(former, folder / "model.safetensors")
    for name in ("config.json", "model.safetensors"):
        rehash(folder, name)
    opened = Checkpoint.open(folder)
    assert opened.config == config
    with torch.no_grad():
        expected = assembled.model.eval().encode_image(torch.from_numpy(pixels))
        assert torch.equal(opened.load().model.encode_image(torch.from_numpy(pixels)), expected)

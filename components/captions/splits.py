"""Splits: divides captions by image into train, val and test; knows nothing of files or models."""

import hashlib
import logging
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd

from image_finder.components.configs import SplitConfig
from image_finder.components.errors import DataError
from image_finder.components.records.base import PartName
from image_finder.components.text import counted

logger = logging.getLogger(__name__)

_PARTS: tuple[PartName, ...] = ("train", "val", "test")


def split_captions(
    captions: pd.DataFrame, config: SplitConfig, images: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split by image, never by caption, into (train, val, test) captions in their order.

    Captions of one image in two splits would let the model be judged on what it learned. Parts of the data set are
    kept; a missing val or test part is taken from train by a hash of seed and image id, so adding images moves no other
    one. With the images table the hash is of the content, so copies of an image stay together. test is empty if the
    data set has none and test_fraction is 0. Raises DataError if train or val would be empty, if a part is unknown, or
    if parts share image ids.
    """
    _check_parts(captions)
    given = captions["part"].to_numpy(dtype=object)
    side = given.copy()
    if missing := [part for part in ("val", "test") if not (given == part).any()]:
        of_train = given == "train"
        draws = _draw(captions.loc[of_train, "image_id"], _contents(images), config.seed)
        carved = np.full(len(draws), "train", dtype=object)
        if "val" in missing:
            carved[draws < config.val_fraction] = "val"
        if "test" in missing:  # from the other end, so that the fractions do not affect each other
            carved[draws >= 1 - config.test_fraction] = "test"
        side[of_train] = carved
    _check_sides(captions, side, config)
    if images is not None:
        _warn_of_shared_content(captions, side, _contents(images))
    train, val, test = (captions[side == part].reset_index(drop=True) for part in _PARTS)
    return train, val, test


def extra_sets_apart(captions: pd.DataFrame, names: Collection[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The captions to split, and those of the named extra evaluation sets. Raises DataError if a set is empty."""
    extra = captions["part"].isin(list(names))
    if empty := sorted(set(names) - set(captions["part"])):
        raise DataError(
            f"evaluation set '{empty[0]}' has no valid caption: see the validation report, or correct the set"
        )
    return captions[~extra].reset_index(drop=True), captions[extra].reset_index(drop=True)


def _draw(image_ids: "pd.Series[int]", contents: dict[int, str], seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each row, which depends on seed and image only."""
    drawn = {image_id: _uniform(f"{seed}:{contents.get(image_id) or image_id}") for image_id in image_ids.unique()}
    return image_ids.map(drawn).to_numpy(dtype=np.float64)


def _uniform(key: str) -> float:
    """SHA-256 of key as a number in [0, 1): its first 53 bits, which a float holds exactly."""
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 11) / 2**53


def _contents(images: pd.DataFrame | None) -> dict[int, str]:
    if images is None:
        return {}
    read = images[images["sha256"] != ""]
    return dict(zip(read["image_id"].tolist(), read["sha256"].tolist(), strict=True))


def _check_parts(captions: pd.DataFrame) -> None:
    unknown = sorted(set(captions["part"]) - set(_PARTS))
    if unknown:
        raise DataError(f"captions hold unknown parts: {', '.join(map(str, unknown))}; expected {', '.join(_PARTS)}")
    pairs = captions[["image_id", "part"]].drop_duplicates()
    shared = pairs.loc[pairs["image_id"].duplicated(), "image_id"].drop_duplicates().sort_values()
    if len(shared):
        first = ", ".join(map(str, shared.head(5)))
        raise DataError(
            f"{counted(len(shared), 'image id')} in more than one part ({first}{', ...' if len(shared) > 5 else ''}): "
            "they would be both trained and tested on; give every image its own id and one part"
        )


def _check_sides(captions: pd.DataFrame, side: npt.NDArray[np.object_], config: SplitConfig) -> None:
    n_images = {part: captions.loc[side == part, "image_id"].nunique() for part in _PARTS}
    for part in ("train", "val"):
        if n_images[part] == 0:
            counts = ", ".join(f"{name} {count:,}" for name, count in n_images.items())
            raise DataError(
                f"{part} is empty: {captions['image_id'].nunique():,} images became {counts} with val_fraction "
                f"{config.val_fraction}, test_fraction {config.test_fraction} and seed {config.seed}; "
                "use more images or other fractions"
            )


def _warn_of_shared_content(captions: pd.DataFrame, side: npt.NDArray[np.object_], contents: dict[int, str]) -> None:
    """Log how many contents are in several splits, which only given parts can cause."""
    pairs = pd.DataFrame({"content": captions["image_id"].map(contents), "side": side}).dropna().drop_duplicates()
    n_shared = pairs.loc[pairs["content"].duplicated(), "content"].nunique()
    if n_shared:
        logger.warning("%s in more than one split, as given by the data set", counted(n_shared, "image"))

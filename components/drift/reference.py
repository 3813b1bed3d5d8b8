"""Drift reference: a directory that describes a model's training images, written with the model and stored beside it.

reference.json       DriftManifest: identity, and the sha256 of every other file
vectors.npy          (n, dim) float32, unit rows of the sampled images, by this model
sizes_px.npy         (n, 2) int32, width and height as displayed
brightness.npy       (n,) float32, mean luma
lengths.npy          (captions,) int32, words in each caption; lengths_ends.npy: (n,) int64, end of each image's entries
words.npy            (entries, 2) int32, word and count; words_ends.npy: (n,) int64, end of each image's entries
vocabulary.json      all words of the training captions; word i of words.npy is the i-th
images_of_word.npy   (words,) int32, number of training images whose captions contain the word
contents.npy         (training images,) uint64, sorted, first 8 bytes of the SHA-256 of each training image

Captions cannot be reconstructed: the order of their words is not stored. Nothing is pickled.
"""

import json
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from image_finder.components.configs import first_fault
from image_finder.components.drift.caption_words import ImageWords, images_with_word
from image_finder.components.drift.sample import CaptionedFile, ImageSample, Sampler
from image_finder.components.errors import DataError, StorageError
from image_finder.components.records.base import Record
from image_finder.components.storage import hash_directory, new_directory, sha256_of_file
from image_finder.components.text import counted

FORMAT_VERSION = 1
MANIFEST = "reference.json"
_VOCABULARY = "vocabulary.json"
_ARRAYS = {
    "vectors": np.float32,
    "sizes_px": np.int32,
    "brightness": np.float32,
    "lengths": np.int32,
    "lengths_ends": np.int64,
    "words": np.int32,
    "words_ends": np.int64,
    "images_of_word": np.int32,
    "contents": np.uint64,
}
_FILES = {_VOCABULARY, *(f"{name}.npy" for name in _ARRAYS)}
_FORMER_FILES = {"pictures_of_word.npy": "images_of_word.npy"}


class DriftManifest(Record):
    """Content of reference.json; the counts of n_images and n_captions are those of the sample."""

    former_names: ClassVar = {"n_training_pictures": "n_training_images", "n_pictures": "n_images"}

    format_version: int
    bundle_sha256: str
    dataset: str
    data_version: str
    n_training_images: int
    n_training_captions: int
    n_images: int
    n_captions: int
    seed: int
    files_sha256: dict[str, str]


@dataclass(frozen=True)
class TrainedOn:
    """Training images of a model. contents: hex SHA-256 of all of them."""

    dataset: str
    data_version: str
    files: Sequence[CaptionedFile]
    contents: Collection[str]


def write_reference(path: Path, sampler: Sampler, trained_on: TrainedOn, *, images: int, seed: int) -> "DriftReference":
    """Draw up to `images` training images and write their description to path, completely or not at all.

    sampler: of the bundle that the reference belongs to, with the same seed. Raises DataError if no image can be read,
    StorageError.
    """
    sample = sampler.draw(trained_on.files, images)
    if not sample.contents:
        raise DataError(
            f"no drift reference: {counted(len(trained_on.files), 'training image')} of '{trained_on.dataset}', none "
            "readable; check the directory of the data set"
        )
    images_of_word = images_with_word(file.captions for file in trained_on.files)
    with new_directory(path) as folder:
        for name, values in _arrays(sample, dict(images_of_word), trained_on.contents).items():
            np.save(folder / f"{name}.npy", values.astype(_ARRAYS[name]), allow_pickle=False)
        (folder / _VOCABULARY).write_text(json.dumps(list(images_of_word)), encoding="utf-8")
        manifest = DriftManifest(
            format_version=FORMAT_VERSION,
            bundle_sha256=sampler.bundle.sha256,
            dataset=trained_on.dataset,
            data_version=trained_on.data_version,
            n_training_images=len(trained_on.files),
            n_training_captions=sum(len(file.captions) for file in trained_on.files),
            n_images=len(sample.contents),
            n_captions=sample.n_captions,
            seed=seed,
            files_sha256=hash_directory(folder),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return DriftReference.open(path)


class DriftReference:
    def __init__(self, path: Path, manifest: DriftManifest) -> None:
        self.path = path
        self.manifest = manifest
        self._stored_name = {_FORMER_FILES.get(name, name): name for name in manifest.files_sha256}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a directory and verify the hash of every file. Raises StorageError."""
        manifest_path = path / MANIFEST
        if not manifest_path.is_file():
            raise StorageError(f"no drift reference at {path}: {MANIFEST} is missing; fetch it again")
        try:
            manifest = DriftManifest.model_validate_json(manifest_path.read_bytes())
        except ValidationError as error:
            raise StorageError(f"{manifest_path}: {first_fault(error)}; fetch it again") from error
        if manifest.format_version != FORMAT_VERSION:
            raise StorageError(
                f"drift reference {path} has format {manifest.format_version}, this version reads {FORMAT_VERSION}; "
                "train again with this version"
            )
        if differing := {_FORMER_FILES.get(name, name) for name in manifest.files_sha256} ^ _FILES:
            raise StorageError(f"{manifest_path} does not list a reference's files: {', '.join(sorted(differing))}")
        for name, expected in manifest.files_sha256.items():
            if not (path / name).is_file() or sha256_of_file(path / name) != expected:
                raise StorageError(f"drift reference {path} is damaged: {name} has changed; fetch it again")
        return cls(path, manifest)

    @cached_property
    def sample(self) -> ImageSample:
        lengths = np.split(self._array("lengths"), self._array("lengths_ends")[:-1])
        words = np.split(self._array("words"), self._array("words_ends")[:-1])
        return ImageSample(
            vectors=self._array("vectors"),
            sizes_px=self._array("sizes_px"),
            brightness=self._array("brightness"),
            words=tuple(
                ImageWords(
                    tuple(of_lengths.tolist()), {self._vocabulary[word]: count for word, count in of_words.tolist()}
                )
                for of_lengths, of_words in zip(lengths, words, strict=True)
            ),
            contents=(),
            drawn_from=self.manifest.n_training_images,
            unreadable=0,
        )

    @cached_property
    def images_of_word(self) -> dict[str, int]:
        counts: list[int] = self._array("images_of_word").tolist()
        return dict(zip(self._vocabulary, counts, strict=True))

    @cached_property
    def contents(self) -> "Contents":
        return Contents(self._array("contents"))

    @cached_property
    def _vocabulary(self) -> list[str]:
        words: list[str] = json.loads((self.path / _VOCABULARY).read_text(encoding="utf-8"))
        return words

    def _array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.path / self._stored_name[f"{name}.npy"], allow_pickle=False)
        return array


class Contents(Container[str]):
    """Hex SHA-256 of images, by their first 8 bytes: one in 10^13 others would match one of a million."""

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self._keys = keys

    def __contains__(self, content: object) -> bool:
        if not isinstance(content, str) or not content:
            return False
        key = np.uint64(int(content[:16], 16))
        row = int(np.searchsorted(self._keys, key))
        return row < len(self._keys) and bool(self._keys[row] == key)


def _arrays(sample: ImageSample, images_of_word: dict[str, int], contents: Collection[str]) -> dict[str, NDArray[Any]]:
    number = {word: row for row, word in enumerate(images_of_word)}
    words = [[(number[word], count) for word, count in image.counts.items()] for image in sample.words]
    flat = [entry for entries in words for entry in entries]
    return {
        "vectors": sample.vectors,
        "sizes_px": sample.sizes_px,
        "brightness": sample.brightness,
        "lengths": np.array([length for image in sample.words for length in image.lengths], np.int32),
        "lengths_ends": np.cumsum([len(image.lengths) for image in sample.words]),
        "words": np.array(flat, np.int32).reshape(-1, 2),
        "words_ends": np.cumsum([len(entries) for entries in words]),
        "images_of_word": np.array(list(images_of_word.values()), np.int32),
        "contents": np.array(sorted({int(content[:16], 16) for content in contents if content}), np.uint64),
    }

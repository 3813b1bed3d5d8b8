"""Samples: finds the images of a data set with their captions, draws some, and reduces each to its vector, size, brightness and words.

The unit of every sample is the image with all its captions.
"""

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import IMAGE_ENCODER, PREPROCESS, Bundle
from image_finder.components.captions.captions_table import read_captions
from image_finder.components.captions.layout import detect_layout
from image_finder.components.configs import DatasetConfig, DriftConfig, EmbeddingConfig
from image_finder.components.drift.caption_words import ImageWords, image_words
from image_finder.components.errors import DataError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.features.image_features import ImageKeys, cache_images
from image_finder.components.images.decoding import image_size
from image_finder.components.images.files import find_images
from image_finder.components.images.preprocess import PIXELS_VERSION, Pixels
from image_finder.components.index.vector_cache import throughput_encoder
from image_finder.components.records.base import PartName
from image_finder.components.storage import sha256_of_bytes, sha256_of_file

logger = logging.getLogger(__name__)

_ROW_VERSION = 1  # increase it when the content of a cached row changes
_LUMA = np.array([0.299, 0.587, 0.114], np.float32) / 255  # ITU-R BT.601, black 0 to white 1
_DEMO_CAPTIONS = Path("annotations") / "captions.json"


class CaptionedFile(NamedTuple):
    """An image of a data set. name: stays the same in later versions of the data set."""

    name: str
    path: Path
    captions: tuple[str, ...] = ()


def captioned_files(captions: pd.DataFrame, root: Path) -> list[CaptionedFile]:
    found: dict[str, list[str]] = {}
    for name, caption in zip(captions["file_name"].tolist(), captions["caption"].tolist(), strict=True):
        found.setdefault(name, []).append(caption)
    return [CaptionedFile(name, root / name, tuple(texts)) for name, texts in found.items()]


def find_captioned_files(root: Path, part: PartName | None = None) -> list[CaptionedFile]:
    """Images of a data set in any layout, of one part or of all, with their captions.

    Without annotations: all images below the directory. Raises DataError for no images or an unknown part.
    """
    try:
        dataset = _layout(root)
    except DataError as error:
        names = find_images(root) if root.is_dir() else []
        if not names:
            raise
        if part is not None:
            raise DataError(f"{root} has no part '{part}': it contains images without annotations") from error
        return [CaptionedFile(name.as_posix(), root / name) for name in names]
    captions = read_captions(dataset)
    if part is not None:
        parts = sorted(captions["part"].unique().tolist())
        captions = captions[captions["part"] == part]
        if captions.empty:
            raise DataError(f"{root} has no part '{part}', only {', '.join(parts)}")
    return captioned_files(captions, root)


def _layout(root: Path) -> DatasetConfig:
    if (root / _DEMO_CAPTIONS).is_file():
        return DatasetConfig(name=root.name, layout="demo", root=root)
    return detect_layout(root)


@dataclass(frozen=True)
class ImageSample:
    """n readable images that were drawn from drawn_from images.

    vectors: (n, dim), unit rows; sizes_px: (n, 2) int32, width and height as displayed; brightness: (n,) float32, mean
    luma, 0 to 1; words: of the captions, n; contents: hex SHA-256 of the files, n, or empty if not kept.
    """

    vectors: Vectors
    sizes_px: NDArray[np.int32]
    brightness: NDArray[np.float32]
    words: tuple[ImageWords, ...]
    contents: tuple[str, ...]
    drawn_from: int
    unreadable: int

    @property
    def n_captions(self) -> int:
        return sum(len(image.lengths) for image in self.words)


class Sampler:
    """Draws samples whose vectors come from one model's image tower."""

    def __init__(
        self,
        bundle: Bundle,
        config: DriftConfig,
        embedding: EmbeddingConfig,
        *,
        cache_dir: Path,
        progress: bool = False,
    ) -> None:
        self.bundle = bundle
        self._seed = config.seed
        self._embedding = embedding
        self._encoder = throughput_encoder(bundle, embedding)
        self._progress = progress
        hashes = bundle.manifest.files_sha256
        maker = sha256_of_bytes(
            f"{hashes[IMAGE_ENCODER]}:{hashes[PREPROCESS]}:{PIXELS_VERSION}:{_ROW_VERSION}".encode()
        )
        width = bundle.manifest.embedding_dim + 1
        self._cache = ContentCache(cache_dir / f"drift-{maker[:16]}", width=width, dtype="float32", maker=maker)

    def draw(self, files: Sequence[CaptionedFile], count: int, *, without: Container[str] | None = None) -> ImageSample:
        """Draw up to count readable images. without: contents (hex SHA-256) to leave out.

        Images are drawn in the order of a hash of seed and name, so that an image in two versions of a data set is
        drawn from both or from neither, as far as their sizes allow. Raises StorageError.
        """
        remaining = iter(sorted(files, key=self._order))
        if without is not None:
            remaining = (file for file in remaining if _content(file.path) not in without)
        taken: list[CaptionedFile] = []
        contents: list[str] = []
        unreadable = 0
        while len(taken) < count and (batch := list(islice(remaining, count - len(taken)))):
            found = self._encode([file.path for file in batch])
            readable = [file for file in batch if file.path in found.keys]
            taken += readable
            contents += [found.keys[file.path] for file in readable]
            unreadable += len(batch) - len(readable)
        if unreadable:
            logger.warning("drift: %d of %d drawn images could not be read", unreadable, unreadable + len(taken))
        rows = self._rows(contents)
        return ImageSample(
            vectors=rows[:, :-1],
            sizes_px=np.array([image_size(file.path) for file in taken], np.int32).reshape(-1, 2),
            brightness=rows[:, -1],
            words=tuple(image_words(file.captions) for file in taken),
            contents=tuple(contents),
            drawn_from=len(files),
            unreadable=unreadable,
        )

    def _order(self, file: CaptionedFile) -> str:
        return sha256_of_bytes(f"{self._seed}:{file.name}".encode(errors="surrogateescape"))

    def _encode(self, paths: Sequence[Path]) -> ImageKeys:
        def infer(pixels: Pixels) -> NDArray[np.float32]:
            vectors = self._encoder.encode_image(pixels)
            brightness = pixels.mean(axis=(1, 2), dtype=np.float32) @ _LUMA
            return np.concatenate([vectors, brightness[:, None]], axis=1)[:, None, :]

        return cache_images(
            paths,
            self._encoder.preprocess,
            infer,
            self._cache,
            batch=self._embedding.batch_images,
            decode_threads=self._embedding.decode_threads,
            infer_threads=self._encoder.lanes.runs,
            title="drift" if self._progress else "",
        )

    def _rows(self, contents: Sequence[str]) -> Vectors:
        rows, _ = self._cache.spans(contents)
        return np.array(self._cache.rows[rows], np.float32)


def _content(path: Path) -> str:
    """Hex SHA-256 of a file; "" if it cannot be read, because decoding it reports the reason."""
    try:
        return sha256_of_file(path)
    except OSError:
        return ""

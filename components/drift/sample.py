"""Samples of captioned images: draws some of them and reduces each to what drift is measured on.

The unit of every sample is the image, with all its captions.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import IMAGE_ENCODER, PREPROCESS, Bundle
from image_finder.components.configs import DriftConfig, EmbeddingConfig
from image_finder.components.drift.caption_words import ImageWords, image_words
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.features.image_features import ImageKeys, cache_images
from image_finder.components.images.images import image_size
from image_finder.components.images.preprocess import PIXELS_VERSION, Pixels
from image_finder.components.index.vector_cache import throughput_encoder
from image_finder.components.storage import sha256_of_bytes, sha256_of_file

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_ROW_VERSION = 1  # raise it when a cached row holds something else
_LUMA = np.array([0.299, 0.587, 0.114], np.float32) / 255  # ITU-R BT.601, black 0 to white 1


class CaptionedFile(NamedTuple):
    """One image of a data set. name: the same in the next version of the data set; captions may be none."""

    name: str
    path: Path
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageSample:
    """Images that were drawn from drawn_from others, n of them readable.

    vectors: (n, dim) float32, unit rows; sizes_px: (n, 2) int32, width and height as displayed; brightness: (n,)
    float32, mean luma, 0 to 1; words: of the captions, n; contents: hex SHA-256 of the files, n, or none
    where they are not kept.
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
        """Captions of all images."""
        return sum(len(image.lengths) for image in self.words)


def captioned_files(captions: "pd.DataFrame", root: Path) -> list[CaptionedFile]:
    """The images of a captions table with their captions, in the table's order."""
    found: dict[str, list[str]] = {}
    for name, caption in zip(captions["file_name"].tolist(), captions["caption"].tolist(), strict=True):
        found.setdefault(name, []).append(caption)
    return [CaptionedFile(name, root / name, tuple(texts)) for name, texts in found.items()]


class Sampler:
    """Draws samples for one model: their vectors come from its image tower."""

    def __init__(
        self,
        bundle: Bundle,
        config: DriftConfig,
        embedding: EmbeddingConfig,
        *,
        cache_dir: Path,
        progress: bool = False,
    ) -> None:
        """cache_dir: vectors and brightness are kept there by image content. progress: a bar on stderr."""
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

    def draw(
        self, files: Sequence[CaptionedFile], count: int, *, without: Collection[str] | None = None
    ) -> ImageSample:
        """Draw up to count readable images. without: contents (hex SHA-256) that are left out; None: none are.

        The order of the draw is a hash of seed and name: an image that is in two versions of a data set is drawn from
        both or from neither, as far as their sizes allow, so that only what changed makes a difference. O(count)
        decodes and encodings; with `without`, at most all files are read to hash them. Raises StorageError.
        """
        waiting = self._wanted(sorted(files, key=self._place), without)
        taken: list[CaptionedFile] = []
        contents: list[str] = []
        unreadable = 0
        while len(taken) < count and (batch := list(islice(waiting, count - len(taken)))):
            found = self._encode([file.path for file in batch])
            readable = [file for file in batch if file.path in found.keys]
            taken += readable
            contents += [found.keys[file.path] for file in readable]
            unreadable += len(batch) - len(readable)
        if unreadable:
            logger.warning("drift: %d of %d drawn images cannot be read", unreadable, unreadable + len(taken))
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

    def _place(self, file: CaptionedFile) -> str:
        return sha256_of_bytes(f"{self._seed}:{file.name}".encode(errors="surrogateescape"))

    @staticmethod
    def _wanted(files: Sequence[CaptionedFile], without: Collection[str] | None) -> Iterator[CaptionedFile]:
        for file in files:
            if not without or _content(file.path) not in without:
                yield file

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
        places, _ = self._cache.places(contents)
        return np.array(self._cache.rows[places], np.float32)


def _content(path: Path) -> str:
    """Hex SHA-256 of a file; of one that cannot be read, nothing: decoding it will say why."""
    try:
        return sha256_of_file(path)
    except OSError:
        return ""

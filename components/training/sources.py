"""Training inputs by row: cached features of frozen trunks, or pixels and tokens where the whole trunk learns."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from image_finder.components.arrays import IntArray, Vectors
from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.encoders.dual_encoder import DualEncoder
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.augmentation import View
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.training.soft_targets import Teacher

_CPU = torch.device("cpu")


class TextInput(NamedTuple):
    """Cached hidden states (n, T, C) float16 or token ids (n, T) int64, and mask (n, T)."""

    values: Tensor
    mask: Tensor


class CachedImages:
    """Cached features of a frozen stem, for each view of each image."""

    def __init__(self, caches: Sequence[ContentCache], keys: Sequence[str]) -> None:
        """caches: one per view, the unchanged images first; keys: content key of each row."""
        self._caches = list(caches)
        spans = [each.spans(keys) for each in self._caches]
        self._starts = np.stack([starts for starts, _ in spans])  # (views, rows)
        counts = spans[0][1]
        self._positions = int(counts[0]) if len(counts) else 0

    def __len__(self) -> int:
        return int(self._starts.shape[1])

    def load(self, rows: IntArray, views: IntArray | None = None) -> Tensor:
        """Features (n, h, w, C) float16; the grid is square. views: (n,); None: the unchanged images."""
        stored = [cache.rows for cache in self._caches]
        views = np.zeros(len(rows), np.int64) if views is None else views
        batch = np.empty((len(rows), self._positions, stored[0].shape[1]), stored[0].dtype)
        for target, view, start in zip(batch, views, self._starts[views, rows], strict=True):
            target[...] = stored[view][start : start + self._positions]
        side = int(self._positions**0.5)
        return torch.from_numpy(batch).view(len(rows), side, side, -1)

    def features(self, _: DualEncoder, values: Tensor) -> Tensor:
        return values.float()

    def embed(self, model: DualEncoder, values: Tensor) -> Tensor:
        """Unit vectors of loaded features; without test-time augmentation."""
        return model.image_tower.embed_features(values.float())[0]


class DecodedImages:
    def __init__(self, paths: Sequence[Path], preprocess: Preprocess) -> None:
        self._paths = list(paths)
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, rows: IntArray, views: IntArray | None = None) -> Tensor:
        """Pixels (n, px, px, 3) uint8."""
        numbers = [0] * len(rows) if views is None else views.tolist()
        pixels = [
            View(self._preprocess, number).load(self._paths[row]) for row, number in zip(rows, numbers, strict=True)
        ]
        return torch.from_numpy(np.stack(pixels))

    def features(self, model: DualEncoder, values: Tensor) -> Tensor:
        return model.image_tower.features(values)

    def embed(self, model: DualEncoder, values: Tensor) -> Tensor:
        return model.encode_image(values)


class CachedTexts:
    def __init__(self, cache: ContentCache, keys: Sequence[str]) -> None:
        """keys: content key of each row."""
        self._cache = cache
        self._starts, self._counts = cache.spans(keys)

    def __len__(self) -> int:
        return len(self._starts)

    def load(self, rows: IntArray) -> TextInput:
        """Hidden states (n, T, C) float16, zero under padding."""
        counts = self._counts[rows]
        stored = self._cache.rows
        values = np.zeros((len(rows), int(counts.max()), stored.shape[1]), stored.dtype)
        for target, start, count in zip(values, self._starts[rows], counts, strict=True):
            target[:count] = stored[start : start + count]
        mask = (np.arange(values.shape[1]) < counts[:, None]).astype(np.int64)
        return TextInput(torch.from_numpy(values), torch.from_numpy(mask))

    def reading_order(self, rows: IntArray) -> IntArray:
        """In storage order, which is by length."""
        return np.argsort(self._starts[rows], kind="stable")

    def features(self, _: DualEncoder, loaded: TextInput) -> Tensor:
        return loaded.values.float()


class TokenisedTexts:
    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        self._texts = list(texts)
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._texts)

    def load(self, rows: IntArray) -> TextInput:
        """Token ids (n, T) int64."""
        tokens = self._tokenizer([self._texts[row] for row in rows])
        return TextInput(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))

    def reading_order(self, rows: IntArray) -> IntArray:
        return np.argsort([len(self._texts[row]) for row in rows], kind="stable")

    def features(self, model: DualEncoder, loaded: TextInput) -> Tensor:
        return model.text_tower.features(loaded.values, loaded.mask)


# Both kinds of a source have the same methods: load, features (stem features of loaded values: (n, h, w, C) or (n, T, C)),
# and embed (unit vectors, (n, embedding_dim)) or reading_order (puts rows with texts of similar length together).
ImageSource = CachedImages | DecodedImages
TextSource = CachedTexts | TokenisedTexts


class PairedSet(NamedTuple):
    """Images and their captions. image_of_caption: (n_captions,) row of each caption's image."""

    images: ImageSource
    texts: TextSource
    image_of_caption: IntArray
    teacher: Teacher | None = None


def embed_all(
    model: DualEncoder, data: PairedSet, *, device: torch.device, batch: int = 256
) -> tuple[Vectors, Vectors]:
    """Unit vectors of all images and all captions: (n_images, dim), (n_captions, dim)."""
    every = np.arange(len(data.images)), np.arange(len(data.texts))
    return embed_rows(model, data, *every, device=device, batch=batch)


@torch.no_grad()
def embed_rows(
    model: DualEncoder,
    data: PairedSet,
    image_rows: IntArray,
    text_rows: IntArray,
    *,
    device: torch.device = _CPU,
    batch: int = 256,
) -> tuple[Vectors, Vectors]:
    """Unit vectors of some images and captions, in evaluation mode, in the order of their rows."""
    model.eval()

    def images(rows: IntArray) -> Tensor:
        return data.images.embed(model, data.images.load(rows).to(device))

    def texts(rows: IntArray) -> Tensor:
        values, mask = data.texts.load(rows)
        loaded = TextInput(values.to(device), mask.to(device))
        return model.text_tower.embed_features(data.texts.features(model, loaded), loaded.mask)

    return (
        _embedded(image_rows, np.arange(len(image_rows)), batch, images),
        _embedded(text_rows, data.texts.reading_order(text_rows), batch, texts),
    )


def _embedded(rows: IntArray, order: IntArray, batch: int, embed: Callable[[IntArray], Tensor]) -> Vectors:
    """Vectors (n, dim) of rows, computed in the given order."""
    gathered = torch.empty(0)
    for start in range(0, len(order), batch):
        positions = order[start : start + batch]
        vectors = embed(rows[positions])
        if not len(gathered):  # one array: COCO's captions take 0.6 GB
            gathered = torch.empty(len(rows), vectors.shape[1])
        gathered[torch.from_numpy(positions)] = vectors.float().cpu()
    return cast("Vectors", gathered.numpy())

"""Training inputs: rows to tensors, from cached features where a trunk is frozen and from files and texts where it is not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from image_finder.components.arrays import IntArray, Vectors
from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.encoders.dual_encoder import DualEncoder
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.augmentation import View
from image_finder.components.images.preprocess import Preprocess

_CPU = torch.device("cpu")


class TextInput(NamedTuple):
    """values: hidden states (n, T, C) float16 when cached, ids (n, T) int64 otherwise; mask: (n, T) int64."""

    values: Tensor
    mask: Tensor


class ImageSource(Protocol):
    """Images by row."""

    def __len__(self) -> int: ...

    def load(self, rows: IntArray, views: IntArray | None = None) -> Tensor:
        """What `embed` reads, one row an image. views: (n,) number of the view of each; None: the images themselves."""
        ...

    def embed(self, model: DualEncoder, values: Tensor) -> Tensor:
        """Unit vectors (n, embedding_dim) of loaded values on the model's device."""
        ...

    def branch(self, model: DualEncoder, values: Tensor, tail: int) -> list[Tensor]:
        """Unit vectors (n, head_dim) of each head on a tail."""
        ...


class TextSource(Protocol):
    """Texts by row."""

    def __len__(self) -> int: ...

    def load(self, rows: IntArray) -> TextInput:
        """What `embed` reads, one row a text."""
        ...

    def reading_order(self, rows: IntArray) -> IntArray:
        """(n,) places in rows, in the order in which they are read fastest: texts of a length beside each other."""
        ...

    def embed(self, model: DualEncoder, values: TextInput) -> Tensor:
        """Unit vectors (n, embedding_dim) of loaded values on the model's device."""
        ...

    def heads(self, model: DualEncoder, values: TextInput, heads: range) -> list[Tensor]:
        """Unit vectors (n, head_dim) of each of some heads."""
        ...


class CachedImages:
    """Frozen-stem features of views of images."""

    def __init__(self, caches: Sequence[ContentCache], keys: Sequence[str]) -> None:
        """caches: one a view, that of the images themselves first; keys: content key of each row, in every cache."""
        self._caches = list(caches)
        places = [each.places(keys) for each in self._caches]
        self._starts = np.stack([starts for starts, _ in places])  # (views, rows)
        counts = places[0][1]
        self._positions = int(counts[0]) if len(counts) else 0

    def __len__(self) -> int:
        return int(self._starts.shape[1])

    def load(self, rows: IntArray, views: IntArray | None = None) -> Tensor:
        """Features (n, h, w, C) float16; the grid is square. views: see ImageSource."""
        stored = [cache.rows for cache in self._caches]
        views = np.zeros(len(rows), np.int64) if views is None else views
        batch = np.empty((len(rows), self._positions, stored[0].shape[1]), stored[0].dtype)
        for place, view, start in zip(batch, views, self._starts[views, rows], strict=True):
            place[...] = stored[view][start : start + self._positions]
        side = int(self._positions**0.5)
        return torch.from_numpy(batch).view(len(rows), side, side, -1)

    def embed(self, model: DualEncoder, values: Tensor) -> Tensor:
        """Tails and heads of the image tower."""
        return model.image_tower.embed_features(values.float())[0]

    def branch(self, model: DualEncoder, values: Tensor, tail: int) -> list[Tensor]:
        """See ImageSource."""
        return [vectors for vectors, _ in model.image_tower.branch(values.float(), tail)]


class DecodedImages:
    """Images decoded from their files each time."""

    def __init__(self, paths: Sequence[Path], preprocess: Preprocess) -> None:
        """paths: file of each row."""
        self._paths = list(paths)
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, rows: IntArray, views: IntArray | None = None) -> Tensor:
        """Pixels (n, px, px, 3) uint8. views: see ImageSource."""
        numbers = [0] * len(rows) if views is None else views.tolist()
        pixels = [
            View(self._preprocess, number).load(self._paths[row]) for row, number in zip(rows, numbers, strict=True)
        ]
        return torch.from_numpy(np.stack(pixels))

    def embed(self, model: DualEncoder, values: Tensor) -> Tensor:
        """The whole image tower."""
        return model.encode_image(values)

    def branch(self, model: DualEncoder, values: Tensor, tail: int) -> list[Tensor]:
        """See ImageSource."""
        tower = model.image_tower
        return [vectors for vectors, _ in tower.branch(tower.features(values), tail)]


class CachedTexts:
    """Frozen-trunk hidden states of texts."""

    def __init__(self, cache: ContentCache, keys: Sequence[str]) -> None:
        """keys: content key of each row; all are in the cache."""
        self._cache = cache
        self._starts, self._counts = cache.places(keys)

    def __len__(self) -> int:
        return len(self._starts)

    def load(self, rows: IntArray) -> TextInput:
        """Hidden states (n, T, C) float16, zero under padding."""
        counts = self._counts[rows]
        stored = self._cache.rows
        values = np.zeros((len(rows), int(counts.max()), stored.shape[1]), stored.dtype)
        for place, start, count in zip(values, self._starts[rows], counts, strict=True):
            place[:count] = stored[start : start + count]
        mask = (np.arange(values.shape[1]) < counts[:, None]).astype(np.int64)
        return TextInput(torch.from_numpy(values), torch.from_numpy(mask))

    def reading_order(self, rows: IntArray) -> IntArray:
        """As they are stored, which is by length. See TextSource."""
        return np.argsort(self._starts[rows], kind="stable")

    def embed(self, model: DualEncoder, values: TextInput) -> Tensor:
        """Heads of the text tower."""
        return model.text_tower.embed_features(values.values.float(), values.mask)

    def heads(self, model: DualEncoder, values: TextInput, heads: range) -> list[Tensor]:
        """See TextSource."""
        return model.text_tower.head_vectors(values.values.float(), values.mask, heads)


class TokenisedTexts:
    """Texts tokenised each time."""

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        """texts: one a row."""
        self._texts = list(texts)
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._texts)

    def load(self, rows: IntArray) -> TextInput:
        """Token ids (n, T) int64."""
        tokens = self._tokenizer([self._texts[row] for row in rows])
        return TextInput(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))

    def reading_order(self, rows: IntArray) -> IntArray:
        """By their characters. See TextSource."""
        return np.argsort([len(self._texts[row]) for row in rows], kind="stable")

    def embed(self, model: DualEncoder, values: TextInput) -> Tensor:
        """The whole text tower."""
        return model.encode_text(values.values, values.mask)

    def heads(self, model: DualEncoder, values: TextInput, heads: range) -> list[Tensor]:
        """See TextSource."""
        tower = model.text_tower
        return tower.head_vectors(tower.features(values.values, values.mask), values.mask, heads)


class PairedSet(NamedTuple):
    """Images and their captions. image_of_caption: (n_captions,) row of each caption's image."""

    images: ImageSource
    texts: TextSource
    image_of_caption: IntArray


@torch.no_grad()
def embed_all(
    model: DualEncoder, data: PairedSet, *, device: torch.device, batch: int = 256
) -> tuple[Vectors, Vectors]:
    """Unit vectors of all images and all captions in evaluation mode: (n_images, dim), (n_captions, dim) float32."""
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
    """Unit vectors of some images and some captions in evaluation mode, in the order of their rows."""
    model.eval()

    def texts(rows: IntArray) -> Tensor:
        values, mask = data.texts.load(rows)
        return data.texts.embed(model, TextInput(values.to(device), mask.to(device)))

    return (
        _gathered(
            image_rows,
            np.arange(len(image_rows)),
            batch,
            lambda rows: data.images.embed(model, data.images.load(rows).to(device)),
        ),
        _gathered(text_rows, data.texts.reading_order(text_rows), batch, texts),
    )


def _gathered(rows: IntArray, order: IntArray, batch: int, embed: Callable[[IntArray], Tensor]) -> Vectors:
    """Vectors of rows, embedded in an order, at their places in one array: those of all captions of COCO take 0.6 GB."""
    gathered = torch.empty(0)
    for places in _chunks(order, batch):
        vectors = embed(rows[places])
        if not len(gathered):
            gathered = torch.empty(len(rows), vectors.shape[1])
        gathered[torch.from_numpy(places)] = vectors.float().cpu()
    return cast("Vectors", gathered.numpy())


def _chunks(rows: IntArray, size: int) -> list[IntArray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]

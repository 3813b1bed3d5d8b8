"""ONNX encoder: a bundle's towers on ONNX Runtime, with the methods of the torch encoder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from image_finder.components import cancellation
from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import IMAGE_ENCODER, TEXT_ENCODER, Bundle
from image_finder.components.bundle.onnx_session import Device, Lanes, open_session, throughput_lanes
from image_finder.components.captions.tokens import Tokens
from image_finder.components.errors import QueryError
from image_finder.components.images.preprocess import Pixels


class OnnxEncoder:
    """Encodes any number of texts and images; each tower is opened when it is first used."""

    def __init__(self, bundle: Bundle, *, device: Device = "auto", threads: int = 0, throughput: bool = False) -> None:
        """threads: for ONNX Runtime; 0: one per core.

        throughput: for callers that encode images from `lanes.runs` threads at a time. These share the threads, and an
        image's vector is then the same to the bit in any batch.
        """
        self.bundle = bundle
        self.embedding_dim = bundle.manifest.embedding_dim
        self._device: Device = device
        self._threads = threads
        self._throughput = throughput
        self.tokenizer = bundle.tokenizer()
        self.preprocess = bundle.preprocess()

    @cached_property
    def lanes(self) -> Lanes:
        """How the threads are divided for the most images per second. Raises ConfigError."""
        return throughput_lanes(self._device, self._threads)

    @cached_property
    def _text_session(self) -> ort.InferenceSession:
        # A text is too small to be shared: on two threads it takes 2.6 ms, on one 2.1, and two side by side 1.3 each.
        return open_session(self.bundle.path / TEXT_ENCODER, device=self._device, threads=1)

    @cached_property
    def _text_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.lanes.runs, thread_name_prefix="texts")

    @cached_property
    def _image_session(self) -> ort.InferenceSession:
        threads = self.lanes.threads if self._throughput else self._threads
        return open_session(self.bundle.path / IMAGE_ENCODER, device=self._device, threads=threads)

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts: (n, embedding_dim) float32.

        Texts above the model's limit are truncated. Each text is one call of the text tower, without padding, so its
        vector is the same to the bit in any batch: within one call, dynamic 8-bit quantisation scales a text's
        activations by those of its neighbours, which moved vectors by up to 0.03 (cosine 0.987). Several texts are
        encoded in parallel, one per core.
        """
        vectors = np.empty((len(texts), self.embedding_dim), np.float32)

        def encode(row: int) -> None:
            vectors[row] = self.encode_tokens(self.tokenizer([texts[row]]))[0]

        if len(texts) == 1:
            encode(0)
            return vectors
        contexts = [copy_context() for _ in texts]  # they carry the caller's cancellation
        list(self._text_pool.map(lambda context, row: context.run(encode, row), contexts, range(len(texts))))
        return vectors

    def encode_tokens(self, tokens: Tokens) -> Vectors:
        """Unit vectors of a padded batch, (n, embedding_dim); with 8-bit weights they depend on the batch."""
        cancellation.checkpoint()
        vectors: Vectors = self._text_session.run(["embedding"], {"ids": tokens.ids, "mask": tokens.mask})[0]
        return vectors

    def encode_image(self, images: Iterable[Pixels]) -> Vectors:
        """Unit vectors of preprocessed images, (px, px, 3) uint8 each: (n, embedding_dim) float32.

        An array is encoded a few images at a time. An iterator is read on another thread, one batch ahead, so that
        images can be decoded while others are encoded and only a few are in memory.
        """
        vectors = [np.empty((0, self.embedding_dim), np.float32)]
        vectors += [self._encode_batch(batch) for batch in _batches(images, self.lanes.images)]
        return np.concatenate(vectors)

    def _encode_batch(self, pixels: Pixels) -> Vectors:
        cancellation.checkpoint()
        # ONNX Runtime multiplies differently for one image than for several: its vector is off by up to 6e-8.
        repeated = np.repeat(pixels, 2, axis=0) if self._throughput and len(pixels) == 1 else pixels
        vectors: Vectors = self._image_session.run(["embedding"], {"pixels": repeated})[0]
        return vectors[: len(pixels)]

    def attention(self, pixels: Pixels) -> NDArray[np.float32]:
        """Weights of the attention pooling: (n, h, w) float32, at least 0, at most 1 in sum per image.

        Raises QueryError for a model without attention pooling.
        """
        cancellation.checkpoint()
        if "attention" not in {output.name for output in self._image_session.get_outputs()}:
            raise QueryError(f"{self.bundle.path.name} has no attention pooling to show; explain the query instead")
        weights: NDArray[np.float32] = self._image_session.run(["attention"], {"pixels": pixels})[0]
        return weights


def _batches(images: Iterable[Pixels], size: int) -> Iterator[Pixels]:
    """Batches of up to `size` images: (n, px, px, 3) uint8."""
    if isinstance(images, np.ndarray):
        yield from (images[start : start + size] for start in range(0, len(images), size))
        return
    remaining = iter(images)
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(lambda: list(islice(remaining, size)))
        while batch := ahead.result():
            ahead = reader.submit(lambda: list(islice(remaining, size)))
            yield np.stack(batch)


def in_batches(encode: Callable[[Any], Vectors], inputs: Sequence[str] | Pixels, batch: int) -> Vectors:
    """Vectors of inputs that are encoded `batch` at a time: (n, dim) float32."""
    return np.concatenate([encode(inputs[start : start + batch]) for start in range(0, len(inputs), batch)])

"""ONNX encoder: a bundle's towers on ONNX Runtime; same words and shapes as the torch dual encoder."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cached_property

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from image_finder.components import cancellation
from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import IMAGE_ENCODER, TEXT_ENCODER, Bundle
from image_finder.components.bundle.onnx_session import Device, open_session, throughput_lanes
from image_finder.components.captions.tokens import Tokens
from image_finder.components.images.preprocess import Pixels


class OnnxEncoder:
    """Encodes texts and images; each tower is opened when it is first used."""

    def __init__(self, bundle: Bundle, *, device: Device = "auto", threads: int = 0) -> None:
        """threads: of ONNX Runtime; 0 takes one a core."""
        self.bundle = bundle
        self.embedding_dim = bundle.manifest.embedding_dim
        self._device: Device = device
        self._threads = threads
        self.tokenizer = bundle.tokenizer()
        self.preprocess = bundle.preprocess()

    @cached_property
    def _text_session(self) -> ort.InferenceSession:
        # A text is too small to be shared: on two threads it takes 2.6 ms, on one 2.1, and two side by side 1.3 each.
        return open_session(self.bundle.path / TEXT_ENCODER, device=self._device, threads=1)

    @cached_property
    def _text_lanes(self) -> ThreadPoolExecutor:
        lanes = throughput_lanes(self._device, self._threads).runs
        return ThreadPoolExecutor(lanes, thread_name_prefix="texts")

    @cached_property
    def _image_session(self) -> ort.InferenceSession:
        return open_session(self.bundle.path / IMAGE_ENCODER, device=self._device, threads=self._threads)

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts: (n, embedding_dim) float32. Texts above the model's limit are truncated.

        Each text is one call of the text tower, without padding, so its vector is the same to the bit whatever is
        encoded with it. In a batch, dynamic 8-bit quantisation scales a text's activations by those of its neighbours,
        which moved vectors by up to 0.03 (cosine 0.987). Several texts are encoded side by side, one a core.
        """
        vectors = np.empty((len(texts), self.embedding_dim), np.float32)

        def encode(row: int) -> None:
            vectors[row] = self.encode_tokens(self.tokenizer([texts[row]]))[0]

        if len(texts) == 1:
            encode(0)
            return vectors
        contexts = [copy_context() for _ in texts]  # a text's lane ends when the caller's computation is cancelled
        list(self._text_lanes.map(lambda context, row: context.run(encode, row), contexts, range(len(texts))))
        return vectors

    def encode_tokens(self, tokens: Tokens) -> Vectors:
        """Unit vectors of a padded batch, in one call: (n, embedding_dim) float32. With 8-bit weights they depend on it."""
        cancellation.checkpoint()
        vectors: Vectors = self._text_session.run(["embedding"], {"ids": tokens.ids, "mask": tokens.mask})[0]
        return vectors

    def encode_image(self, pixels: Pixels) -> Vectors:
        """Unit vectors of preprocessed images, (n, px, px, 3) uint8: (n, embedding_dim) float32."""
        cancellation.checkpoint()
        vectors: Vectors = self._image_session.run(["embedding"], {"pixels": pixels})[0]
        return vectors

    def attention(self, pixels: Pixels) -> NDArray[np.float32]:
        """Where the image tower looked: (n, h, w) float32, at least 0, each sums to at most 1."""
        cancellation.checkpoint()
        weights: NDArray[np.float32] = self._image_session.run(["attention"], {"pixels": pixels})[0]
        return weights

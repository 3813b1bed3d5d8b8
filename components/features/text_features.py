"""Text features: hidden states of a frozen text trunk, stored by text; knows nothing of the inferred values."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from image_finder.components.captions.tokens import Tokenizer, Tokens
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.storage import sha256_of_bytes

_CHUNK_TEXTS = 4096


def text_keys(texts: Sequence[str]) -> list[str]:
    return [sha256_of_bytes(text.encode()) for text in texts]


def cache_texts(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    infer: Callable[[Tokens], NDArray[Any]],
    cache: ContentCache,
    *,
    batch: int = 128,
    title: str = "",
) -> None:
    """Compute and store an entry (tokens, width) for each text that has none.

    infer: maps a padded batch to (n, length, width). Batches hold texts of similar length, to save padding.
    """
    with cache:
        missing = {key: text for key, text in zip(text_keys(texts), texts, strict=True) if key not in cache}
        with tqdm(total=len(missing), desc=title, unit="text", disable=not title) as bar:
            items = sorted(missing.items(), key=lambda item: len(item[1]))
            for start in range(0, len(items), _CHUNK_TEXTS):
                chunk = items[start : start + _CHUNK_TEXTS]
                lengths = tokenizer([text for _, text in chunk]).mask.sum(axis=1)
                order = np.argsort(lengths, kind="stable")
                keys: list[str] = []
                entries: list[NDArray[Any]] = []
                for rows in np.split(order, range(batch, len(order), batch)):
                    tokens = tokenizer([chunk[row][1] for row in rows])
                    hidden = infer(tokens)
                    keys += [chunk[row][0] for row in rows]
                    entries += [hidden[i, : int(count)] for i, count in enumerate(tokens.mask.sum(axis=1))]
                cache.append(keys, entries)
                bar.update(len(chunk))

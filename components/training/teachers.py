"""Teachers: vectors of a train set by other bundles, whose similarities a training aims at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import DataError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.features.frozen_trunk import text_keys
from image_finder.components.index.vector_cache import cache_vectors, throughput_encoder, vector_cache
from image_finder.components.progress_bar import progress_bar
from image_finder.components.text import counted
from image_finder.components.training.soft_targets import Teacher

_TEXTS = 1024  # between two writes to the cache


def taught_by(
    teachers: Sequence[Bundle], data: CaptionedImages, config: EmbeddingConfig, cache_dir: Path, *, progress: bool
) -> Teacher:
    """Vectors of all images and captions of a set. Products are the mean of the teachers' scaled cosines.

    Computed once and cached. Raises DataError for an unreadable image, BundleError, StorageError.
    """
    images, texts = [], []
    for bundle in teachers:
        encoder = throughput_encoder(bundle, config)
        factor = (bundle.scores().logit_scale / len(teachers)) ** 0.5
        images.append(factor * _image_vectors(encoder, data, config, cache_dir))
        texts.append(factor * _text_vectors(encoder, data.captions["caption"].tolist(), cache_dir, progress=progress))
    return Teacher(torch.cat(images, dim=1), torch.cat(texts, dim=1))


def _image_vectors(encoder: OnnxEncoder, data: CaptionedImages, config: EmbeddingConfig, cache_dir: Path) -> Tensor:
    rows = data.image_rows()
    paths = [data.root / name for name in rows["file_name"]]
    cache = vector_cache(encoder.bundle, cache_dir)
    keys = rows["sha256"].tolist()
    missing = [path for path, key in zip(paths, keys, strict=True) if key not in cache]
    if missing:
        failures = cache_vectors(encoder, missing, cache, config).failures
        if failures:
            path, reason = next(iter(failures.items()))
            raise DataError(
                f"{counted(len(failures), 'image')} changed after validation and cannot be read, first {path}: {reason}; "
                "run the pipeline again"
            )
    starts, _ = cache.spans(keys)
    return torch.from_numpy(cache.rows[starts][:, : encoder.embedding_dim])


def _text_vectors(encoder: OnnxEncoder, captions: Sequence[str], cache_dir: Path, *, progress: bool) -> Tensor:
    maker = encoder.bundle.sha256
    cache = ContentCache(
        cache_dir / f"captions-{maker[:16]}", width=encoder.embedding_dim, dtype="float32", maker=maker
    )
    keys = text_keys(captions)
    missing = [(key, text) for key, text in dict(zip(keys, captions, strict=True)).items() if key not in cache]
    with (
        cache,
        progress_bar(total=len(missing), desc="teacher", unit=" captions", shown=progress and bool(missing)) as bar,
    ):
        for start in range(0, len(missing), _TEXTS):
            part = missing[start : start + _TEXTS]
            vectors = encoder.encode_text([text for _, text in part])
            cache.append([key for key, _ in part], list(vectors[:, np.newaxis]))
            bar.update(len(part))
    starts, _ = cache.spans(keys)
    return torch.from_numpy(cache.rows[starts])

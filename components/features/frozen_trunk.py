"""Frozen-trunk features: computed once by ONNX Runtime and cached.

Entries are keyed by content hash of the image or caption, in a directory named by a hash of the stem's weights and its
input. So an edited image or another trunk never gets stale features. Resumable; memory-mapped for reading.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from image_finder.components.bundle.onnx_session import open_session, throughput_lanes
from image_finder.components.captions.tokens import Tokenizer, Tokens
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.encoders.dual_encoder import Assembled
from image_finder.components.encoders.onnx_graph import export_stem
from image_finder.components.encoders.weights import state_sha256
from image_finder.components.errors import DataError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.features.image_features import ImageKeys, cache_images
from image_finder.components.images.augmentation import VIEWS_VERSION, View
from image_finder.components.images.preprocess import PIXELS_VERSION, Pixels
from image_finder.components.progress_bar import progress_bar
from image_finder.components.storage import sha256_of_bytes, sha256_of_file, write_bytes_atomically
from image_finder.components.temporaries import scratch_directory
from image_finder.components.text import counted

_BATCH_TEXTS, _CHUNK_TEXTS = 128, 4096
_LISTED = 5


def image_features_cache(assembled: Assembled, folder: Path, *, view: int = 0) -> ContentCache:
    """Cache of this model's image stem for one view; entries (h * w, C) float16."""
    parts = [_stem_identity(assembled.model.image_tower.stem), assembled.preprocess.model_dump_json(), PIXELS_VERSION]
    parts += [f"view {view} of version {VIEWS_VERSION}"] if view else []
    maker = sha256_of_bytes(":".join(map(str, parts)).encode())
    *_, last = (each for each in assembled.model.image_tower.stem.modules() if isinstance(each, nn.Conv2d))
    width = last.out_channels
    return ContentCache(folder / f"image-{maker[:16]}", width=width, dtype="float16", maker=maker)


def text_features_cache(assembled: Assembled, folder: Path) -> ContentCache:
    """Cache of this model's text trunk; entries (tokens, C) float16."""
    tokenizer = assembled.tokenizer
    stem = assembled.model.text_tower.stem
    maker = sha256_of_bytes(f"{_stem_identity(stem)}:{tokenizer.max_tokens}:{tokenizer.definition}".encode())
    width = int(stem.trunk.config.hidden_size)
    return ContentCache(folder / f"text-{maker[:16]}", width=width, dtype="float16", maker=maker)


def extract_image_features(
    assembled: Assembled,
    paths: Sequence[Path],
    cache: ContentCache,
    config: EmbeddingConfig,
    *,
    view: int = 0,
    progress: bool = False,
) -> dict[Path, str]:
    """Cache stem features of one view of images; returns the content key of each path. Raises DataError."""
    graph = _exported(assembled.model.image_tower.stem, cache, input_px=assembled.preprocess.input_px)
    title = (f"image features, view {view + 1}" if view else "image features") if progress else ""
    found = cache_stem_features(graph, View(assembled.preprocess, view), paths, cache, config, title=title)
    if found.failures:
        listed = "; ".join(f"{path.name}: {reason}" for path, reason in list(found.failures.items())[:_LISTED])
        raise DataError(
            f"{len(found.failures)} of {counted(len(paths), 'image')} changed after validation and cannot be read: {listed}; "
            "run the pipeline again"
        )
    return found.keys


def cache_stem_features(
    graph: Path, view: View, paths: Sequence[Path], cache: ContentCache, config: EmbeddingConfig, *, title: str
) -> ImageKeys:
    """Cache features of an exported stem for one view of images. title: see cache_images."""
    lanes = throughput_lanes(config.device, config.threads)
    session = open_session(graph, device=config.device, threads=lanes.threads)

    def infer(pixels: Pixels) -> NDArray[Any]:
        calls = [pixels[at : at + lanes.images] for at in range(0, len(pixels), lanes.images)]
        features: NDArray[Any] = np.concatenate([session.run(["features"], {"pixels": part})[0] for part in calls])
        return features.reshape(len(features), -1, features.shape[-1]).astype(np.float16)

    return cache_images(
        paths,
        view,
        infer,
        cache,
        batch=config.batch_images,
        decode_threads=config.decode_threads,
        infer_threads=lanes.runs,
        title=title,
    )


def extract_text_features(
    assembled: Assembled,
    captions: Sequence[str],
    cache: ContentCache,
    config: EmbeddingConfig,
    *,
    progress: bool = False,
) -> None:
    graph = _exported(assembled.model.text_tower.stem, cache, input_px=None)
    session = open_session(graph, device=config.device, threads=config.threads)

    def infer(tokens: Tokens) -> NDArray[Any]:
        hidden: NDArray[Any] = session.run(["features"], {"ids": tokens.ids, "mask": tokens.mask})[0]
        return hidden.astype(np.float16)

    cache_texts(captions, assembled.tokenizer, infer, cache, title="text features" if progress else "")


def text_keys(texts: Sequence[str]) -> list[str]:
    return [sha256_of_bytes(text.encode()) for text in texts]


def cache_texts(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    infer: Callable[[Tokens], NDArray[Any]],
    cache: ContentCache,
    *,
    title: str,
) -> None:
    """Compute and store an entry (tokens, width) for each text that has none.

    infer: maps a padded batch to (n, length, width). Batches hold texts of similar length, to save padding.
    """
    with cache:
        missing = {key: text for key, text in zip(text_keys(texts), texts, strict=True) if key not in cache}
        with progress_bar(total=len(missing), desc=title, unit=" texts", shown=bool(title)) as bar:
            items = sorted(missing.items(), key=lambda item: len(item[1]))
            for start in range(0, len(items), _CHUNK_TEXTS):
                chunk = items[start : start + _CHUNK_TEXTS]
                lengths = tokenizer([text for _, text in chunk]).mask.sum(axis=1)
                order = np.argsort(lengths, kind="stable")
                keys: list[str] = []
                entries: list[NDArray[Any]] = []
                for rows in np.split(order, range(_BATCH_TEXTS, len(order), _BATCH_TEXTS)):
                    tokens = tokenizer([chunk[row][1] for row in rows])
                    hidden = infer(tokens)
                    keys += [chunk[row][0] for row in rows]
                    entries += [hidden[i, : int(count)] for i, count in enumerate(tokens.mask.sum(axis=1))]
                cache.append(keys, entries)
                bar.update(len(chunk))


def _exported(stem: nn.Module, cache: ContentCache, *, input_px: int | None) -> Path:
    """Path of the stem's ONNX graph, kept since an export takes as long as thousands of images.

    The file name holds the hash of its content.
    """
    for kept in cache.folder.glob("stem-*.onnx"):
        if kept.stem == f"stem-{sha256_of_file(kept)[:16]}":
            return kept
        kept.unlink(missing_ok=True)
    with scratch_directory() as folder:
        graph = Path(folder) / "stem.onnx"
        export_stem(stem, graph, input_px=input_px)
        path = cache.folder / f"stem-{sha256_of_file(graph)[:16]}.onnx"
        write_bytes_atomically(path, graph.read_bytes())
    return path


def _stem_identity(stem: nn.Module) -> str:
    # the architecture distinguishes trunks with equal tensors
    return f"{sha256_of_bytes(repr(stem).encode())}:{state_sha256(stem.state_dict())}"

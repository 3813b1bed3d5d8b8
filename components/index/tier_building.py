"""Tier building: adds the approximate file to an index, and measures its recall with texts."""

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import IndexTierConfig
from image_finder.components.errors import ConfigError, QualityError
from image_finder.components.index import exact
from image_finder.components.index.approximate import Approximate, library_version, write_approximate
from image_finder.components.index.arrow import number_array
from image_finder.components.index.exact import Neighbours
from image_finder.components.index.format import APPROXIMATE, ApproximateFacts, IndexManifest, write_manifest
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.tiers import Hnsw, IvfPq, efforts, exact_is_cheaper, reach_for, tier_for
from image_finder.components.storage import sha256_of_file

logger = logging.getLogger(__name__)

_K = 10
# Float32 sums differ with their order by about 1e-7; a row that scores like the tenth best counts as found.
_EQUAL_SCORE = 1e-6

_WHO = (
    *("a brown dog", "two children", "a man in a red shirt", "a black cat", "an old woman in a blue coat"),
    *("a group of people", "a white horse", "a girl with a yellow ball"),
)
_DOES = ("is running", "are sitting", "is playing", "looks at the camera", "is jumping", "stands still")
_WHERE = ("on the beach", "in the snow", "next to a parked car", "in a kitchen", "on a green lawn", "near a lake")
_ROWS_A_TEXT = 4  # rows read for each caption: some have no caption, or one that was already drawn

EncodeTexts = Callable[[tuple[str, ...]], Vectors]


class MeasuringTexts(NamedTuple):
    texts: tuple[str, ...]
    source: Literal["captions", "sentences"]


def add_tier(
    folder: Path,
    manifest: IndexManifest,
    config: IndexTierConfig,
    encode_texts: EncodeTexts,
    *,
    base: Path | None = None,
) -> IndexManifest:
    """Add the approximate file to a new index, if its size requires one; returns the manifest.

    encode_texts: called only to measure. With kind auto, an index stays exact, with a warning, if FAISS is missing or
    the recall is below config.min_recall_at_10; with another kind that raises ConfigError or QualityError. base: see
    `write_manifest`. Raises StorageError. The caller makes the folder whole or absent.
    """
    tier = tier_for(manifest.count, manifest.embedding_dim, config)
    if tier.parameters is None:
        return manifest
    rows = f"index of {manifest.count:,} rows"
    try:
        if tier.memory_mb > config.memory_budget_mb:
            logger.warning(
                "%s: its %s file takes %.0f MB, memory_budget_mb is %d; searches may wait for the disk",
                *(rows, tier.kind, tier.memory_mb, config.memory_budget_mb),
            )
        index = VectorIndex.open(folder, verify=False)
        whole = _built(index, tier.parameters, config, encode_texts)
    except (ConfigError, QualityError) as error:
        (folder / APPROXIMATE).unlink(missing_ok=True)
        if config.kind != "auto":
            raise
        logger.warning("%s stays exact: %s", rows, error)
        return manifest
    write_manifest(folder, whole, base=base)
    return whole


def texts_encoder(bundle: Bundle) -> EncodeTexts:
    """A function that encodes texts, in order, with a bundle's text tower."""
    return lambda texts: OnnxEncoder(bundle, device="cpu").encode_text(texts)


def recall_at_10(found: Neighbours, best: Neighbours) -> float:
    """Share of the 10 nearest that are found, mean over queries; a row that scores like the tenth is."""
    return float(np.mean(found.scores >= best.scores[:, -1:] - _EQUAL_SCORE))


def _built(
    index: VectorIndex, parameters: Hnsw | IvfPq, config: IndexTierConfig, encode_texts: EncodeTexts
) -> IndexManifest:
    """Write the file and choose the least sufficient effort. Raises QualityError."""
    manifest, path = index.manifest, index.path / APPROXIMATE
    logger.info("building %s of %s rows", parameters, f"{manifest.count:,}")
    write_approximate(path, index.vectors, parameters, seed=config.seed, threads=config.build_threads)
    texts = measuring_texts(index.items, config.measured_texts, seed=config.seed)
    chosen, recall = _tuned(index, parameters, config, encode_texts(texts.texts))
    if recall < config.min_recall_at_10:
        raise QualityError(
            f"{chosen.kind} finds {recall:.1%} of the 10 nearest images of a text, min_recall_at_10 is "
            f"{config.min_recall_at_10:.1%}; give it more links or pq_bytes, or keep the index exact"
        )
    facts = ApproximateFacts(
        parameters=chosen,
        recall_at_10=round(recall, 4),
        texts=texts.source,
        n_texts=len(texts.texts),
        made_by=library_version(),
    )
    return manifest.model_copy(
        update={
            "kind": chosen.kind,
            "approximate": facts,
            "files_sha256": {**manifest.files_sha256, APPROXIMATE: sha256_of_file(path)},
        }
    )


def _tuned(
    index: VectorIndex, parameters: Hnsw | IvfPq, config: IndexTierConfig, queries: Vectors
) -> tuple[Hnsw | IvfPq, float]:
    """The least effort that reaches the required recall, else the best one, and its recall.

    Efforts that cost as much as a pass over all rows are not tried: the search would be that pass.
    """
    manifest, reach = index.manifest, reach_for(_K)
    assert reach is not None, "there is a reach for 10 hits"
    best = exact.stacked(exact.nearest(index.vectors, queries, _K, [None] * len(queries)))
    opened = Approximate.open(index.path / APPROXIMATE, parameters, count=manifest.count, dim=manifest.embedding_dim)
    tried: list[tuple[Hnsw | IvfPq, float]] = []
    for each in efforts(parameters):
        if tried and exact_is_cheaper(each, reach, allowed=manifest.count, count=manifest.count):
            break
        approximate = replace(opened, parameters=each)
        searched = VectorIndex(index.path, manifest, index.vectors, index.items, approximate=approximate)
        tried.append((each, recall_at_10(searched.search(queries, _K), best)))
        if tried[-1][1] >= config.min_recall_at_10:
            return tried[-1]
    return max(tried, key=lambda one: one[1])


def measuring_texts(items: pa.Table, n: int, *, seed: int = 0) -> MeasuringTexts:
    """Up to n captions of an index's items; generated sentences if there are fewer than n / 2.

    Texts, not images: image and text vectors are in different regions, so an index that finds an image's neighbours
    may still miss those of a text. Captions resemble queries, and few of them match an image exactly. At most 288
    sentences.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(items.num_rows, min(_ROWS_A_TEXT * n, items.num_rows), replace=False))
    drawn = items["captions"].take(number_array(rows, pa.int64()))
    captions = [several[0] for several in drawn.to_pylist() if several]
    distinct = list(dict.fromkeys(caption for caption in captions if caption.strip()))
    if len(distinct) >= min(n, items.num_rows) / 2:
        return MeasuringTexts(_drawn(distinct, n, rng), "captions")
    return MeasuringTexts(
        _drawn([" ".join(parts) for parts in itertools.product(_WHO, _DOES, _WHERE)], n, rng), "sentences"
    )


def _drawn(texts: list[str], n: int, rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(texts[place] for place in rng.permutation(len(texts))[:n])

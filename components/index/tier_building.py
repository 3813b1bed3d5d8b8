"""Tier building: gives an index that is being written the approximate file it needs, and measures it with texts."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import IndexTierConfig
from image_finder.components.errors import ConfigError, QualityError
from image_finder.components.index import exact
from image_finder.components.index.approximate import Approximate, is_installed, library_version, write_approximate
from image_finder.components.index.exact import Neighbours
from image_finder.components.index.index import (
    APPROXIMATE,
    ApproximateFacts,
    IndexManifest,
    VectorIndex,
    write_manifest,
)
from image_finder.components.index.measuring_queries import MeasuringTexts, measuring_texts
from image_finder.components.index.tiers import Hnsw, IvfPq, efforts, exact_is_cheaper, reach_for, tier_for
from image_finder.components.storage import sha256_of_file

logger = logging.getLogger(__name__)

_K = 10
# Float32 sums differ by the order in which they are taken, some 1e-7; a row that scores as the tenth best does is as good.
_EQUAL_SCORE = 1e-6

EncodeTexts = Callable[[tuple[str, ...]], Vectors]


def add_tier(
    folder: Path, manifest: IndexManifest, config: IndexTierConfig, encode_texts: EncodeTexts
) -> IndexManifest:
    """Bring the index in a folder, as write_index left it, to the tier of its size; what its manifest then says.

    encode_texts: unit vectors, (n, dim), of texts; asked only if there is something to measure. An index that is to be
    exact is left as it is. Kind auto never fails for the tier's sake: what cannot be built here (no FAISS) or misses
    config.min_recall_at_10 stays exact, with a warning. A kind that was named raises ConfigError and QualityError
    instead. Raises StorageError. The caller makes the folder whole or absent.
    """
    tier = tier_for(manifest.count, manifest.embedding_dim, config)
    if tier.parameters is None:
        return manifest
    rows = f"index of {manifest.count:,} rows"
    try:
        if not is_installed():
            raise ConfigError("FAISS is not installed: pip install 'text-guided-image-finder[faiss]'")
        if tier.memory_mb > config.memory_budget_mb:
            logger.warning(
                "%s: its %s file takes %.0f MB, memory_budget_mb is %d; a search may wait for the disk",
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
    write_manifest(folder, whole)
    return whole


def texts_encoder(bundle: Bundle, *, threads: int = 0) -> EncodeTexts:
    """Encodes texts with a bundle's text tower, which is opened at the first call; rows follow the texts."""

    def encode(texts: tuple[str, ...]) -> Vectors:
        return OnnxEncoder(bundle, device="cpu", threads=threads).encode_text(texts)

    return encode


def recall_at_10(found: Neighbours, best: Neighbours) -> float:
    """Share of the 10 nearest that are found, mean over queries; one that scores as the tenth does counts."""
    return float(np.mean(found.scores >= best.scores[:, -1:] - _EQUAL_SCORE))


def _built(
    index: VectorIndex, parameters: Hnsw | IvfPq, config: IndexTierConfig, encode_texts: EncodeTexts
) -> IndexManifest:
    """Write the file, and choose the least effort with which it finds enough. Raises QualityError."""
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
    return manifest.model_copy(
        update={
            "kind": chosen.kind,
            "approximate": _facts(chosen, recall, texts),
            "files_sha256": {**manifest.files_sha256, APPROXIMATE: sha256_of_file(path)},
        }
    )


def _tuned(
    index: VectorIndex, parameters: Hnsw | IvfPq, config: IndexTierConfig, queries: Vectors
) -> tuple[Hnsw | IvfPq, float]:
    """The least effort that reaches the recall, or the one that comes nearest, and its recall.

    None that costs as much as a pass over all rows: it finds everything, for it is that pass, and the file were no use.
    """
    manifest, reach = index.manifest, reach_for(_K)
    assert reach is not None, "so few candidates are always named"
    best = exact.stacked(exact.nearest(index.vectors, queries, _K, [None] * len(queries)))
    opened = Approximate.open(index.path / APPROXIMATE, parameters, count=manifest.count, dim=manifest.embedding_dim)
    tried: list[tuple[Hnsw | IvfPq, float]] = []
    for each in efforts(parameters):
        if tried and exact_is_cheaper(each, reach, allowed=manifest.count, count=manifest.count):
            break
        approximate = opened.with_parameters(each)
        searched = VectorIndex(index.path, manifest, index.vectors, index.items, approximate=approximate)
        tried.append((each, recall_at_10(searched.search(queries, _K), best)))
        if tried[-1][1] >= config.min_recall_at_10:
            return tried[-1]
    return max(tried, key=lambda one: one[1])


def _facts(parameters: Hnsw | IvfPq, recall: float, texts: MeasuringTexts) -> ApproximateFacts:
    return ApproximateFacts(
        parameters=parameters,
        recall_at_10=round(recall, 4),
        texts=texts.source,
        n_texts=len(texts.texts),
        made_by=library_version(),
    )

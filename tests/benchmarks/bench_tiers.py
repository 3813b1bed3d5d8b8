"""Index tiers at a million vectors: build time, size, memory, query time and recall with texts; larger sizes on paper.

    python -m tests.benchmarks.bench_tiers BUNDLE IMAGES [--count 1000000] [--sample 4000] [--texts 500] [--queries 50]
                                           [--set links=16 ef_construction=80 nprobe=16 ...] [--paper]

IMAGES: captioned images in COCO layout (annotations/captions_*.json beside the directories of images).
Data: the bundle's vectors of --sample images and of as many captions. The gallery is drawn from the images'
distribution by a smoothed bootstrap (Silverman 1986, section 6.4.3): a real vector is drawn, moved towards the mean
by sqrt(1 - h^2), and h times noise of the sample's covariance is added. Mean and covariance stay those of the sample;
the smaller h, the more of its structure remains. h is chosen so that synthetic and real vectors of the same number
have the same median cosine to their nearest neighbour; further cosines are printed for both. Rows are normalised.
Seed 0.
All tiers answer the same searches: real captions that neither fitted nor tuned anything. A tier is tuned with
synthetic captions, like a library without captions; its own figure is printed below the table. Times are medians over
single queries of a fresh process that opened the index, after a warm-up round; the page cache is warm. Memory is that
of the process: anonymous, and mapped files that were read, which the system can reclaim. Everything runs with the
given number of threads (OMP_NUM_THREADS).
On paper: bytes by components/index/tiers.py; embedding by the measured images per second.
"""

import argparse
import itertools
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.annotated_images import captions_by_image
from image_finder.components.captions.layout import detect_layout
from image_finder.components.configs import EmbeddingConfig, IndexTierConfig
from image_finder.components.index.format import (
    FORMAT_VERSION,
    ITEM_SCHEMA,
    ITEMS,
    MANIFEST,
    VECTORS,
    IndexManifest,
    write_index,
)
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.tier_building import EncodeTexts, add_tier, texts_encoder
from image_finder.components.index.tiers import tier_for
from image_finder.components.index.vector_cache import cache_vectors, cached_vectors, throughput_encoder, vector_cache
from tests.benchmarks.measuring import seconds_of, show

K = 10
BLOCK = 50_000
KINDS = ("exact", "hnsw", "ivfpq")
SHARES = (0.5, 0.1, 0.01)


class Real(NamedTuple):
    """images, texts: (n, dim) unit rows, one text per image; per_s: images embedded per second."""

    images: Vectors
    texts: Vectors
    per_s: float


# Data


def real_vectors(bundle: Bundle, root: Path, sample: int) -> Real:
    items = []
    for file in itertools.chain.from_iterable(detect_layout(root).parts.values()):
        folder = root / file.images
        found = captions_by_image(root / file.annotations, folder)
        items += [(folder / path, texts[0]) for path, texts in found.items() if texts]
    order = np.random.default_rng(0).permutation(len(items))[:sample]
    files, texts = [items[n][0] for n in order], [items[n][1] for n in order]
    config = EmbeddingConfig(device="cpu")
    with tempfile.TemporaryDirectory() as temporary:
        cache = vector_cache(bundle, Path(temporary))
        started = time.perf_counter()
        cached = cache_vectors(throughput_encoder(bundle, config), files, cache, config)
        per_s = len(files) / (time.perf_counter() - started)
        images = cached_vectors(cache, [cached.keys[path] for path in files])[0]
    return Real(images, OnnxEncoder(bundle, device="cpu").encode_text(texts), per_s)


class Synthetic:
    """Draws vectors like real ones.

    smoothing: h, from 0 (copies of the sample) to 1 (a normal distribution).
    """

    def __init__(self, real: Vectors, smoothing: float) -> None:
        self._mean = real.mean(axis=0)
        self._centred = (real - self._mean) * np.float32(math.sqrt(1 - smoothing**2))
        values, axes = np.linalg.eigh(np.cov(real.T))
        self._root = (axes * np.sqrt(np.maximum(values, 0)) * smoothing).T.astype(np.float32)

    def draw(self, n: int, rng: np.random.Generator) -> Vectors:
        noise = rng.standard_normal((n, len(self._mean)), dtype=np.float32) @ self._root
        rows = self._mean + self._centred[rng.integers(0, len(self._centred), n)] + noise
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nearest_cosine(vectors: Vectors) -> float:
    """Median cosine of a vector to the nearest other one."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return float(np.median(cosines.max(axis=1)))


def fitted(real: Vectors) -> tuple[Synthetic, float]:
    """Find the smoothing by bisection: it moves synthetic vectors apart."""
    target, low, high = nearest_cosine(real), 0.0, 1.0
    for _ in range(12):
        smoothing = (low + high) / 2
        drawn = Synthetic(real, smoothing).draw(len(real), np.random.default_rng(1))
        low, high = (smoothing, high) if nearest_cosine(drawn) > target else (low, smoothing)
    return Synthetic(real, smoothing), smoothing


def show_similarity(real: Real, synthetic: Synthetic, smoothing: float) -> None:
    """Print how similar synthetic and real images are to texts and to each other."""
    drawn = synthetic.draw(len(real.images), np.random.default_rng(2))
    rows: list[tuple[object, ...]] = [("median cosine", "real", "synthetic")]
    for name, measure in (
        ("image to its nearest other image", nearest_cosine),
        ("two images", lambda them: float(np.median(them[: len(them) // 2] @ them[len(them) // 2 :].T))),
        ("text to its nearest image", lambda them: float(np.median((real.texts @ them.T).max(axis=1)))),
        ("text to its tenth image", lambda them: float(np.median(np.sort(real.texts @ them.T, axis=1)[:, -10]))),
        ("text and image", lambda them: float(np.median(real.texts @ them.T))),
    ):
        rows.append((name, measure(real.images), measure(drawn)))
    show(rows, f"{len(drawn):,} images and texts, h = {smoothing:.2f}")


# Indexes


def write_exact(folder: Path, bundle: Bundle, synthetic: Synthetic, count: int) -> IndexManifest:
    rng = np.random.default_rng(3)
    vectors = np.empty((count, bundle.manifest.embedding_dim), np.float32)
    for start in range(0, count, BLOCK):
        vectors[start : start + BLOCK] = synthetic.draw(min(BLOCK, count - start), rng)
    manifest = IndexManifest(
        format_version=FORMAT_VERSION,
        kind="exact",
        count=count,
        embedding_dim=vectors.shape[1],
        bundle_sha256=bundle.sha256,
        bundle_uri=str(bundle.path),
        gallery="synthetic",
        roots=("/images",),
        failed={},
        self_check=None,
        files_sha256={},
    )
    folder.mkdir()
    return write_index(folder, vectors, plain_items(count), manifest)


def plain_items(count: int) -> pa.Table:
    """Items of images without EXIF and captions, as a library stores them."""
    rng = np.random.default_rng(4)
    paths = [f"{n // 1000:06d}/{n:012d}.jpg" for n in range(count)]
    values = {
        "id": [f"{n:016x}" for n in range(count)],
        "root": np.zeros(count, np.int16),
        "path": [path.encode() for path in paths],
        "folder": [f"images/{path[:6]}" for path in paths],
        "name": [path[7:] for path in paths],
        "sha256": [rng.bytes(32).hex() for _ in range(count)],
        "dhash": rng.integers(0, 1 << 63, count, np.uint64),
        "bytes": rng.integers(50_000, 300_000, count),
        "width_px": np.full(count, 640, np.int32),
        "height_px": np.full(count, 480, np.int32),
        "captions": [[]] * count,
        "modified_at": rng.integers(1_500_000_000, 1_700_000_000, count).astype("datetime64[s]"),
        "camera": [""] * count,
    }
    nothing = pa.nulls(count)
    return pa.table({field.name: values.get(field.name, nothing) for field in ITEM_SCHEMA}).cast(ITEM_SCHEMA)


def build(folder: Path, source: Path, manifest: IndexManifest, config: IndexTierConfig, encode: EncodeTexts) -> float:
    """Seconds to add a tier to a copy of the exact index, including the measurement of recall."""
    folder.mkdir()
    for name in (VECTORS, ITEMS, MANIFEST):
        os.link(source / name, folder / name)
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    (folder / MANIFEST).unlink()  # a hard link would be written through
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return seconds_of(lambda: add_tier(folder, manifest, config, encode))


# A process that searches


def memory_mb() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return {
        key: int(value.split()[0]) / 1e3
        for key, _, value in (line.partition(":") for line in lines)
        if key[:3] == "Rss"
    }


def search_from(folder: Path, queries_path: Path) -> None:
    """Measure in a fresh process: print JSON, and write the scores into the index's directory."""
    logging.disable(logging.WARNING)
    queries, before = np.load(queries_path), memory_mb()
    opened: list[VectorIndex] = []
    opening = seconds_of(lambda: opened.append(VectorIndex.open(folder)))
    index, after = opened[0], memory_mb()
    assert (index.approximate is None) == (index.manifest.kind == "exact")
    texts, images = queries["texts"], queries["images"]

    def ms(mask: np.ndarray | None, n: int) -> float:
        masks = [] if mask is None else [mask]
        for query in texts[:n]:
            index.search(query[None], K, allowed=masks)
        return 1e3 * median(seconds_of(partial(index.search, q[None], K, allowed=masks)) for q in texts[:n])

    n_timed = int(queries["timed"])
    single = ms(None, n_timed)
    grown = memory_mb()
    rng = np.random.default_rng(5)
    filtered = [ms(rng.random(index.manifest.count) < share, max(n_timed // 5, 5)) for share in SHARES]
    batch = 1e3 * seconds_of(lambda: index.search(texts[:100], K)) / 100
    found = {name: index.search(rows, K) for name, rows in (("texts", texts), ("images", images))}
    np.savez(folder / "found.npz", texts_scores=found["texts"].scores, images_scores=found["images"].scores)
    print(
        json.dumps(
            {
                "opening_s": opening,
                "items_mb": after["RssAnon"] - before["RssAnon"],
                "anonymous_mb": grown["RssAnon"],
                "mapped_mb": grown["RssFile"],
                "ms": single,
                "batch_ms": batch,
                "filtered_ms": filtered,
            }
        )
    )


def searched(folder: Path, queries: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_tiers", "--search-from", str(folder), str(queries)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def recall(folder: Path, best: Path, name: str) -> float:
    with np.load(folder / "found.npz") as found, np.load(best / "found.npz") as expected:
        key = f"{name}_scores"
        return float(np.mean(found[key] >= expected[key][:, -1:] - 1e-6))


# On paper


class Machine(NamedTuple):
    """Machine of a cluster: memory for indexes, and disk."""

    memory_gb: float = 48.0  # of 64
    disk_tb: float = 3.5  # of 4, NVMe


def show_paper(dim: int, items_bytes: float, per_s: float) -> None:
    machine = Machine()
    rows: list[tuple[object, ...]] = [
        (
            "images",
            "vectors.npy",
            "items",
            "hnsw",
            "ivfpq",
            "embedding here",
            "machines for 30 days",
            "shards",
            "rows a shard",
        )
    ]
    for count in (10**6, 10**8, 5 * 10**9):
        hnsw, ivfpq = (tier_for(count, dim, IndexTierConfig(kind=kind)).memory_mb for kind in ("hnsw", "ivfpq"))
        # A search process reads items completely; vectors and codes are mapped, and codes should stay in memory.
        memory_gb = ivfpq / 1e3 + count * items_bytes / 1e9
        disk_tb = count * (4 * dim + items_bytes) / 1e12 + ivfpq / 1e6
        shards = max(math.ceil(memory_gb / machine.memory_gb), math.ceil(disk_tb / machine.disk_tb))
        days = count / per_s / 86_400
        rows.append(
            (
                f"{count:,}",
                size(4 * dim * count),
                size(items_bytes * count),
                size(1e6 * hnsw),
                size(1e6 * ivfpq),
                f"{days:,.1f} days",
                f"{math.ceil(days / 30):,}",
                f"{shards:,}",
                f"{count // shards:,}",
            )
        )
    show(
        rows,
        f"\non paper: {dim} components, {items_bytes:.0f} bytes of items a row, {per_s:.0f} images/s per machine like this",
    )
    print(
        f"A shard contains the images assigned to it by id, with vectors.npy, items.parquet and approximate.faiss: "
        f"{machine.memory_gb:.0f} GB of memory for items and codes, {machine.disk_tb} TB of NVMe. A query goes to all "
        "shards; each answers its k best with exact scores, so merging by score gives the result of a single index."
    )


def size(n_bytes: float) -> str:
    return f"{n_bytes / 1e12:,.1f} TB" if n_bytes >= 1e12 else f"{n_bytes / 1e9:,.2f} GB"


# Command


def main() -> None:
    if sys.argv[1:2] == ["--search-from"]:
        search_from(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, metavar="IMAGES")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=4_000)
    parser.add_argument("--texts", type=int, default=500, help="queries for measuring recall")
    parser.add_argument("--queries", type=int, default=50, help="how many of these are timed")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of IndexTierConfig")
    parser.add_argument("--paper", action="store_true", help="only embed the sample and calculate")
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    real = real_vectors(bundle, options.images, options.sample)
    items_bytes = 0.0
    if not options.paper:
        with tempfile.TemporaryDirectory() as name:
            items_bytes = show_tiers(bundle, real, options, Path(name))
    show_paper(bundle.manifest.embedding_dim, items_bytes or 250.0, real.per_s)


def show_tiers(bundle: Bundle, real: Real, options: argparse.Namespace, work: Path) -> float:
    """Measure all tiers; returns the bytes of items.parquet per row."""
    held_out = options.texts
    synthetic, smoothing = fitted(real.images[held_out:])
    show_similarity(real, synthetic, smoothing)
    config = IndexTierConfig.parse(dict(each.split("=", 1) for each in options.set))
    queries = work / "queries.npz"
    images = synthetic.draw(held_out, np.random.default_rng(6))
    np.savez(queries, texts=real.texts[:held_out], images=images, timed=options.queries)
    started = time.perf_counter()
    manifest = write_exact(work / "exact", bundle, synthetic, options.count)
    seconds = {"exact": time.perf_counter() - started}
    columns = (
        *("tier", "build, s", "file, MB", "opening, s", "own memory, MB", "mapped, MB"),
        *("one query, ms", "of 100, ms each", *(f"filter allows {share:.0%}, ms" for share in SHARES)),
        *("recall@10, texts", "recall@10, images", "effort"),
    )
    rows: list[tuple[object, ...]] = [columns]
    for kind in KINDS:
        folder, effort = work / kind, ""
        if kind != "exact":
            named = config.model_copy(update={"kind": kind})
            seconds[kind] = build(folder, work / "exact", manifest, named, texts_encoder(bundle))
            facts = VectorIndex.open(folder, verify=False).manifest.approximate
            assert facts is not None
            effort = f"{facts.parameters!r}, {facts.recall_at_10:.3f} with {facts.n_texts} {facts.texts}"
        found = searched(folder, queries)
        file = VECTORS if kind == "exact" else "approximate.faiss"
        rows.append(
            (
                *(kind, seconds[kind], (folder / file).stat().st_size / 1e6),
                *(found[name] for name in ("opening_s", "anonymous_mb", "mapped_mb", "ms", "batch_ms")),
                *found["filtered_ms"],  # type: ignore[misc]
                *(recall(folder, work / "exact", name) for name in ("texts", "images")),
                effort,
            )
        )
    dim = bundle.manifest.embedding_dim
    show([row[:-1] for row in rows], f"\n{options.count:,} x {dim}, the {K} nearest, {os.cpu_count()} cores")
    for row in rows[2:]:
        print(f"{row[0]}: {row[-1]}")
    return (work / "exact" / ITEMS).stat().st_size / options.count


if __name__ == "__main__":
    main()

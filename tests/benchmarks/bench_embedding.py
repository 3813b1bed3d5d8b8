"""Images a second of indexing (read, hash, decode, embed, keep) against the bare rate of ONNX Runtime.

    python tests/benchmarks/bench_embedding.py BUNDLE IMAGES [--images 300] [--repeat 3] [--trunk]

Data: the images of a folder in their own size; few images are multiplied up to --images (a JPEG with bytes behind
its end is other content that takes as long to decode).
Floor: the graph alone on pixels already in memory, with ONNX Runtime's own defaults and all cores, in batches of 32.
Both rates are the best of --repeat interleaved runs, so that a busy machine blurs neither alone.
--trunk: the frozen trunk's features for training in place of a bundle's vectors, at the size of Lite0 (random weights:
as fast); BUNDLE is then only asked for its preprocessing. Needs the extra `pipeline`.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from measuring import show

from image_finder.components.bundle.bundle import IMAGE_ENCODER, Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.index.gallery import read_gallery
from image_finder.components.index.vector_cache import cache_vectors, throughput_encoder, vector_cache

BATCH = 32


class Rate(NamedTuple):
    per_s: float
    cpu_ms: float


class Ways(NamedTuple):
    """graph, output: what the floor runs. extract: the whole way from files to a new cache below a folder."""

    graph: Path
    output: str
    extract: Callable[[list[Path], Path], ContentCache]


def measured(n_images: int, work: Callable[[], object]) -> Rate:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    cpu_ms = 1e3 * (time.process_time() - cpu) / n_images
    return Rate(n_images / (time.perf_counter() - started), cpu_ms)


def bare_rate(graph: Path, output: str, pixels: np.ndarray) -> Rate:
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    session.run([output], {"pixels": batches[0]})
    return measured(len(pixels), lambda: [session.run([output], {"pixels": batch}) for batch in batches])


def whole_rate(paths: list[Path], extract: Callable[[list[Path], Path], ContentCache]) -> Rate:
    with tempfile.TemporaryDirectory() as folder:
        caches: list[ContentCache] = []
        rate = measured(len(paths), lambda: caches.append(extract(paths, Path(folder))))
        assert len(caches[0]) == len(paths)
    return rate


def bundle_ways(bundle: Bundle, config: EmbeddingConfig) -> Ways:
    encoder = throughput_encoder(bundle, config)

    def extract(paths: list[Path], folder: Path) -> ContentCache:
        cache = vector_cache(bundle, folder)
        cache_vectors(encoder, paths, cache, config)
        return cache

    return Ways(bundle.path / IMAGE_ENCODER, "embedding", extract)


def trunk_ways(config: EmbeddingConfig, folder: Path) -> Ways:
    from image_finder.components.configs import ModelConfig
    from image_finder.components.export.exporter import export_stem
    from image_finder.components.features.frozen_trunk import cache_stem_features, image_features_cache
    from image_finder.components.images.augmentation import View
    from image_finder.components.training.trainer import untrained

    assembled = untrained(ModelConfig(), 0)
    export_stem(assembled.model.image_tower.stem, folder / "stem.onnx", input_px=assembled.preprocess.input_px)

    def extract(paths: list[Path], place: Path) -> ContentCache:
        cache = image_features_cache(assembled, place)
        cache_stem_features(folder / "stem.onnx", View(assembled.preprocess, 0), paths, cache, config, title="")
        return cache

    return Ways(folder / "stem.onnx", "features", extract)


def multiplied(images: Path, count: int, folder: Path) -> list[Path]:
    gallery = read_gallery(GalleryConfig(root=images))
    files = [gallery.file_of(item) for item in gallery.items]
    paths = [folder / f"{n:06d}{files[n % len(files)].suffix}" for n in range(count)]
    for n, path in enumerate(paths):
        path.write_bytes(files[n % len(files)].read_bytes() + b"\0" * (n // len(files)))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, metavar="IMAGES")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--trunk", action="store_true")
    options = parser.parse_args()
    bundle, config = Bundle.open(options.bundle), EmbeddingConfig(device="cpu")
    preprocess = bundle.preprocess()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = multiplied(options.folder, options.images, folder)
        decoded: list[np.ndarray] = []
        decode = measured(len(paths), lambda: decoded.extend(preprocess.load(path) for path in paths))
        ways = trunk_ways(config, folder) if options.trunk else bundle_ways(bundle, config)
        pixels = np.stack(decoded)
        runs = [
            (bare_rate(ways.graph, ways.output, pixels), whole_rate(paths, ways.extract)) for _ in range(options.repeat)
        ]
    bare, whole = (max(rates) for rates in zip(*runs, strict=True))
    each = ", ".join(f"{second.per_s / first.per_s:.2f}" for first, second in runs)
    rows = [
        ("what", "images/s", "CPU ms an image"),
        ("decoding alone, one thread", decode.per_s, decode.cpu_ms),
        ("ONNX Runtime alone", bare.per_s, bare.cpu_ms),
        ("trunk features of files" if options.trunk else "vectors of files", whole.per_s, whole.cpu_ms),
    ]
    show(rows, f"{len(paths)} images, {os.cpu_count()} cores")
    print(f"ratio {whole.per_s / bare.per_s:.2f} (goal >= 0.80), of each run: {each}")


if __name__ == "__main__":
    main()

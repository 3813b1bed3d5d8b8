"""Pictures a second of embedding a gallery against the bare rate of ONNX Runtime on pictures already in memory.

python tests/benchmarks/bench_embedding.py BUNDLE PICTURES [--threads 0] [--batch 32] [--decode-threads 2] [--repeat 3]

Both rates are the best of --repeat interleaved runs, so that a busy machine blurs neither alone. --copies multiplies
small folders: a JPEG with bytes behind its end is other content that takes as long to decode.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.bundle import IMAGE_ENCODER, Bundle
from components.configs import EmbeddingConfig, GalleryConfig
from components.features.content_cache import ContentCache
from components.features.onnx_session import open_session
from components.search.embed import cache_vectors
from components.search.gallery import Gallery, read_gallery


class Rate(NamedTuple):
    per_s: float
    cpu_ms: float


def measured(n_pictures: int, work: Callable[[], object]) -> Rate:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    cpu_ms = 1e3 * (time.process_time() - cpu) / n_pictures
    return Rate(n_pictures / (time.perf_counter() - started), cpu_ms)


def bare_rate(bundle: Bundle, pixels: np.ndarray, config: EmbeddingConfig) -> Rate:
    session = open_session(bundle.path / IMAGE_ENCODER, device=config.device, threads=config.threads)
    session.run(["embedding"], {"pixels": pixels[: config.batch_images]})
    batches = [pixels[start : start + config.batch_images] for start in range(0, len(pixels), config.batch_images)]
    return measured(len(pixels), lambda: [session.run(["embedding"], {"pixels": batch}) for batch in batches])


def embedding_rate(bundle: Bundle, paths: list[Path], config: EmbeddingConfig) -> Rate:
    with tempfile.TemporaryDirectory() as folder:
        cache = ContentCache(Path(folder) / "c", width=bundle.manifest.embedding_dim, dtype="float32", maker="bench")
        rate = measured(len(paths), lambda: cache_vectors(bundle, paths, cache, config))
        assert len(cache) == len(paths)
    return rate


def copied(gallery: Gallery, copies: int, folder: Path) -> list[Path]:
    paths = []
    for copy in range(copies):
        for item in gallery.items:
            paths.append(folder / f"{copy}-{item.path.name}")
            paths[-1].write_bytes(item.path.read_bytes() + b"\0" * copy)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch", type=int, default=EmbeddingConfig().batch_images)
    parser.add_argument("--decode-threads", type=int, default=EmbeddingConfig().decode_threads)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--copies", type=int, default=3)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    gallery = read_gallery(GalleryConfig(root=options.pictures))
    config = EmbeddingConfig(
        batch_images=options.batch, threads=options.threads, decode_threads=options.decode_threads, device="cpu"
    )
    preprocess = bundle.preprocess()
    with tempfile.TemporaryDirectory() as folder:
        paths = copied(gallery, options.copies, Path(folder))
        decoded: list[np.ndarray] = []
        decode = measured(len(paths), lambda: decoded.extend(preprocess.load(path) for path in paths))
        pixels = np.stack(decoded)
        runs = [
            (bare_rate(bundle, pixels, config), embedding_rate(bundle, paths, config)) for _ in range(options.repeat)
        ]
    bare, embedding = (max(rates) for rates in zip(*runs, strict=True))
    result = {
        "pictures": len(paths),
        "decode_cpu_ms": round(decode.cpu_ms, 2),
        "bare_per_s": round(bare.per_s, 1),
        "bare_cpu_ms": round(bare.cpu_ms, 2),
        "embedding_per_s": round(embedding.per_s, 1),
        "embedding_cpu_ms": round(embedding.cpu_ms, 2),
        "ratio": round(embedding.per_s / bare.per_s, 3),
        "ratio_of_each_run": [round(second.per_s / first.per_s, 3) for first, second in runs],
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

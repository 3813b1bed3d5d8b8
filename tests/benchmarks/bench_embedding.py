"""Images per second of indexing (read, hash, decode, embed, cache) against the bare rate of ONNX Runtime.

    python -m tests.benchmarks.bench_embedding BUNDLE IMAGES [--images 300] [--repeat 3] [--trunk | --beside OTHER]

Data: the images of a directory in original size, multiplied up to --images (a JPEG with extra bytes at its end is
different content that takes as long to decode).
Floor: the graph alone on pixels in memory, with the defaults of ONNX Runtime and all cores, in batches of 32. Both
rates are the best of --repeat interleaved runs, so that a busy machine affects both.
--trunk: features of the frozen trunk for training instead of a bundle's vectors, at the size of Lite0 (random weights
are as fast); BUNDLE then provides only the preprocessing. Needs the extra `pipeline`.
--beside: another bundle, measured in turn with the first; prints the ratio of their rates.
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

from image_finder.components.bundle.bundle import IMAGE_ENCODER, Bundle
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.files import find_images
from image_finder.components.index.vector_cache import cache_vectors, throughput_encoder, vector_cache
from tests.benchmarks.measuring import show

BATCH = 32


class Rate(NamedTuple):
    per_s: float
    cpu_ms: float


class Method(NamedTuple):
    """graph, output: run by the floor.

    extract: everything from files to a new cache below a directory.
    """

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


def bundle_method(bundle: Bundle, config: EmbeddingConfig) -> Method:
    encoder = throughput_encoder(bundle, config)

    def extract(paths: list[Path], folder: Path) -> ContentCache:
        cache = vector_cache(bundle, folder)
        cache_vectors(encoder, paths, cache, config)
        return cache

    return Method(bundle.path / IMAGE_ENCODER, "embedding", extract)


def trunk_method(config: EmbeddingConfig, folder: Path) -> Method:
    from image_finder.components.configs import ModelConfig
    from image_finder.components.encoders.onnx_graph import export_stem
    from image_finder.components.features.frozen_trunk import cache_stem_features, image_features_cache
    from image_finder.components.images.augmentation import View
    from image_finder.components.training.trainer import untrained

    assembled = untrained(ModelConfig(), 0)
    export_stem(assembled.model.image_tower.stem, folder / "stem.onnx", input_px=assembled.preprocess.input_px)

    def extract(paths: list[Path], folder: Path) -> ContentCache:
        cache = image_features_cache(assembled, folder)
        cache_stem_features(folder / "stem.onnx", View(assembled.preprocess, 0), paths, cache, config, title="")
        return cache

    return Method(folder / "stem.onnx", "features", extract)


def multiplied(images: Path, count: int, folder: Path) -> list[Path]:
    files = [images / path for path in find_images(images)]
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
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--trunk", action="store_true")
    either.add_argument("--beside", type=Path, metavar="OTHER")
    options = parser.parse_args()
    bundle, config = Bundle.open(options.bundle), EmbeddingConfig(device="cpu")
    preprocess = bundle.preprocess()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = multiplied(options.folder, options.images, folder)
        decoded: list[np.ndarray] = []
        decode = measured(len(paths), lambda: decoded.extend(preprocess.load(path) for path in paths))
        method = trunk_method(config, folder) if options.trunk else bundle_method(bundle, config)
        pixels = np.stack(decoded)
        beside = [bundle_method(Bundle.open(options.beside), config)] if options.beside else []
        runs, others = [], []
        for _ in range(options.repeat):
            runs.append((bare_rate(method.graph, method.output, pixels), whole_rate(paths, method.extract)))
            others.append([whole_rate(paths, other.extract) for other in beside])
    bare, whole = (max(rates) for rates in zip(*runs, strict=True))
    each = ", ".join(f"{second.per_s / first.per_s:.2f}" for first, second in runs)
    rows = [
        ("what", "images/s", "CPU ms per image"),
        ("decoding alone, one thread", decode.per_s, decode.cpu_ms),
        ("ONNX Runtime alone", bare.per_s, bare.cpu_ms),
        ("trunk features of files" if options.trunk else "vectors of files", whole.per_s, whole.cpu_ms),
    ]
    rows += [(f"vectors by {options.beside}", *max(rates)) for rates in zip(*others, strict=True)]
    show(rows, f"{len(paths)} images, {os.cpu_count()} cores")
    print(f"ratio {whole.per_s / bare.per_s:.2f} (goal >= 0.80), per run: {each}")
    for other in zip(*others, strict=True):
        each = ", ".join(f"{first.per_s / second.per_s:.2f}" for (_, first), second in zip(runs, other, strict=True))
        print(f"ratio to {options.beside} {whole.per_s / max(other).per_s:.2f}, per run: {each}")


if __name__ == "__main__":
    main()

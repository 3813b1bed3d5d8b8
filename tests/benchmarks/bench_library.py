"""Time and memory of whole `image-finder index` commands: nothing to do, one changed file, new photographs.

    python -m tests.benchmarks.bench_library BUNDLE IMAGES [--unchanged 10000] [--library 100000] [--photos 1500]
                                             [--memory 1000 5000] [--repeat 3]

Data: different tiny JPEGs (16 px) whose vectors, random ones of seed 0, are put into the library's cache before they
are first indexed, because nothing here depends on them; and photographs of IMAGES in original size, multiplied by
appending bytes. Files and library are in a temporary directory (TMPDIR); the page cache is warm. Each time is that of
a process from start to end, the median of --repeat. Floor of the photographs: ONNX Runtime alone on pixels in memory,
see bench_embedding.py; start, scan, index and publication of the command count against it.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image

from image_finder.components.bundle.bundle import IMAGE_ENCODER, Bundle
from image_finder.components.index.vector_cache import vector_cache
from image_finder.components.storage import sha256_of_bytes
from tests.benchmarks.bench_embedding import bare_rate, multiplied
from tests.benchmarks.measuring import show, unit_rows

FILES_A_FOLDER = 1000
ROWS_AT_ONCE = 10_000
RUN = """
import atexit, sys, time
sys.path.insert(0, {here!r})
from measuring import peak_mb
from image_finder.components.app.cli import main
from image_finder.components.library.partial import PartialPublisher
publish, spent = PartialPublisher.now, [0.0]
def timed(publisher):
    began = time.perf_counter()
    count = publish(publisher)
    spent[0] += time.perf_counter() - began
    return count
PartialPublisher.now = timed
atexit.register(lambda: print("PEAK", peak_mb(), spent[0], file=sys.stderr))
sys.argv = ["image-finder", *sys.argv[1:]]
main()
"""


class Run(NamedTuple):
    seconds: float  # from start to end
    peak_mb: float
    partial_s: float  # for publications while images are read


def index(library: Path, *arguments: object) -> Run:
    """Run the command."""
    code = RUN.format(here=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, "index", "--json", "--library", str(library), *map(str, arguments)]
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"image-finder index failed: {done.stderr.strip()[-500:]}")
    return Run(seconds, *map(float, done.stderr.split("PEAK ")[-1].split()))


def tiny_image(n: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (n % 256, 128, 64)).save(stream, "JPEG")
    return stream.getvalue()


def write_tiny(folder: Path, count: int) -> list[str]:
    """Write tiny images; returns their content hashes."""
    kinds, keys = [tiny_image(n) for n in range(256)], []
    for n in range(count):
        if n % FILES_A_FOLDER == 0:
            (folder / f"{n // FILES_A_FOLDER:04d}").mkdir(parents=True)
        content = kinds[n % 256] + n.to_bytes(4, "big")
        (folder / f"{n // FILES_A_FOLDER:04d}" / f"{n:06d}.jpg").write_bytes(content)
        keys.append(sha256_of_bytes(content))
    return keys


def prefill(library: Path, bundle: Bundle, keys: list[str]) -> None:
    """Put random vectors for these contents into the library's cache."""
    rng = np.random.default_rng(0)
    with vector_cache(bundle, library) as cache:
        for start in range(0, len(keys), ROWS_AT_ONCE):
            part = keys[start : start + ROWS_AT_ONCE]
            rows = np.zeros((len(part), 1, cache.width), np.float32)
            rows[:, 0, : bundle.manifest.embedding_dim] = unit_rows(rng, len(part), bundle.manifest.embedding_dim)
            rows[:, 0, bundle.manifest.embedding_dim :] = rng.integers(0, 1 << 16, (len(part), 4))
            cache.append(part, list(rows))


def filled(folder: Path, bundle: Bundle, count: int) -> tuple[Path, Path, Run]:
    """Index tiny images without embedding; returns library, image directory and the run."""
    library, images = folder / "library", folder / "images"
    library.mkdir(parents=True)
    prefill(library, bundle, write_tiny(images, count))
    time.sleep(2.1)  # newer files are read again next time: their modification time could still be ambiguous
    return library, images, index(library, images, "--bundle", bundle.path)


def change_one(images: Path, n: int) -> None:
    content = tiny_image(n) + b"changed" + os.urandom(8)
    (images / "0000" / f"{n:06d}.jpg").write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, metavar="IMAGES")
    parser.add_argument("--unchanged", type=int, default=10_000)
    parser.add_argument("--library", type=int, default=100_000)
    parser.add_argument("--photos", type=int, default=1500)
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 5000])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    rows: list[tuple[object, ...]] = [("what", "measured", "unit", "goal")]
    with tempfile.TemporaryDirectory() as name:
        library, _, first = filled(Path(name) / "unchanged", bundle, options.unchanged)
        times = [index(library).seconds for _ in range(options.repeat)]
        rows.append((f"{options.unchanged:,} new files, vectors known", first.seconds, "s", ""))
        rows.append((f"{options.unchanged:,} unchanged files", median(times), "s", "< 2"))
        library, images, first = filled(Path(name) / "changed", bundle, options.library)
        rows.append((f"{options.library:,} new files, vectors known", first.seconds, "s", ""))
        rows.append(("of this, publications while reading", 100 * first.partial_s / first.seconds, "%", "<= 3"))
        rows.append((f"{options.library:,} unchanged files", index(library).seconds, "s", ""))
        runs = []
        for n in range(options.repeat):
            change_one(images, n)
            runs.append(index(library))
        rows.append(
            (f"one changed among {options.library:,}, published", median(run.seconds for run in runs), "s", "< 3")
        )
        rows.append(("peak memory of this", max(run.peak_mb for run in runs), "MB", ""))
        rows += photographs(bundle, options, Path(name) / "photos")
        for count in options.memory:
            folder = Path(name) / f"memory{count}"
            folder.mkdir()
            multiplied(options.folder, count, folder)
            peak = index(folder / "library", folder, "--bundle", bundle.path).peak_mb
            rows.append((f"peak memory, {count:,} photographs", peak, "MB", "flat"))
    show(rows, f"{os.cpu_count()} cores")


def photographs(bundle: Bundle, options: argparse.Namespace, folder: Path) -> list[tuple[object, ...]]:
    """Rows of the table. Bare and whole runs alternate; ratios are of consecutive runs."""
    folder.mkdir()
    paths, preprocess = multiplied(options.folder, options.photos, folder), bundle.preprocess()
    pixels = np.stack([preprocess.load(path) for path in paths])
    bare, whole, inner, partial = [], [], [], []
    for number in range(options.repeat):
        bare.append(bare_rate(bundle.path / IMAGE_ENCODER, "embedding", pixels).per_s)
        library = folder.with_name(f"photos{number}.library")
        run = index(library, folder, "--bundle", bundle.path)
        partial.append(100 * run.partial_s / run.seconds)
        whole.append(len(paths) / run.seconds)
        inner.append(len(paths) / (run.seconds - index(library).seconds))
    return [
        ("ONNX Runtime alone", median(bare), "images/s", ""),
        (f"{len(paths):,} photographs, whole command", median(whole), "images/s", ""),
        ("ratio", median(w / b for w, b in zip(whole, bare, strict=True)), "x", ">= 0.80"),
        ("publications while reading", median(partial), "% of the time", "<= 3"),
        ("ratio without the time of an idle command", median(i / b for i, b in zip(inner, bare, strict=True)), "x", ""),
    ]


if __name__ == "__main__":
    main()

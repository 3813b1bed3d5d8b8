"""Images per second of the embedding engines `local` and `ray` on one machine, in one run, and the overhead of Ray.

    python -m tests.benchmarks.bench_ray BUNDLE IMAGES [--images 600] [--repeat 3]

Needs the extra `ray`. Data: the images of a directory in original size, multiplied up to --images (a JPEG with extra
bytes at its end is different content that takes as long to decode).
Each engine builds a whole index with an empty cache, from a third of the images and from all. The rate is that of the
other two thirds, which separates it from one-time costs (processes, graphs, self-check), given in seconds. Ray has an
actor of one CPU per core, the local engine its threads on the same cores. Memory is the peak over all processes (PSS:
shared pages are divided among the processes that share them).
"""

import argparse
import os
import statistics
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.index.index import VectorIndex
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.scaling.ray_embed import embedding_engine
from image_finder.components.scaling.ray_session import ray_session
from tests.benchmarks.bench_embedding import multiplied
from tests.benchmarks.measuring import seconds_of, show

CORES = len(os.sched_getaffinity(0))
CONFIGS = {
    "local": EmbeddingConfig(device="cpu"),
    "ray": EmbeddingConfig(device="cpu", engine="ray", ray_actors=CORES),
}
PEAK_EVERY_S = 0.5


class Run(NamedTuple):
    third_s: float
    whole_s: float

    def per_s(self, count: int) -> float:
        return (count - count // 3) / (self.whole_s - self.third_s)

    def once_s(self, count: int) -> float:
        return self.whole_s - count / self.per_s(count)


def index_of(bundle: Bundle, paths: list[Path], config: EmbeddingConfig, folder: Path) -> VectorIndex:
    (folder / "images").mkdir()
    for path in paths:
        os.link(path, folder / "images" / path.name)
    options = IndexOptions(
        config,
        bundle=bundle.path,
        galleries=[GalleryConfig(root=folder / "images")],
        engine=embedding_engine(config, cache_dir=folder / "cache"),
        self_check=True,
    )
    library = Library(folder / "library")
    update(library, [], options, warn=print)
    return VectorIndex.open(library.index)


def seconds_to_index(bundle: Bundle, paths: list[Path], config: EmbeddingConfig) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return seconds_of(lambda: index_of(bundle, paths, config, Path(folder)))


def start_and_stop() -> None:
    with ray_session("", cpus=CORES):
        pass


@contextmanager
def peak_of(found: list[float]):
    """Append the peak memory in MB of this process and its descendants."""
    ended, highest = threading.Event(), [0.0]

    def look() -> None:
        while not ended.wait(PEAK_EVERY_S):
            highest[0] = max(highest[0], sum(map(held_mb, family(os.getpid()))))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        found.append(highest[0])


def family(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
        except OSError:
            continue
    found, waiting = set(), [root]
    while waiting:
        found.add(waiting.pop())
        waiting += [child for member in list(found) for child in children.pop(member, [])]
    return found


def held_mb(pid: int) -> float:
    try:
        line = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if "Pss:" in line)
    except (OSError, StopIteration):
        return 0.0
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, metavar="IMAGES")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    runs: dict[str, list[Run]] = {name: [] for name in CONFIGS}
    peaks: dict[str, list[float]] = {name: [] for name in CONFIGS}
    with tempfile.TemporaryDirectory() as name:
        paths = multiplied(options.folder, options.images, Path(name))
        for _ in range(options.repeat):
            for engine, config in CONFIGS.items():
                third_s = seconds_to_index(bundle, paths[: len(paths) // 3], config)
                with peak_of(peaks[engine]):
                    runs[engine].append(Run(third_s, seconds_to_index(bundle, paths, config)))
        starts = [seconds_of(start_and_stop) for _ in range(options.repeat)]
        vectors = []
        for engine, config in CONFIGS.items():
            vectors.append(np.array(index_of(bundle, paths, config, Path(name, engine)).vectors))
    rates = {engine: [run.per_s(len(paths)) for run in of_engine] for engine, of_engine in runs.items()}
    rows: list[tuple[object, ...]] = [("engine", "images/s", "one-time s", "total s", "peak MB")]
    for engine, of_engine in runs.items():
        once = statistics.median(run.once_s(len(paths)) for run in of_engine)
        whole = statistics.median(run.whole_s for run in of_engine)
        rows.append((engine, statistics.median(rates[engine]), once, whole, max(peaks[engine])))
    show(rows, f"{len(paths)} images, {CORES} cores, medians of {options.repeat}")
    ratios = [ray / local for local, ray in zip(rates["local"], rates["ray"], strict=True)]
    print(f"ray / local {statistics.median(ratios):.2f}, per run: {', '.join(f'{each:.2f}' for each in ratios)}")
    print(f"starting and stopping Ray: {statistics.median(starts):.1f} s")
    worst = float(np.abs(vectors[0] - vectors[1]).max())
    print(
        f"largest difference of a vector's component: {worst:.3g} ({'equal to the bit' if worst == 0 else 'rounding'})"
    )


if __name__ == "__main__":
    main()

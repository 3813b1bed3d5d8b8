"""Our encoder and exact search beside other tools, in one run on one machine; pip install -e '.[bench]' installs them.

    python -m tests.benchmarks.bench_peers BUNDLE IMAGES [--images 128] [--count 118287] [--queries 20] [--rounds 3]

Data: the images of a directory, multiplied; random unit vectors of the bundle's dimension near a plane of 32
dimensions (seed 0), and queries likewise (seeds 1 and 2). Vectors that are random in all dimensions would put
approximate indexes at a disadvantage and make no difference to exact ones. open_clip has random weights, because its
trained ones come from a hub: as fast, but useless for searching. Weights and vectors are float32. Tools are timed
alternately, at the batch size of their calls; the median counts. Recall is the share of the true 10 nearest (float64)
among the 10 answers. Tools that are not installed are listed as such.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.index.index import VectorIndex
from tests.benchmarks.bench_embedding import multiplied
from tests.benchmarks.measuring import COCO_TRAIN, seconds_of, show, unit_rows_near_plane, write_random_index
from tests.benchmarks.peers import (
    BATCH,
    LACKS,
    OPEN_CLIP,
    PEERS,
    Calls,
    K,
    Search,
    encoder_calls,
    installed,
    numpy_search,
    peer_search,
)


def searches(bundle: Bundle, count: int, folder: Path, skip: list[str]) -> tuple[dict[str, Search], dict[str, float]]:
    """Searches by name, and the seconds to build each."""
    vectors = write_random_index(
        folder / "index", bundle, count, vectors=unit_rows_near_plane(0, count, bundle.manifest.embedding_dim)
    )
    ours: list[VectorIndex] = []
    builds = {"ours": seconds_of(lambda: ours.append(VectorIndex.open(folder / "index"))), "numpy": 0.0}
    found: dict[str, Search] = {"ours": lambda queries: ours[0].search(queries, K).rows, "numpy": numpy_search(vectors)}
    for peer in PEERS:
        if peer != OPEN_CLIP and peer not in skip and installed(peer):
            started = time.perf_counter()
            found[peer] = peer_search(peer, vectors)
            builds[peer] = time.perf_counter() - started
    return found, builds


def alternately(calls: Calls, rounds: int) -> dict[str, float]:
    """Median seconds of each call after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            seconds = seconds_of(call)
            times[name] += [seconds] if number else []
    return {name: median(seconds) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, metavar="IMAGES")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--count", type=int, default=COCO_TRAIN)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=list(PEERS), help="tools to skip; the table lists them"
    )
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    absent = {
        peer: "skipped" if peer in options.skip else "not installed"
        for peer in PEERS
        if peer in options.skip or not installed(peer)
    }
    with tempfile.TemporaryDirectory() as name:
        show_encoders(bundle, multiplied(options.folder, options.images, Path(name)), options, absent, Path(name))
        show_searches(bundle, options, Path(name), absent)


def show_encoders(
    bundle: Bundle, paths: list[Path], options: argparse.Namespace, absent: dict[str, str], folder: Path
) -> None:
    images, texts = encoder_calls(bundle, paths, folder)
    per_s = {name: len(paths) / seconds for name, seconds in alternately(images, options.rounds).items()}
    text_ms = {name: 1e3 * seconds for name, seconds in alternately(texts, 10 * options.rounds).items()}
    rows: list[tuple[object, ...]] = [("encoder", "images/s", "one text, ms", "lacks")]
    rows += [(name, f"{per_s[name]:.1f}", f"{text_ms[name]:.1f}", LACKS[name]) for name in per_s]
    rows += [(OPEN_CLIP, absent[OPEN_CLIP], "", LACKS[OPEN_CLIP])] if OPEN_CLIP in absent else []
    show(rows, f"{bundle.manifest.image_trunk} and ViT-B/32, batches of {BATCH}, {os.cpu_count()} cores")


def _one_by_one(search: Search, queries: np.ndarray) -> list[np.ndarray]:
    return [search(query[None]) for query in queries]


def show_searches(bundle: Bundle, options: argparse.Namespace, folder: Path, absent: dict[str, str]) -> None:
    found, builds = searches(bundle, options.count, folder, options.skip)
    dim = bundle.manifest.embedding_dim
    queries = unit_rows_near_plane(1, options.queries, dim)
    hundred = unit_rows_near_plane(2, 100, dim)
    one = alternately({f: partial(_one_by_one, s, queries) for f, s in found.items()}, options.rounds)
    many = alternately({f: partial(s, hundred) for f, s in found.items()}, options.rounds)
    vectors = np.load(folder / "index" / "vectors.npy", mmap_mode="r")
    true = np.argsort(-(queries.astype(np.float64) @ vectors.T), axis=1)[:, :K]
    rows: list[tuple[object, ...]] = [("search", "one query, ms", "of 100, ms each", "build, s", "recall@10", "lacks")]
    for name, search in found.items():
        rows_found = np.concatenate([search(query[None]) for query in queries])
        recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(true.tolist(), rows_found.tolist(), strict=True)])
        figures = (1e3 * one[name] / len(queries), 10 * many[name], builds[name], float(recall))
        rows.append((name, *(f"{figure:.3g}" for figure in figures), LACKS[name]))
    rows += [(peer, why, "", "", "", LACKS[peer]) for peer, why in absent.items() if peer != OPEN_CLIP]
    show(rows, f"\n{options.count:,} x {dim} vectors, the {K} nearest")


if __name__ == "__main__":
    main()

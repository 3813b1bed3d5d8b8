"""Time and memory of the search engine against the minimum: one encoded text and one pass over the vectors.

    python -m tests.benchmarks.bench_search BUNDLE [--count 118287] [--rounds 5] [--queries 20] [--threads 0]

Data: random unit vectors of the bundle's dimension (seed 0), written as a real index with items like COCO's, and
queries of 6 to 13 words; the page cache is warm.
Floor of one query: the median time of encoding one text, plus the bytes of the vectors divided by the read rate.
Encoding is timed repeatedly, and once more after a pass over the vectors, which evicts the encoder from the
processor's caches as the previous query does. The read rate is that of the fastest of three ways to read all vectors
with all cores: one matrix-vector product of BLAS, or one thread per core that sums its part or takes its maximum. The
most that a batch of 100 can gain: this floor against the text encoder's time in batches plus one bare matrix product,
both per query.
Parts are timed alternately. A time is the median of the rounds' medians, a ratio the median of the rounds' ratios, so
that other programs affect both sides alike. Memory is that of a fresh process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.query import Query
from tests.benchmarks.measuring import COCO_TRAIN, peak_mb, seconds_of, sentences, show, write_random_index

BATCH = 100


def fastest_pass(vectors: np.ndarray, query: np.ndarray, pool: ThreadPoolExecutor, cores: int) -> Callable[[], object]:
    """The fastest of three ways to read all vectors."""
    parts = np.array_split(vectors.reshape(-1), cores)
    passes = (
        lambda: vectors @ query,
        lambda: list(pool.map(np.max, parts)),
        lambda: list(pool.map(np.sum, parts)),
    )
    return min(passes, key=lambda one: min(seconds_of(one) for _ in range(10)))


def after(read: Callable[[], object], work: Callable[[list[str]], object], texts: list[str]) -> float:
    """Seconds of work after a pass over the vectors, which evicts the processor's caches."""
    read()
    return seconds_of(lambda: work(texts))


def fresh_process(index: Path, bundle: Path, threads: int) -> list[float]:
    """Peak memory at four moments, and seconds to open and to answer first."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.bench_search",
        str(bundle),
        "--threads",
        str(threads),
        "--answer-from",
        str(index),
    ]
    return list(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))


def answer_from(index: Path, bundle: Path, threads: int) -> None:
    engines: list[SearchEngine] = []
    imported_mb = peak_mb()
    opening = seconds_of(lambda: engines.append(SearchEngine.open(index, bundle, threads=threads)))
    opened_mb = peak_mb()
    first = seconds_of(lambda: engines[0].search("a dog on the beach"))
    for text in sentences(50):
        engines[0].search(text)
    alone_mb = peak_mb()
    engines[0].search_many([Query.of_text(text) for text in sentences(BATCH)])
    print(json.dumps([imported_mb, opened_mb, alone_mb, peak_mb(), opening, first]))


def rounds_of(engine: SearchEngine, options: argparse.Namespace) -> dict[str, list[float]]:
    """Median seconds per query of each part, for each round."""
    texts, vectors, encoder = sentences(options.queries), engine.index.vectors, engine.encoder
    cores = len(os.sched_getaffinity(0))
    queries = [Query.of_text(text) for text in texts]
    batch = [Query.of_text(text) for text in sentences(BATCH)]
    batch_texts = sorted(sentences(BATCH), key=len)
    encoded = engine.encode(queries)
    batch_vectors = np.stack([each.ranking for each in engine.encode(batch)])
    filtered = [query.model_copy(update={"filters": FILTER}) for query in queries]
    unfolded = [query.model_copy(update={"duplicates": "show"}) for query in queries]
    times: dict[str, list[float]] = {}

    def each(name, work, items, per=1):
        times.setdefault(name, []).append(median(seconds_of(partial(work, item)) / per for item in items))

    with ThreadPoolExecutor(cores) as pool:
        read = fastest_pass(vectors, encoded[0].ranking, pool, cores)
        for _ in range(options.rounds):
            each("encode", lambda text: encoder.encode_text([text]), texts)
            each("pass", lambda _: read(), texts)
            times.setdefault("encode after", []).append(median(after(read, encoder.encode_text, [t]) for t in texts))
            each("engine", engine.search, queries)
            each("rank", lambda pair: engine.rank([pair[0]], [pair[1]]), list(zip(queries, encoded, strict=True)))
            each("filtered", engine.search, filtered)
            each("shown", engine.search, unfolded)
            each("batch", engine.search_many, [batch] * 2, BATCH)
            calls = [batch_texts[at : at + 10] for at in range(0, BATCH, 10)]
            each("encode batch", lambda calls: [encoder.encode_text(call) for call in calls], [calls] * 2, BATCH)
            each("product", lambda rows: rows @ vectors.T, [batch_vectors] * 2, BATCH)
    return times


FILTER = Query.parse({"terms": [{"text": "x"}], "filters": {"folders": ["train2017/3"]}}).filters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=COCO_TRAIN)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--answer-from", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer_from:
        answer_from(options.answer_from, options.bundle, options.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        write_random_index(index, Bundle.open(options.bundle), options.count)
        fresh = fresh_process(index, options.bundle, options.threads)
        engine = SearchEngine.open(index, options.bundle, threads=options.threads)
        size = engine.index.vectors.nbytes
        times = rounds_of(engine, options)
    times["floor"] = [sum(parts) for parts in zip(times["encode"], times["pass"], strict=True)]
    times["floor after"] = [sum(parts) for parts in zip(times["encode after"], times["pass"], strict=True)]
    times["batch floor"] = [sum(parts) for parts in zip(times["encode batch"], times["product"], strict=True)]
    t = {name: median(rounds) for name, rounds in times.items()}

    def ratio(above: str, below: str) -> float:
        return median(a / b for a, b in zip(times[above], times[below], strict=True))

    imported_mb, opened_mb, alone_mb, batch_mb, opening_s, first_s = fresh
    rows = [
        ("what", "measured", "unit", "goal"),
        ("encode one text", 1e3 * t["encode"], "ms", ""),
        (f"one pass, {size / 1e6:.0f} MB at {size / t['pass'] / 1e9:.1f} GB/s", 1e3 * t["pass"], "ms", ""),
        ("floor: the two", 1e3 * t["floor"], "ms", ""),
        ("engine, one query", 1e3 * t["engine"], "ms", ""),
        ("engine / floor", ratio("engine", "floor"), "x", "<= 1.5"),
        ("engine / floor, text encoded after a pass", ratio("engine", "floor after"), "x", ""),
        ("engine without encoding", 1e3 * t["rank"], "ms", ""),
        ("engine, filter allows a tenth", 1e3 * t["filtered"], "ms", ""),
        ("engine, near-duplicates not folded", 1e3 * t["shown"], "ms", ""),
        (f"engine, one query of {BATCH} at once", 1e3 * t["batch"], "ms", ""),
        ("one query / one query of a batch", ratio("engine", "batch"), "x", ">= 2.5"),
        ("maximum of this ratio (text encoder, bare product)", ratio("floor", "batch floor"), "x", ""),
        ("of this: text encoder in batches", 1e3 * t["encode batch"], "ms", ""),
        ("of this: product with all vectors", 1e3 * t["product"], "ms", ""),
        ("opening, with all hashes verified", 1e3 * opening_s, "ms", ""),
        ("first answer", 1e3 * first_s, "ms", ""),
        ("peak memory: imported", imported_mb, "MB", ""),
        ("peak memory: opened", opened_mb, "MB", ""),
        ("peak memory: 50 queries answered", alone_mb, "MB", "< 600"),
        (f"peak memory: {BATCH} at once", batch_mb, "MB", "< 600"),
    ]
    show(rows, f"{options.count:,} vectors of {engine.encoder.embedding_dim}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

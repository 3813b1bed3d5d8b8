"""Time and peak memory of a whole retrieval evaluation on random vectors, by default at the size of COCO val2017.

python -m tests.benchmarks.bench_retrieval [--images 5000] [--captions 25000] [--dim 512] [--chunk-rows N]
"""

import argparse
import json
import sys
import time

import numpy as np

from image_finder.components.configs import EvaluationConfig
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import report_ranks
from image_finder.components.records.retrieval import EvaluatedOn
from tests.benchmarks.measuring import peak_mb, unit_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--captions", type=int, default=25_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--chunk-rows", type=int, default=None)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    images, texts = (unit_rows(rng, n, options.dim) for n in (options.images, options.captions))
    owners = np.arange(options.captions) % options.images
    slices = {f"slice {i}": [str((row + i) % 3) for row in range(options.captions)] for i in range(4)}
    before_mb, started = peak_mb(), time.perf_counter()
    ranks = first_match_ranks(images, texts, owners, chunk_rows=options.chunk_rows)
    ranked = time.perf_counter()
    identity = EvaluatedOn(dataset="random", data_version="0", split="val")
    report = report_ranks(ranks, config=EvaluationConfig(), identity=identity, slices=slices)
    finished = time.perf_counter()
    measured = {
        "images": options.images,
        "captions": options.captions,
        "dim": options.dim,
        "rank_s": round(ranked - started, 2),
        "report_s": round(finished - ranked, 2),
        "peak_mb_before": round(before_mb),
        "peak_mb": round(peak_mb()),
        "text_to_image_r10": report.text_to_image.recall[10],
        "random_r10": report.text_to_image.random_recall[10],
    }
    sys.stdout.write(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()

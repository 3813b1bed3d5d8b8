"""How often drift is reported without drift, and from which share of foreign images on.

    python -m tests.benchmarks.bench_drift BUNDLE ROOT [--other ROOT ...] [--runs 100] [--compared 1000] [--seed 0]

ROOT and the others contain captioned images in a layout that training reads. All readable images are encoded once
(cached in --cache). Without drift: ROOT is divided at random into 6/7 for training, 2,000 of which are the reference,
and 1/7, of which --compared images are compared. Printed for each row, over --runs: how often the distance is above
chance, above its limit, and above both (drift), and the largest distance. With drift: a share of the compared images
is replaced by images of another data set; printed for each row is the share of runs with drift.
"""

import argparse
import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import DriftConfig, EmbeddingConfig
from image_finder.components.drift.drift import ComparedSample, report_drift
from image_finder.components.drift.reference import Contents, DriftManifest, DriftReference
from image_finder.components.drift.report import DriftReport
from image_finder.components.drift.sample import ImageSample, Sampler, find_captioned_files
from tests.benchmarks.measuring import show

REFERENCE = 2000
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
MIXED_RUNS = 5


def part(sample: ImageSample, rows: np.ndarray) -> ImageSample:
    return dataclasses.replace(
        sample,
        vectors=sample.vectors[rows],
        sizes_px=sample.sizes_px[rows],
        brightness=sample.brightness[rows],
        words=tuple(sample.words[row] for row in rows),
        contents=tuple(sample.contents[row] for row in rows),
        drawn_from=len(rows),
        unreadable=0,
    )


def joined(first: ImageSample, second: ImageSample) -> ImageSample:
    return dataclasses.replace(
        first,
        vectors=np.concatenate([first.vectors, second.vectors]),
        sizes_px=np.concatenate([first.sizes_px, second.sizes_px]),
        brightness=np.concatenate([first.brightness, second.brightness]),
        words=first.words + second.words,
        contents=first.contents + second.contents,
    )


def reference_of(trained: ImageSample, bundle: Bundle) -> DriftReference:
    """A reference in memory, as write_reference writes it to disk."""
    manifest = DriftManifest(
        format_version=1,
        bundle_sha256=bundle.sha256,
        dataset="",
        data_version="",
        n_training_images=len(trained.vectors),
        n_training_captions=trained.n_captions,
        n_images=min(REFERENCE, len(trained.vectors)),
        n_captions=0,
        seed=0,
        files_sha256={},
    )
    reference = DriftReference(Path(), manifest)
    reference.sample = part(trained, np.arange(manifest.n_images))
    reference.images_of_word = Counter(word for image in trained.words for word in image.counts)
    reference.contents = Contents(np.empty(0, np.uint64))
    return reference


def divisions(sample: ImageSample, runs: int, seed: int) -> Iterator[tuple[ImageSample, ImageSample, int]]:
    for run in range(runs):
        order = np.random.default_rng([seed, run]).permutation(len(sample.vectors))
        trained = len(order) * 6 // 7
        yield part(sample, order[:trained]), part(sample, order[trained:]), run


def show_without_drift(sample: ImageSample, bundle: Bundle, options: argparse.Namespace) -> None:
    reports: list[DriftReport] = []
    started = time.perf_counter()
    for trained, held_out, run in divisions(sample, options.runs, options.seed):
        config = DriftConfig(seed=run, compared_images=options.compared, min_images=10)
        now = part(held_out, np.arange(min(options.compared, len(held_out.vectors))))
        compared = ComparedSample(reference_of(trained, bundle), ("", ""), now, "", "")
        reports.append(report_drift(compared, None, config))
    seconds = (time.perf_counter() - started) / options.runs
    rows: list[tuple[object, ...]] = [
        ("row, without drift", "largest", "limit", "above chance", "above limit", "drifted")
    ]
    for of_name in zip(*(report.rows for report in reports), strict=True):
        measured = [row.measured for row in of_name]
        rows.append(
            (
                of_name[0].name,
                float(max(measured)),
                of_name[0].limit,
                f"{np.mean([row.measured > row.chance for row in of_name]):.1%}",
                f"{np.mean([row.measured > row.limit for row in of_name]):.1%}",
                f"{np.mean([row.drifted for row in of_name]):.1%}",
            )
        )
    any_row = [
        ("above chance", np.mean([any(row.measured > row.chance for row in report.rows) for report in reports])),
        ("drifted", np.mean([bool(report.drifted) for report in reports])),
    ]
    show(rows)
    shares = ", ".join(f"{name} in any row {share:.1%}" for name, share in any_row)
    print(f"{options.runs} reports on {len(now.vectors)} images, {seconds:.2f} s each: {shares}\n")


def show_mixed(sample: ImageSample, other: ImageSample, bundle: Bundle, options: argparse.Namespace) -> None:
    names: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = []
    for share in SHARES:
        reports = []
        for trained, held_out, run in divisions(sample, MIXED_RUNS, options.seed):
            n_other = round(share * min(options.compared, len(held_out.vectors)))
            order = np.random.default_rng([options.seed, run, n_other]).permutation(len(other.vectors))
            kept = part(held_out, np.arange(min(options.compared, len(held_out.vectors)) - n_other))
            now = joined(kept, part(other, np.resize(order, n_other)))
            compared = ComparedSample(reference_of(trained, bundle), ("", ""), now, "", "")
            reports.append(report_drift(compared, None, DriftConfig(seed=run)))
        names = tuple(row.name for row in reports[0].rows)
        cells = [
            f"{np.mean([row.measured for row in of_name]):.3f}{'*' if all(row.drifted for row in of_name) else ''}"
            for of_name in zip(*(report.rows for report in reports), strict=True)
        ]
        rows.append((f"{share:.0%}", *cells))
    show([("replaced", *names), *rows])
    print(f"mean distance over {MIXED_RUNS} runs; *: drifted in all of them\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--other", type=Path, action="append", default=[])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--compared", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    default = Path(tempfile.gettempdir()) / "image-finder-bench-drift"
    parser.add_argument("--cache", type=Path, default=default, help="directory for vectors  [default: %(default)s]")
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    sampler = Sampler(bundle, DriftConfig(), EmbeddingConfig(device="cpu"), cache_dir=options.cache, progress=True)
    samples = []
    for root in (options.root, *options.other):
        started, files = time.perf_counter(), find_captioned_files(root)
        samples.append(sampler.draw(files, len(files)))
        print(f"{root.name}: {len(samples[-1].vectors):,} images in {time.perf_counter() - started:.1f} s")
    show_without_drift(samples[0], bundle, options)
    for root, other in zip(options.other, samples[1:], strict=True):
        print(f"replaced by images of {root.name}")
        show_mixed(samples[0], other, bundle, options)


if __name__ == "__main__":
    main()

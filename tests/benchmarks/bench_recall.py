"""Recall of one setting over several seeds, each a whole run of the training pipeline; prints a row of README.md.

    python -m tests.benchmarks.bench_recall DATA [--config flickr8k] [--set A.B=VALUE ...] [--seeds 0 1 2] [--home DIR]

Each seed is `image-finder pipeline run training` with training.seed set. All runs share one home, so that features
are cached once. Printed are the recalls on the part that the configuration reports on (mean and range over the
seeds), the 95 % interval of a single run, and the seconds of each run, which are valid only if nothing else runs on
the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

KS = ("1", "5", "10")


def trained(data: Path, config: str, assignments: Sequence[str], seed: int, home: Path) -> tuple[dict, float]:
    """Report of one run, and its seconds from start to end."""
    words = ["pipeline", "run", "training", "--config", config, "--data", str(data), "--home", str(home), "--json"]
    for assignment in [*assignments, f"training.seed={seed}", "evaluation.min_recall_at_10=0"]:
        words += ["--set", assignment]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "image_finder", *words], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"image-finder {' '.join(words)} failed; see its message above")
    return json.loads(done.stdout)["report"], time.perf_counter() - started


def cell(values: Sequence[float]) -> str:
    """Mean of shares in %, with their range if there are several."""
    mean = f"{100 * sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def row(name: str, reports: Sequence[dict], seconds: Sequence[float]) -> str:
    """A row of the table."""
    recalls = [
        cell([report[direction]["recall"][k] for report in reports])
        for direction in ("text_to_image", "image_to_text")
        for k in KS
    ]
    minutes = " + ".join(f"{each / 60:.0f}" for each in seconds)
    return f"| {name} | {' | '.join(recalls)} | {cell([report['mean_recall'] for report in reports])} | {minutes} |"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", default="flickr8k")
    parser.add_argument("--set", dest="assignments", action="extend", nargs="+", default=[], metavar="A.B=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--home", type=Path)
    return parser


def main() -> None:
    options = arguments().parse_args()
    reports, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            report, run_s = trained(
                options.data, options.config, options.assignments, seed, options.home or Path(folder)
            )
            reports.append(report)
            seconds.append(run_s)
            print(row(f"seed {seed}", [report], [run_s]), file=sys.stderr, flush=True)
    first = reports[0]
    interval = first["mean_recall_interval"]
    print(
        f"{first['dataset']} {first['split']}: {first['n_images']:,} images, {first['n_captions']:,} captions; the "
        f"95 % interval of one run's mean recall is {100 * interval['low']:.1f} to {100 * interval['high']:.1f}"
    )
    heads = [f"{direction} R@{k}" for direction in ("T2I", "I2T") for k in KS]
    print(f"| setting | {' | '.join(heads)} | mean recall | minutes |\n|{' --- |' * (len(heads) + 3)}")
    name = ", ".join(options.assignments) or f"--config {options.config}"
    print(row(f"{name}; seeds {' '.join(map(str, options.seeds))}", reports, seconds))


if __name__ == "__main__":
    main()

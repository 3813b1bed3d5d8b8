"""Memory and time of training steps, and what folding batch norms and small passes save.

    python -m tests.benchmarks.bench_training DATA [--config flickr8k] [--images 2048] [--epochs 3] [--views 1]

Trains the recipe of a configuration on the first images of a data set, in a process of each kind: as it is, and with the
trunk's own batch norms on whole batches, as it was until 2026-12-01. Prints for each epoch the seconds of a step and the largest
anonymous memory, which excludes mapped features. Features are computed once and are not timed.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.captions_table import read_captions
from image_finder.components.captions.inspection import inspect_images
from image_finder.components.configs import TrainingParameters
from image_finder.components.records.training import EpochRecord
from image_finder.components.training import loop
from image_finder.components.training.batches import batches_of_epoch
from image_finder.components.training.trainer import FeatureSettings, TrainingTask, train_checkpoint
from image_finder.pipelines.run_config import load, override, with_data

_SAMPLE_S = 0.02
_FORMER = {"folded_norms": lambda _: contextlib.nullcontext(), "_CPU_IMAGES": 1 << 30, "_CPU_TEXTS": 1 << 30}
KINDS = {"folded": "folded, small passes", "own": "own batch norms, whole batches"}


def anonymous_mb() -> float:
    """Anonymous memory of this process in 10^6 bytes (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


@contextlib.contextmanager
def sampled_memory() -> Iterator[list[float]]:
    """A list whose only item is the largest anonymous memory; set it to 0 to begin again."""
    largest, ended = [0.0], threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            largest[0] = max(largest[0], anonymous_mb())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield largest
    finally:
        ended.set()
        thread.join()


def parameters(options: argparse.Namespace) -> TrainingParameters:
    values = with_data("training", load("training", options.config), options.data)
    changes = [
        f"dataset.max_images={options.images}",
        f"training.epochs={options.epochs}",
        f"training.augmented_views={options.views}",
        *options.assignments,
    ]
    return TrainingParameters.parse(override(values, changes)["parameters"])


def captioned(values: TrainingParameters, part: str) -> CaptionedImages:
    assert values.dataset.root is not None
    captions = read_captions(values.dataset)
    captions = captions[captions["part"] == part].reset_index(drop=True)
    return CaptionedImages(captions, inspect_images(captions, values.dataset.root), values.dataset.root)


def measure(options: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds of a step and peak anonymous memory (10^6 bytes) of each epoch, in this process."""
    values = parameters(options)
    if options.kind == "own":
        for name, value in _FORMER.items():
            setattr(loop, name, value)
    train_data, val_data = captioned(values, "train"), captioned(values, "val")
    val_data = CaptionedImages(val_data.captions.iloc[:500].reset_index(drop=True), val_data.images, val_data.root)
    n_steps = batches_of_epoch(len(train_data.image_ids()), values.training.batch_images)
    n_steps *= values.model.ensemble_heads if values.model.image.own_tails else 1
    epochs: list[tuple[float, float]] = []
    shutil.rmtree(options.cache / "training", ignore_errors=True)  # else the training of before counts as this one's
    with sampled_memory() as largest, tempfile.TemporaryDirectory() as folder:

        def on_epoch(record: EpochRecord) -> None:
            epochs.append((record.seconds / n_steps, largest[0]))
            largest[0] = 0.0

        configs = values.model, values.training
        settings = FeatureSettings(options.cache, values.embedding)
        task = TrainingTask(train_data, val_data, configs, settings, Path(folder) / "checkpoint", ("benchmark", ""))
        train_checkpoint(task, on_epoch=on_epoch)
    return epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", default="flickr8k")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--set", dest="assignments", action="extend", nargs="+", default=[], metavar="A.B=VALUE")
    parser.add_argument("--kind", choices=KINDS, help="measure one kind in this process and print JSON")
    parser.add_argument("--cache", type=Path, help="folder of the features; default: a temporary one")
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        words = [*sys.argv[1:], "--cache", str(options.cache or folder)]
        subprocess.run(  # computes the features, so that no process of the comparison does
            [sys.executable, "-m", __spec__.name, *words, "--kind", "folded", "--epochs", "1"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = {}
        for kind in KINDS:
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name, *words, "--kind", kind],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found[kind] = json.loads(done.stdout.splitlines()[-1])
    print(f"{options.config}: {options.images} images, {options.epochs} epochs; seconds of a step and anonymous memory")
    for kind, name in KINDS.items():
        print(f"{name:32s}" + "   ".join(f"{step_s:.2f} s {mb / 1000:.2f} GB" for step_s, mb in found[kind]))
    ratio = min(step_s for step_s, _ in found["own"]) / min(step_s for step_s, _ in found["folded"])
    print(f"steps are {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()

"""Runs scenarios in processes that kill themselves: children.py SPEC.json. Imports once, then forks for each scenario.

Nothing of torch may be computed before the fork: OpenMP's threads do not survive it.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

import pandas as pd
from torch.nn.modules.module import register_module_forward_pre_hook

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from image_finder.components.encoders.loss import LogitScale
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.training.trainer import FeatureSettings, TrainingTask, extract_features, train_checkpoint


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def table(values: dict) -> CaptionedImages:
    return CaptionedImages(pd.DataFrame(values["captions"]), pd.DataFrame(values["images"]), Path(values["root"]))


def kill_at_batch(number: int) -> None:
    """In the middle of the forward pass of a batch, counted from 1 in this process."""
    seen = []

    def count(module, _inputs) -> None:
        if isinstance(module, LogitScale) and module.training:
            seen.append(1)
            if len(seen) == number:
                die()

    register_module_forward_pre_hook(count)


def kill_at_open(part: str, number: int) -> None:
    """When the file whose path holds `part` is opened for the number-th time."""
    seen = []

    def watch(event: str, arguments: tuple) -> None:
        if event == "open" and part in str(arguments[0]):
            seen.append(1)
            if len(seen) == number:
                die()

    sys.addaudithook(watch)


def train(scenario: dict) -> None:
    kill = scenario.get("kill", {})
    if "features" in scenario and not Path(scenario["cache"]).exists():
        shutil.copytree(scenario["features"], scenario["cache"], ignore=shutil.ignore_patterns("training"))
    if "batch" in kill:
        kill_at_batch(kill["batch"])
    if "open" in kill:
        kill_at_open(*kill["open"])
    epochs = []

    def on_epoch(record) -> None:
        epochs.append(record.epoch)
        if record.epoch == kill.get("epoch"):
            die()

    checkpoint = train_checkpoint(
        TrainingTask(
            table(scenario["train"]),
            table(scenario["val"]),
            (ModelConfig.parse(scenario["model"]), TrainingConfig.parse(scenario["training"])),
            FeatureSettings(Path(scenario["cache"]), EmbeddingConfig(device="cpu", batch_images=8)),
            path=Path(scenario["out"]),
            dataset=("scenes", "v1"),
        ),
        on_epoch=on_epoch,
    )
    assert epochs == [record.epoch for record in checkpoint.manifest.history]


def extract(scenario: dict) -> None:
    if "open" in scenario.get("kill", {}):
        kill_at_open(*scenario["kill"]["open"])
    extract_features(
        ModelConfig.parse(scenario["model"]),
        0,
        [table(scenario["train"])],
        FeatureSettings(Path(scenario["cache"]), EmbeddingConfig(device="cpu", batch_images=4)),
    )


def append(scenario: dict) -> None:
    """Entries 0, 1, 2, ... of (1 + i % 3, 5) filled with i, in batches of 4, until it is killed."""
    import numpy as np

    signal.setitimer(signal.ITIMER_REAL, scenario["seconds"])
    signal.signal(signal.SIGALRM, lambda *_: die())
    cache = ContentCache(Path(scenario["cache"]), width=5, dtype="float32", maker="m")
    with cache:
        while True:
            numbers = range(len(cache), len(cache) + 4)
            entries = [np.full((1 + i % 3, 5), i, dtype=np.float32) for i in numbers]
            cache.append([f"key-{i}" for i in numbers], entries)


def main() -> None:
    for scenario in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        child = os.fork()
        if child == 0:
            try:
                globals()[scenario["do"]](scenario)
            except BaseException:  # noqa: BLE001 - whatever it is, the child must not continue as its parent
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        expected = -signal.SIGKILL if "kill" in scenario else 0
        if os.waitstatus_to_exitcode(status) != expected:
            sys.exit(f"{scenario}: ended with {os.waitstatus_to_exitcode(status)}, expected {expected}"[-3000:])


if __name__ == "__main__":
    main()

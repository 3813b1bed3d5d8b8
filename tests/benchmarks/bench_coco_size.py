"""Time and memory of each part of a training at a quarter of COCO's size and at the whole, with synthetic images.

    python -m tests.benchmarks.bench_coco_size [--images 118287] [--folder DIR]

Data: JPEG files of 64 x 48 px, all different, with five synthetic captions each, in COCO layout; in a temporary
directory (0.3 GB at full size) or in --folder, where they stay. The image trunk reads 32 px, which makes it cheap, so
that everything around it is measured: reading, inspection, validation, split, caching, planning, one epoch from
memory-mapped features, vectors, ranks of 1,000 images, hubness correction. Each size runs in a separate process.
Linear parts take 4 times as long for 4 times the images, a quadratic one 16 times. Memory is the maximum of the
process's anonymous memory after each part; mapped pages of the caches, which the system can reclaim, do not count.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from tests.benchmarks.measuring import COCO_TRAIN, show

CAPTIONS = 5
COLOURS = ["red", "green", "blue", "white", "black", "brown", "yellow", "orange", "grey", "pink"]
THINGS = [
    "dog",
    "cat",
    "horse",
    "bicycle",
    "bus",
    "table",
    "boat",
    "bird",
    "kite",
    "train",
    "child",
    "woman",
    "man",
    "plate",
    "clock",
    "bench",
]
LOCATIONS = ["beach", "street", "kitchen", "field", "river", "bridge", "garden", "station", "room", "mountain"]
ACTIONS = ["stands", "lies", "waits", "moves", "rests", "turns", "falls", "shines", "jumps", "hides"]
MODEL = {
    "image": {"weights": "packaged", "input_px": 32, "trained_stages": 0, "pool_width": 64, "pool_heads": 4},
    "text": {"pooling": "mean_end", "max_tokens": 32},
    "projection": "mlp",
    "embedding_dim": 128,
    "hubness": {"centres": 256},
}

T = TypeVar("T")


def write_images(folder: Path, count: int) -> None:
    """Write images with captions in COCO layout; existing images are kept."""
    images = folder / "train2017"
    images.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in tqdm(range(count), desc="images", unit="image"):
        corners = rng.integers(0, 255, (2, 3, 3), np.uint8)
        path = images / f"{number:012d}.jpg"
        if not path.exists():
            stream = io.BytesIO()
            Image.fromarray(corners).resize((64, 48)).save(stream, "JPEG", quality=80)
            path.write_bytes(stream.getvalue())
    words = [rng.integers(0, len(of), (count, CAPTIONS)) for of in (COLOURS, THINGS, ACTIONS, LOCATIONS)]
    captions = [
        {
            "id": CAPTIONS * number + turn,
            "image_id": number,
            "caption": f"a {COLOURS[words[0][number, turn]]} {THINGS[words[1][number, turn]]} number {number} "
            f"{ACTIONS[words[2][number, turn]]} in the {LOCATIONS[words[3][number, turn]]}",
        }
        for number in range(count)
        for turn in range(CAPTIONS)
    ]
    listed = [
        {"id": number, "file_name": f"{number:012d}.jpg", "width": 64, "height": 48, "license": 1}
        for number in range(count)
    ]
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "captions_train2017.json").write_text(
        json.dumps({"images": listed, "annotations": captions})
    )


def anonymous_mb() -> float:
    """Anonymous memory of this process, 10^6 bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def train_once(root: Path, count: int, work: Path) -> dict[str, float]:
    """Seconds of each part of a training on `count` images, and the peak memory."""
    from image_finder.components.captions.captioned import CaptionedImages
    from image_finder.components.captions.captions_table import read_captions
    from image_finder.components.captions.inspection import inspect_images
    from image_finder.components.captions.manifest import build_manifest
    from image_finder.components.captions.splits import split_captions
    from image_finder.components.captions.tokens import Tokenizer, packaged_tokenizer_json
    from image_finder.components.configs import (
        DatasetConfig,
        EmbeddingConfig,
        ModelConfig,
        SplitConfig,
        TrainingConfig,
        ValidationConfig,
    )
    from image_finder.components.metrics.ranks import first_match_ranks
    from image_finder.components.training.trainer import (
        FeatureSettings,
        TrainingTask,
        checkpoint_vectors,
        extract_features,
        train_checkpoint,
    )
    from image_finder.components.validation.expectations import valid_captions, validate_captions

    seconds: dict[str, float] = {}
    own_mb: list[float] = []

    def timed(name: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        made = work()
        seconds[name] = time.perf_counter() - started
        own_mb.append(anonymous_mb())
        print(f"{count:,}: {name} {seconds[name]:.1f} s, {own_mb[-1]:,.0f} MB", file=sys.stderr, flush=True)
        return made

    dataset = DatasetConfig.parse(
        {
            "name": "synthetic",
            "root": root,
            "max_images": count,
            "parts": {"train": {"annotations": "annotations/captions_train2017.json", "images": "train2017"}},
        }
    )
    model, training = ModelConfig.parse(MODEL), TrainingConfig(epochs=1, ema_decay=0.9)
    settings = FeatureSettings(work, EmbeddingConfig())
    captions = timed("read captions", lambda: read_captions(dataset))
    images = timed("inspect images", lambda: inspect_images(captions, root))
    manifest = build_manifest(captions, images, dataset)
    counts = timed("count tokens", lambda: Tokenizer(packaged_tokenizer_json(), 64).count(captions["caption"].tolist()))
    report = timed(
        "validate",
        lambda: validate_captions(captions, images, manifest, ValidationConfig(), token_counts=counts),
    )
    train, val, _ = timed(
        "split",
        lambda: split_captions(
            valid_captions(captions, report), SplitConfig(val_fraction=min(0.5, 1000 / count)), images
        ),
    )
    parts = [CaptionedImages(table, images, root) for table in (train, val)]
    timed("features", lambda: extract_features(model, 0, parts, settings))
    checkpoint = timed(
        "train one epoch",
        lambda: train_checkpoint(
            TrainingTask(
                parts[0], parts[1], (model, training), settings, path=work / "checkpoint", dataset=("synthetic", "0")
            )
        ),
    )
    vectors = timed("vectors of train", lambda: checkpoint_vectors(checkpoint, parts[0], settings))
    assert len(vectors[1]) == len(train)
    val_vectors = checkpoint_vectors(checkpoint, parts[1], settings)
    timed("ranks of val", lambda: first_match_ranks(*val_vectors, parts[1].image_of_caption()))
    return {**seconds, "memory MB": max(own_mb), "cache MB": sum(p.stat().st_size for p in work.rglob("*.bin")) / 1e6}


def fresh_process(root: Path, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as work:
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.bench_coco_size",
            "--folder",
            str(root),
            "--train-on",
            str(count),
            "--work",
            work,
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=COCO_TRAIN)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--train-on", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train_on:
        print(json.dumps(train_once(options.folder, options.train_on, options.work)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write_images(folder, options.images)
        quarter, whole = (fresh_process(folder, count) for count in (options.images // 4, options.images))
    rows = [
        [name, f"{quarter[name]:,.1f}", f"{whole[name]:,.1f}", f"{whole[name] / quarter[name]:.1f}"] for name in whole
    ]
    show([["part, s", f"{options.images // 4:,} images", f"{options.images:,} images", "ratio"], *rows])


if __name__ == "__main__":
    main()

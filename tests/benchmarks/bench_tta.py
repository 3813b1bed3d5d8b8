"""Test-time augmentation (`model.image.tta`): the gain in recall and the cost of encoding several variants of an image.

    python -m tests.benchmarks.bench_tta DATA BUNDLE [BUNDLE ...] [--part val]

DATA: a directory of captioned images, validated as for training. BUNDLES: of models without test-time augmentation;
the same recipe with several seeds separates a gain from chance. Each bundle encodes each variant, and an image's
vector is the mean over the variants, as in a bundle exported with them. Prints the means over the bundles, the range
of the gain in text-to-image recall over the whole image alone, and the time per image, all on the CPU.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.image_tower import variant_of
from image_finder.components.evaluation.folder_recall import read_part
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import named_recalls
from tests.benchmarks.measuring import show

KS = (1, 5, 10)
BATCH = 16
VARIANTS = ("whole", "mirrored", "centre")
TRIED = [("whole",), ("whole", "mirrored"), ("whole", "centre"), VARIANTS]


def recalls_of(bundle: Path, data) -> tuple[dict[tuple[str, ...], dict[str, float]], float]:
    """Recalls of each set of variants, and milliseconds to encode one variant of an image."""
    opened = Bundle.open(bundle)
    if ModelConfig.parse(opened.manifest.config).image.tta != ("whole",):
        raise SystemExit(f"{bundle} has test-time augmentation; give a bundle without: model.image.tta=[whole]")
    encoder = OnnxEncoder(opened, device="cpu")
    paths = [data.root / name for name in data.image_rows()["file_name"]]
    texts = data.captions["caption"].tolist()
    captions = encoder.encode_text(texts)
    pixels = torch.from_numpy(np.stack([encoder.preprocess.load(path) for path in paths]))
    vectors, seconds = {}, 0.0
    for variant in VARIANTS:
        seen = [variant_of(part, variant).round().byte().numpy() for part in pixels.split(BATCH)]
        started = time.perf_counter()
        vectors[variant] = np.concatenate([encoder.encode_image(part) for part in seen])
        seconds += time.perf_counter() - started
    found = {}
    for variants in TRIED:
        mean = sum(vectors[variant] for variant in variants)
        images = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
        found[variants] = named_recalls(first_match_ranks(images, captions, data.image_of_caption()), KS)
    return found, 1e3 * seconds / len(VARIANTS) / len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--part", default="val")
    options = parser.parse_args()
    part = read_part(options.data, options.part)
    measured = [recalls_of(bundle, part.data) for bundle in options.bundles]
    names = list(measured[0][0]["whole",])
    rows = []
    for variants in TRIED:
        means = [100 * np.mean([found[variants][name] for found, _ in measured]) for name in names]
        gains = [
            sorted(100 * (found[variants][name] - found["whole",][name]) for found, _ in measured)
            for name in names[: len(KS)]
        ]
        ranges = " / ".join(f"{each[0]:+.1f} to {each[-1]:+.1f}" for each in gains)
        rows.append([", ".join(variants), *(f"{mean:.1f}" for mean in means), ranges])
    show([["variants", *names, f"gain, {' / '.join(names[: len(KS)])}"], *rows])
    each_ms = np.median([ms for _, ms in measured])
    print(
        f"{part.identity.dataset} {part.identity.split}: {len(part.data.image_ids()):,} images, "
        f"{len(part.data.captions):,} captions, bundles: {len(options.bundles)}; {each_ms:.1f} ms per variant of an image"
    )


if __name__ == "__main__":
    main()

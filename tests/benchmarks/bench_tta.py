"""Several looks at an image against one (`model.image.tta`): what recall gains from them and what they cost.

    python tests/benchmarks/bench_tta.py DATA BUNDLE [BUNDLE ...] [--part val]

Data: a part of a folder of captioned images, validated as for a training. BUNDLES: of models that look once; the same
recipe with several seeds tells a gain from chance. Each look is embedded by the bundle, and an image's vector is the
mean over the looks, as a bundle that was exported with them gives it. Printed are the means over the bundles, the range
of the gain in text-to-image recall over that of the whole image alone, and the time of an image, all on the CPU.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measuring import show

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.image_tower import looked_at
from image_finder.components.evaluation.folder_recall import read_part
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import named_recalls

KS = (1, 5, 10)
BATCH = 16
LOOKS = ("whole", "mirrored", "centre")
TRIED = [("whole",), ("whole", "mirrored"), ("whole", "centre"), LOOKS]


def recalls_of(bundle: Path, data) -> tuple[dict[tuple[str, ...], dict[str, float]], float]:
    """Recalls of each tried set of looks, and the milliseconds of one look at one image."""
    opened = Bundle.open(bundle)
    if ModelConfig.parse(opened.manifest.config).image.tta != ("whole",):
        raise SystemExit(f"{bundle} looks several times already; name a bundle of a model that looks once")
    encoder = OnnxEncoder(opened, device="cpu")
    paths = [data.root / name for name in data.image_rows()["file_name"]]
    texts = data.captions["caption"].tolist()
    captions = np.concatenate([encoder.encode_text([text]) for text in texts])
    pixels = torch.from_numpy(np.stack([encoder.preprocess.load(path) for path in paths]))
    vectors, seconds = {}, 0.0
    for look in LOOKS:
        seen = [looked_at(part, look).round().byte().numpy() for part in pixels.split(BATCH)]
        started = time.perf_counter()
        vectors[look] = np.concatenate([encoder.encode_image(part) for part in seen])
        seconds += time.perf_counter() - started
    found = {}
    for looks in TRIED:
        mean = sum(vectors[look] for look in looks)
        images = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
        found[looks] = named_recalls(first_match_ranks(images, captions, data.image_of_caption()), KS)
    return found, 1e3 * seconds / len(LOOKS) / len(paths)


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
    for looks in TRIED:
        means = [100 * np.mean([found[looks][name] for found, _ in measured]) for name in names]
        gains = [
            sorted(100 * (found[looks][name] - found["whole",][name]) for found, _ in measured)
            for name in names[: len(KS)]
        ]
        told = " / ".join(f"{each[0]:+.1f} to {each[-1]:+.1f}" for each in gains)
        rows.append([", ".join(looks), *(f"{mean:.1f}" for mean in means), told])
    show([["looks", *names, f"gain, {' / '.join(names[: len(KS)])}"], *rows])
    each_ms = np.median([taken for _, taken in measured])
    print(
        f"{part.identity.dataset} {part.identity.split}: {len(part.data.image_ids()):,} images, "
        f"{len(part.data.captions):,} captions, {len(options.bundles)} bundles; each look {each_ms:.1f} ms an image"
    )


if __name__ == "__main__":
    main()

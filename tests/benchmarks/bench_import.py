"""Imported bundles beside the original libraries, on real photographs and captions.

    python -m tests.benchmarks.bench_import DATA [--images 200] [--captions 1000] [--families clip siglip ...]

DATA: captioned photographs, in a layout that `models evaluate` reads. The models are small and have random weights (seed 0),
because trained ones come from a hub; each is saved by its own library and imported as `models import` does. Columns: images
with another pixel, captions with another token, largest difference of a vector's component from the library (limit 1e-4),
seconds of the import.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.evaluation.folder_recall import read_part
from image_finder.components.importing.importer import ImportOptions, import_model
from image_finder.components.importing.source import find_source, load_original
from tests.benchmarks.measuring import seconds_of, show
from tests.support.original_models import FAMILIES


def upright(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def row(family: str, paths: list[Path], captions: list[str], folder: Path) -> tuple[object, ...]:
    source = find_source(str(FAMILIES[family](folder / family)))
    made: list[Bundle] = []
    seconds = seconds_of(lambda: made.append(import_model(source, folder / f"{family}-bundle", ImportOptions())))
    original, encoder = load_original(source), OnnxEncoder(made[0], device="cpu")
    mean, std = (
        np.array(each, np.float32)[:, None, None] for each in (encoder.preprocess.mean, encoder.preprocess.std)
    )
    other_pixels, largest = 0, 0.0
    for path in paths:
        ours, image = encoder.preprocess.load(path), upright(path)
        theirs = original.reference.pixels(image)
        scaled = (ours.transpose(2, 0, 1).astype(np.float32) / 255 - mean) / std
        other_pixels += bool(np.abs(scaled - theirs).max() > 1e-5)
        largest = max(
            largest, float(np.abs(encoder.encode_image(ours[None]) - original.reference.images([image])).max())
        )
    other_tokens = 0
    for caption in captions:
        tokens = encoder.tokenizer([caption])
        ours_ids = tokens.ids[0][: tokens.mask[0].sum()].tolist()
        other_tokens += original.reference.ids([caption])[0].tolist()[: len(ours_ids)] != ours_ids
    texts = captions[:200]
    largest = max(largest, float(np.abs(encoder.encode_text(texts) - original.reference.texts(texts)).max()))
    return (
        family,
        original.library,
        f"{other_pixels}/{len(paths)}",
        f"{other_tokens}/{len(captions)}",
        f"{largest:.1e}",
        f"{seconds:.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--captions", type=int, default=1000)
    parser.add_argument("--families", nargs="*", choices=list(FAMILIES), default=list(FAMILIES))
    options = parser.parse_args()
    data = read_part(options.data.resolve(), None).data
    paths = [data.root / name for name in data.image_rows()["file_name"]][: options.images]
    captions = data.captions["caption"].tolist()[: options.captions]
    rows: list[tuple[object, ...]] = [
        ("model", "library", "other pixels", "other tokens", "largest difference", "import, s")
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows += [row(family, paths, captions, Path(folder)) for family in options.families]
    show(rows, f"{len(paths)} photographs, {len(captions):,} captions, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

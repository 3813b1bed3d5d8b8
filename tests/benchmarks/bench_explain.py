"""Whether explanations mark the regions that matter: the deletion test over hits of captions and of nouns.

    python -m tests.benchmarks.bench_explain LIBRARY CAPTIONS... [--hits 240] [--seed 0] [--threads 0]

LIBRARY indexes the images of CAPTIONS, files in COCO's captions format. A hit is the captioned image among the ten
nearest to its caption (two of three hits), or one of the three nearest to a noun. For each hit, the quarter of the
pixels that a map marks most is hidden, then the quarter that it marks least, then a quarter of random squares; the
cost is the loss of cosine. Pixels are hidden under grey, a blur and the mean colour; the map of the query is made
with the mean colour only. Prints the share of hits in which the most marked quarter costs more than the least marked
one, beside attention.
"""

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.search.contributions import contributions
from image_finder.components.search.explain import explain
from image_finder.components.search.finder import Finder
from tests.benchmarks.measuring import seconds_of, show

NOUNS = (
    "a dog,a cat,a clock,a bus,a train,a horse,a pizza,a boat,an umbrella,a toilet,a giraffe,an elephant,a surfboard,a bed,"
    "a bicycle,a bird,a kite,a laptop,a cake,a truck,a bear,a bench,a baby,a bottle,a motorcycle,a sheep,a zebra,a ball"
)
_SQUARES = 8  # per side, for the random quarters


def hits_of(
    finder: Finder, captions: dict[str, list[str]], count: int, rng: random.Random
) -> Iterator[tuple[str, str]]:
    """Pairs of a query and an image id."""
    names = sorted(captions)
    rng.shuffle(names)
    own = ((captions[name][0], name) for name in names)
    found = ((text, hit.id) for text, name in own for hit in finder.search(text, k=10).hits if hit.name == name)
    yield from itertools.islice(found, count - count // 3)
    nouns = [(noun, hit.id) for noun in NOUNS.split(",") for hit in finder.search(noun, k=3).hits]
    yield from rng.sample(nouns, min(count // 3, len(nouns)))


def quarters(shown: np.ndarray, px: int) -> dict[str, np.ndarray]:
    """Masks (px, px) of the pixels that a map marks most and least."""
    drawn = np.asarray(Image.fromarray(shown.astype(np.float32)).resize((px, px), Image.Resampling.BICUBIC))
    order = np.argsort(drawn, axis=None, kind="stable")
    ends = {"most": order[-(px * px // 4) :], "least": order[: px * px // 4]}
    return {name: np.isin(np.arange(px * px), pixels).reshape(px, px) for name, pixels in ends.items()}


def random_quarter(px: int, rng: np.random.Generator) -> np.ndarray:
    squares = np.isin(np.arange(_SQUARES**2), rng.permutation(_SQUARES**2)[: _SQUARES**2 // 4])
    square = np.arange(px) * _SQUARES // px
    return squares.reshape(_SQUARES, _SQUARES)[square[:, None], square]


def covers(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Images that replace hidden pixels."""
    blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(len(pixels) / 13))
    mean = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)
    return {
        "grey": np.full_like(pixels, 128),
        "blur": np.asarray(blurred),
        "mean colour": np.broadcast_to(mean, pixels.shape),
    }


def costs(encoder: OnnxEncoder, pixels: np.ndarray, query: np.ndarray, rng: np.random.Generator) -> dict:
    """Loss of cosine by cover and quarter; `coloured`: whether any region raises the score."""
    px = len(pixels)
    masks = {("", "random"): random_quarter(px, rng)}
    found = contributions(encoder, pixels, query)
    maps = {"query": found.cells, "attention": encoder.attention(pixels[None])[0]}
    for name, shown in maps.items():
        masks |= {(name, end): mask for end, mask in quarters(shown, px).items()}
    hidden = {
        (cover, *key): np.where(mask[..., None], over, pixels)
        for cover, over in covers(pixels).items()
        for key, mask in masks.items()
    }
    images = [pixels, *hidden.values()]
    scores = encoder.encode_image(images) @ query
    return {"coloured": found.peak > 0, **dict(zip(hidden, scores[0] - scores[1:], strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("captions", type=Path, nargs="+")
    parser.add_argument("--hits", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads for ONNX Runtime; 0: one per core")
    options = parser.parse_args()
    finder = Finder.open(options.library, threads=options.threads)
    encoder = finder.engine.encoder
    draw = random.Random(options.seed)
    hits = list(hits_of(finder, captions_of(options.captions), options.hits, draw))
    draw.shuffle(hits)  # so that interim reports cover both kinds
    rng = np.random.default_rng(options.seed)
    found = []
    for text, identity in hits:
        pixels = encoder.preprocess.load(finder.image_path(identity))
        found.append(costs(encoder, pixels, finder.encode_texts([text])[0], rng))
        if len(found) % 20 == 0 or len(found) == len(hits):
            print_report(found)
    vector, path = finder.encode_texts([hits[0][0]])[0], finder.image_path(hits[0][1])
    times = sorted(seconds_of(lambda: explain(encoder, path, vector)) for _ in range(10))
    show([["ms per explanation", "median", "slowest"], ["file to overlay", 1000 * times[5], 1000 * times[-1]]])


def captions_of(files: list[Path]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for file in files:
        document = json.loads(file.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in document["images"]}
        for each in document["annotations"]:
            captions.setdefault(names[each["image_id"]], []).append(each["caption"].strip())
    return captions


def print_report(found: list[dict]) -> None:
    rows: list[list[object]] = [["hidden under", "map", "most costs more, %", "most", "least", "random"]]
    for cover in ("grey", "blur", "mean colour"):
        lost = {key[1:]: np.array([each[key] for each in found]) for key in found[0] if key[0] == cover}
        for name in ("query", "attention"):
            most, least = lost[name, "most"], lost[name, "least"]
            means = [round(float(each.mean()), 3) for each in (most, least, lost["", "random"])]
            rows.append([cover, name, round(100 * float(np.mean(most > least)), 1), *means])
    coloured = 100 * sum(each["coloured"] for each in found) / len(found)
    show(rows, f"{len(found)} hits, {coloured:.0f} % with colour; mean cosine lost by hiding a quarter of the pixels")


if __name__ == "__main__":
    main()

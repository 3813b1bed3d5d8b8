"""How often different photographs are folded as near-duplicates, and how often edited copies are.

    python -m tests.benchmarks.bench_duplicates BUNDLE IMAGES [--images 6000] [--copies 600] [--threads 0]

Data: the first --images of a directory by name, taken as different photographs (a few of Flickr8k's training images
are not: the closest pairs are listed for inspection), and seven edited copies of each 10th of them, up to --copies,
saved as JPEG of quality 90 unless stated otherwise and read as the library reads files. Nothing is random. A pair is
near by hash within NEAR_BITS of 64 bits, near by vector from a cosine of NEAR_COSINE on, and folded if both hold.
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.images.decoding import load_rgb
from image_finder.components.index.duplicates import NEAR_BITS, NEAR_COSINE, difference_hash
from tests.benchmarks.measuring import show

LISTED = 10


def saved(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def copies_of(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    width, height = image.size

    def cut(share: float) -> Image.Image:
        left, top = round(width * share / 2), round(height * share / 2)
        return image.crop((left, top, width - left, height - top))

    yield "JPEG of quality 50", saved(image, 50)
    yield "half the size", saved(image.resize((width // 2, height // 2)))
    yield "cropped by 5 %", saved(cut(0.05))
    yield "cropped by 10 %", saved(cut(0.10))
    yield "brighter by 15 %", saved(Image.eval(image, lambda value: min(255, round(value * 1.15))))
    yield "grey", saved(image.convert("L"))
    yield "rotated by 3 degrees", saved(image.rotate(3))


def described(encoder: OnnxEncoder, images: Sequence[Path | bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Difference hashes (n,) and vectors (n, dim) of images, as the library makes them."""
    hashes: list[int] = []

    def load() -> Iterator[np.ndarray]:
        for image in images:
            pixels = encoder.preprocess.load(image)
            hashes.append(difference_hash(pixels))
            yield pixels

    vectors = encoder.encode_image(load())
    return np.array(hashes, np.uint64), vectors


def pairs_within(hashes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Both rows of each pair whose hashes differ in at most `bits` bits."""
    found = [
        row + 1 + np.flatnonzero(np.bitwise_count(hashes[row + 1 :] ^ hash_) <= bits)
        for row, hash_ in enumerate(hashes)
    ]
    return np.repeat(np.arange(len(hashes)), [len(each) for each in found]), np.concatenate(found)


def show_different(paths: list[Path], hashes: np.ndarray, vectors: np.ndarray) -> None:
    first, second = pairs_within(hashes, NEAR_BITS)
    cosines = np.einsum("ij,ij->i", vectors[first], vectors[second])
    total = len(hashes) * (len(hashes) - 1) // 2
    near, folded = len(first), int((cosines >= NEAR_COSINE).sum())
    rows = [
        ("pairs", "number", "one in"),
        ("of different photographs", f"{total:,}", ""),
        (f"within {NEAR_BITS} of 64 bits", f"{near:,}", _one_in(total, near)),
        (f"and of cosine {NEAR_COSINE} or more: folded", f"{folded:,}", _one_in(total, folded)),
    ]
    show(rows)
    for at in np.argsort(-cosines)[:LISTED]:
        bits = int(np.bitwise_count(hashes[first[at]] ^ hashes[second[at]]))
        print(f"  cosine {cosines[at]:.3f}, {bits} bits: {paths[first[at]].name} {paths[second[at]].name}")


def _one_in(total: int, part: int) -> str:
    return f"{total // part:,}" if part else "-"


def show_copies(encoder: OnnxEncoder, paths: list[Path], hashes: np.ndarray, vectors: np.ndarray) -> None:
    found: dict[str, list[tuple[bool, bool]]] = {}
    for path, hash_, vector in zip(paths, hashes, vectors, strict=True):
        names, images = zip(*copies_of(load_rgb(path)), strict=True)
        copy_hashes, copy_vectors = described(encoder, images)
        near = np.bitwise_count(copy_hashes ^ hash_) <= NEAR_BITS
        alike = copy_vectors @ vector >= NEAR_COSINE
        for name, by_hash, by_vector in zip(names, near.tolist(), alike.tolist(), strict=True):
            found.setdefault(name, []).append((by_hash, by_hash and by_vector))
    shares = {name: np.mean(pairs, axis=0) for name, pairs in found.items()}
    rows = [(name, f"{hashed:.1%}", f"{both:.1%}") for name, (hashed, both) in shares.items()]
    show([(f"edited copies, {len(paths)} of each kind", "near by hash", "and by vector: folded"), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, metavar="IMAGES")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--copies", type=int, default=600)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    encoder = OnnxEncoder(Bundle.open(options.bundle), device="cpu", threads=options.threads)
    paths = sorted(options.folder.rglob("*.jpg"))[: options.images]
    hashes, vectors = described(encoder, paths)
    show_different(paths, hashes, vectors)
    print()
    edited = slice(0, 10 * options.copies, 10)
    show_copies(encoder, paths[edited], hashes[edited], vectors[edited])


if __name__ == "__main__":
    main()

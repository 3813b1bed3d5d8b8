"""Near-duplicates: images of the same scene, by difference hash and vector."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_finder.components.images.preprocess import Pixels

_ROWS, _COLUMNS = 8, 9
# Of 18 million pairs of Flickr8k's photographs, 196 are this near by hash, and 3 of those by vector too: a duplicate, a scene
# taken twice and an error. Of copies that were recompressed, halved, made grey or brighter, or cropped by 5 %, at least 90 %
# are folded; of those cropped by 10 %, half (bench_duplicates.py).
NEAR_BITS = 10
NEAR_COSINE = 0.7
_COMPARED_ROWS = 256

Hashes = NDArray[np.uint64]


def difference_hash(pixels: Pixels) -> int:
    """64-bit difference hash (dHash) of an RGB image, (h, w, 3) uint8.

    Each bit says whether a pixel of the image's 8 x 9 grey thumbnail is brighter than the one before. Scaling, JPEG
    quality and brightness hardly change it. Source: N. Krawetz, "Kind of Like That" (2013).
    """
    small = Image.fromarray(pixels).convert("L").resize((_COLUMNS, _ROWS), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def fold(hashes: Hashes, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Position of the first near-duplicate of each of n images, or its own: (n,) int64.

    hashes: (n,) uint64, best image first; vectors: (n, dim) unit rows. Images are folded only into images that are
    shown themselves, so a chain of small changes is not folded into one.
    """
    shown_by = np.arange(len(hashes))
    free = _with_neighbours(hashes)
    while len(free):
        row, later = free[0], free[1:]
        near = np.bitwise_count(hashes[later] ^ hashes[row]) <= NEAR_BITS
        near[near] = vectors[later[near]] @ vectors[row] >= NEAR_COSINE
        shown_by[later[near]] = row
        free = later[~near]
    return shown_by


def _with_neighbours(hashes: Hashes) -> NDArray[np.int64]:
    """Positions, ascending, of the hashes near another one; only these few can be folded."""
    starts = range(0, len(hashes), _COMPARED_ROWS)
    blocks = (np.bitwise_count(hashes[at : at + _COMPARED_ROWS, None] ^ hashes) <= NEAR_BITS for at in starts)
    several = [np.count_nonzero(block, axis=1) > 1 for block in blocks]
    return np.flatnonzero(np.concatenate(several)) if several else np.empty(0, np.int64)

"""Shared by the benchmarks: times, memory, tables, captions, and an index of random vectors with realistic items."""

import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.index.format import FORMAT_VERSION, ITEM_SCHEMA, IndexManifest, write_index
from tests.support.item_ids import item_id

COCO_TRAIN = 118_287  # images of COCO train2017
CAMERAS = ("", "", "Canon EOS 400D DIGITAL", "NIKON D80", "Apple iPhone 12", "Sony DSC-W55")
_SUBJECTS = (
    "a dog",
    "two children",
    "a man in a red shirt",
    "a black cat",
    "an old woman",
    "a group of people",
    "a horse",
)
_ACTIONS = ("running", "sitting", "playing with a ball", "looking at the camera", "jumping", "standing", "eating")
_LOCATIONS = ("on the beach", "in the snow", "next to a parked car", "in a kitchen", "on a wooden bench", "near a lake")


def sentences(count: int) -> list[str]:
    """Distinct captions of 6 to 13 words (at most 294; then they repeat)."""
    distinct = [" ".join(parts) for parts in itertools.product(_SUBJECTS, _ACTIONS, _LOCATIONS)]
    order = np.random.default_rng(0).permutation(len(distinct))
    return [distinct[order[n % len(distinct)]] for n in range(count)]


def unit_rows(rng: np.random.Generator, n_rows: int, dim: int) -> np.ndarray:
    rows = rng.standard_normal((n_rows, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def unit_rows_near_plane(seed: int, n_rows: int, dim: int, *, plane_dim: int = 32) -> np.ndarray:
    """Unit rows near a fixed plane of fewer dimensions, like a model's vectors."""
    plane = unit_rows(np.random.default_rng(12345), plane_dim, dim)
    rng = np.random.default_rng(seed)
    rows = unit_rows(rng, n_rows, plane_dim) @ plane + 0.2 * unit_rows(rng, n_rows, dim)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def write_random_index(
    path: Path, bundle: Bundle, count: int, *, seed: int = 0, vectors: np.ndarray | None = None, root: str = "/images"
) -> np.ndarray:
    """Write an index of random or given unit vectors for this bundle; returns the vectors. root: of its images."""
    dim = bundle.manifest.embedding_dim
    vectors = unit_rows(np.random.default_rng(seed), count, dim) if vectors is None else vectors
    manifest = IndexManifest(
        format_version=FORMAT_VERSION,
        kind="exact",
        count=count,
        embedding_dim=dim,
        bundle_sha256=bundle.sha256,
        bundle_uri=str(bundle.path.resolve()),
        gallery="random",
        roots=(root,),
        failed={},
        self_check=None,
        files_sha256={},
    )
    path.mkdir(parents=True)
    write_index(path, vectors, random_items(count, seed), manifest)
    return vectors


def random_items(count: int, seed: int) -> pa.Table:
    """Items with five captions each, in ten folders; a third has an EXIF time, a tenth GPS."""
    rng, captions, start = (
        np.random.default_rng(seed),
        sentences(count + 5),
        datetime(2015, 1, 1, tzinfo=UTC).replace(tzinfo=None),
    )
    paths = [f"train2017/{n % 10}/{n:012d}.jpg" for n in range(count)]
    times = [start + timedelta(seconds=int(each)) for each in rng.integers(0, 300_000_000, count)]
    columns = {
        "id": [item_id(Path("/images"), path.encode()) for path in paths],
        "root": np.zeros(count, np.int16),
        "path": [path.encode() for path in paths],
        "folder": [f"train2017/{n % 10}" for n in range(count)],
        "name": [path[12:] for path in paths],
        "sha256": [rng.bytes(32).hex() for _ in range(count)],
        "dhash": rng.integers(0, 1 << 63, count, np.uint64),
        "bytes": rng.integers(50_000, 300_000, count),
        "width_px": rng.integers(300, 641, count).astype(np.int32),
        "height_px": rng.integers(300, 641, count).astype(np.int32),
        "captions": [captions[n : n + 5] for n in range(count)],
        "taken_at": [each if n % 3 == 0 else None for n, each in enumerate(times)],
        "modified_at": times,
        "camera": [CAMERAS[n % len(CAMERAS)] for n in range(count)],
        "latitude": [48.0 if n % 10 == 0 else None for n in range(count)],
        "longitude": [11.0 if n % 10 == 0 else None for n in range(count)],
    }
    return pa.table(columns, schema=ITEM_SCHEMA)


def captions_by_name(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Captions by image file name, from annotations/captions_*.json of the directories."""
    captions: dict[str, list[str]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("annotations/captions_*.json")):
        content = json.loads(path.read_bytes())
        names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
        for annotation in content["annotations"]:
            captions.setdefault(names[annotation["image_id"]], []).append(annotation["caption"].strip())
    return captions


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mb() -> float:
    """Peak resident memory of this process, including mapped files.

    Linux: not ru_maxrss, which a child started with vfork inherits from its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def show(rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print an aligned table; the first row is the head, numbers are right-aligned."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = [
        all(not isinstance(cell, str) or cell in ("", "-") for cell in column) for column in zip(*rows[1:], strict=True)
    ]
    lines = [
        "  ".join(cell.rjust(w) if n else cell.ljust(w) for cell, w, n in zip(row, widths, numeric, strict=True))
        for row in texts
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    print("\n".join([*([title] if title else []), *(line.rstrip() for line in lines)]))


def _text(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}" if abs(cell) < 1 else f"{cell:.2f}"

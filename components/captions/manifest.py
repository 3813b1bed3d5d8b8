"""Data version: hashes and checks every image once, and sums a data set up as a manifest; knows nothing of models.

The images table has a row for each distinct (part, image_id) of the captions table: image_id int64, file_name str,
part str, sha256 str (of the file's bytes; "" if it was not read), bytes int64 (0 if it was not read), width_px int64,
height_px int64 (as displayed; 0 if unreadable), error str ("" if the image can be used, else one line why not).
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from image_finder.components.captions.captions_table import PartFile, part_files
from image_finder.components.captions.file_names import leads_out
from image_finder.components.configs import DatasetConfig
from image_finder.components.errors import ImageError
from image_finder.components.images.images import image_size, load_rgb, read_image, walk_files
from image_finder.components.moments import is_exact, modified_ns
from image_finder.components.records.base import PartName
from image_finder.components.records.data import DatasetManifest
from image_finder.components.storage import sha256_of_bytes, sha256_of_file, sha256_of_lines, write_table_atomically
from image_finder.components.text import one_line, shown_path

logger = logging.getLogger(__name__)

CHECK_PX = 64  # JPEGs are checked at 1/8 of their size as long as both sides keep so many pixels
_CACHE_FORMAT = b"1"  # raise it when facts change their meaning: caches of another format are read anew


@dataclass(frozen=True)
class _Facts:
    """What one file is, as of the size and time of change it had."""

    file_name: str
    size: int
    mtime_ns: int
    sha256: str
    n_bytes: int
    width_px: int
    height_px: int
    error: str


def inspect_images(
    captions: pd.DataFrame, root: Path, *, cache_path: Path | None = None, workers: int = 2, progress: bool = False
) -> pd.DataFrame:
    """The images table (see the module's docstring) of a captions table whose file names are relative to root.

    Each file is read once, hashed and decoded to its end, in `workers` threads (Pillow and hashlib release the GIL).
    JPEGs are decoded at a reduced scale: libjpeg still reads all coefficients, so a truncated file is found all the
    same, only the inverse transform is cheaper. cache_path: Parquet of what was found, by file name, size and time of
    change; a file that has kept these is not read again, and a broken cache is made anew. Progress goes to stderr.
    Broken, missing and refused images are rows with an error. Raises StorageError if the cache cannot be written.
    """
    rows = captions.drop_duplicates(["part", "image_id"])[["image_id", "file_name", "part"]].reset_index(drop=True)
    cached = _read_cache(cache_path) if cache_path else {}
    known: dict[str, _Facts] = {}
    changed: list[str] = []
    for file_name in rows["file_name"].unique():
        facts = cached.get(file_name)
        if facts is not None and _stamp(root, file_name) == (facts.size, facts.mtime_ns):
            known[file_name] = facts
        else:
            changed.append(file_name)
    fresh: dict[str, _Facts] = {}
    try:
        _inspect_files(root, changed, fresh, workers=workers, progress=progress)
    finally:  # what an interrupted run has found is kept
        readable = {name: facts for name, facts in fresh.items() if facts.sha256}
        if cache_path and readable:
            _write_cache(cache_path, {**cached, **readable})
    known.update(fresh)
    found = [known[name] for name in rows["file_name"]]
    return rows.assign(
        sha256=pd.Series([facts.sha256 for facts in found], dtype="str"),
        bytes=pd.Series([facts.n_bytes for facts in found], dtype="int64"),
        width_px=pd.Series([facts.width_px for facts in found], dtype="int64"),
        height_px=pd.Series([facts.height_px for facts in found], dtype="int64"),
        error=pd.Series([facts.error for facts in found], dtype="str"),
    )


def build_manifest(captions: pd.DataFrame, images: pd.DataFrame, config: DatasetConfig) -> DatasetManifest:
    """Sum up a data set that was read by read_captions and inspect_images; its `version` is the data version.

    The annotations of a part are identified by their file's SHA-256, by that over the files' if there are several, or by
    that of the captions if they came from the hub. Raises DataError as part_files does.
    """
    readable = images[images["error"] == ""]
    images_of_part = captions.groupby("part", observed=True)["image_id"].nunique()
    return DatasetManifest(
        name=config.name,
        layout=config.layout,
        root=str(config.root) if config.root else "",
        n_images=int(images_of_part.sum()),
        n_captions=len(captions),
        n_images_of_part={str(part): int(n_images) for part, n_images in images_of_part.items()},
        annotations_sha256=_annotations_hashes(part_files(config), captions),
        images_sha256=sha256_of_lines(set(zip(readable["file_name"], readable["sha256"], strict=True))),
        mean_caption_characters=float(captions["caption"].str.len().mean()),
        unreadable_images=len(images) - len(readable),
    )


def quick_fingerprint(config: DatasetConfig) -> str:
    """Hex SHA-256 that changes when a data set's configuration, annotations or image files change; for cache keys.

    Of the images only names, sizes and times of change are read, so copying a data set changes it too: the data
    version is DatasetManifest.version. Files not there (yet) count as absent. Of a data set on the hub, what stands
    for the annotations is the configuration.
    """
    lines: list[tuple[str | int, ...]] = [("config", config.model_dump_json())]
    if config.root is not None:
        files = part_files(config)
        lines += [(file.name, sha256_of_file(path)) for file in files if (path := file.annotations) and path.is_file()]
        folders = sorted({file.images for file in files})
        lines += [(folder, fingerprint_folder(config.root / folder)) for folder in folders]
    return sha256_of_lines(lines)


def fingerprint_folder(folder: Path) -> str:
    """Hex SHA-256 over names, sizes and times of change of all files below a folder; absent, it counts as empty."""
    if not folder.is_dir():
        return sha256_of_lines([])
    return sha256_of_lines((name, status.st_size, status.st_mtime_ns) for name, status in walk_files(folder))


def _annotations_hashes(files: Sequence[PartFile], captions: pd.DataFrame) -> dict[PartName, str]:
    hashes: dict[PartName, list[str]] = {}
    for file in files:
        hashes.setdefault(file.name, []).append(_annotations_hash(file, captions))
    return {
        part: each[0] if len(each) == 1 else sha256_of_lines((digest,) for digest in each)
        for part, each in hashes.items()
    }


def _annotations_hash(file: PartFile, captions: pd.DataFrame) -> str:
    if file.annotations is not None:
        return sha256_of_file(file.annotations)
    rows = captions.loc[captions["part"] == file.name, ["caption_id", "image_id", "file_name", "caption"]]
    return sha256_of_lines(rows.itertuples(index=False, name=None))


def _inspect_files(root: Path, file_names: list[str], into: dict[str, _Facts], *, workers: int, progress: bool) -> None:
    executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="inspect")
    try:
        found = executor.map(lambda name: _inspect_file(root, name), file_names)
        for facts in tqdm(found, total=len(file_names), desc="images", unit="", disable=not progress):
            into[facts.file_name] = facts
    finally:
        executor.shutdown(cancel_futures=True)


def _inspect_file(root: Path, file_name: str) -> _Facts:
    if leads_out(file_name):
        return _failed(file_name, "refused: the file name leads out of the data set's folder")
    path = root / file_name
    try:
        status = path.stat()
        data = read_image(path)
    except FileNotFoundError:
        return _failed(file_name, f"the file is missing: {shown_path(path)}")
    except ImageError as error:
        return _failed(file_name, str(error).partition(": ")[2])
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return _failed(file_name, getattr(error, "strerror", None) or str(error))
    width_px, height_px, reason = 0, 0, ""
    try:
        load_rgb(data, at_least_px=CHECK_PX)
        width_px, height_px = image_size(data)
    except ImageError as error:
        reason = str(error).partition(": ")[2]
    stamp = (status.st_size, modified_ns(status))
    return _Facts(file_name, *stamp, sha256_of_bytes(data), len(data), width_px, height_px, reason)


def _failed(file_name: str, error: str) -> _Facts:
    return _Facts(file_name, 0, 0, "", 0, 0, 0, error)


def _stamp(root: Path, file_name: str) -> tuple[int, int] | None:
    """(size in bytes, time of change in ns) of a file; None if it cannot be told."""
    try:
        status = (root / file_name).stat()
    except (OSError, ValueError):
        return None
    stamp_ns = modified_ns(status)
    return (status.st_size, stamp_ns) if is_exact(stamp_ns) else None  # out of range, it cannot show a change


def _read_cache(path: Path) -> dict[str, _Facts]:
    """Facts by file name; none if there is no cache, or one that is broken or of another format."""
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path)
        if (table.schema.metadata or {}).get(b"format_version") != _CACHE_FORMAT:
            return {}
        columns = [table[field.name].to_pylist() for field in fields(_Facts)]
    except (pa.ArrowException, OSError, KeyError) as error:
        logger.warning("%s is damaged and will be rebuilt: %s", path, one_line(error))
        return {}
    return {row[0]: _Facts(*row) for row in zip(*columns, strict=True)}


def _write_cache(path: Path, facts: dict[str, _Facts]) -> None:
    entries = list(facts.values())
    columns = {field.name: [getattr(entry, field.name) for entry in entries] for field in fields(_Facts)}
    table = pa.table(columns).replace_schema_metadata({b"format_version": _CACHE_FORMAT})
    write_table_atomically(path, table)

"""Inspection: hashes and decodes every image of a captions table once; knows nothing of annotations or models.

The images table has a row for each distinct (part, image_id) of the captions table: image_id int64, file_name str,
part str, sha256 str (of the file's bytes; "" if it was not read), bytes int64 (0 if it was not read), width_px int64,
height_px int64 (as displayed; 0 if unreadable), error str ("" if the image can be used, else the reason in one line).
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from image_finder.components.captions.file_names import leads_out
from image_finder.components.errors import ImageError
from image_finder.components.images.decoding import image_size, load_rgb
from image_finder.components.images.files import read_image
from image_finder.components.moments import is_exact, modified_ns
from image_finder.components.progress_bar import progress_bar
from image_finder.components.storage import sha256_of_bytes, write_table_atomically
from image_finder.components.text import one_line, shown_path

logger = logging.getLogger(__name__)

_THREADS = 2
CHECK_PX = 64  # JPEGs are checked at 1/8 of their size if both sides keep at least so many pixels
_CACHE_FORMAT = b"1"  # raise it when facts change their meaning: caches of another format are ignored


@dataclass(frozen=True)
class _Facts:
    """A file's content, and the size and modification time it had when it was read."""

    file_name: str
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    n_bytes: int = 0
    width_px: int = 0
    height_px: int = 0
    error: str = ""


def inspect_images(
    captions: pd.DataFrame, root: Path, *, cache_path: Path | None = None, progress: bool = False
) -> pd.DataFrame:
    """The images table (see above) of a captions table whose file names are relative to root.

    Each file is read once, in two threads (Pillow and hashlib release the GIL). JPEGs are decoded at a reduced
    scale, which still reads every coefficient and so detects truncated files. cache_path: Parquet file of results by
    file name, size and modification time; a damaged one is rebuilt. Raises StorageError if it cannot be written.
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
        _inspect_files(root, changed, fresh, progress=progress)
    finally:  # keep the results of an interrupted run
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


def _inspect_files(root: Path, file_names: list[str], into: dict[str, _Facts], *, progress: bool) -> None:
    executor = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="inspect")
    try:
        found = executor.map(lambda name: _inspect_file(root, name), file_names)
        for facts in progress_bar(found, total=len(file_names), desc="inspecting", unit=" images", shown=progress):
            into[facts.file_name] = facts
    finally:
        executor.shutdown(cancel_futures=True)


def _inspect_file(root: Path, file_name: str) -> _Facts:
    if leads_out(file_name):
        return _Facts(file_name, error="refused: the file name leads out of the data set's folder")
    path = root / file_name
    try:
        status = path.stat()
        data = read_image(path)
    except FileNotFoundError:
        return _Facts(file_name, error=f"the file is missing: {shown_path(path)}")
    except ImageError as error:
        return _Facts(file_name, error=str(error).partition(": ")[2])
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return _Facts(file_name, error=getattr(error, "strerror", None) or str(error))
    width_px, height_px, reason = 0, 0, ""
    try:
        load_rgb(data, at_least_px=CHECK_PX)
        width_px, height_px = image_size(data)
    except ImageError as error:
        reason = str(error).partition(": ")[2]
    stamp = (status.st_size, modified_ns(status))
    return _Facts(file_name, *stamp, sha256_of_bytes(data), len(data), width_px, height_px, reason)


def _stamp(root: Path, file_name: str) -> tuple[int, int] | None:
    try:
        status = (root / file_name).stat()
    except (OSError, ValueError):
        return None
    stamp_ns = modified_ns(status)
    return (status.st_size, stamp_ns) if is_exact(stamp_ns) else None  # a clamped time shows no change


def _read_cache(path: Path) -> dict[str, _Facts]:
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

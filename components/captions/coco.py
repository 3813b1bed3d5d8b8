"""Captions table: reads COCO captions JSON and the table of phiyodr/coco2017 into one form; opens no image, lists folders.

The captions table has a row for each caption: image_id int64, caption_id int64, file_name str (POSIX path relative to
the data set's root), caption str, width_px int64, height_px int64 (as annotated; 0 if unknown), license int64 (0 if
unknown), part str ("train" | "val" | "test"). File names are those of the files that are there, as
image_finder.components.captions.file_names resolves what the annotations say. Rows are sorted by part in that order, image_id and caption_id. Ids are
those of the annotations; where a part comes in several files, `read_captions` says how they are kept apart.
Formats: https://cocodataset.org/#format-data and https://huggingface.co/datasets/phiyodr/coco2017.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from image_finder.components.captions.file_names import ImageNames
from image_finder.components.configs import DatasetConfig
from image_finder.components.errors import DataError
from image_finder.components.hub import dataset_revision
from image_finder.components.records.base import PartName
from image_finder.components.text import one_line, shortened

logger = logging.getLogger(__name__)

PART_NAMES: tuple[PartName, ...] = get_args(PartName)
_TABLE_COLUMNS = ("image_id", "file_name", "width", "height", "license", "ids", "captions")
_IDS = ["image_id", "caption_id"]
_SHOWN_IDS = 5
_EXACT_FLOAT = 2.0**53  # up to it every integer is a float


@dataclass(frozen=True)
class PartFile:
    """One file of a part of a data set, resolved: its annotations (None: a split on the hub) and its image folder."""

    name: PartName
    annotations: Path | None
    hub_split: str
    images: str  # POSIX path relative to the root, "" for the root itself

    @property
    def place(self) -> str:
        """Where the annotations are, for messages."""
        return str(self.annotations) if self.annotations else f"split '{self.hub_split}'"


def part_files(config: DatasetConfig) -> tuple[PartFile, ...]:
    """The files of a data set's parts, in the order train, val, test and in a part as listed.

    Raises DataError if local files need a root not set.
    """
    if config.layout == "demo":
        named = {"train": [("annotations/captions.json", "images")]}
    else:
        named = {name: [(file.annotations, file.images) for file in files] for name, files in config.parts.items()}
    on_hub = config.layout == "coco2017_table" and config.hub_dataset is not None
    if config.root is None and not on_hub:
        hint = "the demo scenes have not been made yet" if config.layout == "demo" else "set it to the data's folder"
        raise DataError(f"data set '{config.name}': root is not set; {hint}")
    parts = []
    for name in PART_NAMES:
        for annotations, images in named.get(name, []):
            folder = PurePosixPath(images).as_posix()
            path = None if on_hub or config.root is None else config.root / annotations
            parts.append(PartFile(name, path, annotations, "" if folder == "." else folder))
    return tuple(parts)


def read_captions(config: DatasetConfig, *, hub_cache: Path | None = None) -> pd.DataFrame:
    """Read the captions table (see the module's docstring) of a data set in any layout.

    Images need not be there. A null caption becomes an empty one, for the validation to quarantine and count;
    images without captions are left out and logged. Data sets count from where they like: where a further file of a
    part has ids that another file has too, all of its own are raised to follow the highest of these files. hub_cache:
    folder for what `datasets` fetches; None: its own. Raises DataError for a file that is missing or malformed, a key
    or column that is missing or of another type, image ids that are annotated twice differently, captions of unknown
    images, and a part without captions.
    """
    frames: dict[PartName, list[pd.DataFrame]] = {}
    for file in part_files(config):
        frames.setdefault(file.name, []).append(_read_file(file, config, hub_cache))
    parts = [_finish(frame, part, config.max_images) for part, frame in _joined(frames).items()]
    return pd.concat(parts, ignore_index=True)


def _joined(frames: dict[PartName, list[pd.DataFrame]]) -> dict[PartName, pd.DataFrame]:
    """The captions of each part's files as one table, with ids of further files raised as read_captions says."""
    taken = pd.concat([first[_IDS] for first, *_ in frames.values()])
    joined = {}
    for part, (first, *further) in frames.items():
        apart = [first]
        for frame in further:
            shared = [column for column in _IDS if frame[column].isin(taken[column]).any()]
            raised = {column: frame[column] - frame[column].min() + taken[column].max() + 1 for column in shared}
            apart.append(frame.assign(**raised))
            taken = pd.concat([taken, apart[-1][_IDS]])
        joined[part] = pd.concat(apart)
    return joined


def _read_file(file: PartFile, config: DatasetConfig, hub_cache: Path | None) -> pd.DataFrame:
    """One row a caption, unsorted, without the column part."""
    if config.layout != "coco2017_table":
        frame = _read_coco_json(file, config.root)
    elif file.annotations is None:
        frame = _flatten(_load_hub_table(config, file, hub_cache), file, config.root)
    else:
        frame = _flatten(_read_parquet(file.annotations), file, config.root)
    if frame.empty:
        raise DataError(f"{file.place}: no captions for part '{file.name}' of data set '{config.name}'")
    return frame


def _finish(frame: pd.DataFrame, part: PartName, max_images: int | None) -> pd.DataFrame:
    """Sort one part, keep its first max_images images by id, and give it its columns in order."""
    frame = frame.sort_values(["image_id", "caption_id"], kind="stable", ignore_index=True)
    if max_images is not None:
        kept = np.unique(frame["image_id"].to_numpy())[:max_images]
        frame = frame[frame["image_id"] <= kept[-1]].reset_index(drop=True)
    order = ["image_id", "caption_id", "file_name", "caption", "width_px", "height_px", "license"]
    return frame[order].assign(part=pd.Series(part, index=frame.index, dtype="str"))


# COCO captions JSON


def _read_coco_json(file: PartFile, root: Path | None) -> pd.DataFrame:
    """One row a caption, unsorted, without the column part."""
    path = _existing(file.annotations, file)
    content = _load_json(path)
    images, annotations = (_list_at(content, key, path) for key in ("images", "annotations"))
    image_table = pd.DataFrame(
        {
            "image_id": _integers(_values(images, "id", "images", path), f"{path}: images[].id"),
            "file_name": _file_names(
                _values(images, "file_name", "images", path),
                ImageNames(root, file.images),
                f"{path}: images[].file_name",
            ),
            "width_px": _integers_or_zero(images, "width", path),
            "height_px": _integers_or_zero(images, "height", path),
            "license": _licenses(
                [_value_or_zero(row, "license") for row in images],
                f"{path}: images[].license",
                _license_ids(content.get("licenses")),
            ),
        }
    )
    ids = _values(annotations, "image_id", "annotations", path)
    texts = _values(annotations, "caption", "annotations", path)
    captions = pd.DataFrame(
        {
            "image_id": _integers(ids, f"{path}: annotations[].image_id"),
            "caption_id": _integers(_values(annotations, "id", "annotations", path), f"{path}: annotations[].id"),
            "caption": _strings(["" if text is None else text for text in texts], f"{path}: annotations[].caption"),
        }
    )
    return _join(captions, _distinct(image_table, str(path)), str(path))


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # both JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise DataError(f"{path}: not valid JSON ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images and annotations, found a {type(content).__name__}")
    return content


def _list_at(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    if key not in content:
        raise DataError(f"{path}: no key '{key}', so this is no COCO captions file; found: {_listed(content)}")
    if not isinstance(content[key], list):
        raise DataError(f"{path}: '{key}' must be a list, found a {type(content[key]).__name__}")
    return list(content[key])


def _values(rows: list[Any], key: str, name: str, path: Path) -> list[Any]:
    """The value under key of every row. A comprehension first: half a million rows take some 20 ms."""
    try:
        return [row[key] for row in rows]
    except (KeyError, TypeError):
        for position, row in enumerate(rows):
            if not isinstance(row, dict):
                found = type(row).__name__
                raise DataError(f"{path}: {name}[{position}] must be an object, found a {found}") from None
            if key not in row:
                raise DataError(f"{path}: {name}[{position}] has no key '{key}'; found: {_listed(row)}") from None
        raise


def _integers_or_zero(rows: list[dict[str, Any]], key: str, path: Path) -> npt.NDArray[np.int64]:
    return _integers([_value_or_zero(row, key) for row in rows], f"{path}: images[].{key}")


def _value_or_zero(row: dict[str, Any], key: str) -> Any:  # noqa: ANN401
    return 0 if (value := row.get(key)) is None else value


def _license_ids(licenses: object) -> dict[str, int]:
    """Ids of the file's list of licences by name and by address; empty where there is no such list."""
    rows = [row for row in licenses if isinstance(row, dict)] if isinstance(licenses, list) else []
    return {
        row[key].strip().casefold(): row["id"]
        for row in rows
        for key in ("name", "url")
        if isinstance(row.get(key), str) and type(row.get("id")) is int
    }


def _distinct(image_table: pd.DataFrame, place: str) -> pd.DataFrame:
    """Drop images that are listed twice alike. Raises DataError if the same id stands for different images."""
    image_table = image_table.drop_duplicates(ignore_index=True)
    doubled = image_table.loc[image_table["image_id"].duplicated(), "image_id"]
    if len(doubled):
        raise DataError(f"{place}: {_count(doubled, 'image id')} listed twice with different contents")
    return image_table


def _join(captions: pd.DataFrame, image_table: pd.DataFrame, place: str) -> pd.DataFrame:
    """Put each caption beside its image. Raises DataError if an image is not listed."""
    orphans = captions.loc[~captions["image_id"].isin(image_table["image_id"]), "image_id"]
    if len(orphans):
        n_captions = f"{len(orphans):,} of {len(captions):,} captions"
        raise DataError(f"{place}: {n_captions} point to {_count(orphans, 'image id')} not listed under images")
    mute = image_table.loc[~image_table["image_id"].isin(captions["image_id"]), "image_id"]
    if len(mute):
        logger.warning("%s: %s without a caption left out", place, _count(mute, "image id"))
    return captions.merge(image_table, on="image_id", how="inner", validate="many_to_one")


# The table of phiyodr/coco2017


def _read_parquet(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: no such file; is root right, and has the data set been fetched?")
    try:
        found = pq.read_schema(path).names
        _require_columns(found, str(path))
        return pq.read_table(path, columns=list(_TABLE_COLUMNS))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({one_line(error)})") from error


def _load_hub_table(config: DatasetConfig, file: PartFile, cache: Path | None) -> pa.Table:
    name, revision = str(config.hub_dataset), dataset_revision(config)
    import datasets  # costs 1.6 s, and only this layout needs it

    folder = str(cache) if cache else None
    try:
        rows = datasets.load_dataset(name, split=file.hub_split, cache_dir=folder, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"cannot load {file.place} of {name}: {one_line(error)}; check name, split and network, or fetch its "
            "Parquet files and leave hub_dataset out"
        ) from error
    _require_columns(rows.column_names, f"{name}, {file.place}")
    table = rows.select_columns(list(_TABLE_COLUMNS)).with_format("arrow")[:]
    return table if isinstance(table, pa.Table) else pa.table(table)


def _require_columns(found: Sequence[str], place: str) -> None:
    missing = [name for name in _TABLE_COLUMNS if name not in found]
    if missing:
        raise DataError(f"{place}: no column {', '.join(missing)}; found: {_listed(found)}")


def _flatten(table: pa.Table, file: PartFile, root: Path | None) -> pd.DataFrame:
    """One row a caption from one row an image, unsorted, without the column part."""
    place = file.place
    image_table = pd.DataFrame(
        {
            "image_id": _integers(table["image_id"].to_pylist(), f"{place}: column image_id"),
            "file_name": _file_names(
                table["file_name"].to_pylist(), ImageNames(root, file.images), f"{place}: column file_name"
            ),
            "width_px": _integers(_filled(table["width"]), f"{place}: column width"),
            "height_px": _integers(_filled(table["height"]), f"{place}: column height"),
            "license": _licenses(_filled(table["license"]), f"{place}: column license", {}),
        }
    )
    ids, texts, lengths = _lists(table, place)
    captions = pd.DataFrame(
        {
            "image_id": np.repeat(image_table["image_id"].to_numpy(), lengths),
            "caption_id": _integers(ids.to_pylist(), f"{place}: column ids"),
            "caption": _strings(
                ["" if text is None else text for text in texts.to_pylist()], f"{place}: column captions"
            ),
        }
    )
    return _join(captions, _distinct(image_table, place), place)


def _lists(table: pa.Table, place: str) -> tuple[pa.Array, pa.Array, npt.NDArray[np.int64]]:
    """Flat ids, flat captions and how many each row has. Raises DataError if a row's two lists differ in length."""
    columns = {name: table[name].combine_chunks() for name in ("ids", "captions")}
    for name, column in columns.items():
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise DataError(f"{place}: column {name} must hold lists, found {column.type}")
    n_ids, n_captions = (pc.fill_null(pc.list_value_length(column), 0).to_numpy() for column in columns.values())
    uneven = np.flatnonzero(n_ids != n_captions)
    if len(uneven):
        images = table["image_id"].take(pa.array(uneven)).to_pylist()
        raise DataError(f"{place}: ids and captions differ in number for {_count(images, 'image id')}")
    return pc.list_flatten(columns["ids"]), pc.list_flatten(columns["captions"]), n_ids.astype(np.int64)


# Shared by both layouts


def _existing(path: Path | None, file: PartFile) -> Path:
    if path is None or not path.is_file():
        raise DataError(f"{file.place}: no such file; is root right, and has the data set been fetched?")
    return path


def _filled(column: pa.ChunkedArray) -> list[Any]:
    return [0 if value is None else value for value in column.to_pylist()]


def _integers(values: Sequence[Any] | npt.NDArray[Any], place: str) -> npt.NDArray[np.int64]:
    """Values as int64; integral floats (640.0) count as integers.

    Raises DataError if any is no integer of 64 bits (NumPy would cut 1.5 and read "1" silently).
    """
    try:
        array = np.asarray(values if len(values) else np.zeros(0, np.int64))
    except (ValueError, OverflowError):
        array = np.empty(len(values), object)
    if array.dtype.kind == "f" and (np.abs(array) <= _EXACT_FLOAT).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.dtype.kind == "u" and (array > 2**63 - 1).any()):
        _refuse_first(values, int, place)
    return array.astype(np.int64)


def _licenses(values: Sequence[Any], place: str, known: dict[str, int]) -> npt.NDArray[np.int64]:
    """Ids of licences; a text is one of the known names, or a number, or unknown (0), which is logged."""
    if not any(isinstance(value, str) for value in values):
        return _integers(values, place)
    texts = {value: value.strip().casefold() for value in values if isinstance(value, str)}
    ids = {value: int(text) if text.isdecimal() else known.get(text, 0) for value, text in texts.items()}
    if unknown := sorted(value for value, number in ids.items() if number == 0 and texts[value] not in {"", "0"}):
        logger.warning(
            "%s: %r has no id in the list of licences and counts as unknown", place, shortened(unknown[0], 80)
        )
    return _integers([ids[value] if isinstance(value, str) else value for value in values], place)


def _file_names(values: list[Any], names: ImageNames, place: str) -> "pd.Series[str]":
    texts = _strings(values, place).tolist()
    try:
        return pd.Series(names.resolve(texts), dtype="str")
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _strings(values: list[Any], place: str) -> "pd.Series[str]":
    """Values as a column of text. Raises DataError if any is no text, or text that cannot be stored as UTF-8."""
    if not all(isinstance(value, str) for value in values):
        _refuse_first(values, str, place)
    try:
        return pd.Series(values, dtype="str")
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: a text holds half a surrogate pair ({error.reason}); mend the file") from error


def _refuse_first(values: Iterable[Any], wanted: type, place: str) -> NoReturn:
    for position, value in enumerate(values):
        if wanted is int and isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_FLOAT:
            continue
        if isinstance(value, bool) or not isinstance(value, (wanted, np.integer) if wanted is int else wanted):
            raise DataError(f"{place}: entry {position} must be {wanted.__name__}, found {shortened(repr(value), 80)}")
    raise DataError(f"{place}: a value does not fit into 64 bits")


def _count(ids: Iterable[Any], noun: str) -> str:
    distinct = sorted({int(value) for value in ids})
    shown = ", ".join(map(str, distinct[:_SHOWN_IDS])) + (", ..." if len(distinct) > _SHOWN_IDS else "")
    return f"{len(distinct):,} {noun}{'s' if len(distinct) != 1 else ''} ({shown})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:12]) or "nothing"

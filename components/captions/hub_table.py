"""Hub table: the only reader of tables like phiyodr/coco2017, from the Hugging Face hub or a Parquet file.

One row an image; ids[i] is the id of captions[i]. Format: https://huggingface.co/datasets/phiyodr/coco2017
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from image_finder.components.arrays import IntArray
from image_finder.components.captions.annotations import (
    Annotations,
    CaptionColumns,
    counted_ids,
    image_columns,
    integers,
    listed,
    texts_or_empty,
)
from image_finder.components.errors import DataError
from image_finder.components.text import one_line

CAPTION_COLUMNS = ("image_id", "file_name", "width", "height", "license", "ids", "captions")


def read_parquet(path: Path, columns: Sequence[str] = CAPTION_COLUMNS) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the data set's root and annotations")
    try:
        _require_columns(pq.read_schema(path).names, columns, str(path))
        return pq.read_table(path, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({one_line(error)})") from error


def read_hub(
    name: str,
    split: str,
    revision: str | None,
    columns: Sequence[str] = CAPTION_COLUMNS,
    *,
    otherwise: str = "set root to a folder with its Parquet files and leave hub_dataset out",
) -> pa.Table:
    """Columns of a split on the hub, at a commit. otherwise: what to do without the hub. Raises DataError."""
    import datasets  # 1.6 s, and not needed for a local table

    try:
        rows = datasets.load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"cannot load split '{split}' of {name} from the Hugging Face hub: {one_line(error)}; "
            f"check name, split and network, or {otherwise}"
        ) from error
    _require_columns(rows.column_names, columns, f"{name}, split '{split}'")
    table = rows.select_columns(list(columns)).with_format("arrow")[:]
    return table if isinstance(table, pa.Table) else pa.table(table)


def annotations_of(table: pa.Table, source: str) -> Annotations:
    """Images and captions of a table with CAPTION_COLUMNS. Raises DataError for wrong types."""
    columns = ("image_id", "file_name", "width", "height", "license")
    images = image_columns({name: table[name].to_pylist() for name in columns}, f"{source}: column ", {})
    ids, captions, lengths = _lists(table, source)
    return Annotations.checked(
        source,
        images,
        CaptionColumns(
            np.repeat(images.ids, lengths),
            integers(ids.to_pylist(), f"{source}: column ids"),
            texts_or_empty(captions.to_pylist(), f"{source}: column captions"),
        ),
    )


def _require_columns(found: Sequence[str], columns: Sequence[str], source: str) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise DataError(f"{source}: no column {', '.join(missing)}; found: {listed(found)}")


def _lists(table: pa.Table, source: str) -> tuple[pa.Array, pa.Array, IntArray]:
    """Flat ids, flat captions and their number in each row. Raises DataError if these differ."""
    columns = {name: table[name].combine_chunks() for name in ("ids", "captions")}
    for name, column in columns.items():
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise DataError(f"{source}: column {name} must hold lists, found {column.type}")
    n_ids, n_captions = (pc.fill_null(pc.list_value_length(column), 0).to_numpy() for column in columns.values())
    uneven = np.flatnonzero(n_ids != n_captions)
    if len(uneven):
        images = table["image_id"].take(pa.array(uneven)).to_pylist()
        raise DataError(f"{source}: ids and captions differ in number for {counted_ids(images)}")
    return pc.list_flatten(columns["ids"]), pc.list_flatten(columns["captions"]), n_ids.astype(np.int64)

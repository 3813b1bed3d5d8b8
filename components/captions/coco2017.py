"""phiyodr/coco2017 as a COCO folder: its table, captions JSON and image requests; fetches no image."""

import json
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from image_finder.components.captions.download import ImageRequest
from image_finder.components.captions.file_names import plain_name
from image_finder.components.captions.hub_table import read_hub, read_parquet
from image_finder.components.errors import DataError
from image_finder.components.storage import write_table_atomically, write_text_atomically
from image_finder.components.text import counted, one_line

HUB_DATASET = "phiyodr/coco2017"
REVISION_FILE = "huggingface/revision.txt"  # commit the tables of a folder come from
Split = Literal["train", "validation"]
_HUB_S = 20.0
_OTHERWISE = "give a local copy of the table with --table"

# https://huggingface.co/datasets/phiyodr/coco2017: one row an image, ids[i] is the caption id of captions[i].
SCHEMA = pa.schema(
    {
        "license": pa.int64(),
        "file_name": pa.string(),
        "coco_url": pa.string(),
        "height": pa.int64(),
        "width": pa.int64(),
        "date_captured": pa.string(),
        "flickr_url": pa.string(),
        "image_id": pa.int64(),
        "ids": pa.list_(pa.int64()),
        "captions": pa.list_(pa.string()),
    }
)
_NEEDED = ("image_id", "file_name", "coco_url", "ids", "captions")

# As in COCO's own annotation files (https://cocodataset.org/#termsofuse).
_LICENSES = (
    (1, "Attribution-NonCommercial-ShareAlike License", "http://creativecommons.org/licenses/by-nc-sa/2.0/"),
    (2, "Attribution-NonCommercial License", "http://creativecommons.org/licenses/by-nc/2.0/"),
    (3, "Attribution-NonCommercial-NoDerivs License", "http://creativecommons.org/licenses/by-nc-nd/2.0/"),
    (4, "Attribution License", "http://creativecommons.org/licenses/by/2.0/"),
    (5, "Attribution-ShareAlike License", "http://creativecommons.org/licenses/by-sa/2.0/"),
    (6, "Attribution-NoDerivs License", "http://creativecommons.org/licenses/by-nd/2.0/"),
    (7, "No known copyright restrictions", "http://flickr.com/commons/usage/"),
    (8, "United States Government Work", "http://www.usa.gov/copyright.shtml"),
)


def pinned_revision(root: Path, revision: str | None = None) -> str:
    """Commit of the hub's data set for root: the recorded one, else the given, else the newest.

    Raises DataError if another commit than the recorded one is given, or if the hub cannot be reached.
    """
    path = root / REVISION_FILE
    try:
        recorded = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return revision or _newest_revision()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {one_line(error)}; fetch to another folder") from error
    if revision not in (None, recorded):
        raise DataError(
            f"the tables in {root} come from commit {recorded} of {HUB_DATASET}, not {revision}; "
            "fetch to another folder, or leave --revision out"
        )
    return recorded


def read_table(
    split: Split, *, table: Path | None = None, limit: int | None = None, revision: str | None = None
) -> pa.Table:
    """Rows of a split with the columns of SCHEMA, sorted by image_id; the first `limit` of them.

    table: local Parquet file; None: the hub at a commit, through its cache. Raises DataError.
    """
    if table is None:
        where = HUB_DATASET
        raw = read_hub(HUB_DATASET, split, revision, SCHEMA.names, otherwise=_OTHERWISE)
    else:
        where = str(table)
        raw = read_parquet(table, SCHEMA.names)
    try:
        rows = _tidied(raw, _folder_of(split)).cast(SCHEMA).sort_by("image_id")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{where} has a column of the wrong type: {one_line(error)}; expected {SCHEMA.names}"
        ) from error
    _check_rows(rows, where)
    return rows if limit is None else rows.slice(0, limit)


def write_layouts(rows: pa.Table, root: Path, split: Split, *, revision: str | None = None) -> tuple[Path, Path]:
    """Write rows below root as huggingface/{train|validation}.parquet and as COCO captions JSON; returns both paths.

    Each is complete or absent, after the commit if they come from the hub. Raises StorageError.
    """
    if revision is not None:
        write_text_atomically(root / REVISION_FILE, f"{revision}\n")
    table_path = root / "huggingface" / f"{split}.parquet"
    captions_path = root / "annotations" / f"captions_{_folder_of(split)}.json"
    write_table_atomically(table_path, rows)
    write_text_atomically(captions_path, json.dumps(to_coco_captions(rows), ensure_ascii=False))
    return table_path, captions_path


def image_folder(root: Path, split: Split) -> Path:
    return root / _folder_of(split)


def image_requests(rows: pa.Table) -> list[ImageRequest]:
    columns = rows.select(["image_id", "coco_url", "file_name"]).rename_columns(["image_id", "url", "file_name"])
    return [ImageRequest(**row) for row in columns.to_pylist()]


def to_coco_captions(rows: pa.Table) -> dict[str, Any]:
    images = []
    annotations: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        ids, captions = row.pop("ids"), row.pop("captions")
        image_id = row.pop("image_id")
        images.append({**row, "id": image_id})
        annotations.extend(
            {"image_id": image_id, "id": caption_id, "caption": caption}
            for caption_id, caption in zip(ids, captions, strict=True)
        )
    licenses = [{"id": number, "name": name, "url": url} for number, name, url in _LICENSES]
    info = {"description": "COCO 2017 captions", "url": "https://cocodataset.org", "source": HUB_DATASET, "year": 2017}
    return {"info": info, "licenses": licenses, "images": images, "annotations": annotations}


def _newest_revision() -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, whichever it uses

    try:
        return str(HfApi().dataset_info(HUB_DATASET, timeout=_HUB_S).sha)
    except (OSError, httpx.HTTPError) as error:
        raise DataError(
            f"cannot read the newest commit of {HUB_DATASET} on the Hugging Face hub: {one_line(error)}; "
            f"check the network, or {_OTHERWISE}"
        ) from error


def _tidied(rows: pa.Table, folder: str) -> pa.Table:
    """Rows with plain file names, and text licences as numbers or null."""
    names, licenses = rows["file_name"].to_pylist(), rows["license"].to_pylist()
    columns = {
        "file_name": [plain_name(name, folder) if isinstance(name, str) else name for name in names],
        "license": [
            (int(value) if value.isdecimal() else None) if isinstance(value, str) else value for value in licenses
        ],
    }
    for name, values in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return rows


def _check_rows(rows: pa.Table, where: str) -> None:
    for name in _NEEDED:
        if nulls := rows.column(name).null_count:
            raise DataError(
                f"{where}: {name} is missing in {nulls:,} of {counted(rows.num_rows, 'row')}; repair the table"
            )
    for row in rows.select(["image_id", "ids", "captions"]).to_pylist():
        if len(row["ids"]) != len(row["captions"]):
            counts = f"{len(row['ids'])} ids for {len(row['captions'])} captions"
            raise DataError(f"{where}: image {row['image_id']} has {counts}; repair the table")


def _folder_of(split: Split) -> str:
    return "train2017" if split == "train" else "val2017"

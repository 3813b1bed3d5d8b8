"""Manifest: sums up a data set and names its content by hash, the data version; decodes no image."""

from collections.abc import Mapping, Sequence

import pandas as pd

from image_finder.components.captions.captions_table import NO_SETS, PartFile, part_files
from image_finder.components.configs import DatasetConfig, PartConfig
from image_finder.components.images.files import fingerprint_folder
from image_finder.components.records.data import DatasetManifest
from image_finder.components.storage import sha256_of_file, sha256_of_lines


def build_manifest(
    captions: pd.DataFrame,
    images: pd.DataFrame,
    config: DatasetConfig,
    extra_sets: Mapping[str, PartConfig] = NO_SETS,
) -> DatasetManifest:
    """The manifest of the tables of read_captions and inspect_images; its `version` is the data version.

    Annotations are identified by the SHA-256 of their files, or of the captions if they come from the hub.
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
        annotations_sha256=_annotations_hashes(part_files(config, extra_sets), captions),
        images_sha256=sha256_of_lines(set(zip(readable["file_name"], readable["sha256"], strict=True))),
        mean_caption_characters=float(captions["caption"].str.len().mean()),
        unreadable_images=len(images) - len(readable),
    )


def quick_fingerprint(config: DatasetConfig, extra_sets: Mapping[str, PartConfig] = NO_SETS) -> str:
    """Hex SHA-256 of a data set's configuration, annotations, and names, sizes and times of images; for cache keys.

    A copy of a data set has another fingerprint. Missing files are allowed. A data set on the hub is identified by its
    configuration alone.
    """
    lines: list[tuple[str | int, ...]] = [("config", config.model_dump_json())]
    if config.root is not None:
        files = part_files(config, extra_sets)
        lines += [(file.name, sha256_of_file(path)) for file in files if (path := file.annotations) and path.is_file()]
        for folder in sorted({file.images for file in files}):
            images = config.root / folder
            lines.append((folder, fingerprint_folder(images) if images.is_dir() else sha256_of_lines([])))
    return sha256_of_lines(lines)


def _annotations_hashes(files: Sequence[PartFile], captions: pd.DataFrame) -> dict[str, str]:
    hashes: dict[str, list[str]] = {}
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

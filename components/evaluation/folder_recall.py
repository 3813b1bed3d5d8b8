"""Folder recall: any bundle on any folder of captioned images, so that a figure can be checked where it is doubted."""

from pathlib import Path
from typing import NamedTuple

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.layout import detect_layout
from image_finder.components.configs import DatasetConfig, EvaluationConfig, ValidationConfig
from image_finder.components.errors import DataError
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.records.base import PartName
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.retrieval import EvaluatedOn
from image_finder.components.validation.check import check_folder
from image_finder.components.validation.expectations import valid_captions

_PREFERRED: tuple[PartName, ...] = ("test", "val", "train")  # what a model was least likely trained on comes first


class FolderMeasurement(NamedTuple):
    """What was measured, and how many of the part's captions were left out: broken ones and those without an image."""

    measurement: BundleMeasurement
    n_captions: int
    n_left_out: int


class CaptionedPart(NamedTuple):
    """A part's images with their valid captions, what it is called, and how many captions it has, broken ones too."""

    data: CaptionedImages
    identity: EvaluatedOn
    n_captions: int


def measure_on_folder(bundle: Bundle, root: Path, part: PartName | None, config: EvaluationConfig) -> FolderMeasurement:
    """Measure a bundle on one part of a data set found out from its folder: test, else val, else train, unless named.

    The captions are validated as a training's are, with limits that stop nothing: what is broken or has no image is
    left out and counted. Raises DataError for a folder without captions or without such a part, BundleError.
    """
    read = read_part(root, part)
    measured = measure_bundle(
        bundle,
        read.data,
        config,
        identity=read.identity,
        code_sha256="",  # tells whether two registered measurements can be compared; this one is not registered
    )
    return FolderMeasurement(measured.measurement, read.n_captions, read.n_captions - len(read.data.captions))


def read_part(root: Path, part: PartName | None) -> CaptionedPart:
    """Read, look at and validate one part of a folder of captioned images, as measure_on_folder says."""
    dataset = _only(detect_layout(root), part)
    name = next(iter(dataset.parts))
    data, report = check_folder(dataset, root, ValidationConfig())
    kept = valid_captions(data.captions, report)
    if kept.empty:
        raise DataError(
            f"none of the {len(data.captions):,} captions of part '{name}' in {root} can be used: "
            "`image-finder data check` tells why"
        )
    identity = EvaluatedOn(dataset=dataset.name, data_version=data.manifest.version, split=name)
    return CaptionedPart(CaptionedImages(kept, data.images, root), identity, len(data.captions))


def _only(dataset: DatasetConfig, part: PartName | None) -> DatasetConfig:
    name = part or next(each for each in _PREFERRED if each in dataset.parts)
    if name not in dataset.parts:
        raise DataError(f"{dataset.root} has no part '{name}': it has {', '.join(dataset.parts)}")
    return dataset.model_copy(update={"parts": {name: dataset.parts[name]}})

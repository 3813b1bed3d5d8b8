"""Folder recall: measures any bundle on any directory of captioned images, so that everyone can verify a figure."""

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
from image_finder.components.text import counted
from image_finder.components.validation.check import check_folder
from image_finder.components.validation.expectations import valid_captions

_PREFERRED: tuple[PartName, ...] = ("test", "val", "train")  # least likely training data first


class FolderMeasurement(NamedTuple):
    """n_captions: all captions; n_left_out: invalid ones and those without an image."""

    measurement: BundleMeasurement
    n_captions: int
    n_left_out: int


class CaptionedPart(NamedTuple):
    """Images of a part with their valid captions. n_captions: also counts invalid ones."""

    data: CaptionedImages
    identity: EvaluatedOn
    n_captions: int


def measure_on_folder(bundle: Bundle, root: Path, part: PartName | None, config: EvaluationConfig) -> FolderMeasurement:
    """Measure a bundle on one part of a data set; by default test, else val, else train.

    Captions are validated as for training, but never fail the measurement: invalid captions and those without an image
    are left out and counted. Raises DataError if there are no captions or no such part, BundleError.
    """
    read = read_part(root, part)
    measured = measure_bundle(
        bundle,
        read.data,
        config,
        identity=read.identity,
        code_sha256="",  # for comparisons of registered measurements only
    )
    return FolderMeasurement(measured.measurement, read.n_captions, read.n_captions - len(read.data.captions))


def read_part(root: Path, part: PartName | None) -> CaptionedPart:
    """Read, inspect and validate one part of a data set; see measure_on_folder."""
    dataset = _only(detect_layout(root), part)
    name = next(iter(dataset.parts))
    data, report = check_folder(dataset, root, ValidationConfig())
    kept = valid_captions(data.captions, report)
    if kept.empty:
        raise DataError(
            f"part '{name}' of {root} has {counted(len(data.captions), 'caption')}, none of them valid; see the reasons "
            "with: image-finder data check"
        )
    identity = EvaluatedOn(dataset=dataset.name, data_version=data.manifest.version, split=name)
    return CaptionedPart(CaptionedImages(kept, data.images, root), identity, len(data.captions))


def _only(dataset: DatasetConfig, part: PartName | None) -> DatasetConfig:
    name = part or next(each for each in _PREFERRED if each in dataset.parts)
    if name not in dataset.parts:
        raise DataError(f"{dataset.root} has no part '{name}', only {', '.join(dataset.parts)}")
    return dataset.model_copy(update={"parts": {name: dataset.parts[name]}})

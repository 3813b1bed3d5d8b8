"""Folder recall: measures any bundle on any directory of captioned images, so that everyone can verify a figure."""

from pathlib import Path
from typing import NamedTuple

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.layout import detect_layout
from image_finder.components.captions.splits import split_captions
from image_finder.components.configs import DatasetConfig, EvaluationConfig, SplitConfig, ValidationConfig
from image_finder.components.errors import DataError
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.metrics.comparison import MeasuredBundle
from image_finder.components.records.base import PartName
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.retrieval import EvaluatedOn
from image_finder.components.text import counted
from image_finder.components.validation.check import check_folder
from image_finder.components.validation.expectations import valid_captions

_PREFERRED: tuple[PartName, ...] = ("test", "val", "train")  # least likely training data first


class CaptionedPart(NamedTuple):
    """Images of a part with their valid captions. n_captions: also counts invalid captions and those without an image."""

    data: CaptionedImages
    identity: EvaluatedOn
    n_captions: int
    manifest: DatasetManifest
    validation: ValidationReport

    @property
    def n_left_out(self) -> int:
        return self.n_captions - len(self.data.captions)

    def measured(self, bundle: Bundle, config: EvaluationConfig, *, code_sha256: str = "") -> MeasuredBundle:
        """Measure a bundle on this part. code_sha256: for registered measurements. Raises DataError, ImageError, BundleError."""
        return measure_bundle(bundle, self.data, config, identity=self.identity, code_sha256=code_sha256)


def read_part(root: Path, part: PartName | None) -> CaptionedPart:
    """Read, inspect and validate one part of a data set; by default test, else val, else train.

    Captions are validated as for training, but never fail: invalid captions and those without an image are left out and
    counted. Raises DataError if there are no captions or no such part.
    """
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
    images = CaptionedImages(kept, data.images, root)
    return CaptionedPart(images, identity, len(data.captions), data.manifest, report)


def held_out_part(
    dataset: DatasetConfig, root: Path, *, split: SplitConfig, validation: ValidationConfig
) -> CaptionedPart:
    """The images that a training with these configurations is measured on: its test part, else val. Raises DataError."""
    data, report = check_folder(dataset, root, validation)
    _, val, test = split_captions(valid_captions(data.captions, report), split, data.images)
    captions, name = (test, "test") if len(test) else (val, "val")
    identity = EvaluatedOn(dataset=dataset.name, data_version=data.manifest.version, split=name)
    images = CaptionedImages(captions.reset_index(drop=True), data.images, root)
    return CaptionedPart(images, identity, len(captions), data.manifest, report)


def _only(dataset: DatasetConfig, part: PartName | None) -> DatasetConfig:
    name = part or next(each for each in _PREFERRED if each in dataset.parts)
    if name not in dataset.parts:
        raise DataError(f"{dataset.root} has no part '{name}', only {', '.join(dataset.parts)}")
    return dataset.model_copy(update={"parts": {name: dataset.parts[name]}})

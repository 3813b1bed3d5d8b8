"""Data folder: finds captioned images, or images alone, to be compared; reads no image."""

from pathlib import Path

from image_finder.components.captions.captions_table import read_captions
from image_finder.components.captions.layout import detect_layout
from image_finder.components.configs import DatasetConfig
from image_finder.components.drift.sample import CaptionedFile, captioned_files
from image_finder.components.errors import DataError
from image_finder.components.images.images import find_images
from image_finder.components.records.base import PartName

_DEMO_CAPTIONS = Path("annotations") / "captions.json"


def read_files(root: Path, part: PartName | None = None) -> list[CaptionedFile]:
    """The images of a data set in any layout a training reads, of one part or of all; or all images below a folder.

    Images of a folder without annotations have no captions. Raises DataError if there are no images, or no such part.
    """
    try:
        dataset = _layout(root)
    except DataError as error:
        names = find_images(root) if root.is_dir() else []
        if not names:
            raise
        if part is not None:
            raise DataError(f"{root} has no part '{part}': it holds images without annotations") from error
        return [CaptionedFile(name.as_posix(), root / name) for name in names]
    captions = read_captions(dataset)
    if part is not None:
        found = sorted(captions["part"].unique().tolist())
        captions = captions[captions["part"] == part]
        if captions.empty:
            raise DataError(f"{root} has no part '{part}': it has {', '.join(found)}")
    return captioned_files(captions, root)


def _layout(root: Path) -> DatasetConfig:
    if (root / _DEMO_CAPTIONS).is_file():
        return DatasetConfig(name=root.name, layout="demo", root=root)
    return detect_layout(root)

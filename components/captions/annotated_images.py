"""Annotated images: the captions of those images of a folder that a COCO captions JSON lists; decodes nothing."""

import logging
from pathlib import Path

from image_finder.components.captions.coco_json import read_coco_json
from image_finder.components.captions.file_names import ImageNames, leads_out
from image_finder.components.errors import DataError
from image_finder.components.text import shown_path

logger = logging.getLogger(__name__)


def captions_by_image(annotations: Path, folder: Path) -> dict[Path, tuple[str, ...]]:
    """Captions by the image's path relative to the folder, in ascending order of image id.

    Images that do not exist are counted in the log. Raises DataError for a missing or malformed file, repeated image
    ids, and if no image exists.
    """
    if not folder.is_dir():
        raise DataError(f"gallery: no such folder: {folder}; check root and images")
    found = read_coco_json(annotations, caption_ids=False)
    if outside := [name for name in found.images.file_names if leads_out(name)]:
        raise DataError(f"{annotations}: file name {outside[0]!r} leaves the folder of the images")
    try:
        names = ImageNames(folder, "").resolve(found.images.file_names)
    except DataError as error:
        raise DataError(f"{annotations}: {error}") from error
    captions: dict[int, list[str]] = {image_id: [] for image_id in found.images.ids.tolist()}
    for image_id, caption in zip(found.captions.image_ids.tolist(), found.captions.texts, strict=True):
        if caption.strip():
            captions[image_id].append(caption.strip())
    images, absent = {}, []
    for image_id, name in sorted(zip(captions, names, strict=True)):
        if (folder / name).is_file():
            images[Path(name)] = tuple(captions[image_id])
        else:
            absent.append(folder / name)
    if absent:
        first = shown_path(absent[0])
        logger.warning(
            "%s: %d of %d annotated images are not in %s, e.g. %s", annotations, len(absent), len(names), folder, first
        )
    if not images:
        raise DataError(f"gallery: no images in {annotations}; check root, images and annotations")
    return images

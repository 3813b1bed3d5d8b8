"""Gallery: a list of images with their captions; decodes nothing."""

import logging
from dataclasses import dataclass
from pathlib import Path

from image_finder.components.captions.coco_json import read_coco_json
from image_finder.components.captions.file_names import ImageNames, leads_out
from image_finder.components.configs import GalleryConfig
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.images.files import find_images
from image_finder.components.text import shown_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GalleryItem:
    """One image. path: relative to the gallery's root, POSIX."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Images in the order of their index."""

    name: str
    root: Path  # absolute
    items: tuple[GalleryItem, ...]


def read_gallery(config: GalleryConfig) -> Gallery:
    """List the images of a folder, or those of a COCO captions JSON that exist.

    With annotations, in ascending order of image id, else of POSIX path. Missing annotated images are counted in the
    log. Raises ConfigError if root is not set; DataError for a missing or malformed folder or file, repeated image
    ids, and a gallery without images.
    """
    if config.root is None:
        raise ConfigError("gallery: root is not set; give the folder of the images")
    root = config.root.expanduser().resolve()
    folder = root / config.images
    if not folder.is_dir():
        raise DataError(f"gallery: no such folder: {folder}; check root and images")
    if config.annotations is None:
        items = [GalleryItem(relative, ()) for relative in find_images(folder)]
        source = f"{folder} and below"
    else:
        source = str(root / config.annotations)
        items = _items_of_annotations(root / config.annotations, folder)
    if not items:
        raise DataError(f"gallery: no images in {source}; check root, images and annotations")
    resolved = folder.resolve()
    return Gallery(resolved.name or str(resolved), resolved, tuple(items))


def _items_of_annotations(path: Path, folder: Path) -> list[GalleryItem]:
    found = read_coco_json(path, caption_ids=False)
    if outside := [name for name in found.images.file_names if leads_out(name)]:
        raise DataError(f"{path}: file name {outside[0]!r} leaves the folder of the images")
    try:
        names = ImageNames(folder, "").resolve(found.images.file_names)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    captions: dict[int, list[str]] = {image_id: [] for image_id in found.images.ids.tolist()}
    for image_id, caption in zip(found.captions.image_ids.tolist(), found.captions.texts, strict=True):
        if caption.strip():
            captions[image_id].append(caption.strip())
    items, absent = [], []
    for image_id, name in sorted(zip(captions, names, strict=True)):
        if (folder / name).is_file():
            items.append(GalleryItem(Path(name), tuple(captions[image_id])))
        else:
            absent.append(folder / name)
    if absent:
        first = shown_path(absent[0])
        logger.warning(
            "%s: %d of %d annotated images are not in %s, e.g. %s", path, len(absent), len(names), folder, first
        )
    return items

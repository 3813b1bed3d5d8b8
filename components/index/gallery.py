"""Gallery: the images to be searched, with what is known of each; decodes nothing and knows nothing of models."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image_finder.components.captions.file_names import ImageNames, leads_out
from image_finder.components.configs import GalleryConfig
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.images.image_folder import ImageFolder, uri_below
from image_finder.components.images.images import find_images
from image_finder.components.text import one_line, shown_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GalleryItem:
    """One image. path: relative to the gallery's root, POSIX."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Images in the order of the index that is made of them."""

    name: str
    root: Path  # absolute; of a gallery on an object store, its URI without options
    items: tuple[GalleryItem, ...]
    uri: str = ""  # of an object store; empty: a folder of this machine

    @property
    def place(self) -> str:
        """Folder or URI, as ImageFolder takes it."""
        return self.uri or str(self.root)

    def file_of(self, item: GalleryItem) -> Path:
        """Absolute path of an item's file."""
        return self.root / item.path


def read_gallery(config: GalleryConfig) -> Gallery:
    """List the images of a folder, or those of a COCO captions JSON that are there.

    With annotations, images come in ascending order of image id; without, in that of their POSIX path. Annotated
    images that are absent are counted in the log.
    Raises ConfigError if neither root nor uri is set; DataError for a folder or file that is missing or malformed, image
    ids that are not unique, and a gallery without images.
    """
    if config.uri:
        return _gallery_of_uri(config.uri, config.images)
    if config.root is None:
        raise ConfigError("gallery: root is not set; name the folder of the images")
    root = config.root.expanduser().resolve()
    folder = root / config.images
    if not folder.is_dir():
        raise DataError(f"gallery: no such folder: {folder}; check root and images")
    if config.annotations is None:
        items = _items_of_folder(folder)
        place = f"{folder} and below"
    else:
        place = str(root / config.annotations)
        items = _items_of_annotations(root / config.annotations, folder)
    if not items:
        raise DataError(f"gallery: no images in {place}; check root, images and annotations")
    resolved = folder.resolve()
    return Gallery(resolved.name or str(resolved), resolved, tuple(items))


def _gallery_of_uri(uri: str, images: str) -> Gallery:
    folder = ImageFolder(uri_below(uri, images))
    items = [GalleryItem(path, ()) for path in folder.images()]
    if not items:
        raise DataError(f"gallery: no images in {folder.shown_place} and below; check uri and images")
    shown = Path(folder.shown_place)
    return Gallery(shown.name, shown, tuple(items), uri_below(uri, images))


def _items_of_folder(folder: Path) -> list[GalleryItem]:
    return [GalleryItem(relative, ()) for relative in find_images(folder)]


def _items_of_annotations(path: Path, folder: Path) -> list[GalleryItem]:
    """Images of a COCO captions JSON that exist in folder, ascending by image id."""
    content = _load_json(path)
    names = _file_names(_rows(content, "images", path), path, folder)
    captions: dict[int, list[str]] = {image_id: [] for image_id in names}
    for position, row in enumerate(_rows(content, "annotations", path)):
        image_id, caption = _captioned(row, position, path)
        if image_id not in captions:
            raise DataError(f"{path}: annotations[{position}].image_id {image_id} is not among images[].id")
        if caption.strip():
            captions[image_id].append(caption.strip())
    items, absent = [], []
    for image_id, name in sorted(names.items()):
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


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"gallery: {path} cannot be read: {error.strerror}; check annotations") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"gallery: {path} is not JSON: {one_line(error)}; restore or fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: a {type(content).__name__} at the top, expected an object with images and annotations"
        )
    return content


def _rows(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    rows = content.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: '{key}' must be a list of objects, as in COCO's captions JSON")
    return rows


def _file_names(rows: list[dict[str, Any]], path: Path, folder: Path) -> dict[int, str]:
    """Paths below folder by image id."""
    names: dict[int, str] = {}
    for position, row in enumerate(rows):
        image_id, name = _whole(row.get("id")), row.get("file_name")
        if image_id is None or not isinstance(name, str) or not name or "\0" in name:
            raise DataError(
                f"{path}: images[{position}] must have an integer id and a file_name, got {row.get('id')!r}, {name!r}"
            )
        if leads_out(name):
            raise DataError(f"{path}: images[{position}].file_name {name!r} leaves the folder of the images")
        if names.setdefault(image_id, name) != name:
            raise DataError(f"{path}: image id {image_id} names two images, {names[image_id]!r} and {name!r}")
    try:
        return dict(zip(names, ImageNames(folder, "").resolve([*names.values()]), strict=True))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _whole(value: object) -> int | None:
    """An integer, also one that another tool wrote as 640.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _captioned(row: dict[str, Any], position: int, path: Path) -> tuple[int, str]:
    image_id, caption = _whole(row.get("image_id")), row.get("caption")
    if image_id is None or not isinstance(caption, str | None):
        raise DataError(
            f"{path}: annotations[{position}] must have an integer image_id and a caption, got {row.get('image_id')!r}, {caption!r}"
        )
    return image_id, (caption or "").encode("utf-8", "replace").decode()  # JSON can hold halves of characters

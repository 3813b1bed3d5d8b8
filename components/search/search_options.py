"""Search options: queries as keyword arguments; reads image files, decodes none."""

import io
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, cast

from PIL import Image

from image_finder.components.errors import ImageError, QueryError
from image_finder.components.images.decoding import image_size, upright_rgb
from image_finder.components.search.query import Duplicates, Order, Query

ImageSource: TypeAlias = Path | bytes | Image.Image
_LISTS = ("not_terms", "images", "like", "folders", "cameras")


class SearchOptions(TypedDict, total=False):
    """Options of a search. A list of one may be given as its item.

    k: hits on a page (20, at most 500); offset: hits before the page; min_score: lowest score.
    not_terms: texts that lower the rank of images that show them; none is removed.
    images, like: images to search by, with or without a text; like: ids of hits.
    order: "match" (default) puts the best match first, "newest" and "oldest" sort the images that match by time.
    duplicates: "fold" (default) shows one of several near-duplicates, "show" each.
    Filters: folders (labels, see Finder.folder_label), since, until (days, included), cameras, min_px (shorter side),
    orientation, name (part of the file name), has_gps.
    """

    k: int
    offset: int
    min_score: float | None
    order: Order
    duplicates: Duplicates
    not_terms: Sequence[str] | str
    images: Sequence[ImageSource] | ImageSource
    like: Sequence[str] | str
    folders: Sequence[str] | str
    since: date | str | None
    until: date | str | None
    cameras: Sequence[str] | str
    min_px: int
    orientation: Literal["landscape", "portrait", "square"] | None
    name: str | None
    has_gps: bool | None


def query_of(query: str | Query | None, options: SearchOptions) -> Query:
    """The query of a text and options. Raises QueryError, ImageError."""
    if isinstance(query, Query):
        if options:
            raise QueryError(f"a Query holds its own options, {', '.join(options)} cannot be added; set them in it")
        return query
    values: dict[str, Any] = dict(options)
    for name in _LISTS:
        values[name] = _several(values.get(name, ()))
    terms: list[dict[str, object]] = [] if query is None else [{"text": query}]
    terms += [{"image": image_bytes(each)} for each in values.pop("images")]
    terms += [{"like": each} for each in values.pop("like")]
    return Query.of_terms(terms, [{"text": each} for each in values.pop("not_terms")], **values)


def image_bytes(image: ImageSource) -> bytes:
    """The bytes of an image's file; a Pillow image is encoded as PNG. Raises ImageError.

    Checks the header first, so that a pipe, a folder or a film of many GB is refused before it is read.
    """
    if isinstance(image, Image.Image):
        stream = io.BytesIO()
        upright_rgb(image).save(stream, "PNG", compress_level=1)
        return stream.getvalue()
    if isinstance(image, bytes):
        return image
    image_size(image)
    try:
        return image.read_bytes()
    except OSError as error:  # removed meanwhile
        raise ImageError(f"{image}: {error.strerror}") from error


def _several(value: object) -> tuple[object, ...]:
    alone = isinstance(value, str | ImageSource)
    return (value,) if alone else tuple(cast("Sequence[object]", value))

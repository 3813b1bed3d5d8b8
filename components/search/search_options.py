"""Search options: a question as keyword arguments, for programs; reads the images that are named and decodes none."""

import io
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, cast

from PIL import Image

from image_finder.components.errors import ImageError, QueryError
from image_finder.components.images.images import image_size, upright_rgb
from image_finder.components.search.query import NEGATIVE_WEIGHT, Filters, Query

ImageSource: TypeAlias = Path | bytes | Image.Image
_LISTS = ("unwanted", "images", "like", "folders", "cameras")


class SearchOptions(TypedDict, total=False):
    """What a search can be told besides its text; the words are those of the command line and of HTTP.

    k: hits on a page (20, at most 500); offset: hits before it. unwanted: texts that lower the rank of images that show
    them; none is removed. images, like: images to search by, with the text or instead of it, like by the ids that hits have. folders (labels; Finder.folder_label
    has that of a path), since, until (days, included), cameras, min_px (shorter side), orientation, has_gps: filters.
    min_score: lowest score. fold: False shows each of several near-duplicates. A list of one may be given as that one.
    """

    k: int
    offset: int
    min_score: float | None
    fold: bool
    unwanted: Sequence[str] | str
    images: Sequence[ImageSource] | ImageSource
    like: Sequence[str] | str
    folders: Sequence[str] | str
    since: date | str | None
    until: date | str | None
    cameras: Sequence[str] | str
    min_px: int
    orientation: Literal["landscape", "portrait", "square"] | None
    has_gps: bool | None


def query_of(wanted: str | Query | None, options: SearchOptions) -> Query:
    """The query that a text and options ask. Raises QueryError, ImageError for an image that cannot be read."""
    if isinstance(wanted, Query):
        if options:
            raise QueryError(f"a Query holds its own options, {', '.join(options)} cannot be added; set them in it")
        return wanted
    values: dict[str, Any] = dict(options)
    for name in _LISTS:
        values[name] = _several(values.get(name, ()))
    terms: list[dict[str, object]] = [] if wanted is None else [{"text": wanted}]
    terms += [{"image": image_bytes(each)} for each in values.pop("images")]
    terms += [{"like": each} for each in values.pop("like")]
    negatives = [{"text": each, "weight": NEGATIVE_WEIGHT} for each in values.pop("unwanted")]
    filters = {name: values.pop(name) for name in Filters.model_fields if name in values}
    return Query.parse({"terms": terms, "negatives": negatives, "filters": filters, **values})


def image_bytes(image: ImageSource) -> bytes:
    """The bytes of an image's file; those of a Pillow image are a PNG. Raises ImageError.

    The header is looked at first, so that a pipe, a folder or a film of many GB is refused and not read.
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
    except OSError as error:  # it has gone since
        raise ImageError(f"{image}: {error.strerror}") from error


def _several(value: object) -> tuple[object, ...]:
    alone = isinstance(value, str | ImageSource)
    return (value,) if alone else tuple(cast("Sequence[object]", value))

"""Encoding: images in memory as JPEG files for people."""

import io

from PIL import Image

_QUALITY = 82  # of 100


def jpeg_bytes(image: Image.Image, quality: int = _QUALITY) -> bytes:
    """An RGB image as JPEG without metadata."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()

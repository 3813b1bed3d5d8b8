"""Colour: converts an image from its ICC profile to sRGB; knows nothing of files or formats."""

import functools
import io

from PIL import Image, ImageCms

# Printers' profiles take up to 3 MB; up to eight are kept in memory, so larger ones are ignored.
_MAX_PROFILE_BYTES = 4 << 20


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """A new sRGB image of one in mode RGB, L or CMYK. profile: its ICC profile; an unusable one is ignored."""
    if isinstance(profile, bytes) and 0 < len(profile) <= _MAX_PROFILE_BYTES:
        transform = _transform(profile, image.mode)
        if transform is not None:
            return transform.apply(image)
    return image.convert("RGB")


@functools.lru_cache(maxsize=8)  # the images of a gallery share few profiles, and building a transform costs 2 ms
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.ImageCmsTransform(source, srgb, mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None

"""Colour: brings an image's numbers from its ICC profile to sRGB; knows nothing of files or formats."""

import functools
import io

from PIL import Image, ImageCms

# Printers' profiles take up to 3 MB; a larger one is not looked at, since up to eight are kept in memory.
_MAX_PROFILE_BYTES = 4 << 20


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """A new RGB image in sRGB; image: of mode RGB, L or CMYK; profile: bytes of its ICC profile, if it has one.

    A profile that is absent, damaged, too large or of another colour space than the image is ignored.
    """
    if isinstance(profile, bytes) and 0 < len(profile) <= _MAX_PROFILE_BYTES:
        transform = _transform(profile, image.mode)
        if transform is not None:
            return transform.apply(image)
    return image.convert("RGB")


@functools.lru_cache(maxsize=8)  # the images of a gallery share few profiles, and building a transform costs 2 ms
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From profile to sRGB for images of that mode; None if the profile is of no use."""
    try:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.ImageCmsTransform(source, srgb, mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None

"""HEIF: opens HEIC files with pi-heif, except those that would crash it; checks no limits."""

import io
from typing import BinaryIO

from PIL import Image

_ITEM = b"infe"  # ISO/IEC 23008-12: the box that names one item of the file (an image, its EXIF, ...) and its type
# Bytes between the box's name and the type, by version: version and flags, item number, protection.
_BYTES_BEFORE_TYPE = {0: 8, 1: 8, 2: 8, 3: 10}


def open_heif(stream: BinaryIO) -> Image.Image:
    """The image in stream with its header read, upright, and its pixels not yet decoded.

    libheif refuses to decode more pixels than the header says, so a check of the header's size is reliable. Raises
    SyntaxError if the header is damaged, and ImportError if pi-heif is not installed.
    """
    from pi_heif import HeifImageFile  # 7 to 13 ms, and few galleries need it

    content = stream.read()
    if not _has_readable_items(content):
        raise SyntaxError("an item of the HEIF file has a damaged type")
    image: Image.Image = HeifImageFile(io.BytesIO(content))
    return image


def _has_readable_items(content: bytes) -> bool:
    """Whether type and names of every item are UTF-8; otherwise pi-heif 1.4 ends with SIGSEGV.

    Boxes are searched in the whole file, so that no nesting hides one; pixels imitate one once in 10^7 files.
    """
    at = content.find(_ITEM)
    while at >= 4:
        length = int.from_bytes(content[at - 4 : at])
        body = at + len(_ITEM)
        if length == 1:  # the length follows the name, in 8 bytes
            length, body = int.from_bytes(content[body : body + 8]), body + 8
        end = len(content) if length == 0 else at - 4 + length
        if body < end <= len(content) and not _is_text(content[body:end]):
            return False
        at = content.find(_ITEM, at + 1)
    return True


def _is_text(item: bytes) -> bool:
    """Whether type and names of an item are UTF-8; True for versions that libheif does not read."""
    start = _BYTES_BEFORE_TYPE.get(item[0])
    if start is None:
        return True
    try:
        # The type is decoded alone: joined with the name, its last byte could begin a character.
        item[start : start + 4].decode("utf-8")
        item[start + 4 :].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True

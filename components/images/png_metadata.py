"""PNG metadata: removes text and profile chunks that Pillow refuses for their size; decodes no pixels."""

import io
import zlib
from typing import BinaryIO

from PIL import PngImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AROUND_BODY = 12  # bytes of length, name and CRC of a chunk


def without_large_metadata(stream: BinaryIO) -> BinaryIO:
    """The PNG without text and profile chunks that Pillow refuses; stream itself if it has none.

    Pillow's limits (1 MiB of text or profile unpacked, 64 MiB of text in all) are global and stop decompression bombs.
    """
    left_out = _too_large(stream)
    stream.seek(0)
    if not left_out:
        return stream
    content = stream.read()
    starts = [0, *(end for _, end in left_out)]
    ends = [*(start for start, _ in left_out), len(content)]
    return io.BytesIO(b"".join(content[start:end] for start, end in zip(starts, ends, strict=True)))


def _too_large(stream: BinaryIO) -> list[tuple[int, int]]:
    """(start, end) of each chunk to remove, in file order."""
    found = []
    text_bytes = 0
    at = len(SIGNATURE)
    stream.seek(at)
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        length, name = int.from_bytes(head[:4]), head[4:]
        if name in {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}:
            size = _unpacked_bytes(name, stream.read(length))
            if size is None or (name != b"iCCP" and text_bytes + size > PngImagePlugin.MAX_TEXT_MEMORY):
                found.append((at, at + length + _AROUND_BODY))
            elif name != b"iCCP":
                text_bytes += size
        at += length + _AROUND_BODY
        stream.seek(at)
    return found


def _unpacked_bytes(name: bytes, body: bytes) -> int | None:
    """Size of a chunk's text or profile; None if it is packed and exceeds Pillow's limit."""
    content = body.partition(b"\0")[2]  # after the keyword
    if name == b"tEXt":
        return len(content)
    if name == b"iTXt":
        packed, content = content[:1] == b"\1", content[2:].partition(b"\0")[2].partition(b"\0")[2]
        if not packed:
            return len(content)
    else:
        content = content[1:]  # after the method
    inflater = zlib.decompressobj()
    try:
        size = len(inflater.decompress(content, PngImagePlugin.MAX_TEXT_CHUNK))
    except zlib.error:  # Pillow reads it as empty
        return 0
    return None if inflater.unconsumed_tail else size

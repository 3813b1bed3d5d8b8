"""Archive: several original files as one ZIP file, made while it is sent."""

from collections.abc import Iterator, Sequence

from zipstream import ZipStream

from image_finder.components.app.api.error_responses import Fault
from image_finder.components.app.api.original_files import Original, open_original
from image_finder.components.app.api.search_queue import require_indexed
from image_finder.components.search.engine import SearchEngine

MOST_FILES = 500
MISSING = "missing.txt"
_CHUNK_BYTES = 256 * 1024


def archive(engine: SearchEngine, identities: Sequence[str]) -> Iterator[bytes]:
    """Parts of a ZIP file with the originals, uncompressed. Files that no longer exist are listed in missing.txt.

    Raises Fault 404 for an unknown id, before the first part.
    """
    for identity in identities:
        require_indexed(engine, identity)
    return _parts(engine, list(dict.fromkeys(identities)))


def _parts(engine: SearchEngine, identities: Sequence[str]) -> Iterator[bytes]:
    stream = ZipStream()
    used = {MISSING}
    missing = []
    for identity in identities:
        name = file_name(engine.image(identity).name)
        try:
            original = open_original(engine, identity)
        except Fault:
            missing.append(name)
            continue
        with original:
            stream.add(_content(original), _unused(name, used))
            yield from stream.all_files()
    if missing:
        stream.add("\n".join(missing) + "\n", MISSING)
    yield from stream


def file_name(name: str) -> str:
    """A file name without characters that are a path or that a terminal acts on."""
    return "".join(character if character.isprintable() and character not in "/\\" else "_" for character in name)


def _unused(name: str, used: set[str]) -> str:
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    number, chosen = 1, name
    while chosen.casefold() in used:  # some systems take names in another case for equal
        number += 1
        chosen = f"{stem} ({number}){dot}{suffix}"
    used.add(chosen.casefold())
    return chosen


def _content(original: Original) -> Iterator[bytes]:
    """The announced number of bytes: a file that grows meanwhile would have no end."""
    length = original.n_bytes
    while length > 0 and (chunk := original.stream.read(min(_CHUNK_BYTES, length))):
        length -= len(chunk)
        yield chunk

"""Address of a thumbnail: names the content, so that clients may keep the thumbnail without asking again."""

import hashlib

RENDERING = 1  # part of each version: a new way of rendering changes the addresses


def thumbnail_version(sha256: str) -> str:
    """16 hex digits that change with the content of an image. Does not reveal its hash."""
    return hashlib.sha256(f"{RENDERING}:{sha256}".encode()).hexdigest()[:16]


def thumbnail_address(identity: str, sha256: str) -> str:
    """Reference relative to /api/v1/, which a path prefix of the server does not change."""
    return f"images/{identity}/thumbnail?v={thumbnail_version(sha256)}"

"""Ids of indexed images, computed apart from the product."""

import hashlib
import os
from pathlib import Path


def item_id(root: Path, path: bytes) -> str:
    """Id of the image at a path below a root."""
    return hashlib.sha256(os.fsencode(root.as_posix()) + b"\0" + path).hexdigest()[:16]

"""Mounts: the file systems mounted at, above and below folders."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from image_finder.components.system import network_share

_TABLE = Path("/proc/self/mountinfo")  # Linux only
_OCTAL = re.compile(rb"\\([0-7]{3})")
# They report only changes by this machine.
_REMOTE = re.compile(
    r"nfs4?|cifs|smb3?|smbfs|9p|virtiofs|afs|ceph|lustre|glusterfs|beegfs|ncpfs|fuse\.(?!fuse-overlayfs).+"
)


def mount_point(path: bytes) -> bytes:
    """Mount point of the file system of path (absolute, resolved). Raises OSError."""
    device = os.stat(path).st_dev  # noqa: PTH116 - bytes
    while (above := os.path.dirname(path)) != path:  # noqa: PTH120 - bytes
        if os.stat(above).st_dev != device:  # noqa: PTH116 - bytes
            break
        path = above
    return path


def inside(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def mounted_at(folders: Sequence[bytes], table: Path = _TABLE) -> dict[bytes, tuple[bytes, str]]:
    """Identity and type, by mount point, of the file systems of folders and below them."""
    try:
        lines = table.read_bytes().splitlines()
    except OSError:
        return {}
    mounts = {}
    for line in lines:
        words = line.split(b" ")
        kind = words[words.index(b"-") + 1].decode("utf-8", "replace")
        mounts[_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), words[4])] = (words[0] + words[2], kind)
    holders = {max((point for point in mounts if inside(folder, point)), key=len, default=b"") for folder in folders}
    return {
        point: mount
        for point, mount in mounts.items()
        if point in holders or any(inside(point, folder) for folder in folders)
    }


def remote_mount(folders: Sequence[bytes], table: Path = _TABLE) -> tuple[bytes, str] | None:
    """Mount point and type of a network file system of a folder or below one (macOS: unknown, None)."""
    if share := next(filter(None, map(network_share, folders)), None):
        return share, "network drive"
    mounts = mounted_at(folders, table)
    return next(((point, kind) for point, (_, kind) in sorted(mounts.items()) if _REMOTE.fullmatch(kind)), None)

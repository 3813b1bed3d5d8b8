"""Systems: what Linux, macOS and Windows do differently, one branch each; knows nothing of images.

Paths of image files are bytes with forward slashes on every system, as libraries and indexes store them.
"""

import contextlib
import errno
import ntpath
import os
import re
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from image_finder.components.errors import ConfigError

if TYPE_CHECKING:
    from socket import socket

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

BINARY = getattr(os, "O_BINARY", 0)  # without it, descriptors of Windows translate line ends
_DESCRIPTORS = Path("/proc/self/fd")
_Answer = TypeVar("_Answer")
_NICENESS = 10
_BELOW_NORMAL_PRIORITY_CLASS = 0x4000  # CreateProcess
_RETRY_S = 5.0  # virus scanners and indexers of Windows hold a new file open for a moment
_RETRY_EVERY_S = 0.02
_LONGEST_PATH = 240  # of the 260 characters of Windows; names of temporaries are longer
_REMOTE_DRIVE = 4  # DRIVE_REMOTE of GetDriveTypeW
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]|[ .]$')


# Processor and processes


def available_cores() -> int:
    """Number of cores that this process may use; the system's where it has no affinity (macOS, Windows)."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def available_memory_mb() -> float | None:
    """Memory that programs may still use, in 10^6 bytes; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 / 1e6 if found else None


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is loaded (Linux) or installed (Windows)."""
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return Path("/proc/driver/nvidia/version").exists()


def background_flags() -> int:
    """Value of Popen's creationflags for a process that yields to others; 0 except on Windows."""
    return _BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 0


def lower_priority(process: int) -> None:
    """Have a child process yield to others; on Windows its creation flags do so."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, process, _NICENESS)


def account() -> str:
    """Name of the account, or its number where it has no name, as in a container."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # KeyError before Python 3.13
        if sys.platform == "win32":
            return "unknown"
        return str(os.getuid())


def posix_only(what: str) -> ConfigError:
    """The error of a feature that Windows lacks. what: a plural noun."""
    return ConfigError(f"{what} need signals and processes that Windows lacks; run them in WSL: wsl --install")


def reserve_address(listener: "socket") -> None:
    """Let a restarted server listen at once, and no second server on the same port."""
    import socket

    if sys.platform == "win32":  # SO_REUSEADDR would admit a second server there
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


# Standard streams


def is_broken_pipe(error: OSError) -> bool:
    """Whether a pipe has lost its reader; Windows reports an invalid argument."""
    return error.errno == errno.EPIPE or (sys.platform == "win32" and error.errno == errno.EINVAL)


def is_console(stream: TextIO | None) -> bool:
    """Whether only Python's own stream can write Unicode, as in a console of Windows."""
    return sys.platform == "win32" and stream is not None and stream.isatty()


# Files


def keeps_locks_on_directories() -> bool:
    """Whether directories can be locked and locked files renamed; if not, a file beside them is locked."""
    return sys.platform != "win32"


def lock(descriptor: int) -> bool | None:
    """Lock an open file or directory: True, or False if another process holds it, None if unsupported."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    except OSError:  # some network file systems lock no directories, or nothing
        return None
    return True


def open_without_links(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file and return its descriptor; never follows a link or waits for a pipe. Raises OSError."""
    if sys.platform == "win32":
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        return os.open(path, flags | os.O_BINARY | os.O_NOINHERIT)
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)


def opened_path(descriptor: int, path: Path) -> Path | None:
    """Present path of an open file, without links; None if it is no longer the one at `path`. Raises OSError."""
    if _DESCRIPTORS.is_dir():  # Linux
        return (_DESCRIPTORS / str(descriptor)).readlink()
    resolved = path.resolve()
    return resolved if os.path.samestat(resolved.stat(), os.fstat(descriptor)) else None


def sync(path: Path) -> None:
    """Write a file or directory to the disk; Windows syncs no directories. Raises OSError."""
    if sys.platform == "win32":
        if path.is_dir():
            return
        descriptor = os.open(path, os.O_RDWR)
    else:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(source: Path, target: Path) -> None:
    """Rename a file over another one; on Windows waits until nobody has that one open. Raises OSError."""
    _retried(lambda: source.replace(target))


def rename(source: Path, target: Path) -> None:
    """Rename a file or directory to a free name; on Windows waits until its files are closed. Raises OSError."""
    _retried(lambda: source.rename(target))


def read_replaced(path: Path) -> str:
    """Text of a small file that other processes replace; on Windows waits while one does. Raises OSError."""
    return _retried(lambda: path.read_text(encoding="utf-8"))


def is_in_use(error: OSError) -> bool:
    """Whether a file could not be replaced because a process has it open or mapped, which only Windows refuses."""
    return sys.platform == "win32" and isinstance(error, PermissionError)


def _retried(action: Callable[[], _Answer]) -> _Answer:
    last_s = time.monotonic() + _RETRY_S
    while True:
        try:
            return action()
        except PermissionError as error:
            if not is_in_use(error) or time.monotonic() > last_s:
                raise
            time.sleep(_RETRY_EVERY_S)


def readable_by_others(status: os.stat_result) -> bool:
    """Whether other accounts can read a file of this account, or everyone a file of another account.

    Files of other accounts may be readable by a group. Modes have no meaning on Windows.
    """
    if sys.platform == "win32":
        return False
    is_own = status.st_uid == os.geteuid()
    return bool(status.st_mode & (stat.S_IRWXO | stat.S_IRWXG if is_own else stat.S_IRWXO))


def is_link(entry: "os.DirEntry[bytes]") -> bool:
    """Whether an entry is a symbolic link or, on Windows, a junction. Raises OSError."""
    if entry.is_symlink():
        return True
    if sys.platform == "win32":
        return entry.stat(follow_symlinks=False).st_reparse_tag == stat.IO_REPARSE_TAG_MOUNT_POINT
    return False


# Paths


def path_bytes(path: Path | str) -> bytes:
    """A path, or a URI, as libraries store it: bytes with forward slashes."""
    encoded = os.fsencode(path)
    return encoded.replace(b"\\", b"/") if sys.platform == "win32" else encoded


def without_slash(folder: bytes) -> bytes:
    """A folder without the slash at its end; the root of a system or drive keeps it."""
    stripped = folder.rstrip(b"/")
    if sys.platform == "win32" and stripped.endswith(b":"):
        return stripped + b"/"
    return stripped or b"/"


def all_files() -> tuple[str, bytes]:
    """The folder below which all files are, and the beginning of their paths; Windows has one per drive."""
    return ("", b"") if sys.platform == "win32" else ("/", b"/")


def relative_path(path: str, folder: Path | str) -> str:
    """A path relative to a folder, with forward slashes; unchanged if it is on another drive."""
    if sys.platform == "win32":
        try:
            return ntpath.relpath(path, folder).replace("\\", "/")
        except ValueError:
            return path.replace("\\", "/")
    return os.path.relpath(path, folder)


def resolved(path: Path) -> Path:
    """The absolute path without links and "~", in the spelling of the disk where case makes no difference."""
    path = path.expanduser().resolve()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):  # absent
            descriptor = os.open(path, os.O_RDONLY)
            try:
                spelt = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024))
            finally:
                os.close(descriptor)
            return Path(os.fsdecode(spelt.rstrip(b"\0")))
    return path


def openable(path: bytes) -> bytes:
    """An absolute path for the system's functions; on Windows long ones need a prefix."""
    if sys.platform == "win32" and len(path) > _LONGEST_PATH:
        return os.fsencode(_prefixed(os.fsdecode(path)))
    return path


def openable_path(path: Path) -> Path:
    """`openable` of a Path."""
    if sys.platform == "win32" and len(str(path)) > _LONGEST_PATH:
        return Path(_prefixed(str(path)))
    return path


def _prefixed(path: str) -> str:
    tail = "\\" if path.endswith(("/", "\\")) else ""
    path = ntpath.normpath(path).rstrip("\\") + tail
    if path.startswith("\\\\?\\") or not ntpath.splitdrive(path)[0]:
        return path
    return "\\\\?\\UNC" + path[1:] if path.startswith("\\\\") else "\\\\?\\" + path


def refused_name(name: str) -> bool:
    """Whether the system cannot hold a file of this name, as Windows "nul.jpg" or "a?.jpg"."""
    return sys.platform == "win32" and bool(_RESERVED.fullmatch(name) or _FORBIDDEN.search(name))


def path_of_file_uri(path: str) -> Path:
    """The path of a `file:` URI's decoded path component: Windows writes /C:/images."""
    if sys.platform == "win32" and re.match(r"/[A-Za-z]:", path):
        return Path(path[1:])
    return Path(path)


def network_share(folder: bytes) -> bytes | None:
    r"""The share (\\server\share) or network drive of a folder on Windows, else None."""
    if sys.platform == "win32":
        drive = ntpath.splitdrive(os.fsdecode(folder))[0]
        if drive.replace("\\", "/").startswith("//") or _drive_type(f"{drive}\\") == _REMOTE_DRIVE:
            return path_bytes(drive)
    return None


def _drive_type(root: str) -> int:
    if sys.platform == "win32":
        import ctypes

        return int(ctypes.windll.kernel32.GetDriveTypeW(root))
    return 0

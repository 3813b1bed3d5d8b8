"""A package index on loopback with wheels that contain given files, as far as pip and the product call it."""

import contextlib
import functools
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class PackageIndex(ThreadingHTTPServer):
    """Serves a directory; `authorizations` are those of all requests."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authorizations: list[str | None] = []
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"

    def add(self, package: str, version: str, files: Mapping[str, bytes]) -> Path:
        """Write the wheel of a package with these files, and the page that names it."""
        name = f"{package.replace('-', '_')}-{version}"
        metadata = {
            "METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nRequires-Dist: torch-of-nobody\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        page = self.folder / "simple" / package / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        wheel = self.folder / f"{name}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
            for path, text in metadata.items():
                archive.writestr(f"{name}.dist-info/{path}", text)
        page.write_text(f'<!DOCTYPE html><a href="../../{name}.tar.gz">x</a> <a href="../../{wheel.name}#x">x</a>')
        return wheel


@contextlib.contextmanager
def package_index(folder: Path) -> Iterator[PackageIndex]:
    """Serve an index, at first empty, while the context is entered."""
    (folder / "simple").mkdir(parents=True)
    with PackageIndex(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Handler(SimpleHTTPRequestHandler):
    server: PackageIndex

    def do_GET(self) -> None:
        self.server.authorizations.append(self.headers["Authorization"])
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - as the base class names it

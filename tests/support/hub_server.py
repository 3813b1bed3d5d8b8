"""A Hugging Face hub on loopback with one data set of Parquet files, as far as `datasets` calls it to load a split."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class HubServer(ThreadingHTTPServer):
    """Serves files at any commit; `newest` is what its main branch points to, `requests` what was called."""

    daemon_threads = True

    def __init__(self, name: str, files: dict[str, bytes], newest: str) -> None:
        """name: OWNER/NAME of the data set; files: content by name."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.files = files
        self.newest = newest
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        """What HF_ENDPOINT must hold."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub_server(name: str, folder: Path, newest: str) -> Iterator[HubServer]:
    """Serve the files of a folder as long as this lasts."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with HubServer(name, files, newest) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(path)
        api = f"/api/datasets/{self.server.name}"
        if path in (api, f"{api}/revision/{path.rpartition('/')[2]}"):
            commit = self.server.newest if path == api else path.rpartition("/")[2]
            siblings = [{"rfilename": name} for name in self.server.files]
            self._answer(200, json.dumps({"id": self.server.name, "sha": commit, "siblings": siblings}).encode())
        elif path.startswith(f"{api}/tree/"):
            listed = [
                {"type": "file", "path": name, "size": len(body), "oid": "0" * 40}
                for name, body in self.server.files.items()
            ]
            self._answer(200, json.dumps(listed).encode())
        elif path.startswith(f"/datasets/{self.server.name}/resolve/") and path.split("/")[-1] in self.server.files:
            *_, commit, name = path.split("/")
            self._answer(200, self.server.files[name], ETag=f'"{name}"', X_Repo_Commit=commit)
        else:
            self._answer(404, b"{}", X_Error_Code="EntryNotFound")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

"""A Hugging Face hub on loopback with one model, as far as huggingface_hub calls it to fetch a snapshot."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class ModelHub(ThreadingHTTPServer):
    """commits: files by commit; newest: what the main branch points to.

    status: answered to every call instead, with error as the hub's code. cut: name of a file whose next download breaks
    off in the middle.
    """

    daemon_threads = True

    def __init__(self, name: str, commits: dict[str, dict[str, bytes]], newest: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.commits, self.newest = name, commits, newest
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.status, self.error, self.cut = 0, "", ""

    @property
    def address(self) -> str:
        """What HF_ENDPOINT must hold."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def model_hub(name: str, folders: dict[str, Path], newest: str) -> Iterator[ModelHub]:
    """Serve the files of a folder for each commit as long as this lasts."""
    commits = {
        commit: {path.name: path.read_bytes() for path in folder.iterdir()} for commit, folder in folders.items()
    }
    with ModelHub(name, commits, newest) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelHub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if hub.status:
            self._answer(hub.status, b"{}", X_Error_Code=hub.error)
            return
        api = f"/api/models/{hub.name}"
        if path in (api, f"{api}/revision/main") or path.startswith(f"{api}/revision/"):
            asked = path.rpartition("/")[2] if "/revision/" in path else "main"
            self._describe(hub.newest if asked == "main" else asked)
        elif path.startswith(f"{api}/tree/"):
            files = hub.commits[path.split("/tree/")[1].split("/")[0]]
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": _hash(data)} for name, data in files.items()
            ]
            self._answer(200, json.dumps(listed).encode())
        elif path.startswith(f"/{hub.name}/resolve/"):
            self._resolve(*path.removeprefix(f"/{hub.name}/resolve/").split("/", 1))
        elif path.startswith("/cdn/"):
            self._send(*path.removeprefix("/cdn/").split("/", 1))
        else:
            self._answer(404, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _describe(self, commit: str) -> None:
        files = self.server.commits.get(commit)
        if files is None:
            self._answer(404, b"{}", X_Error_Code="RevisionNotFound")
            return
        siblings = [{"rfilename": name} for name in files]
        self._answer(200, json.dumps({"id": self.server.name, "sha": commit, "siblings": siblings}).encode())

    def _resolve(self, commit: str, name: str) -> None:
        """Small files are sent, weights are elsewhere, as on the hub."""
        data = self.server.commits[commit].get(name)
        if data is None:
            self._answer(404, b"{}", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        elif name.endswith(".safetensors"):
            facts = {"X_Linked_Size": str(len(data)), "X_Linked_Etag": f'"{_hash(data)}"', "X_Repo_Commit": commit}
            other_host = self.server.address.replace("127.0.0.1", "localhost")
            self._answer(302, b"", Location=f"{other_host}/cdn/{commit}/{name}", **facts)
        else:
            self._answer(200, data, ETag=f'"{_hash(data)}"', X_Repo_Commit=commit)

    def _send(self, commit: str, name: str) -> None:
        data = self.server.commits[commit][name]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        if self.server.cut == name and self.command == "GET":
            self.server.cut = ""
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self._answer(206 if start else 200, data[start:], **headers)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""A server that speaks as much of the S3 protocol as pyarrow needs to list, read and write the files of a folder."""

import email.utils
import itertools
import re
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Server(ThreadingHTTPServer):
    """Buckets are the folders in `folder`."""

    folder: Path

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.parts: dict[tuple[str, int], bytes] = {}
        self.uploads = itertools.count()


class Handler(BaseHTTPRequestHandler):
    """Bucket and key are a path below the server's folder."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query, keep_blank_values=True)
        if "list-type" in query:
            self._list(unquote(address.path).strip("/"), query)
        else:
            self._object(with_body=True)

    def do_HEAD(self) -> None:
        self._object(with_body=False)

    def do_PUT(self) -> None:
        content = self._body()
        query = parse_qs(urlsplit(self.path).query)
        if "uploadId" in query:
            self.server.parts[query["uploadId"][0], int(query["partNumber"][0])] = content
        else:
            self._write(content)
        self._answer(200, {"ETag": '"0"'})

    def do_POST(self) -> None:
        self._body()
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "uploads" in query:
            identity = str(next(self.server.uploads))
            self._answer(200, {}, f"<R><UploadId>{identity}</UploadId></R>".encode())
            return
        parts = sorted(key for key in self.server.parts if key[0] == query["uploadId"][0])
        self._write(b"".join(self.server.parts.pop(key) for key in parts))
        self._answer(200, {}, b"<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>")

    def do_DELETE(self) -> None:
        self._path().unlink(missing_ok=True)
        self._answer(204, {})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b"".join(iter(self._chunk, b""))
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        return unchunked(content) if "aws-chunked" in self.headers.get("Content-Encoding", "") else content

    def _chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def _object(self, *, with_body: bool) -> None:
        path = self._path()
        if not path.is_file():
            missing = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
            self._answer(404, {"Content-Type": "application/xml"}, missing if with_body else b"")
            return
        content = path.read_bytes()
        headers = {"Last-Modified": email.utils.formatdate(path.stat().st_mtime, usegmt=True), "ETag": '"0"'}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._answer(206, headers, content[first : last + 1])
        else:
            self._answer(200, headers, content, with_body=with_body)

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        base = self.server.folder / bucket
        files = {path.relative_to(base).as_posix(): path for path in base.rglob("*") if path.is_file()}
        found = {key: path.stat() for key, path in sorted(files.items()) if key.startswith(prefix)}
        folders = set()
        if delimiter:
            folders = {prefix + key[len(prefix) :].split("/")[0] + "/" for key in found if "/" in key[len(prefix) :]}
            found = {key: state for key, state in found.items() if "/" not in key[len(prefix) :]}
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{state.st_size}</Size><LastModified>"
            f"{datetime.fromtimestamp(state.st_mtime, UTC).isoformat()}</LastModified></Contents>"
            for key, state in found.items()
        )
        contents += "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in folders)
        count = len(found) + len(folders)
        answer = f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{count}</KeyCount>{contents}</ListBucketResult>"
        self._answer(200, {"Content-Type": "application/xml"}, answer.encode())

    def _write(self, content: bytes) -> None:
        self._path().parent.mkdir(parents=True, exist_ok=True)
        if not urlsplit(self.path).path.endswith("/"):  # else the mark of an empty folder
            self._path().write_bytes(content)

    def _path(self) -> Path:
        return self.server.folder / unquote(urlsplit(self.path).path).strip("/")

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"", *, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def unchunked(content: bytes) -> bytes:
    """The content of a body in AWS's chunks: length in hex [; signature], line end, content, line end; ended by 0."""
    parts, at = [], 0
    while True:
        end = content.index(b"\r\n", at)
        size = int(content[at:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(content[end + 2 : end + 2 + size])
        at = end + 4 + size


@contextmanager
def s3_server(folder: Path):
    """Serves buckets, the folders in `folder`; gives the options of a URI s3://BUCKET/KEY?OPTIONS."""
    server = Server(("127.0.0.1", 0), Handler)
    server.folder = folder
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"endpoint_override=127.0.0.1%3A{server.server_port}&scheme=http"
    finally:
        server.shutdown()
        server.server_close()

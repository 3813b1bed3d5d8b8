"""A fake Kubernetes API for CronJobs: stores and returns them, with or without time zones."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CronJobs:
    """CronJobs by name. knows_zones: False acts as Kubernetes before 1.25, which drops timeZone."""

    def __init__(self):
        self.kept, self.knows_zones = {}, True

    def put(self, body):
        metadata = body["metadata"]
        metadata.setdefault("name", f"{metadata.get('generateName', 'job-')}{len(self.kept)}")
        self.kept[metadata["name"]] = body
        return body

    def patch(self, name, changes):
        spec = {key: value for key, value in changes["spec"].items() if key != "timeZone" or self.knows_zones}
        self.kept[name]["spec"].update(spec)
        return self.kept[name]


@contextlib.contextmanager
def cluster():
    """Yield the host and the CronJobs of a server on this machine."""
    jobs = CronJobs()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, code, body):
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self):
            return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")

        def do_POST(self):
            body = self._body()
            self._answer(201, jobs.put(body) if self.path.endswith("/cronjobs") else body)

        def do_PATCH(self):
            self._answer(200, jobs.patch(self.path.rpartition("/")[2], self._body()))

        def do_DELETE(self):
            self._body()
            jobs.kept.pop(self.path.rpartition("/")[2], None)
            self._answer(200, {"kind": "Status", "status": "Success"})

        def do_GET(self):
            self._answer(404, {"kind": "Status", "message": f"no {self.path} here"})

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", jobs
        finally:
            server.shutdown()
            thread.join()

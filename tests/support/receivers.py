"""Receivers of alerts on this machine: real HTTP and SMTP servers that keep what they are sent, and ones that misbehave."""

import contextlib
import json
import socket
import threading
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def http_receiver():
    """Yield (address, posts): posts fills with (path, JSON body). A path that begins with /503 is answered so."""
    posts = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posts.append((self.path, json.loads(body)))
            self.send_response(503 if self.path.startswith("/503") else 200)
            self.end_headers()
            self.wfile.write(b"ok")  # what Slack answers

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", posts
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def smtp_receiver():
    """Yield (address, mails): mails fills with messages as they were received."""
    from aiosmtpd.controller import Controller

    mails = []

    class Keeper:
        async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 - aiosmtpd's name
            mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
            return "250 OK"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Keeper(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield f"127.0.0.1:{port}", mails
    finally:
        controller.stop()


@contextlib.contextmanager
def dripping_receiver():
    """Yield the address of a server that answers one byte at a time and never comes to an end."""
    stop = threading.Event()
    threads = []

    def drip(connection):
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not stop.wait(0.05):
                connection.sendall(b"z")

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=drip, args=(connection,)))
            threads[-1].start()

    listener = socket.create_server(("127.0.0.1", 0))
    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()

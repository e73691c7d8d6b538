"""A web server on 127.0.0.1 that cuts, stalls, lies about lengths, knows no ranges or changes its file."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time


class Server(http.server.ThreadingHTTPServer):
    """``body``: the file; ``plan``: one word for each request to come ("whole" when it is used up); ``asked``: the Range headers seen."""

    daemon_threads = True

    def __init__(self, body: bytes, plan=(), mark='"1"'):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.plan, self.mark, self.asked = body, list(plan), mark, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that went away is what some tests want."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, said = self.server, self.headers.get("Range")
        server.asked.append(said)
        word = server.plan.pop(0) if server.plan else "whole"
        body = server.body
        if word == "error":
            return self.send_error(503)
        if word == "missing" or self.path.endswith("absent.bin"):
            return self.send_error(404)
        if word == "page":
            return self.answer(200, b"<html>log in first</html>", {"Content-Type": "text/html"})
        start = int(said.removeprefix("bytes=").rstrip("-")) if said and word != "no ranges" else 0
        if said and self.headers.get("If-Range") not in (None, server.mark):
            start = 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        rest, headers = body[start:], {}
        if start:
            headers["Content-Range"] = f"bytes {start + (word == 'other range')}-{len(body) - 1}/{len(body)}"
        if server.mark:
            headers["ETag"] = server.mark
        length = {"says more": len(rest) + 1000, "says less": len(rest) // 2}.get(word, len(rest))
        if word == "says more" and start:
            headers["Content-Range"] = f"bytes {start}-{len(body) + 999}/{len(body) + 1000}"
        send = rest[: len(rest) // 2] if word in ("cut", "stall") else rest[:length]
        self.answer(206 if start else 200, send, headers, length)
        if word == "stall":
            time.sleep(1.5)
        self.close_connection = True

    def answer(self, status, send, headers, length=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(send) if length is None else length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(send)
        self.wfile.flush()

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(body: bytes, plan=(), mark='"1"'):
    """A running server; it stops at the end of the block."""
    server = Server(body, plan, mark)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

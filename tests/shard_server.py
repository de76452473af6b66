"""A folder over loopback HTTP, with or without byte ranges: every reply is noted, and it can be made to fail."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Server:
    url: str
    ranges: bool = True
    fail: int = 0  # so many of the next replies are 503
    cut: int = 0  # so many of the next bodies end half way
    flip: bool = False  # the last byte of every body is another
    log: list[tuple[str, int]] = field(default_factory=list)  # file and bytes of every reply

    def fetched(self, suffix: str) -> list[tuple[str, int]]:
        return [entry for entry in self.log if entry[0].endswith(suffix)]


@contextmanager
def serve(folder: Path, *, ranges: bool = True) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.answer(404, b"")
                return
            if server.fail:
                server.fail -= 1
                self.answer(503, b"")
                return
            body, status = path.read_bytes(), 200
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked and server.ranges:
                body, status = body[int(asked[1]) : int(asked[2]) + 1], 206
            if server.flip:
                body = body[:-1] + bytes([body[-1] ^ 1])
            server.log.append((path.name, len(body)))
            self.answer(status, body)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if server.cut and body:
                server.cut -= 1
                self.close_connection = True
                body = body[: len(body) // 2]
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_address[1]}", ranges)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield server
        http.shutdown()

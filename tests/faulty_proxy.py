"""A proxy before an HTTP server that does what networks and busy servers do, by a list of faults.

Each request takes the next fault whose method is its own; without one it goes through. What a real S3 checks and moto
does not (the checksum of a body that was put) is checked here.

`python -m tests.faulty_proxy SERVER PORT` is one without faults in a process of its own, to be killed: what it was
handing on is cut, and whoever comes next is refused.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "content-length", "expect"})
Kind = Literal["hang", "503", "429", "cut-before", "cut-after", "cut-body", "truncate", "flip", "slow"]
"""hang: no answer, until the proxy closes. cut-before: reset while the request comes in. cut-after: the server did it,
and nobody hears of it. cut-body: reset in the middle of the answer. truncate: it ends in the middle, politely. flip: a
byte of what travels is another. slow: 50 kB/s."""


@dataclass
class Fault:
    method: str
    kind: Kind


@dataclass
class Proxy:
    address: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """`METHOD path?query` of every request."""
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, method: str, *kinds: Kind) -> None:
        self.faults.extend(Fault(method, kind) for kind in kinds)

    def take(self, method: str, path: str) -> str:
        with self._lock:
            self.seen.append(f"{method} {path}")
            fault = next((fault for fault in self.faults if fault.method == method), None)
            if fault:
                self.faults.remove(fault)
        return fault.kind if fault else ""


@contextmanager
def faulty_proxy(server: str, port: int = 0) -> Iterator[Proxy]:
    """A proxy before `server`, as long as the block lasts; on any free port unless one is named."""
    upstream = urlsplit(server)
    assert upstream.hostname

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            kind = proxy.take(self.command, self.path)
            if kind == "cut-before":
                self._reset()
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if kind == "hang":
                proxy.closing.wait()
                self._reset()
            elif kind in {"503", "429"}:
                self._answer(int(kind), _error("SlowDown"))
            elif kind == "flip" and self.command == "PUT":
                self._forward(_flipped(body), "")
            else:
                self._forward(body, kind)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do  # noqa: N815

        def _forward(self, body: bytes, kind: str) -> None:
            told = self.headers.get("x-amz-checksum-sha256")
            if told and base64.b64encode(hashlib.sha256(body).digest()).decode() != told:
                self._answer(400, _error("BadDigest"))
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            connection = http.client.HTTPConnection(str(upstream.hostname), upstream.port, timeout=60)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            if kind == "cut-after":
                self._reset()
                return
            self._answer(answer.status, _flipped(data) if kind == "flip" else data, dict(answer.getheaders()), kind)

        def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None, kind: str = "") -> None:
            self.send_response_only(status)
            for name, value in (headers or {}).items():
                if name.lower() not in HOP or (self.command == "HEAD" and name.lower() == "content-length"):
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if kind in {"cut-body", "truncate"}:
                self.wfile.write(data[:len(data) // 2])
                self.wfile.flush()
                if kind == "cut-body":
                    self._reset()
                self.close_connection = True
                return
            step = 5_000 if kind == "slow" else max(len(data), 1)
            for start in range(0, len(data), step):
                self.wfile.write(data[start:start + step])
                time.sleep(0.1 if kind == "slow" else 0)

        def _reset(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.wfile = open("/dev/null", "wb")  # noqa: SIM115 - what follows is written to nobody

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # cut connections are what it is for

    listener = Server(("127.0.0.1", port), Handler)
    proxy = Proxy(f"http://127.0.0.1:{listener.server_address[1]}")
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        listener.shutdown()
        listener.server_close()


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:] if data else data


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()


if __name__ == "__main__":
    with faulty_proxy(sys.argv[1], int(sys.argv[2])):
        threading.Event().wait()

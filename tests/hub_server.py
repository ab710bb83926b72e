"""A model hub on this machine: the few addresses of the real one that huggingface_hub asks for whole files."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Files of one repository, `toy/model`; can be broken, and remembers what was asked of it."""

    def __init__(self, files: dict[str, bytes], small: frozenset[str] = frozenset()) -> None:
        """`small` files are not in Git LFS: the hub knows no SHA-256 of them."""
        self.files, self.small = files, small
        self.told = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        self.breaks_after: int | None = None
        """Bytes of a file after which the connection ends, and the hub is down."""
        self.down = False
        self.revision = REVISION
        self.starts: list[int] = []
        """First byte that was asked for, of each file sent."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub._answer(self, send=False)

            def do_GET(self) -> None:
                hub._answer(self, send=True)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, *, send: bool) -> None:
        path = request.path.partition("?")[0]
        if self.down:
            request.send_error(503)
        elif path == f"/api/models/toy/model/revision/{REVISION}":
            self._reply(request, json.dumps(self._facts()).encode(), {}, send=send)
        elif path.startswith(f"/toy/model/resolve/{REVISION}/") and path.split("/", 5)[5] in self.files:
            self._file(request, path.split("/", 5)[5], send=send)
        else:
            request.send_error(404)

    def _facts(self) -> dict[str, object]:
        files = [{"rfilename": name, "size": len(data), "blobId": "0" * 40} | (
            {} if name in self.small else {"lfs": {"size": len(data), "sha256": self.told[name], "pointerSize": 130}})
            for name, data in self.files.items()]
        return {"id": "toy/model", "modelId": "toy/model", "sha": self.revision, "siblings": files}

    def _file(self, request: BaseHTTPRequestHandler, name: str, *, send: bool) -> None:
        data, start = self.files[name], int(request.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        if send:
            self.starts.append(start)
        headers = {"ETag": f'"{self.told[name]}"', "X-Repo-Commit": REVISION, "X-Linked-Size": str(len(data)),
                   "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._reply(request, data[start:], headers, 206 if start else 200, send=send)

    def _reply(self, request: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str], code: int = 200, *,
               send: bool) -> None:
        request.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            request.send_header(name, value)
        request.end_headers()
        if send and self.breaks_after is not None and len(body) > self.breaks_after:
            self.down, request.close_connection = True, True
            body = body[:self.breaks_after]
        if send:
            request.wfile.write(body)

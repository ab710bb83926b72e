"""A chat completions endpoint on the loopback interface that answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | tuple[int, str] | None
"""Content of the completion; or status and body; or None: the server never answers."""


class Chat:
    """What was asked, and what is to be answered: `answer` gets the question's lines by id."""

    def __init__(self, address: str) -> None:
        self.base_url = f"http://{address}/v1"
        self.answer: Callable[[dict[str, str]], Answer] = translated
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.closing = threading.Event()

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The user messages."""
        return [json.loads(request["messages"][1]["content"]) for request in self.requests]


def translated(lines: dict[str, str]) -> str:
    """What a good server says."""
    return json.dumps({"lines": [{"id": key, "text": f"es {text}"} for key, text in lines.items()]})


@contextmanager
def chat_server() -> Iterator[Chat]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            chat.requests.append(request)
            chat.keys.append(self.headers.get("authorization"))
            lines = {line["id"]: line["text"] for line in chat.questions[-1]["lines"]}
            answer = chat.answer(lines) if self.path == "/v1/chat/completions" else (404, "no such page")
            if answer is None:
                chat.closing.wait(30)
                return
            status, body = answer if isinstance(answer, tuple) else (
                200, json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]}))
            self.send_response(status)
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    chat = Chat(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        chat.closing.set()
        server.shutdown()
        server.server_close()

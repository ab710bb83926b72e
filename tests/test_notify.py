"""What failed is told to a webhook: again where it was not heard, nowhere else, and without secrets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows import notify as module
from flows.notify import announce, notify
from flows.settings import Settings, load_settings
from models.errors import InfrastructureError, InputError


class Hook:
    """A server that answers as it is told, then 204; remembers what came."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.bodies, self.paths = list(answers), list[bytes](), list[str]()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.paths.append(self.path)
                hook.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                code = hook.answers.pop(0) if hook.answers else 204
                if code == 0:  # hangs up
                    self.connection.close()
                    return
                self.send_response(code)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hooks/s3cret-path"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setattr(module, "WAITS_S", (0.0, 0.0))
    one = Hook()
    yield one
    one.server.shutdown()
    one.server.server_close()


def settings_with(monkeypatch: pytest.MonkeyPatch, **secrets: str) -> Settings:
    for name, value in secrets.items():
        monkeypatch.setenv(f"INFINIDUB_SECRETS__{name.upper()}", value)
    monkeypatch.setenv("INFINIDUB_DATABASE", "postgresql+psycopg://dub:pa55word@db/dub")
    return load_settings()


def test_a_message_arrives_as_json(hook: Hook) -> None:
    notify(hook.address, {"event": "run-failed", "text": "señal"})
    assert [json.loads(body) for body in hook.bodies] == [{"event": "run-failed", "text": "señal"}]


@pytest.mark.parametrize("answers", [(503, 0), (429, 500), (0, 502)])
def test_a_server_that_stumbles_is_asked_three_times(hook: Hook, answers: tuple[int, ...]) -> None:
    hook.answers = list(answers)
    notify(hook.address, {})
    assert len(hook.bodies) == 3


@pytest.mark.parametrize(("answers", "tries", "words"), [
    ((503, 503, 503), 3, "answered 503"), ((0, 0, 0), 3, "could not be reached"), ((404,), 1, "answered 404"),
    ((302,), 1, "answered 302"), ((307,), 1, "answered 307")])
def test_what_is_not_taken_is_told_without_the_address(hook: Hook, answers: tuple[int, ...], tries: int,
                                                       words: str) -> None:
    hook.answers = list(answers)
    with pytest.raises(InfrastructureError, match=words) as caught:
        notify(hook.address, {})
    assert len(hook.bodies) == tries
    assert "/elsewhere" not in hook.paths
    assert "s3cret" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://host/x", "http://", "nonsense", "http://a:b c/",
                                     "http://host/\nX: y"])
def test_other_addresses_are_refused_and_not_echoed(address: str) -> None:
    with pytest.raises(InputError, match="is no http") as caught:
        notify(address, {})
    assert address not in str(caught.value)


def test_failures_are_announced_without_secrets(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_with(monkeypatch, webhook=hook.address, key="sk-verysecret")
    failed = [{"episode": "s/e1", "language": "es", "message": f"sk-verysecret at {hook.address}, pa55word",
               "error": "EngineError"}] * 60
    assert announce(settings, "run-failed", failed, run="r1", catalog="/c/catalog.yaml") == ""
    (body,) = hook.bodies
    said = json.loads(body)
    assert (said["event"], said["run"], len(said["failed"]), said["more"]) == ("run-failed", "r1", 50, 10)
    assert said["failed"][0]["message"] == "*** at ***, ***"
    assert "60 failed" in said["text"]
    for secret in (b"verysecret", b"s3cret-path", b"pa55word"):
        assert secret not in body


def test_a_webhook_that_is_down_fails_nothing(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    hook.answers = [500, 500, 500]
    assert "answered 500" in announce(settings_with(monkeypatch, webhook=hook.address), "run-failed", [{}])


def test_without_a_webhook_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert announce(load_settings(), "run-failed", [{"message": "m"}]) == ""

"""The page of `infinidub review serve`: who may ask it, what it answers, and how it is used in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from flows.review_server import PAGE, Desk, application, serve
from models.errors import InputError
from models.timebase import CLOCK
from tasks import review
from tasks.sound import read_audio
from tests.review_desk import KEY, served, workspace

WHICH = {"episode": KEY[0], "language": KEY[1]}
ORIGIN = {"Origin": "http://127.0.0.1:7777"}


class Started:
    """A run in the background, as far as the page sees it."""

    def poll(self) -> None:
        return None


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clips, commands = tmp_path / "clips", []
    clips.mkdir()

    def start(command: tuple[str, ...], _log: Path) -> Any:
        commands.append(command)
        return Started()

    desk = Desk(workspace(tmp_path, 4), "ana", None, clips, start)
    desk.commands = commands  # type: ignore[attr-defined]
    return desk


@pytest.fixture
def client(desk: Desk) -> TestClient:
    client = TestClient(application(desk, "secret", 7777), base_url="http://127.0.0.1:7777", headers=ORIGIN)
    assert client.get("/?token=secret").status_code == 200
    return client


def test_only_who_has_the_token_is_answered(desk):
    other = TestClient(application(desk, "secret", 7777), base_url="http://127.0.0.1:7777", headers=ORIGIN)
    for path in ("/", "/?token=wrong", "/?token=", "/api/reviews", "/app.js"):
        assert other.get(path).status_code == 401
    assert other.post("/api/approve", json=WHICH).status_code == 401
    answer = other.get("/?token=secret", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))


@pytest.mark.parametrize(("headers", "status"), [
    ({"Host": "evil.example:7777"}, 421), ({"Host": "127.0.0.1"}, 421), ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403), ({"Origin": ""}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Content-Type": "text/plain"}, 415), ({"Content-Length": str(1 << 20)}, 413),
])
def test_other_pages_and_other_names_are_refused(client, desk, headers, status):
    assert client.post("/api/approve", json=WHICH, headers=headers).status_code == status
    assert len(review.load(desk.space.ledger, *KEY).unapproved) == 4


def test_every_answer_forbids_what_is_not_its_own(client):
    for path in ("/", "/app.js", "/api/reviews", "/nowhere"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


def test_source_and_dub_of_a_line_are_heard_in_ranges(client, tmp_path):
    for path, length in (("source", 1.4), ("dub", 1.25)):
        whole = client.get(f"/api/{path}", params=WHICH | {"line": "L0001"})
        assert whole.headers["content-type"] == "audio/flac"
        (tmp_path / "heard.flac").write_bytes(whole.content)
        assert len(read_audio(tmp_path / "heard.flac")) / CLOCK == pytest.approx(length, abs=0.001)
        part = client.get(f"/api/{path}", params=WHICH | {"line": "L0001"}, headers={"Range": "bytes=4-9"})
        assert (part.status_code, part.content) == (206, whole.content[4:10])
    assert "L0002: was not voiced yet" in client.get("/api/dub", params=WHICH | {"line": "L0002"}).json()["error"]
    assert client.get("/api/source", params=WHICH | {"line": "../../etc"}).status_code == 409


def test_what_is_asked_wrongly_is_said_and_changes_nothing(client, desk):
    for body in (b"", b"[]", b"{", b"[" * 60_000):
        assert client.post("/api/edit", content=body, headers={"Content-Type": "application/json"}).status_code in {
            400, 409}
    edit = WHICH | {"line": "L0001", "text": "Hola.", "was": "Buenos días."}
    for wrong in ({"line": "L0099"}, {"episode": "x"}, {"language": "xx"}, {"text": 5}, {"was": "Something else."},
                  {"text": "x" * 2001}):
        assert client.post("/api/edit", json=edit | wrong).status_code == 409
    assert review.load(desk.space.ledger, *KEY).lines[0].text == "Buenos días."


def test_the_last_approval_starts_the_rest_once(client, desk):
    for line in ("L0001", "L0002", "L0003"):
        assert client.post("/api/approve", json=WHICH | {"line": line}).json()["said"] == ""
    found = client.post("/api/lock", json=WHICH | {"line": "L0004"}).json()
    assert (found["state"], found["running"], found["said"][:15]) == ("approved", True, "is being dubbed")
    assert client.post("/api/approve", json=WHICH).json()["said"] == ""
    assert [command[:5] for command in desk.commands] == [("retry", "--episode", "pier/e1", "--lang", "es")]
    assert "already" in client.post("/api/run", json=WHICH).json()["said"]


# -- in a browser -----------------------------------------------------------------------------------------------------


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def desk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    workspace(folder)
    return folder / "out"


@pytest.fixture(scope="module")
def address(desk_folder: Path) -> Iterator[str]:
    with served(desk_folder) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_a_review_by_keyboard_alone(browser, address, desk_folder):
    page = browser.new_page(viewport={"width": 320, "height": 640})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.wait_for_selector("[data-line=L0001]:focus")
    assert "token" not in page.url
    assert page.locator("[data-line]").count() == PAGE
    assert page.evaluate("document.documentElement.scrollWidth") == 320  # nothing is cut off
    assert page.inner_text("[data-line=L0003] .source") == "<img src=x onerror=alert(1)>"  # text, never markup
    assert page.get_attribute("[data-line=L0001] .bar", "aria-label") == (
        "Timing: about 0.9 s in 1.0 s, 2.0 s until the next line, voiced in 1.3 s, stretched 1.25, 0.3 s over")

    page.keyboard.press("j")
    page.wait_for_selector("[data-line=L0002]:focus")
    before = page.inner_text("[data-line=L0002] .length")
    page.keyboard.press("Enter")
    page.keyboard.type(" Muy vieja.")
    page.wait_for_function("old => document.querySelector('[data-line=L0002] .length').innerText !== old", arg=before)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("[data-line=L0003]:focus")
    assert page.inner_text("[role=status]") == "L0002 approved"
    assert page.get_attribute("[data-line=L0002] .approve", "aria-pressed") == "true"

    page.keyboard.press("l")
    page.wait_for_selector("[data-line=L0003] .lock[aria-pressed=true]")
    assert page.locator("[data-line=L0003] textarea").get_attribute("readonly") is not None
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.keyboard.press("n")
    page.wait_for_selector("[data-line=L0004]:focus")
    page.keyboard.press("Enter")
    page.keyboard.type("nonsense")
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-line=L0004]:focus")
    page.keyboard.press("s")
    page.wait_for_function("() => { const a = document.getElementById('player');"
                           " return a.duration > 1.3 && a.error === null; }")
    page.fill("#at", "L0250")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-line=L0250]:focus")
    page.keyboard.press("a")
    page.wait_for_selector("[data-line=L0250] .approve[aria-pressed=true]")
    page.close()
    found = review.load(_ledger(desk_folder), *KEY).by_id
    assert {name: (line.text, bool(line.approved), bool(line.locked)) for name, line in found.items()
            if name in {"L0002", "L0003", "L0004", "L0250"}} == {
        "L0002": ("La lámpara del faro es vieja. Muy vieja.", True, False), "L0003": ("<b>No</b> & sí", False, True),
        "L0004": ("שלום, עולם", False, False), "L0250": ("La lámpara del faro es vieja.", True, False)}
    assert wrong == []


def test_every_control_has_a_name_and_is_reached_by_tab(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("[data-line=L0001]:focus")
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, select, textarea, li[data-line]')]
        .filter((one) => !(one.getAttribute('aria-label') || one.innerText || one.labels?.length)).length""")
    assert nameless == 0
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached[:5] == ["TEXTAREA", "play-source", "play-dub", "lock", "approve"]
    page.close()


def _ledger(out: Path) -> Any:
    from tasks.ledger import Ledger

    return Ledger(f"sqlite:///{out}/.infinidub/infinidub.db")


def test_a_port_that_is_taken_is_named(desk, address):
    port = int(address.partition("/?")[0].rpartition(":")[2])
    with pytest.raises(InputError, match=f"--port {port}: cannot be listened on"):
        serve(desk.space, "ana", port, None, print)

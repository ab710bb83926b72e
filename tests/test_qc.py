"""The verb `qc` on dubbed episodes and on any clip, and the page of an inspection."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ffmpeg
import pytest

from flows.cli import run_command
from models.records import Artifact, Check, HeardBack, Inspection, Loudness, Source
from tasks.media import run_ffmpeg
from tasks.qc_page import qc_page
from tasks.step import Work
from tests import fakes

Call = Callable[..., tuple[int, dict[str, Any]]]

pytestmark = pytest.mark.usefixtures("fake_engines")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `qc` with --json."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = run_command(["qc", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an episode was dubbed to, into Spanish."""
    folder = tmp_path_factory.mktemp("dubbed")
    catalog = fakes.series(folder / "series", languages=["es", "fr"])
    with pytest.MonkeyPatch.context() as patch:
        fakes.install_while(patch)
        assert run_command(["run", str(catalog), "--out", str(folder / "out"), "--lang", "es", "--set", "prefect=false",
                            "--generator", "pulse"]) == 0
    return folder / "out"


def states(said: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in said["checks"]}


def test_a_finished_language(call: Call, out: Path, tmp_path: Path) -> None:
    code, said = call("fake/e1", "--lang", "es", "--out", out, "--html", tmp_path / "page.html")
    assert (code, said["passed"], said["altered"]) == (0, True, [])
    assert {"frames", "shot_edges", "back_wer", "subtitle_gap"} <= {
        name for name, state in states(said).items() if state == "passed"}
    assert all(check["why"] for check in said["checks"] if check["state"] == "not measured")
    delivered = out / "fake" / "e1" / "es" / "qc.html"
    assert (tmp_path / "page.html").read_bytes() == delivered.read_bytes(), "the page is delivered, too"
    assert "data:image/jpeg" in delivered.read_text()


def test_another_preset_is_another_gate(call: Call, out: Path) -> None:
    code, said = call("fake/e1", "--lang", "es", "--out", out, "--gate", "web")
    assert (code, said["error"]["exit_code"], said["error"]["class"]) == (3, 3, "GateError")
    assert "loudness_lufs" in said["error"]["message"]
    assert call("fake/e1", "--lang", "es", "--out", out)[0] == 0, "what it was made for stays what it is held to"


def test_a_file_that_was_changed_since(call: Call, out: Path) -> None:
    subtitles = out / "fake" / "e1" / "es" / "e1.es.srt"
    before = subtitles.read_bytes()
    subtitles.write_bytes(before + b"\n")
    try:
        code, said = call("fake/e1", "--lang", "es", "--out", out)
    finally:
        subtitles.write_bytes(before)
    assert (code, said["altered"]) == (3, [str(subtitles)])


@pytest.mark.parametrize(("arguments", "words"), [
    (["fake/e1"], "of which language"), (["fake/e1", "--lang", "fr"], "is not finished"),
    (["fake/e9", "--lang", "es"], "no run of fake/e9"),
    (["fake/e1", "--lang", "es", "--gate", "loud"], "There are: r128"),
    (["fake/e1", "--lang", "es", "--html", "page.pdf"], "no name for a page")])
def test_what_cannot_be_asked(call: Call, out: Path, arguments: list[str], words: str) -> None:
    code, said = call(*arguments, "--out", out)
    assert code == 2
    assert words in said["error"]["message"]


def test_any_clip_beside_its_source(call: Call, tmp_path: Path) -> None:
    source, short = fakes.episode_video(), tmp_path / "short.mp4"
    code, said = call(source, "--source", source, "--gate", "r128")
    assert {name for name, state in states(said).items() if state == "failed"} <= {"loudness_lufs", "true_peak_dbtp"}
    run_ffmpeg(ffmpeg.input(str(source)).output(str(short), t=3, c="copy"), where="test")
    code, said = call(short, "--source", source)
    assert code == 3
    assert states(said)["frames"] == "failed"
    assert call(short)[0] == 2, "beside what?"


class Parts(HTMLParser):
    """Which elements a page has, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_shows_text_from_outside_as_text(work: Work) -> None:
    nasty = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    film = work.store.put_file(fakes.episode_video(), "video/mp4")
    source = Source(video=film, original="0" * 64, width=160, height=120, rate=Fraction(25), frames=100, audio=film,
                    channels=2)
    checks = (Check(name="frames", what="Frames.", value=99, unit="frames", bar="= 100", passed=False),
              Check(name="black_s", what="Black.", value=1, unit="s", bar="= 0", passed=False, worst=nasty, at=48_000),
              Check(name="seam", what="Seams.", passed=False, why=nasty))
    found = Inspection(language="es", checks=checks, loudness=Loudness(integrated_lufs=-23, true_peak_dbtp=-3),
                       back_wer=0.5, onset_within_120ms=1, stretched_over_1_15=0, overflow_lines=0,
                       heard=(HeardBack(lines=("L0001",), text=nasty, heard="\u202eabc", wer=0.5, at=0),))
    made: Artifact = qc_page(work, nasty, found, source, film)
    page = work.store.path(made).read_text()
    parts = Parts(page)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in parts.found}
    pictures = [given for tag, given in parts.found if tag == "img"]
    assert len(pictures) == 2
    assert all(given["alt"] and (given["src"] or "").startswith("data:image/jpeg") for given in pictures)
    assert all(given.get("scope") for tag, given in parts.found if tag == "th")
    assert "Failed: frames, black_s" in page
    assert "2 of 3 checks were made" in page
    assert qc_page(work, nasty, found, source, film) == made

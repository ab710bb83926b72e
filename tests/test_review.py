"""The gate after translation, edits, approvals, locks and time-outs, with engines that cost nothing."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flows.cli import run_command
from models import tables as t
from models.errors import AwaitingReviewError, InputError
from models.records import Candidate, Line, Transcript, TranslatedLine, Translation
from tasks import review
from tasks.ledger import Ledger
from tests import fakes

Call = Callable[..., tuple[int, dict[str, Any]]]
PLAIN = ("--set", "prefect=false", "--set", "multi=false", "--set", "check_speech=false", "--generator", "pulse")
KEY = ("s/e1", "es")


# -- what the database keeps ------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    url = f"sqlite:///{tmp_path}/l.db" if request.param == "sqlite" else request.getfixturevalue("postgresql")
    return translated(Ledger(url))


@pytest.fixture
def small(tmp_path: Path) -> Ledger:
    return translated(Ledger(f"sqlite:///{tmp_path}/l.db"))


def transcript(*texts: str) -> Transcript:
    return Transcript(language="en", lines=tuple(
        Line(id=f"L{number:04d}", start=48_000 * number, end=48_000 * number + 40_000, text=text, speaker="A")
        for number, text in enumerate(texts or ("One.", "Two.", "Three."), 1)))


def translation(*texts: str) -> Translation:
    return Translation(language="es", lines=tuple(
        TranslatedLine(id=f"L{number:04d}", text=text, candidates=(Candidate(text=text, score=1.0),
                                                                   Candidate(text="Otra.", score=0.5)))
        for number, text in enumerate(texts or ("Uno.", "Dos.", "Tres."), 1)))


def translated(ledger: Ledger) -> Ledger:
    review.note_translation(ledger, "s/e1", transcript(), translation())
    return ledger


def ask(ledger: Ledger, hours: float = 72, then: Any = "approve") -> None:
    review.ask(ledger, *KEY, timeout_h=hours, on_timeout=then)


def test_a_language_waits_until_every_line_is_approved_or_locked(ledger):
    assert not review.gate(ledger, "s/e1", transcript(), translation())  # nobody was asked yet
    ask(ledger)
    with pytest.raises(AwaitingReviewError, match=r"awaiting review .3 of 3 lines, 72.0 h are left"):
        review.gate(ledger, "s/e1", transcript(), translation())
    assert review.approve(ledger, *KEY, ["L0001"], "ana") == review.Approved(1, opened=False)
    assert review.lock(ledger, *KEY, ["L0002"], "ana") == review.Approved(1, opened=False)
    assert review.approve(ledger, *KEY, None, "bea") == review.Approved(1, opened=True)
    assert review.approve(ledger, *KEY, None, "bea") == review.Approved(0, opened=False)
    assert review.gate(ledger, "s/e1", transcript(), translation())
    assert [(one.what, one.who, one.line) for one in review.log(ledger, "s/e1")] == [
        ("ask", "run", ""), ("approve", "ana", "L0001"), ("lock", "ana", "L0002"), ("approve", "bea", ""),
        ("approve", "bea", "")]


def test_of_many_who_approve_at_once_one_starts_the_rest(ledger):
    ask(ledger)
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda n: review.approve(ledger, *KEY, [f"L000{n % 3 + 1}"], f"p{n}"), range(6)))
    assert sum(one.opened for one in done) == 1
    assert sum(one.lines for one in done) == 3


def test_an_approval_lapses_where_text_or_source_changes(small):
    review.approve(small, *KEY, None, "ana")
    review.change(small, *KEY, {"L0002": "Otro."}, {"L0002": "Two."}, "bea")
    assert review.load(small, *KEY).unapproved == ("L0002",)
    review.note_translation(small, "s/e1", transcript("One.", "Two.", "3."), translation())
    found = review.load(small, *KEY)
    assert found.unapproved == ("L0002", "L0003")
    assert [line.text for line in found.lines] == ["Uno.", "Otro.", "Tres."]
    assert found.by_id["L0002"].changed


def test_a_locked_line_stays_whatever_comes(small):
    review.lock(small, *KEY, ["L0002"], "ana")
    for attempt in (lambda: review.change(small, *KEY, {"L0001": "A.", "L0002": "B."}, {"L0001": "", "L0002": ""}, "x"),
                    lambda: review.undo(small, *KEY, "L0002", "x")):
        with pytest.raises(InputError, match="L0002: is locked by ana"):
            attempt()
    assert review.load(small, *KEY).lines[0].text == "Uno."  # all of it, or nothing
    other = transcript("One.", "Two, now.", "Three.")
    edit = review.edits(small, *KEY, other.lines)["L0002"]
    assert (edit.text, list(review.edits(small, *KEY, other.lines))) == ("Dos.", ["L0002"])
    review.note_translation(small, "s/e1", other, translation("Uno.", "Dos, ahora.", "Tres."))
    line = review.load(small, *KEY).by_id["L0002"]
    assert (line.text, line.other_source) == ("Dos.", True)
    with pytest.raises(InputError, match="L0002 is locked, and is gone from the transcript"):
        review.edits(small, *KEY, transcript("One.").lines)
    moved = transcript("One.", "Else.").lines[1].model_copy(update={"start": 900_000, "end": 990_000})
    with pytest.raises(InputError, match=r"bears what was said elsewhere now. Unlock it: infinidub review unlock s/e1"):
        review.edits(small, *KEY, [moved])
    assert review.unlock(small, *KEY, ["L0002"], "bea").lines == 1
    assert review.edits(small, *KEY, other.lines)["L0002"].text == "Dos."  # as an edit, now
    review.change(small, *KEY, {"L0002": "B."}, {"L0002": "Two, now."}, "x")


def test_what_a_person_approved_is_said_in_no_other_way(small):
    review.approve(small, *KEY, ["L0001"], "ana")
    review.lock(small, *KEY, ["L0002"], "ana")
    fixed = review.approved(small, "s/e1", transcript(), translation())
    request = review.ReviewedRequest(translation=translation(), approved=fixed)
    said = review.settle.function(None, request)  # type: ignore[arg-type]
    assert [len(line.candidates) for line in said.lines] == [0, 0, 2]


def test_time_is_over_once(ledger):
    ask(ledger, hours=1e-9)
    assert review.gate(ledger, "s/e1", transcript(), translation())  # looking already sees it so
    assert review.time_out(ledger) == [("s/e1", "es", "approve")]
    assert review.time_out(ledger) == []
    assert {line.approved.who for line in review.load(ledger, *KEY).lines if line.approved} == {"time-out"}
    review.note_translation(ledger, "s/e1", transcript(), translation("Uno.", "Dos.", "Cuatro."))
    ask(ledger, hours=1e-9, then="wait")
    assert review.time_out(ledger, only=KEY) == []
    assert review.time_out(ledger) == [("s/e1", "es", "wait")]
    assert review.time_out(ledger) == []
    with pytest.raises(AwaitingReviewError, match=r"1 of 3 lines.*review approve s/e1 --lang es"):
        review.gate(ledger, "s/e1", transcript(), translation("Uno.", "Dos.", "Cuatro."))


def test_flagged_lines_are_approved_by_nobody_but_a_person(small):
    lines = translation().lines
    flagged = Translation(language="es", lines=(lines[0].model_copy(update={"flags": ("number: 2 is missing",)}),
                                                *lines[1:]))
    review.note_translation(small, "s/e1", transcript(), flagged)
    ask(small, hours=1e-9)
    with pytest.raises(AwaitingReviewError, match="its time is over"):
        review.gate(small, "s/e1", transcript(), flagged)
    assert review.time_out(small, only=KEY) == []  # the others are approved, and that one waits is still to be told
    assert review.load(small, *KEY).unapproved == ("L0001",)
    assert review.time_out(small) == [("s/e1", "es", "wait")]
    assert review.time_out(small) == []
    assert (review.load(small, *KEY).unapproved, review.load(small, *KEY).state) == (("L0001",), "awaiting")
    assert review.approve(small, *KEY, ["L0001"], "ana") == review.Approved(1, opened=True)


def test_who_approves_the_last_flagged_line_after_the_time_opens_the_language(small):
    flagged = Translation(language="es", lines=tuple(line.model_copy(update={"flags": ("name: Bo is missing",) * (
        line.id == "L0001")}) for line in translation().lines))
    review.note_translation(small, "s/e1", transcript(), flagged)
    ask(small, hours=1e-9)
    assert review.approve(small, *KEY, ["L0001"], "ana") == review.Approved(1, opened=True)


@pytest.mark.parametrize(("act", "lines", "count"), [(review.approve, ["L0001"], 1), (review.lock, ["L0001"], 1),
                                                     (review.approve, None, 3)])
def test_a_persons_word_after_the_time_is_noted_as_his_and_opens_the_language(small, act, lines, count):
    ask(small, hours=1e-9)
    assert act(small, *KEY, lines, "ana") == review.Approved(count, opened=True)
    assert len(review.approved(small, "s/e1", transcript(), translation())) == count
    assert review.time_out(small) == [], "nobody starts it twice"


def test_two_who_edit_the_same_line_are_told(small):
    sources = {"L0001": "One."}
    review.change(small, *KEY, {"L0001": "A."}, sources, "ana", was="Uno.")
    with pytest.raises(InputError, match="L0001: was changed by somebody else meanwhile"):
        review.change(small, *KEY, {"L0001": "B."}, sources, "bea", was="Uno.")
    review.change(small, *KEY, {"L0002": "B."}, {"L0002": "Two."}, "bea", approve=True)  # as `redo` does
    assert review.load(small, *KEY).unapproved == ("L0001", "L0003")
    with pytest.raises(InputError, match="must be one line"):
        review.change(small, *KEY, {"L0001": "A\nB"}, sources, "ana")


# -- through the command line -----------------------------------------------------------------------------------------


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    fakes.install_while(monkeypatch)

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = run_command([*map(str, arguments), "--json"])
        [line] = capsys.readouterr().out.splitlines()
        return code, json.loads(line)

    return run


def computed(out: Path, run: str) -> list[tuple[str, str]]:
    with Ledger(f"sqlite:///{out}/.infinidub/infinidub.db").session() as session:
        rows = session.scalars(sa.select(t.Execution).where(t.Execution.run_id == run).order_by(t.Execution.id))
        return [(row.step, row.item) for row in rows if row.outcome == "computed"]


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog whose Spanish waits for its review."""
    folder = tmp_path_factory.mktemp("review")
    catalog, out = fakes.series(folder / "series", languages=["es"], review=True), folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        fakes.install_while(patch)
        assert run_command(["run", str(catalog), "--out", str(out), *PLAIN]) == 0
    return catalog, out


@pytest.fixture
def own(waiting: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    shutil.copytree(waiting[1] / ".infinidub", tmp_path / "out" / ".infinidub")
    return waiting[0], tmp_path / "out"


def type_into(file: Path, line: str, text: str) -> None:
    rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
    for row in rows:
        row["text"] = text if row["id"] == line else row["text"]
    with file.open("w", encoding="utf-8", newline="") as opened:
        table = csv.DictWriter(opened, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


def test_a_language_that_waits_is_no_failure_and_starts_nothing(call, own):
    catalog, out = own
    code, said = call("run", catalog, "--out", out, *PLAIN)
    assert (code, said["failed"], said["deliverables"], said["steps_run"]) == (0, [], [], 0)
    [one] = said["awaiting"]
    assert one.items() >= {"episode": "fake/e1", "language": "es"}.items()
    assert one["message"].startswith("awaiting review (3 of 3 lines, 72.0 h are left")
    assert said["costs"]["languages"][0].items() >= {"outcome": "awaiting"}.items()
    [row] = call("status", catalog, "--out", out)[1]["episodes"]
    assert (row["awaiting"][:15], row["steps"]["translate"], row["steps"]["synthesize"], row["failed"]) == (
        "awaiting review", "done", "waiting", None)


def test_from_the_gate_to_the_dub_and_one_changed_line_does_one_line(call, own, tmp_path):
    catalog, out = own
    state, file = out / ".infinidub", tmp_path / "es.csv"
    code, said = call("review", "export", "fake/e1", file, "--lang", "es", "--out", out)
    assert (code, said["lines"], said["state"]) == (0, 3, "awaiting")
    assert call("review", "import", "fake/e1", file, "--lang", "es", "--out", out)[1]["changed"] == []
    code, said = call("review", "approve", "fake/e1", "--lang", "es", "--by", "ana", "--out", out)
    assert (code, said["approved"]) == (0, 3)
    command = said["rerun"]["command"]
    assert command == ["infinidub", "retry", "--episode", "fake/e1", "--lang", "es", "--state", str(state)]
    code, said = call(*command[1:], "--out", out)
    assert (code in {0, 3}, said["awaiting"], len(said["deliverables"])) == (True, [], 1)  # 3: what fakes make is poor
    steps = {step for step, _ in computed(out, said["run"])}
    assert "synthesize" in steps
    assert not steps & {"ingest", "transcribe", "translate", "translate.line"}  # what was done before is reused

    type_into(file, "L0002", "<i>The old lamp.</i>")
    code, said = call("review", "import", "fake/e1", file, "--lang", "es", "--approve", "--by", "ana", "--out", out)
    assert (code, said["changed"], said["approved"]) == (0, ["L0002"], 1)
    code, said = call(*said["rerun"]["command"][1:], "--out", out)
    done = computed(out, said["run"])
    assert (said["failed"], said["lines_run"], said["awaiting"]) == ([], 1, [])
    assert [item for step, item in done if step == "synthesize.line"] == ["L0002"]
    assert {item for step, item in done if step == "generate.shot"} == {"S0002"}  # the shot in which it is said
    assert {step for step, _ in done} >= {"mix", "assemble"}
    assert not {step for step, _ in done} & {"translate.line", "transcribe", "shots"}
    assert "The old lamp." in Path(said["deliverables"][0]["subtitles"][0]).read_text()
    assert call("run", catalog, "--out", out, *PLAIN)[1]["steps_run"] == 0
    behind = [step["step"] for step in call("trace", said["deliverables"][0]["video"], "--out", out)[1]["steps"]]
    assert "translate" in behind
    assert [behind.count(name) for name in ("synthesize", "mix", "plan")] == [1, 1, 1]  # of the old text, nothing
    [row] = call("status", "--out", out)[1]["episodes"]  # of what was run last
    assert (row["episode"], row["language"], row["done"]) == ("fake/e1", "es", True)
    events = call("review", "log", "fake/e1", "--lang", "es", "--out", out)[1]["events"]
    assert [(one["what"], one["line"]) for one in events] == [
        ("ask", ""), ("export", ""), ("approve", ""), ("import", "L0002"), ("approve", "")]


def test_an_import_that_nobody_approved_asks_again(call, own, tmp_path):
    _, out = own
    call("review", "approve", "fake/e1", "--lang", "es", "--out", out)
    file = tmp_path / "es.csv"
    call("review", "export", "fake/e1", file, "--lang", "es", "--out", out)
    type_into(file, "L0002", "The old lamp.")
    code, said = call("review", "import", "fake/e1", file, "--lang", "es", "--out", out)
    assert (code, said["changed"], said["rerun"]) == (0, ["L0002"], None)  # nothing goes on before it is approved
    code, said = call("retry", "--episode", "fake/e1", "--lang", "es", "--out", out)
    assert (code, said["deliverables"], said["awaiting"][0]["message"][:34]) == (
        0, [], "awaiting review (1 of 3 lines, 72.")
    assert {step for step, _ in computed(out, said["run"])} == {"translate"}


def test_a_bad_file_changes_nothing_and_a_lock_is_kept(call, own, tmp_path):
    _, out = own
    assert call("review", "lock", "fake/e1", "--lang", "es", "--line", "L0001", "--out", out)[1]["locked"] == 1
    file = tmp_path / "es.csv"
    file.write_text("id,text\nL0001,Changed.\nL0002,Changed.\nL0003,We go now.\n")
    code, said = call("review", "import", "fake/e1", file, "--lang", "es", "--out", out)
    assert (code, said["error"]["where"]) == (2, "es.csv, line 2")
    code, said = call("redo", "fake/e1", "--lang", "es", "--line", "L0001", "--text", "No.", "--out", out,
                      "--set", "prefect=false")
    assert (code, said["error"]["message"][:26]) == (2, "L0001: is locked by " + said["error"]["message"][20:26])
    ledger = Ledger(f"sqlite:///{out}/.infinidub/infinidub.db")
    assert ledger.edits("fake/e1", "es") == {}
    assert call("review", "export", "fake/e2", "--lang", "es", "--state", out / ".infinidub")[0] == 2
    file.rename(tmp_path / "es.docx")
    code, said = call("review", "import", "fake/e1", tmp_path / "es.docx", "--lang", "es", "--out", out)
    assert (code, said["error"]["what"]) == (2, ".docx is no format of scripts")


def test_what_nobody_looks_at_goes_on_when_its_time_is_over(call, own):
    catalog, out = own
    with Ledger(f"sqlite:///{out}/.infinidub/infinidub.db").session() as session:
        session.execute(sa.update(t.Review).values(deadline=t.clock() - 1))
    [row] = call("status", catalog, "--out", out)[1]["episodes"]
    assert (row["awaiting"], row["steps"]["synthesize"]) == ("", "waiting")  # the next run does it

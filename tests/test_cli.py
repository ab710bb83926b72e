"""The command line with engines that cost nothing: what it prints, what it leaves behind, how it fails."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from flows.cli import GROUPS, VERBS, run_command
from flows.cli_run import select_from
from flows.preflight import preflight
from flows.review_server import Desk
from flows.settings import load_settings
from flows.wiring import open_workspace
from models import tables as t
from models.engines import ENGINES
from models.errors import EngineError, InputError, SetupError
from tasks.ledger import Ledger
from tests import fakes

ROOT = Path(__file__).parent.parent
Call = Callable[..., tuple[int, dict[str, Any]]]
PLAIN = ("--set", "prefect=false", "--set", "multi=false", "--generator", "pulse")
MULTI = ("--set", "multi=true")

pytestmark = pytest.mark.usefixtures("fake_engines")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a verb with --json; stdout must hold one JSON object and nothing else."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = run_command([*map(str, arguments), "--json"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1, lines
        return code, json.loads(lines[0])

    return run


@pytest.fixture(scope="module")
def dubbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog of one episode, and the folder it was dubbed to: for tests that only look."""
    folder = tmp_path_factory.mktemp("dubbed")
    catalog = fakes.series(folder / "series")
    with pytest.MonkeyPatch.context() as patch:
        fakes.install_while(patch)
        assert run_command(["run", str(catalog), "--out", str(folder / "out"), *PLAIN, *MULTI]) == 0
    return catalog, folder / "out"


@pytest.fixture
def own(dubbed: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of its state for tests that change things, with the same catalog."""
    catalog, out = dubbed
    shutil.copytree(out / ".infinidub", tmp_path / "out" / ".infinidub")
    return catalog, tmp_path / "out"


def executions(out: Path, run: str) -> list[tuple[str, str, str]]:
    with Ledger(f"sqlite:///{out}/.infinidub/infinidub.db").session() as session:
        rows = session.scalars(sa.select(t.Execution).where(t.Execution.run_id == run).order_by(t.Execution.id))
        return [(row.step, row.item, row.outcome) for row in rows]


def computed(out: Path, run: str) -> set[str]:
    return {step for step, _, outcome in executions(out, run) if outcome == "computed"}


# -- dubbing ----------------------------------------------------------------------------------------------------------


def test_an_unchanged_run_does_nothing_and_delivers_everything(call: Call, dubbed: tuple[Path, Path]) -> None:
    catalog, out = dubbed
    code, said = call("run", catalog, "--out", out, *PLAIN, *MULTI)
    assert code == 0
    assert (said["steps_run"], said["lines_run"], said["shots_run"], said["failed"]) == (0, 0, 0, [])
    assert said["steps_reused"] >= 18
    assert [(one["episode"], one["language"]) for one in said["deliverables"]] == [("fake/e1", "es"), ("fake/e1", "fr")]
    first = said["deliverables"][0]
    assert first.items() >= {"frames": 100, "fps": 25.0, "duration_s": 4.0, "passed": True, "back_wer": 0.0}.items()
    assert first["generated_s"] + first["passthrough_s"] == pytest.approx(4.0)
    for path in (first["video"], first["report"], *first["subtitles"], *said["multi"]):
        assert Path(path).is_file()
        assert Path(path).is_relative_to(out / "fake" / "e1")


def test_an_unchanged_run_loads_neither_prefect_nor_models(dubbed: tuple[Path, Path]) -> None:
    catalog, out = dubbed
    arguments = ["run", str(catalog), "--out", str(out), "--generator", "pulse", "--json"]
    program = ("import sys; from tests.fakes import install; from flows.cli import run_command; install();"
               f"code = run_command({arguments!r}); heavy = {{'prefect', 'torch', 'onnxruntime', 'faster_whisper'}};"
               "print(sorted(heavy & set(sys.modules)), code)")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"


def test_the_same_on_postgresql(call: Call, postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINIDUB_DATABASE", postgresql)
    catalog, out = fakes.series(tmp_path / "series"), tmp_path / "out"
    assert call("run", catalog, "--out", out, "--lang", "es", *PLAIN)[0] == 0
    code, said = call("run", catalog, "--out", out, *PLAIN)
    assert (code, said["lines_run"]) == (0, 3)  # French only; what both share is reused
    assert call("run", catalog, "--out", out, *PLAIN)[1]["steps_run"] == 0
    code, said = call("redo", "fake/e1", "--lang", "es", "--line", "L0002", "--text", "Es vieja.", "--out", out)
    assert (code, said["lines_run"]) in {(0, 1), (3, 1)}  # the fake recognizer does not hear the new text
    assert call("status", catalog, "--out", out)[0] == 0
    code, said = call("trace", out / "fake/e1/es/e1.es.mp4", "--out", out)
    assert code == 0
    assert {step["step"] for step in said["steps"]} >= {"ingest", "transcribe", "synthesize.line", "mix", "assemble"}
    assert not list(out.rglob("*.db"))


def test_deleted_files_are_delivered_again(call: Call, own: tuple[Path, Path]) -> None:
    catalog, out = own
    code, said = call("run", catalog, "--out", out, *PLAIN)
    assert (code, said["steps_run"]) == (0, 0)
    assert all(Path(one["video"]).is_file() for one in said["deliverables"])


def test_a_second_language_transcribes_nothing(call: Call, tmp_path: Path) -> None:
    catalog, out = fakes.series(tmp_path / "series"), tmp_path / "out"
    _, first = call("run", catalog, "--out", out, "--lang", "es", *PLAIN, *MULTI)
    _, second = call("run", catalog, "--out", out, "--lang", "fr", *PLAIN, *MULTI)
    assert {"ingest", "shots", "transcribe", "speakers", "translate"} <= computed(out, first["run"])
    assert first["multi"] == []
    assert not {"ingest", "shots", "transcribe", "speakers"} & computed(out, second["run"])
    assert "translate" in computed(out, second["run"])
    assert len(second["multi"]) == 1


def test_one_changed_line_voices_one_line(call: Call, own: tuple[Path, Path]) -> None:
    catalog, out = own
    code, said = call("redo", "fake/e1", "--lang", "es", "--line", "L0002", "--text", "The old lamp.", "--out", out,
                      *PLAIN[:2], *MULTI)
    assert (code, said["lines_run"]) == (3, 1)  # the fake recognizer hears the old words: a gate
    assert said["error"]["class"] == "GateError"
    assert "transcribe" not in computed(out, said["run"])
    assert [one["language"] for one in said["deliverables"]] == ["es"]
    subtitles = Path(said["deliverables"][0]["subtitles"][0]).read_text()
    assert "The old lamp." in subtitles
    assert len(said["multi"]) == 1
    assert call("run", catalog, "--out", out, *PLAIN)[1]["steps_run"] == 0


def test_an_edit_in_the_page_does_its_line_alone_and_can_be_taken_back(call: Call, own: tuple[Path, Path],
                                                                       tmp_path: Path) -> None:
    catalog, out = own
    line = ["redo", "fake/e1", "--lang", "es", "--line", "L0002", "--out", out, *PLAIN[:2]]
    assert call(*line, "--undo")[1]["error"]["message"].startswith("--line: L0002 was not edited in es")

    commands: list[tuple[str, ...]] = []

    def start(command: tuple[str, ...], _log: Path) -> Any:
        commands.append(command)
        return SimpleNamespace(poll=lambda: 0)

    desk = Desk(open_workspace(load_settings(flags={"out": str(out)})), "ana", None, tmp_path, start)
    there = {"episode": "fake/e1", "language": "es"}
    desk.edit({**there, "line": "L0002", "text": "The old lamp.", "was": "La luz es vieja."})
    desk.run(there)
    _, said = call(*commands[0], "--out", out)
    done = [(step, item) for step, item, outcome in executions(out, said["run"]) if outcome == "computed"]
    assert [one for one in done if one[1]] == [("synthesize.line", "L0002"), ("generate.shot", "S0002"),
                                               ("assemble.picture", "picture")]
    assert {"mix", "assemble"} <= {step for step, times in Counter(step for step, _ in done).items() if times == 1}
    assert not {"transcribe", "speakers", "shots", "translate.line"} & {step for step, _ in done}
    assert call("run", catalog, "--out", out, *PLAIN)[1]["steps_run"] == 0, "nothing of French was to be done"

    code, said = call(*line, "--undo")
    assert (code, said["steps_run"]) == (0, 0)
    assert "La luz es vieja." in Path(said["deliverables"][0]["subtitles"][0]).read_text()


def test_a_refused_redo_changes_nothing(call: Call, own: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = own
    other = fakes.series(tmp_path / "series")
    with (tmp_path / "series" / "e1.mp4").open("ab") as video:
        video.write(b"\0\0\0\x09free!")
    call("run", own[0], "--out", out, *PLAIN)
    code, said = call("redo", "fake/e1", "--lang", "es", "--line", "L0002", "--text", "No.", "--catalog", other,
                      "--out", out, *PLAIN[:2])
    assert (code, said["error"]["class"]) == (2, "SourceChangedError")
    assert Ledger(f"sqlite:///{out}/.infinidub/infinidub.db").edits("fake/e1", "es") == {}


def test_redo_from_a_step_does_it_and_what_builds_on_it(call: Call, own: tuple[Path, Path]) -> None:
    _, out = own
    code, said = call("redo", "fake/e1", "--lang", "fr", "--from", "mix", "--out", out, *PLAIN[:2])
    assert code == 0
    assert computed(out, said["run"]) >= {"mix", "assemble", "inspect"}
    assert not computed(out, said["run"]) & {"translate", "synthesize", "generate.shot", "transcribe"}


def test_one_file_without_a_catalog(call: Call, tmp_path: Path) -> None:
    video = tmp_path / "My film (1).mp4"
    shutil.copy(fakes.episode_video(), video)
    code, said = call("dub", video, "--to", "es", "--from", "en", "--range", "0-2.4", "--out", tmp_path / "out", *PLAIN,
                      "--set", "check_speech=false")
    assert code == 0
    assert [(one["episode"], one["duration_s"]) for one in said["deliverables"]] == [("My-film-1.0-2.4", 2.4)]
    code, said = call("redo", "My-film-1.0-2.4", "--lang", "es", "--from", "translate", "--out", tmp_path / "out",
                      *PLAIN[:2])
    assert code == 0
    assert "translate" in computed(tmp_path / "out", said["run"])


def test_a_studio_brings_transcript_script_and_dialogue(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    cue = "1\n00:00:00,300 --> 00:00:01,000\n{}\n\n2\n00:00:01,800 --> 00:00:02,400\n{}\n"
    catalog = fakes.series(folder, episodes=1)
    (folder / "en.srt").write_text(cue.format("Good morning.", "The lamp is old."))
    (folder / "es.srt").write_text(cue.format("Buenos días.", "La lámpara es vieja."))
    shutil.copy(fakes.episode_video(), folder / "es.mp4")
    given = {"id": "e1", "video": "e1.mp4", "transcript": "en.srt", "script": {"es": "es.srt"},
             "dialogue": {"es": "es.mp4"}, "languages": ["es"]}
    fakes.series(folder, episodes=[given])
    code, said = call("run", catalog, "--out", tmp_path / "out", *PLAIN, "--set", "check_speech=false")
    assert code in {0, 3}, said
    assert {"transcript", "dialogue"} <= computed(tmp_path / "out", said["run"])
    assert not {"transcribe", "synthesize"} & computed(tmp_path / "out", said["run"])


def test_finished_dialogue_needs_no_translator(tmp_path: Path) -> None:
    given = {"id": "e1", "video": "e1.mp4", "dialogue": {"pt": "e1.mp4"}, "languages": ["pt"]}
    settings = load_settings(flags={"out": str(tmp_path / "out")})
    selected = select_from(fakes.series(tmp_path / "series", episodes=[given]), settings, [], [])
    preflight(open_workspace(settings), selected)  # no fake translates into Portuguese


def test_weights_of_those_who_judge_are_read_before_anything_is_made(tmp_path: Path) -> None:
    settings = load_settings(flags={
        "out": str(tmp_path / "out"), "engines.lip-scorer": "syncnet",
        "options.syncnet.path": str(tmp_path / "no.model"), "options.syncnet.sha256": "0" * 64})
    selected = select_from(fakes.series(tmp_path / "series"), settings, [], [])
    with pytest.raises(InputError, match=r"no\.model cannot be read"):
        preflight(open_workspace(settings), selected)


def test_lips_of_rendered_people_are_read_wherever_they_are_made(tmp_path: Path, monkeypatch: Any) -> None:
    settings = load_settings(flags={"out": str(tmp_path / "out"), "engines.generator": "lite", "dispatch": "prefect"})
    selected = select_from(fakes.series(tmp_path / "series"), settings, [], [])
    monkeypatch.setattr("models.engines.lip_reader.find_spec", lambda _name: None)
    with pytest.raises(SetupError, match="lip-reader: the libraries torch, safetensors are missing"):
        preflight(open_workspace(settings), selected)


# -- failing ----------------------------------------------------------------------------------------------------------


def test_one_failing_language_does_not_stop_the_others(call: Call, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    catalog, out = fakes.series(tmp_path / "series", languages=["it", "es"]), tmp_path / "out"
    code = run_command(["run", str(catalog), "--out", str(out), *PLAIN, "--json"])
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert code == 4
    assert [one["language"] for one in said["deliverables"]] == ["es"]
    assert said["failed"][0].items() >= {"episode": "fake/e1", "language": "it", "error": "EngineError"}.items()
    assert "error: fake/e1·it: the fake translator has no Italian today" in printed.err
    assert "Traceback" not in printed.err
    code, said = call("status", catalog, "--out", out)
    rows = {row["language"]: row for row in said["episodes"]}
    assert rows["es"]["done"]
    assert rows["it"]["steps"].items() >= {"speakers": "done", "translate": "failed", "mix": "waiting"}.items()
    assert rows["it"]["failed"]["error_class"] == "EngineError"
    code, said = call("retry", "--failed", "--out", out, *PLAIN[:2])
    assert code == 4
    assert said["deliverables"] == []
    assert [(one["episode"], one["language"]) for one in said["failed"]] == [("fake/e1", "it")]


def test_an_episode_that_cannot_be_dubbed_does_not_stop_the_others(call: Call, tmp_path: Path) -> None:
    episodes = [{"id": "e1", "video": "e1.mp4", "languages": ["de"]},  # no fake voice speaks German
                {"id": "e2", "video": "e2.mp4", "languages": ["es"]}]
    catalog, out = fakes.series(tmp_path / "series", episodes=episodes), tmp_path / "out"
    code, said = call("run", catalog, "--out", out, *PLAIN)
    assert code == 4
    assert [one["episode"] for one in said["deliverables"]] == ["fake/e2"]
    assert [(one["episode"], one["error"]) for one in said["failed"]] == [("fake/e1", "InputError")]
    code, said = call("retry", "--failed", "--out", out, *PLAIN[:2])
    assert (code, said["deliverables"], [one["episode"] for one in said["failed"]]) == (2, [], ["fake/e1"])

    with (tmp_path / "series" / "e2.mp4").open("ab") as video:
        video.write(b"\0\0\0\x09free!")
    code, said = call("run", catalog, "--out", out, *PLAIN)
    assert (code, [one["error"] for one in said["failed"]]) == (2, ["InputError", "SourceChangedError"])


def test_what_could_not_be_delivered_is_tried_again(call: Call, own: tuple[Path, Path],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, out = own

    def refused(*_: object, **__: object) -> None:
        raise InputError("the folder is not ours")

    with monkeypatch.context() as patch:
        patch.setattr("flows.pipeline.publish", refused)
        code, said = call("run", catalog, "--out", out, "--lang", "es", *PLAIN)
    assert (code, len(said["failed"])) == (2, 1)
    code, said = call("retry", "--failed", "--out", out)
    assert (code, [one["language"] for one in said["deliverables"]]) == (0, ["es"])


def test_a_missed_bar_is_exit_code_3(call: Call, tmp_path: Path) -> None:
    catalog = fakes.series(tmp_path / "series", languages=["gl"])
    code, said = call("run", catalog, "--out", tmp_path / "out", *PLAIN)
    assert code == 3
    assert not said["deliverables"][0]["passed"]
    assert "back_wer" in said["error"]["message"]
    [row] = call("status", catalog, "--out", tmp_path / "out")[1]["episodes"]
    assert row["done"]
    assert row["below_bar"][0].startswith("back_wer is ")


def test_a_video_without_speech_is_delivered_with_a_warning(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fakes, "SPOKEN", {})
    catalog = fakes.series(tmp_path / "series", languages=["es"])
    code = run_command(["run", str(catalog), "--out", str(tmp_path / "out"), *PLAIN])
    printed = capsys.readouterr()
    assert code == 0
    assert "warning: fake/e1: no speech was found in it" in printed.err
    code, said = call("run", catalog, "--out", tmp_path / "out", *PLAIN)
    assert (len(said["deliverables"]), len(said["warnings"])) == (1, 1)


def test_a_cast_is_checked_voice_by_voice_and_speaker_by_speaker(call: Call, tmp_path: Path) -> None:
    catalog = fakes.series(tmp_path / "series", languages=["es"], cast={"es": {"A": "anna"}})
    code, said = call("run", catalog, "--out", tmp_path / "out", *PLAIN)
    assert (code, said["steps_run"]) == (2, 0)
    assert "fake/e1·es: cast of A: the fake has no voice 'anna'. There are: ana, bob" in said["error"]["message"]
    catalog = fakes.series(tmp_path / "series", languages=["es"], cast={"es": {"A": "bob", "Marie": "ana"}})
    code, said = call("run", catalog, "--out", tmp_path / "out", *PLAIN)
    assert code == 0
    assert said["warnings"] == ["fake/e1·es: the cast names 'Marie', and no speaker is called so. There are: A"]


def test_ctrl_c_and_then_on_and_then_another_source(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    catalog, out = fakes.series(tmp_path / "series", languages=["es"]), tmp_path / "out"
    monkeypatch.setattr(fakes.Recognizer, "interrupted", True)
    assert run_command(["run", str(catalog), "--out", str(out), *PLAIN]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; run the same command again to go on"
    with Ledger(f"sqlite:///{out}/.infinidub/infinidub.db").session() as session:
        assert [run.state for run in session.scalars(sa.select(t.Run))] == ["cancelled"]

    monkeypatch.setattr(fakes.Recognizer, "interrupted", False)
    code, said = call("run", catalog, "--out", out, *PLAIN)
    assert code == 0
    assert not {"ingest", "shots"} & computed(out, said["run"])

    with (tmp_path / "series" / "e1.mp4").open("ab") as video:
        video.write(b"\0\0\0\x09free!")
    code, said = call("run", catalog, "--out", out, *PLAIN)
    assert code == 2
    assert said["error"]["class"] == "SourceChangedError"
    assert "--accept-new-source" in said["error"]["hint"]
    assert call("run", catalog, "--out", out, *PLAIN, "--accept-new-source")[0] == 0
    assert call("run", catalog, "--out", out, *PLAIN)[1]["steps_run"] == 0


def test_a_full_disk_ends_the_run_and_the_next_goes_on(call: Call, own: tuple[Path, Path],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, out = own

    def full(_file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.store.os.fsync", full)
        code, said = call("run", catalog, "--out", out, *PLAIN, "--set", "loudness=web")
    assert (code, said["error"]["class"]) == (5, "StorageFullError")
    assert said["error"]["hint"].startswith("Free some space")
    assert not list(out.rglob(".partial-*"))
    code, said = call("run", catalog, "--out", out, "--lang", "es", *PLAIN, "--set", "loudness=web")
    assert code == 0
    assert said["deliverables"][0]["loudness_lufs"] == pytest.approx(-16, abs=0.5)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no catalog": (["run", "none.yaml"], "none.yaml: cannot be read"),
    "no verb": (["dubb"], "No such command"),
    "no argument": (["run"], "Missing argument"),
    "unknown option": (["run", "CATALOG", "--nope"], "No such option"),
    "unknown episode": (["run", "CATALOG", "--episode", "e9"], "There are: fake/e1"),
    "unknown language": (["run", "CATALOG", "--lang", "de"], "There are: es, fr"),
    "bad tag": (["run", "CATALOG", "--lang", "klingonese"], "--lang: 'klingonese' is no language tag"),
    "unknown engine": (["run", "CATALOG", "--set", "engines.synthesizer=bark"], "There are: kokoro"),
    "unknown generator": (["run", "CATALOG", "--generator", "sora"], "There are: passthrough"),
    "unknown setting": (["run", "CATALOG", "--set", "colour=red"], "colour: unknown setting"),
    "no assignment": (["run", "CATALOG", "--set", "crf"], "--set: 'crf' is no NAME=VALUE"),
    "secret on the command line": (["run", "CATALOG", "--set", "secrets.key=x"], "INFINIDUB_SECRETS__KEY"),
    "output under a file": (["run", "CATALOG", "--out", "CATALOG/out"], "cannot be written"),
    "no such video": (["dub", "none.mp4", "--to", "es"], "none.mp4: no such file"),
    "no video": (["dub", "CATALOG", "--to", "es"], "cannot be read"),
    "no language": (["dub", "VIDEO", "--to", ","], "--to: no language is given"),
    "own language": (["dub", "VIDEO", "--to", "en", "--from", "en"], "is the language of the source"),
    "bad range": (["dub", "VIDEO", "--to", "es", "--range", "soon"], "--range: 'soon' is no range"),
    "backward range": (["dub", "VIDEO", "--to", "es", "--range", "3-1"], "ends before it begins"),
    "no voice": (["dub", "VIDEO", "--to", "de", "--from", "en"], "kokoro has no voice for de"),
    "no pair": (["dub", "VIDEO", "--to", "pt", "--from", "en"], "apertium does not translate en to pt"),
    "redo of nothing": (["redo", "fake/e1", "--lang", "es"], "Either --from STEP, or --line ID"),
    "redo of the unknown": (["redo", "fake/e9", "--lang", "es", "--from", "mix"], "no run of fake/e9"),
    "redo from nowhere": (["redo", "fake/e1", "--lang", "es", "--from", "dance"], "There are: ingest"),
    "redo in another language": (["redo", "fake/e1", "--lang", "pt", "--from", "mix"], "There are: es, fr"),
    "redo of no line": (["redo", "fake/e1", "--lang", "es", "--line", "L9", "--text", "x"], "There are: L0001"),
    "redo with nothing": (["redo", "fake/e1", "--lang", "es", "--line", "L0001", "--text", " "], "not empty"),
    "trace of the unknown": (["trace", "CATALOG"], "no run that is noted here made this file"),
    "trace of nothing": (["trace", "none.mp4"], "none.mp4: cannot be read"),
    "no shard": (["shard", "run", "CATALOG"], "Invalid JSON"),
    "no device": (["run", "CATALOG", "--set", "device=potato"], "device: 'potato' is no device. There are: cpu, cuda"),
    "no mirror": (["run", "CATALOG", "--set", "weights_mirror=garbage"], "weights_mirror: 'garbage' is no place"),
    "unknown weights": (["models", "pull", "gpt"], "gpt"),
    "no server": (["deploy"], "infinidub serve"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_get_one_line_and_exit_code_2(case: str, own: tuple[Path, Path], tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    catalog, out = own
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    arguments, words = MISTAKES[case]
    filled = [a.replace("CATALOG", str(catalog)).replace("VIDEO", str(fakes.episode_video())) for a in arguments]
    if arguments[0] not in {"models", "dubb", "shard"} and "--out" not in filled:
        filled += ["--state", str(out / ".infinidub")] if arguments[0] != "deploy" else []
    if arguments[0] in {"run", "dub"} and "--generator" not in filled:
        filled += PLAIN
    code = run_command([*filled, "--json"])
    printed = capsys.readouterr()
    assert code == 2, printed
    assert len(printed.err.splitlines()) == 1, printed.err
    assert printed.err.startswith("error: ")
    assert words in printed.err
    error = json.loads(printed.out.splitlines()[-1])["error"]
    assert error["exit_code"] == 2
    assert " ".join(error["message"].split()) in " ".join(printed.err.split())


def test_a_fault_of_ours_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                         dubbed: tuple[Path, Path]) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("flows.status.survey", broken)
    arguments = ["status", str(dubbed[0]), "--out", str(dubbed[1])]
    assert run_command(arguments) == 1
    assert "ZeroDivisionError: division by zero. Run it again with --debug" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        run_command([*arguments, "--debug"])


# -- looking ----------------------------------------------------------------------------------------------------------


def test_trace_leads_from_a_copy_back_to_the_source(call: Call, dubbed: tuple[Path, Path], tmp_path: Path) -> None:
    catalog, out = dubbed
    copy = tmp_path / "found.mp4"
    shutil.copy(out / "fake" / "e1" / "es" / "e1.es.mp4", copy)
    code, said = call("trace", copy, "--out", out)
    assert code == 0
    assert (said["episode"], said["language"]) == ("fake/e1", "es")
    names = [step["step"] for step in said["steps"]]
    assert names[0] == "sign"
    assert {"ingest", "shots", "transcribe", "speakers", "translate", "synthesize", "synthesize.line", "mix", "plan",
            "generate", "generate.shot", "assemble"} <= set(names)
    assert "assemble.multi" not in names  # it came later, with the same subtitles
    assert {step["execution"]["language"] for step in said["steps"]} == {"", "es"}
    assert [source["path"] for source in said["sources"]] == [str(catalog.parent / "e1.mp4")]
    steps = {step["step"]: step for step in said["steps"]}
    assert steps["transcribe"]["execution"]["engine"] == "faster-whisper"
    assert steps["generate.shot"]["execution"]["seed"] is not None
    assert steps["assemble"]["run"]["environment"]["python"]
    known = [step["recipe"] for step in said["steps"]]
    for place, step in enumerate(said["steps"]):  # each stands before what it builds on
        assert all(one["recipe"] is None or known.index(one["recipe"]) > place for one in step["inputs"])


def test_trace_of_any_delivered_file_finds_its_state_by_itself(call: Call, dubbed: tuple[Path, Path]) -> None:
    folder = dubbed[1] / "fake" / "e1" / "es"
    for name in ("report.json", "e1.es.srt", "e1.es.dialogue.flac", "contact-sheet.png"):
        code, said = call("trace", folder / name)
        assert (code, said["episode"]) == (0, "fake/e1"), name
        assert said["sources"]


def test_plan_knows_what_is_left(call: Call, dubbed: tuple[Path, Path], tmp_path: Path) -> None:
    catalog, out = dubbed
    _, before = call("plan", catalog, "--out", tmp_path / "new", "--generator", "pulse")
    assert before["episodes"][0]["steps_to_run"][0] == "ingest"
    assert before["episodes"][0].items() >= {"duration_s": 4.0, "shots": None, "generated_s": None}.items()
    _, after = call("plan", catalog, "--out", out, "--generator", "pulse", "--shards", tmp_path / "shards")
    assert after["episodes"][0].items() >= {"steps_to_run": [], "shots": 2, "shots_to_run": 0}.items()
    assert after["shards"] == []


def test_status_has_a_row_per_language(call: Call, dubbed: tuple[Path, Path]) -> None:
    code, said = call("status", dubbed[0], "--out", dubbed[1])
    assert code == 0
    assert [(row["language"], row["done"], row["failed"]) for row in said["episodes"]] == [
        ("es", True, None), ("fr", True, None)]


def test_people_get_tables(dubbed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    catalog, out = map(str, dubbed)
    expected = {("run", catalog, *PLAIN): "back-", ("status", catalog): "inspect",
                ("plan", catalog, *PLAIN): "nothing", ("config",): "loudness",
                ("trace", f"{out}/fake/e1/es/e1.es.mp4"): "e1.mp4"}
    for arguments, words in expected.items():
        assert run_command([*arguments, "--out", out]) == 0
        assert words in capsys.readouterr().out


def test_settings_and_weights_as_json(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINIDUB_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("INFINIDUB_SECRETS__KEY", "hush")
    code, said = call("config", "--out", tmp_path)
    assert (code, said["out"], said["secrets"]) == (0, str(tmp_path), {"key": "**********"})
    code, said = call("models", "list")
    assert {"kokoro", "whisper-base", "ge2e"} <= {one["name"] for one in said["weights"]}
    assert not any(one["present"] for one in said["weights"])
    code, said = call("models", "verify", "kokoro")
    assert (code, said["weights"][0]["ok"]) == (2, False)


def test_a_group_that_is_not_here_is_verified_entry_by_entry(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINIDUB_WEIGHTS", str(tmp_path))
    assert run_command(["models", "verify", "infinitetalk-480p"]) == 2
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ["wan-i2v-480p", "wan-companions", "infinitetalk-single", "chinese-wav2vec2-base"],
                          strict=True):
        assert f"{name}: the weights are not on this machine. Get them with: infinidub models pull {name}" in line


def test_verifying_nothing_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINIDUB_WEIGHTS", str(tmp_path))
    assert run_command(["models", "verify"]) == 0
    assert capsys.readouterr().out.startswith(f"nothing to verify: no weights are in {tmp_path}")


def test_status_counts_what_lies_in_the_folder_that_is_asked_about(call: Call, own: tuple[Path, Path],
                                                                   tmp_path: Path) -> None:
    catalog, out = own
    state = ("--state", out / ".infinidub")
    assert call("run", catalog, "--out", tmp_path / "old", *state, *PLAIN)[0] == 0
    shutil.rmtree(tmp_path / "old")
    assert call("run", catalog, "--out", tmp_path / "new", *state, *PLAIN)[0] == 0
    assert {row["done"] for row in call("status", catalog, "--out", tmp_path / "new", *state)[1]["episodes"]} == {True}
    assert {row["done"] for row in call("status", catalog, "--out", tmp_path / "old", *state)[1]["episodes"]} == {False}


def test_a_run_is_cancelled_from_a_machine_that_knows_its_database_alone(
        call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, database = ("--state", tmp_path / "state"), f"sqlite:///{tmp_path / 'far.db'}"
    run = Ledger(database).begin_run("run", {}, {})
    assert call("cancel", *here)[0] == 2
    monkeypatch.setenv("INFINIDUB_DATABASE", database)
    code, said = call("cancel", *here)
    assert (code, said["run"]) == (0, run)


def test_plan_says_what_is_not_here(call: Call, own: tuple[Path, Path], tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setenv("INFINIDUB_WEIGHTS", str(tmp_path / "none"))
    for out in (tmp_path / "new", own[1]):  # in a run that was begun, too, whose lookups would need the weights' hashes
        arguments = ("plan", own[0], "--out", out, "--generator", "infinitetalk", "--lang", "es")
        code, said = call(*arguments)
        assert code == 0
        assert len(said["missing"]) == 1
        assert said["missing"][0].startswith("generator infinitetalk: wan-i2v-480p, ")
        assert said["missing"][0].endswith("infinidub models pull infinitetalk-480p")
        assert "generate" in said["episodes"][0]["steps_to_run"]
        assert run_command([*map(str, arguments)]) == 0
        assert "infinidub models pull infinitetalk-480p" in capsys.readouterr().out
        assert call("status", *arguments[1:4], "--set", "engines.generator=infinitetalk")[0] == 0
    assert call("plan", own[0], "--out", own[1], *PLAIN)[1]["missing"] == []


def test_nothing_is_counted_where_nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setenv("INFINIDUB_WEIGHTS", str(tmp_path))
    catalog = fakes.series(tmp_path / "series")
    assert run_command(["run", str(catalog), "--out", str(tmp_path / "out"), *PLAIN[:4], "--generator",
                        "infinitetalk"]) == 2
    printed = capsys.readouterr()
    assert "generator infinitetalk: wan-i2v-480p" in printed.err
    assert printed.out == ""


def test_the_module_is_the_program(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "flows.cli", "--version"], cwd=ROOT, text=True, capture_output=True,
                          check=True)
    assert done.stdout.strip()


def test_doctor_says_what_mends(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "synthesizer", {**ENGINES["synthesizer"], "kokoro": "models.engines.kokoro:Kokoro"})
    monkeypatch.setenv("INFINIDUB_WEIGHTS", str(tmp_path))
    code, said = call("doctor", "--out", tmp_path / "out")
    checks = {check["name"].strip(): check for check in said["checks"]}
    assert code == 2
    assert checks["ffmpeg"]["ok"]
    assert checks["weights kokoro"].items() >= {"ok": False, "mend": "infinidub models pull kokoro"}.items()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_speaks_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert VERBS[verb].__doc__
    for line in text.split("Options:")[1].splitlines():
        assert not line.startswith("  --") or "  " in line.strip(), f"no help for {line}"


def test_groups_and_the_program_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], *([group, "--help"] for group in GROUPS)):
        assert run_command(arguments) == 0
        assert "Usage: infinidub" in capsys.readouterr().out
    assert run_command(["--version"]) == 0


def test_debug_lets_the_error_through(tmp_path: Path) -> None:
    catalog = fakes.series(tmp_path / "series", languages=["it"])
    with pytest.raises(EngineError, match="no Italian"):
        run_command(["run", str(catalog), "--out", str(tmp_path / "out"), "--generator", "pulse", "--debug"])


@pytest.mark.parametrize("verb", [["trace", __file__], ["retry"], ["redo", "fake/e1", "--lang", "es", "--from", "mix"]])
def test_looking_back_where_nothing_was_dubbed_makes_nothing(call: Call, tmp_path: Path, verb: list[str]) -> None:
    code, said = call(*verb, "--out", tmp_path / "typo")
    assert code == 2
    assert "--out" in said["error"]["hint"]
    assert not (tmp_path / "typo").exists()

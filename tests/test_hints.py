"""Commands that are told work as they stand: each is run as it was printed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run_command
from flows.hints import completed
from models.engines.c2pa_identity import make_development_identity
from models.errors import ConsentError
from tasks.consent import Need, require
from tasks.ledger import Ledger
from tests import fakes

Told = Callable[[str], dict[str, Any]]
COMMAND = re.compile(r"`(infinidub [^`]+)`|(infinidub [^`]+)$")


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs a command line with the fakes, as it is typed in a folder where nothing is by default."""
    fakes.install_while(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.hints.which", lambda _name: "/usr/bin/infinidub")

    def run(line: str) -> dict[str, Any]:
        program, *arguments = shlex.split(line)
        assert program == "infinidub"
        code = run_command([*arguments, "--json"])
        told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return {"code": code, **told}

    return run


def commands(hint: str) -> list[str]:
    return [quoted or last for quoted, last in COMMAND.findall(hint)]


def test_from_refusal_to_refusal_by_what_is_printed(tell: Told, tmp_path: Path) -> None:
    make_development_identity(tmp_path / "own")
    (tmp_path / "studio.toml").write_text(
        'prefect = false\nproduction = true\ncheck_speech = false\n'
        f'[options.c2pa]\ncertificates = "{tmp_path}/own/certificates.pem"\nkey = "{tmp_path}/own/key.pem"\n')
    catalog = fakes.series(tmp_path / "series", languages=["es"], review=True)
    place = "--config studio.toml --out 'the dubs' --state the/state"
    run = f"infinidub run {shlex.quote(str(catalog))} {place} --generator pulse"

    told = tell(run)
    [cast] = commands(told["error"]["hint"])
    assert cast == "infinidub cast set fake M1 --voice es=bob --config studio.toml --out 'the dubs' --state the/state"
    assert tell(cast)["code"] == 0
    [waits] = tell(run)["awaiting"]
    serve, export, approve = commands(waits["hint"])
    assert serve == f"infinidub review serve {place}"
    assert tell(f"{export} --format srt")["lines"] == 3
    assert tell(f"infinidub review lock fake/e1 --line L0001 --lang es {place}")["locked"] == 1
    locked = tell(f"infinidub redo fake/e1 --lang es --line L0001 --text Hola. {place}")
    [unlock] = commands(locked["error"]["hint"])
    assert tell(unlock)["unlocked"] == 1
    assert tell(approve)["rerun"]["command"][:4] == ["infinidub", "retry", "--episode", "fake/e1"]
    with pytest.raises(ConsentError) as refused:
        require(Ledger(f"sqlite:///{tmp_path}/the/state/infinidub.db"), [Need(person="Joan O'Roe", kind="likeness")],
                "fake/e1", "es")
    [consent] = commands(completed(refused.value.hint, {"state": "the/state"}))
    assert tell(consent)["consents"][0]["person"] == "Joan O'Roe"


def test_what_was_set_is_told_to_verbs_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.hints.which", lambda _name: "/usr/bin/infinidub")
    given = {"out": str(Path("x").absolute()), "engines.synthesizer": "espeak", "production": True,
             "engines.generator": "pulse"}
    place = " --out x --set engines.synthesizer=espeak --set production=true"
    hints = {"Choose: infinidub cast set s M1 --voice es=a": f"Choose: infinidub cast set s M1 --voice es=a{place}",
             "See `infinidub status`; then wait": "See `infinidub status --out x`; then wait",
             "Get it with: infinidub models pull a": "Get it with: infinidub models pull a --set engines.synthesizer"
                                                     "=espeak --set production=true",
             "`infinidub generate` knows": "`infinidub generate` knows", "infinidub is a word": "infinidub is a word"}
    for words, whole in hints.items():
        assert completed(words, given) == whole
        assert completed(completed(words, given), given) == completed(words, given)
    assert completed("Get it: infinidub models pull a", {"formats": ["mp4", "hls"]}).endswith(" --set formats=mp4,hls")


@pytest.mark.parametrize(("command", "given"), [
    ("retry --failed --out x --state y", {"out": "z", "state": "z/s"}),  # told by a run, completed by another's flags
    ("retry --failed --out /far/away/xy", {"out": "/far/away/x"}),
    ("models pull a --set 'prompt=a b' --set crf=20", {"prompt": "c", "crf": 2}),
])
def test_no_option_is_told_twice(monkeypatch: pytest.MonkeyPatch, command: str, given: dict[str, Any]) -> None:
    monkeypatch.setattr("flows.hints.which", lambda _name: "/usr/bin/infinidub")
    assert completed(f"Go on: infinidub {command}", given) == f"Go on: infinidub {command}"

"""Consent: what counts as one, and that nothing is voiced, generated or delivered without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from flows.cli import run_command
from flows.jobs import catalog_jobs
from flows.pipeline import Pipeline
from flows.settings import load_settings
from flows.wiring import open_workspace
from models import tables as t
from models.catalog import load_catalog
from models.engines import ENGINES
from models.engines.c2pa_identity import make_development_identity
from models.engines.coqui import Coqui
from models.engines.local_weights import weights_hash
from models.errors import ConsentError, InputError
from models.ports import EngineHome
from models.recipe import sha256
from models.records import EngineRef, Speaker
from tasks import cast as register
from tasks.consent import Consent, Need, consents, consents_behind, record_consent, require, revoke
from tasks.generate import GenerateRequest, generate
from tasks.ledger import Ledger
from tasks.step import NotDoneError, Work, lookup, perform
from tasks.trace import trace
from tests import fakes

VOICE, LIKENESS = Need(person="Jane Doe", kind="voice"), Need(person="Jane Doe", kind="likeness")
JOAN = Need(person="Joan Roe", kind="likeness")
A = {"sha256": "0" * 64, "size": 1, "media_type": "video/mp4"}
PRODUCTION = ("--set", "production=true", "--set", "options.c2pa.certificates=own/certificates.pem",
              "--set", "options.c2pa.key=own/key.pem")
TODAY = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Cloner(fakes.Synthesizer):
    """The fake, which also imitates whoever is named."""

    @classmethod
    def clones(cls, voice: str) -> str:
        return voice.removeprefix("clone:") if voice.startswith("clone:") else ""

    def check_voice(self, voice: str, language: str) -> None:
        if not self.clones(voice):
            super().check_voice(voice, language)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path_factory.mktemp('consent')}/l.db")


@pytest.fixture
def ledger(database: Ledger) -> Ledger:
    """With no record in it."""
    with database.session() as session:
        session.execute(sa.delete(t.ConsentRow))
    return database


def agreed(ledger: Ledger, kind: Any = "voice", scope: str = "s", **fields: Any) -> Consent:
    return record_consent(ledger, fields.pop("person", "Jane Doe"), kind, scope, "me", **{
        "evidence": "contract 7", "now": lambda: TODAY, **fields})


def allowed(ledger: Ledger, need: Need = VOICE, episode: str = "s/e1", language: str = "es") -> int | str:
    """Number of the consent that stands behind it, or why there is none."""
    try:
        return require(ledger, [need], episode, language, now=lambda: TODAY)[0].id
    except ConsentError as error:
        return str(error)


# -- what holds -------------------------------------------------------------------------------------------------------


def test_nothing_recorded_is_refused_with_the_command_that_mends_it(ledger):
    said = allowed(ledger)
    assert "Jane Doe has not agreed that the voice is imitated (voice): none is recorded" in str(said)
    assert "infinidub consent add --person 'Jane Doe' --kind voice --scope s --lang es --evidence" in str(said)
    assert require(ledger, [], "s/e1", "es") == ()


@pytest.mark.parametrize(("need", "episode", "language", "holds"), [
    (VOICE, "s/e1", "es", True), (VOICE, "s/e1", "es-MX", True), (VOICE, "s/e2", "es", True),
    (LIKENESS, "s/e1", "es", False), (VOICE, "s2/e1", "es", False), (VOICE, "t/e1", "es", False),
    (VOICE, "s/e1", "fr", False), (VOICE, "s/e1", "est", False),
    (Need(person="jane  DOE", kind="voice"), "s/e1", "es", True),
    (Need(person="John Doe", kind="voice"), "s/e1", "es", False)])
def test_a_consent_holds_for_its_person_kind_series_and_language(ledger, need, episode, language, holds):
    one = agreed(ledger, languages=["es"])
    assert (allowed(ledger, need, episode, language) == one.id) is holds


def test_scopes_of_one_episode_and_of_everything(ledger):
    only = agreed(ledger, scope="s/e1")
    assert allowed(ledger) == only.id
    assert "what is recorded holds for s/e1 in all languages" in str(allowed(ledger, episode="s/e10"))
    everything = agreed(ledger, scope="*")
    assert allowed(ledger, episode="t/e10", language="ja") == everything.id


def test_a_region_is_not_the_whole_language(ledger):
    agreed(ledger, languages=["es-MX"])
    assert "holds for s in es-MX" in str(allowed(ledger))
    assert isinstance(allowed(ledger, language="es-MX"), int)


def test_the_last_day_still_counts(ledger):
    one = agreed(ledger, expires=TODAY.date())
    assert allowed(ledger) == one.id
    with pytest.raises(ConsentError, match=rf"consent {one.id} expired on 2026-06-01"):
        require(ledger, [VOICE], "s/e1", "es", now=lambda: datetime(2026, 6, 2, tzinfo=UTC))


def test_what_was_revoked_does_not_hold_unless_there_is_another(ledger):
    first = agreed(ledger)
    revoke(ledger, first.id, "me")
    assert f"consent {first.id} was revoked on" in str(allowed(ledger))
    second = agreed(ledger)
    assert allowed(ledger) == second.id
    assert [one.revoked_by for one in consents(ledger, "jane doe")] == ["me", ""]
    for number in (first.id, 999):
        with pytest.raises(InputError, match=f"consent {number}"):
            revoke(ledger, number, "me")


@pytest.mark.parametrize(("fields", "said"), [
    ({"evidence": " "}, "what proves it"), ({"person": " "}, "name of a person"), ({"person": "a\0b"}, "name of a"),
    ({"expires": date(2026, 5, 31)}, "2026-05-31 is over"), ({"scope": ""}, "must be a series")])
def test_records_that_prove_nothing_are_not_taken(ledger, fields, said):
    with pytest.raises(InputError, match=said):
        agreed(ledger, **fields)
    assert consents(ledger) == ()


# -- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        ) -> Callable[..., tuple[int, dict[str, Any]]]:
    """`infinidub … --json` with the fakes, in a folder of its own."""
    fakes.install_while(monkeypatch)
    ENGINES["synthesizer"] = {**ENGINES["synthesizer"], "kokoro": "tests.test_consent:Cloner"}
    monkeypatch.chdir(tmp_path)
    make_development_identity(tmp_path / "own")

    def verb(*words: str) -> tuple[int, dict[str, Any]]:
        code = run_command([*words, "--json"])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return verb


def opened(catalog: Path, *assignments: str) -> tuple[Pipeline, Work]:
    """The first episode of a catalog with the run's settings, done plainly, and the context for its Spanish."""
    settings = load_settings(flags={"prefect": "false", **dict(one.split("=") for one in assignments)})
    space, job = open_workspace(settings), catalog_jobs(load_catalog(catalog), settings.out)[0]
    run_id = space.ledger.begin_run("test", {}, {})
    return Pipeline(space, job, perform), space.work(run_id, episode=job.id, language="es")


def test_who_is_imitated_and_shown_must_have_agreed(run, tmp_path):
    catalog = fakes.series(tmp_path / "series", languages=["es"], cast={"es": {"A": "clone:Jane Doe"}},
                           people={"A": "Joan Roe"})
    code, told = run("run", str(catalog), "--set", "prefect=false", "--generator", "pulse", *PRODUCTION)
    assert (code, told["lines_run"], told["shots_run"]) == (2, 0, 0)
    assert "Jane Doe has not agreed" in told["error"]["message"]
    agree = ("consent", "add", "--scope", "fake", "--evidence", "contract 7")
    assert run(*agree, "--person", "Jane Doe", "--kind", "voice", "--lang", "es")[0] == 0

    pipeline, work = opened(catalog, *PRODUCTION[1::2], "engines.generator=pulse")
    prepared = pipeline.prepare(work)
    with pytest.raises(ConsentError, match=r"Joan Roe has not agreed that the picture is made anew"):
        pipeline.plan_language(work, prepared, "es")
    assert (work.counts["lines_run"], work.counts["shots_run"]) == (3, 0)
    proof = tmp_path / "letter.pdf"
    proof.write_bytes(b"I agree.")
    assert run(*agree, "--person", "joan roe", "--kind", "likeness", "--file", str(proof))[0] == 0
    planned = pipeline.plan_language(work, prepared, "es")
    assert [(one.speaker, one.voice, one.chosen) for one in planned.cast] == [("A", "clone:Jane Doe", "catalog")]

    steps = trace(work.ledger, work.store.path(planned.mix.mix), {}).steps
    assert {step.step: [one.person for one in step.consents] for step in steps if step.consents} == {
        "synthesize": ["Jane Doe"]}
    pipeline._generate(work, {}, planned, require(work.ledger, [JOAN], "fake/e1", "es"))
    recipe = generate.recipe(GenerateRequest(requests=planned.requests))
    with work.ledger.session() as session:
        assert [(one.person, one.evidence_sha256[:8]) for one in consents_behind(session, [recipe])[recipe]] == [
            ("joan roe", sha256(b"I agree.")[:8])]

    assert run("consent", "revoke", "1")[1]["consents"][0]["revoked"]
    with pytest.raises(ConsentError, match="consent 1 was revoked"):
        pipeline.finish_language(work, prepared, planned, "es")
    with pytest.raises(NotDoneError):  # who only looks sees that it is not to be had
        replace(pipeline, run=lookup).plan_language(work, prepared, "es")


def test_outside_of_production_only_voices_need_consent(run, tmp_path):
    catalog = fakes.series(tmp_path / "series", languages=["es"], people={"A": "Joan Roe"})
    pipeline, work = opened(catalog, "engines.generator=pulse")
    planned = pipeline.plan_language(work, pipeline.prepare(work), "es")
    assert planned.requests
    assert [(one.voice, one.chosen) for one in planned.cast] == [("bob", "default")]

    strict, work = opened(catalog, *PRODUCTION[1::2])
    with pytest.raises(InputError, match=r"nobody chose a voice for M1.*infinidub cast set fake M1 --voice es=bob"):
        strict.plan_language(work, strict.prepare(work), "es")
    assert run("cast", "set", "fake", "M1", "--voice", "es=bob")[0] == 0
    assert strict.plan_language(work, strict.prepare(work), "es").cast[0].chosen == "person"
    assert work.counts["lines_run"] == 0, "the same voice is not voiced anew"


def test_named_people_are_shown_where_they_speak_and_where_nobody_is_heard_as_them(ledger):
    register.enrol(ledger, "pier/e1", [Speaker(id="A", name="Ana"), Speaker(id="B", name="Ben")], "none", 0.8)
    given = {"Ana": "Ann Roe", "B": "Ben Doe", "the boy at the window": "Bo Low"}
    shots: Any = [SimpleNamespace(tracks=[SimpleNamespace(speaker="A")])]
    assert register.shown(ledger, "pier/e1", shots, given) == ("Ann Roe", "Bo Low")
    assert register.shown(ledger, "pier/e1", [], given) == (), "nothing is made anew"


def test_pictures_made_by_hand_need_consent_in_production(run, tmp_path):
    (tmp_path / "studio.toml").write_text("production = true\n")
    still = ("generate", "--image", "a.png", "--audio", "a.wav", "--out", "talk.mp4", "--config", "studio.toml")
    code, told = run(*still)
    assert (code, told["error"]["where"], told["error"]["what"]) == (2, "--person", "production asks who is seen")
    code, told = run(*still, "--person", "Jane Doe")
    assert (code, "Jane Doe has not agreed" in told["error"]["what"]) == (2, True)
    assert told["error"]["hint"].endswith("--kind likeness --scope talk --evidence \"…\" --config studio.toml")
    track = {"speaker": "A", "lines": [{"audio": A, "at": 0}]}
    shot = {"shot": "S0001", "source": A, "width": 64, "height": 64, "rate": "25", "start": 0, "end": 25,
            "tracks": [track], "generator": {"name": "pulse"}}
    shard = {"id": "one", "episode": "fake/e1", "language": "es", "requests": [shot]}
    for people, message in ((None, "does not say whose pictures it makes"), (["Jane Doe"], "Jane Doe has not agreed")):
        (tmp_path / "SHARD.json").write_text(json.dumps({**shard, "people": people}))
        code, told = run("shard", "run", "SHARD.json", "--config", "studio.toml")
        assert (code, message in told["error"]["what"]) == (2, True), told


# -- who imitates -----------------------------------------------------------------------------------------------------


class Model:
    """`TTS.api.TTS` of XTTS, as far as it is used."""

    is_multi_lingual, languages, speakers = True, ["en"], ["Ana"]

    def __init__(self, kind: str) -> None:
        self.synthesizer = SimpleNamespace(output_sample_rate=24_000, tts_config=SimpleNamespace(model=kind))
        self.asked = dict[str, Any]()

    def tts(self, **asked: Any) -> list[float]:
        self.asked = asked
        return [0.5]


def test_coqui_imitates_only_whom_a_recording_names(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(manual_seed=lambda _seed: None))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pth").write_bytes(b"x")
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "Jane Doe.wav").write_bytes(b"RIFF")
    where = {"path": str(tmp_path / "model"), "samples": str(tmp_path / "people")}
    hashes = {"sha256": weights_hash(tmp_path / "model"), "samples_sha256": weights_hash(tmp_path / "people")}

    def loaded(kind: str, **options: str) -> Any:
        engine = Coqui(EngineRef(name="coqui", options={**hashes, **options}),
                       EngineHome(weights=lambda name: tmp_path, connection=where))
        engine.__dict__["_model"] = Model(kind)
        return engine

    engine = loaded("xtts")
    engine.speak("hello", "clone:Jane Doe", "en")
    assert engine.__dict__["_model"].asked == {
        "text": "hello", "language": "en", "speed": 1.0, "speaker_wav": str(tmp_path / "people" / "Jane Doe.wav")}
    assert (Coqui.clones("clone:Jane Doe"), Coqui.clones("Ana")) == ("Jane Doe", "")
    assert "clone:Jane Doe" not in [voice.id for voice in engine.voices("en")], "nobody gets it by default"
    for other, voice in ((engine, "clone:John Doe"), (loaded("vits"), "clone:Jane Doe")):
        with pytest.raises(InputError, match="no voice"):
            other.speak("hello", voice, "en")
    with pytest.raises(InputError, match="samples_sha256 = "):
        loaded("xtts", samples_sha256="0" * 64).speak("hello", "clone:Jane Doe", "en")

"""The cast of a series: who is who from episode to episode, voices for good, and diarization from elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import tables as t
from models.errors import EngineError, InputError
from models.ports import Turn, Voice
from models.records import CastVoice, EngineRef, Speaker
from tasks import cast
from tasks.cast import Member
from tasks.diarization import MAX_BYTES, is_name, read_diarization
from tasks.ledger import Ledger
from tests import fakes

SAME = 0.88
VOICES = tuple(Voice(name, "es", gender) for name, gender in
               (("f1", "female"), ("m1", "male"), ("f2", "female"), ("m2", "male")))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path_factory.mktemp('cast')}/l.db")


@pytest.fixture
def ledger(database: Ledger) -> Ledger:
    """With nobody in it."""
    with database.session() as session:
        for table in (t.CastVoiceRow, t.CastSpeaker, t.CastMember):
            session.execute(sa.delete(table))
    return database


def voice(number: int, sway: float = 0.0) -> tuple[float, ...]:
    """The voice of person `number`, a little different from one day to the next."""
    vector = np.random.default_rng(number).normal(size=64)
    vector = vector / np.linalg.norm(vector) + sway * np.random.default_rng(round(1000 * sway) + 99).normal(size=64) / 8
    return tuple(round(float(x), 4) for x in vector / np.linalg.norm(vector))


def speaker(name: str, number: int, sway: float = 0.0, pitch: float | None = 120.0, called: str = "") -> Speaker:
    return Speaker(id=name, name=called, pitch_hz=pitch, embedding=voice(number, sway))


def enrolled(ledger: Ledger, episode: str, *speakers: Speaker, space: str = "x") -> dict[str, str]:
    return {name: one.id for name, one in cast.enrol(ledger, f"s/{episode}", speakers, space, SAME).items()}


def voices(ledger: Ledger, episode: str, *speakers: Speaker, language: str = "es",
           offered: Sequence[Voice] = VOICES, **named: str) -> dict[str, tuple[str, str]]:
    found = cast.voices_of(ledger, f"s/{episode}", speakers, language, "kokoro", named, lambda: offered)
    return {one.speaker: (one.voice, one.chosen) for one in found or ()}


def member(ledger: Ledger, who: str) -> Member:
    return cast.find_member(ledger, "s", who)


# -- who is who -------------------------------------------------------------------------------------------------------


def test_voices_are_known_again_whatever_they_are_called_in_an_episode(ledger):
    assert enrolled(ledger, "e1", speaker("A", 1), speaker("B", 2)) == {"A": "M1", "B": "M2"}
    assert enrolled(ledger, "e2", speaker("A", 2, 0.2), speaker("B", 3), speaker("C", 1, 0.1)) == {
        "A": "M2", "B": "M3", "C": "M1"}
    assert [(h.episode, h.speaker, h.found) for h in member(ledger, "M1").heard] == [
        ("s/e1", "A", "new"), ("s/e2", "C", "voice")]
    assert member(ledger, "M1").heard[1].likeness > SAME


def test_another_series_is_another_cast(ledger):
    enrolled(ledger, "e1", speaker("A", 1))
    cast.enrol(ledger, "t/e1", [speaker("A", 1)], "x", SAME)
    assert [(one.series, one.id) for one in cast.members(ledger)] == [("s", "M1"), ("t", "M1")]


def test_two_speakers_of_an_episode_are_never_the_same_member(ledger):
    enrolled(ledger, "e1", speaker("A", 1))
    assert enrolled(ledger, "e2", speaker("A", 1, 0.3), speaker("B", 1, 0.1)) == {"A": "M2", "B": "M1"}


def test_who_is_like_two_members_is_nobody_of_them_but_who_is_left_over_may_be():
    one, other = np.array([1.0, 0.0]), np.array([0.97, 0.243])
    between = tuple(float(x) for x in np.array([0.99, 0.13]) / np.linalg.norm([0.99, 0.13]))
    assert cast.match({"A": between}, {1: one, 2: other}, SAME) == {}
    assert cast.match({"A": between, "B": (0.96, 0.28)}, {1: one, 2: other}, SAME).keys() == {"A", "B"}
    assert cast.match({"A": between}, {}, SAME) == {} == cast.match({}, {1: one}, SAME)


def test_embeddings_of_another_engine_are_not_compared(ledger):
    enrolled(ledger, "e1", speaker("A", 1))
    assert enrolled(ledger, "e2", speaker("A", 1), space="y") == {"A": "M2"}
    refs = [EngineRef(name="ge2e", weights={"a": sha * 64}, options={"threshold": t})
            for sha, t in (("1", 0.5), ("1", 0.6), ("2", 0.5))]
    spaces = [cast.engine_space(ref) for ref in refs]
    assert spaces[0] == spaces[1] != spaces[2]


def test_names_say_who_somebody_is_before_voices_do(ledger):
    assert enrolled(ledger, "e1", speaker("A", 1), speaker("Anna", 2, called="Anna")) == {"A": "M1", "Anna": "M2"}
    assert enrolled(ledger, "e2", speaker("ANNA", 5, called="ANNA"), speaker("Ben", 1, called="Ben")) == {
        "ANNA": "M2", "Ben": "M1"}
    assert member(ledger, "M1").name == "Ben"
    assert enrolled(ledger, "e3", speaker("Carl", 1, 0.1, called="Carl")) == {"Carl": "M3"}, "both are named"


def test_who_says_too_little_to_be_known_again_is_somebody_new(ledger):
    enrolled(ledger, "e1", speaker("A", 1))
    assert enrolled(ledger, "e2", Speaker(id="A")) == {"A": "M2"}


def test_what_is_noted_stays_until_the_label_means_another_voice(ledger):
    enrolled(ledger, "e1", speaker("A", 1), speaker("B", 2))
    enrolled(ledger, "e2", speaker("A", 3))
    assert enrolled(ledger, "e1", speaker("A", 1, 0.1), speaker("B", 2, 0.1)) == {"A": "M1", "B": "M2"}
    assert enrolled(ledger, "e1", speaker("A", 2), speaker("B", 1)) == {"A": "M2", "B": "M1"}, "labels were swapped"
    assert enrolled(ledger, "e1", speaker("A", 2), speaker("B", 4)) == {"A": "M2", "B": "M4"}
    assert [one.id for one in cast.members(ledger)] == ["M2", "M3", "M4"], "nobody is M1 any more"


def test_a_speaker_who_is_gone_leaves_nothing_unless_a_person_said_something(ledger):
    enrolled(ledger, "e1", speaker("A", 1), speaker("B", 2), speaker("C", 3))
    voices(ledger, "e1", speaker("B", 2), speaker("C", 3))
    cast.describe_member(ledger, member(ledger, "M3"), "me", name="Carl")
    enrolled(ledger, "e1", speaker("A", 1))
    assert [one.label for one in cast.members(ledger)] == ["M1", "Carl (M3)"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True), min_size=2, max_size=4),
       st.randoms(use_true_random=False))
def test_later_episodes_change_nothing_and_runs_repeat_themselves(database, episodes, random):
    series = f"drawn{len(cast.members(database))}"

    def run(number: int) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
        episode = f"{series}/e{number}"
        people = [speaker(chr(65 + i), person, number / 50, pitch=100.0 + 100 * (person % 2))
                  for i, person in enumerate(episodes[number])]
        found = cast.enrol(database, episode, people, "x", SAME)
        cast_ = cast.voices_of(database, episode, people, "es", "kokoro", {}, lambda: VOICES) or ()
        return {name: one.id for name, one in found.items()}, {one.speaker: (one.voice, one.chosen) for one in cast_}

    first = {number: run(number) for number in range(len(episodes))}
    again = list(first)
    random.shuffle(again)
    assert {number: run(number) for number in again} == dict(first)
    people: dict[int, set[str]] = {}
    for number, (found, _) in first.items():
        assert len(set(found.values())) == len(found)
        for i, person in enumerate(episodes[number]):
            people.setdefault(person, set()).add(found[chr(65 + i)])
    assert all(len(ids) == 1 for ids in people.values()), "one member each"


def test_who_comes_at_the_same_time_is_one_member_with_one_voice(postgresql):
    ledger = Ledger(postgresql)

    def run(number: int) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
        own = Ledger(postgresql) if number % 2 else ledger
        people = (speaker("A", 1, number / 100), speaker("B", 2, number / 100))
        return enrolled(own, f"e{number}", *people), voices(own, f"e{number}", *people)

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(run, range(6)))
    assert all(one == found[0] for one in found)
    assert len(cast.members(ledger)) == 2
    assert {chosen for chosen, _ in found[0][1].values()} == {"m1", "m2"}


# -- voices -----------------------------------------------------------------------------------------------------------


def test_voices_follow_the_gender_and_differ_while_there_are_enough(ledger):
    first = speaker("A", 1, pitch=210), speaker("B", 2, pitch=110)
    second = speaker("A", 3, pitch=220), speaker("B", 4, pitch=230), speaker("C", 2, pitch=115)
    enrolled(ledger, "e1", *first)
    enrolled(ledger, "e2", *second)
    assert voices(ledger, "e1", *first) == {"A": ("f1", "default"), "B": ("m1", "default")}
    assert voices(ledger, "e2", *second) == {"A": ("f2", "default"), "B": ("f1", "default"), "C": ("m1", "default")}


def test_a_voice_is_chosen_once_whatever_is_offered_later(ledger):
    a = speaker("A", 1)
    enrolled(ledger, "e1", a)
    voices(ledger, "e1", a)
    assert voices(ledger, "e1", a, offered=VOICES[::-1]) == {"A": ("m1", "default")}
    assert voices(ledger, "e1", a, language="fr", offered=VOICES[::-1]) == {"A": ("m2", "default")}


def test_looking_chooses_nothing(ledger):
    a = speaker("A", 1)
    look = [ledger, "s/e1", [a], "es", "kokoro", {}, None]
    assert cast.voices_of(*look) is None
    enrolled(ledger, "e1", a)
    assert cast.voices_of(*look) is None
    voices(ledger, "e1", a)
    assert cast.voices_of(*look) == (CastVoice(speaker="A", member="M1", name="", voice="m1", chosen="default"),)


@pytest.mark.parametrize("key", ["A", "Anna", "M1", "Anna Karenina"])
def test_the_catalog_wins_over_what_is_recorded_and_its_voices_are_taken(ledger, key):
    a, b = speaker("A", 1, called="Anna"), speaker("B", 2)
    enrolled(ledger, "e1", a, b)
    cast.set_voice(ledger, member(ledger, "M1"), "es", "kokoro", "f1", "me")
    cast.describe_member(ledger, member(ledger, "M1"), "me", name="Anna Karenina")
    assert voices(ledger, "e1", a, b, **{key: "m1"}) == {"A": ("m1", "catalog"), "B": ("m2", "default")}
    assert voices(ledger, "e1", a, b) == {"A": ("f1", "person"), "B": ("m2", "default")}


def test_models_of_one_engine_have_voices_of_their_own():
    refs = [EngineRef(name="coqui", options={"sha256": digit * 64}) for digit in "12"]
    assert cast.synthesizer_key(refs[0]) != cast.synthesizer_key(refs[1])
    assert cast.synthesizer_key(EngineRef(name="kokoro")) == "kokoro"


def test_in_production_voices_by_default_are_refused_with_the_commands_that_keep_them(ledger):
    a, b = speaker("A", 1), speaker("B", 2, called="Ben")
    enrolled(ledger, "e1", a, b)
    found = cast.voices_of(ledger, "s/e1", [a, b], "es", "kokoro", {"A": "f1"}, lambda: VOICES) or ()
    with pytest.raises(InputError, match=r"nobody chose a voice for Ben \(M2\).*cast set s M2 --voice es=m1"):
        cast.refuse_defaults(found, "s", "es")
    cast.refuse_defaults(found[:1], "s", "es")
    many = [CastVoice(speaker=f"S{n}", member=f"M{n}", name="", voice="m1", chosen="default") for n in range(1, 24)]
    with pytest.raises(InputError, match=r"for M1, M2, .*, M20 and 3 more") as refused:
        cast.refuse_defaults(many, "s", "es")
    assert refused.value.hint.count("`infinidub cast set s M") == 20, "one for each of those that are named"
    assert refused.value.hint.endswith("`infinidub cast set s M20 --voice es=m1`")


# -- what people decide -----------------------------------------------------------------------------------------------


def test_decisions_survive_what_is_found_later(ledger):
    people = speaker("A", 1), speaker("B", 2)
    enrolled(ledger, "e1", *people)
    cast.set_voice(ledger, member(ledger, "M1"), "es", "kokoro", "m2", "me")
    cast.describe_member(ledger, member(ledger, "M1"), "me", name="Clara", gender="female", person="Jane Doe")
    cast.assign(ledger, "s/e1", "B", "new", "me")
    assert enrolled(ledger, "e1", *people) == {"A": "M1", "B": "M3"}
    assert enrolled(ledger, "e1", speaker("A", 1), speaker("B", 9)) == {"A": "M1", "B": "M3"}
    assert enrolled(ledger, "e2", speaker("Q", 8, called="clara")) == {"Q": "M1"}
    clara = member(ledger, "clara")
    assert (clara.id, clara.gender, clara.person, clara.voices[0].voice, clara.voices[0].chosen) == (
        "M1", "female", "Jane Doe", "m2", "person")
    assert cast.assign(ledger, "s/e1", "B", "Clara", "me").heard[1].found == "person"


def test_merged_members_are_one_with_the_voices_of_both(ledger):
    one, other = speaker("A", 1), speaker("B", 2, called="Ben")
    enrolled(ledger, "e1", one, other)
    voices(ledger, "e1", one, other)
    voices(ledger, "e1", one, language="fr")
    cast.merge(ledger, member(ledger, "M1"), member(ledger, "Ben"), "me")
    assert [m.label for m in cast.members(ledger)] == ["Ben (M2)"]
    assert voices(ledger, "e1", one, other) == {"A": ("m2", "default"), "B": ("m2", "default")}
    assert voices(ledger, "e1", one, language="fr") == {"A": ("m1", "default")}
    assert enrolled(ledger, "e2", speaker("X", 3)) == {"X": "M3"}, "numbers are not used twice"
    with pytest.raises(InputError, match="one already"):
        cast.merge(ledger, member(ledger, "M2"), member(ledger, "Ben"), "me")


def test_mistaken_names_are_told_who_there_is(ledger):
    with pytest.raises(InputError, match="Run a catalog first"):
        member(ledger, "M1")
    enrolled(ledger, "e1", speaker("A", 1, called="Anna"), speaker("B", 2))
    for wrong in ("M7", "Bert", "", "M0"):
        with pytest.raises(InputError, match=r"There are: Anna \(M1\), M2"):
            member(ledger, wrong)
    with pytest.raises(InputError, match="There are: s"):
        cast.find_member(ledger, "t", "M1")
    with pytest.raises(InputError, match="cast merge s M2 M1"):
        cast.describe_member(ledger, member(ledger, "M2"), "me", name="anna")
    with pytest.raises(InputError, match="There are: A, B"):
        cast.assign(ledger, "s/e1", "Z", "M1", "me")


def test_the_verbs_list_set_rename_merge_and_assign(tmp_path, monkeypatch, capsys):
    from flows.cli import run_command

    fakes.install_while(monkeypatch)
    monkeypatch.chdir(tmp_path)
    enrolled(Ledger(f"sqlite:///{_state(tmp_path)}/infinidub.db"), "e1", speaker("A", 1), speaker("B", 2))

    def run(*words: str) -> Any:
        code = run_command([*words, "--json"])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    assert [one["id"] for one in run("cast", "list", "s")[1]["members"]] == ["M1", "M2"]
    code, told = run("cast", "set", "s", "M1", "--voice", "es=bob", "--gender", "male", "--person", "Jane Doe")
    assert (code, told["members"][0]["voices"][0]["voice"], told["members"][0]["person"]) == (0, "bob", "Jane Doe")
    assert run("cast", "rename", "s", "M2", "Ben")[1]["members"][0]["name"] == "Ben"
    assert run("cast", "assign", "s/e1", "A", "new")[1]["members"][0]["id"] == "M3"
    assert run("cast", "merge", "s", "M3", "Ben")[1]["members"][0]["id"] == "M2"
    for words, said in ((["set", "s", "M2"], "say what to set"),
                        (["set", "s", "M2", "--voice", "es=max"], "There are: ana, bob")):
        code, told = run("cast", *words)
        assert (code, said in told["error"]["message"]) == (2, True)


def _state(folder: Path) -> Path:
    (folder / "dubbed" / ".infinidub").mkdir(parents=True)
    return folder / "dubbed" / ".infinidub"


# -- diarization from elsewhere ---------------------------------------------------------------------------------------

WILD = """\ufeff;; made by hand
SPKR-INFO ep1 1 <NA> <NA> <NA> unknown anna <NA> <NA>\r
SPEAKER\tep1  1   0.50   1.25 <NA> <NA> anna <NA> <NA>
speaker ep1 2 1.0 1 <NA> <NA> ben 0.93

SPEAKER ep1 1 4.0 0 <NA> <NA> ben <NA> <NA>   ; a click
SPEAKER ep1 1 3.0 9.0 <NA> <NA> ben <NA>
LEXEME ep1 1 0.5 0.2 hello lex anna 0.5
"""


def read(text: str, kind: str = "rttm", names: tuple[str, ...] = ("film", "ep1"), length: float = 10.0,
         ) -> list[tuple[float, float, str]]:
    turns = read_diarization(text.encode(), kind, names, length, "f.rttm")  # type: ignore[arg-type]
    return [(turn.start, turn.end, turn.speaker) for turn in turns]


def test_rttm_from_the_wild():
    turns = [(0.5, 1.75, "anna"), (1.0, 2.0, "ben"), (3.0, 10.0, "ben")]
    assert read(WILD) == turns
    assert read(WILD.replace("ep1", "whatever")) == turns
    assert read(WILD + "SPEAKER ep2 1 5 1 <NA> <NA> carl <NA> <NA>\n") == turns


def test_json_turns_in_any_order():
    items = [{"start": 3, "end": 4.5, "speaker": "b"}, {"start": 0.5, "end": 2, "speaker": 7, "confidence": 1},
             {"start": 1, "end": 1, "speaker": "b"}]
    assert read(json.dumps(items), "json") == [(0.5, 2.0, "7"), (3.0, 4.5, "b")]


@pytest.mark.parametrize(("text", "said"), [
    ("SPEAKER ep1 1 0.5 x <NA> <NA> a <NA>", "line 1, duration: 'x' is not a time"),
    ("\n\nSPEAKER ep1 1 -1 2 <NA> <NA> a <NA>", "line 3, onset: '-1'"),
    ("SPEAKER ep1 1 nan 2 <NA> <NA> a <NA>", "line 1, onset: 'nan'"),
    ("SPEAKER ep1 1 0 1e9 <NA> <NA> a <NA>", "line 1, duration: '1e9'"),
    ("SPEAKER ep1 1 0 1 <NA>", "line 1: has 6 fields"),
    ("SPEAKER ep1 1 0 1 <NA> <NA> a b c d e", "line 1: has 12 fields.*without blanks"),
    ("SPEAKER ep1 1 0 1 <NA> <NA> a <NA>\n1\n00:00:01,000 --> 00:00:02,000", "line 2: '1' is no type"),
    ("", "holds no turn"), (";; nothing", "holds no turn"), ("\0", "not a text file"),
    ("SPEAKER x 1 0 1 <NA> <NA> a <NA>\nSPEAKER y 1 0 1 <NA> <NA> a <NA>", "about 2 recordings, and none is.*x, y"),
    ("".join(f"SPEAKER x 1 {n} 1 <NA> <NA> a <NA>\n" for n in range(8, 20)), "begin after the episode's end.*line 3"),
])
def test_what_is_no_rttm_is_told_its_line(text, said):
    with pytest.raises(InputError, match=rf"(?s)f\.rttm.*{said}"):
        read(text)


@pytest.mark.parametrize(("text", "said"), [
    ("{}", "no list"), ("[", "not JSON"), ("[" * 100_000, "not JSON"), ("[1]", "item 1"),
    ('[{"start": 0, "end": 1}]', "item 1: 'None' is no name"),
    ('[{"start": 0, "end": 1, "speaker": "a"}, {"start": 2, "end": 1, "speaker": "a"}]', "item 2: ends before"),
    ('[{"start": true, "end": 1, "speaker": "a"}]', "item 1, start"),
    ('[{"start": NaN, "end": 1, "speaker": "a"}]', "item 1, start"), ("[]", "holds no turn"),
    ('[{"start": 0, "end": 1, "speaker": "a\\nb"}]', "no name of a speaker"),
])
def test_what_is_no_list_of_turns_is_told_its_item(text, said):
    with pytest.raises(InputError, match=said):
        read(text, "json")


def test_what_is_too_large_or_no_text_is_refused():
    with pytest.raises(InputError, match="larger than"):
        read_diarization(bytes(MAX_BYTES + 1), "rttm", (), 1.0, "f")
    with pytest.raises(InputError, match=r"line 2: is not UTF-8|line 2"):
        read_diarization(b"SPEAKER\n\xff\xfe\xfd", "rttm", (), 1.0, "f")
    with pytest.raises(InputError, match="50000 turns or 500 speakers"):
        read("".join(f"SPEAKER x 1 0 1 <NA> <NA> n{n} <NA>\n" for n in range(501)))


@pytest.mark.parametrize(("label", "real"), [
    ("SPEAKER_00", False), ("spk1", False), ("A", False), ("7", False), ("Speaker 12", False), ("unknown", False),
    ("S2", False), ("Anna", True), ("CLARA", True), ("Dr. No", True), ("Spencer", True)])
def test_labels_of_diarizers_are_no_names(label, real):
    assert is_name(label) is real


def test_a_given_diarization_replaces_the_diarizer_and_keeps_its_names(work):
    from models.records import Line, Transcript
    from tasks.media import write_flac
    from tasks.speakers import SpeakersRequest, find_speakers
    from tasks.step import perform
    from tests.test_speakers import Given, line

    work.engines.by_port["diarizer"] = diarizer = Given()
    sound = work.scratch / "a.flac"
    write_flac(sound, np.ones(8 * 48_000, np.float32) * 0.1)
    rttm = work.store.put_bytes(b"SPEAKER x 1 0 3 <NA> <NA> Anna <NA>\nSPEAKER x 1 3 4 <NA> <NA> spk9 <NA>\n", "x/y")
    lines: tuple[Line, ...] = (line(1, 0, "One two three four."), line(2, 3, "Five six seven eight."))
    found = perform(work, find_speakers, SpeakersRequest(
        audio=work.store.put_file(sound, "audio/flac"), transcript=Transcript(language="en", lines=lines),
        diarizer=EngineRef(name="ge2e"), diarization=rttm, diarization_format="rttm", recording=("x",)))
    assert [part.speaker for part in found.lines] == ["Anna", "A"]
    assert [(one.id, one.name) for one in found.speakers] == [("Anna", "Anna"), ("A", "")]
    assert all(np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-3) for one in found.speakers)
    assert diarizer.spans == [], "it was not asked who speaks when"


@pytest.mark.models
def test_real_voices_are_known_again_in_another_part_of_the_episode() -> None:
    from tests.test_diarizer_port import loaded, scene

    engine = loaded("ge2e")
    sound, said = scene(1, 2)
    halves: list[dict[str, list[Any]]] = [{}, {}]
    for number, ((a, b), who) in enumerate(said):
        if b - a > 0.5:
            halves[number % 2].setdefault(who, []).append(sound[int(a * 16_000):int(b * 16_000)])
    first, second = ({who: _mean(engine.embed(parts)) for who, parts in half.items()} for half in halves)
    numbers = {who: n for n, who in enumerate(first)}
    found = cast.match({who: tuple(v) for who, v in second.items()}, {numbers[who]: v for who, v in first.items()},
                       engine.SAME_VOICE)
    assert {who: number for who, (number, _) in found.items()} == numbers
    without = {numbers[who]: v for who, v in first.items() if who != "clara"}
    assert "clara" not in cast.match({"clara": tuple(second["clara"])}, without, engine.SAME_VOICE)


def _mean(vectors: Any) -> Any:
    mean = np.asarray(vectors, np.float64).mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_turns_are_looked_up_by_time_alone() -> None:
    from tasks.speakers import _Turns

    turns = _Turns([Turn(0, 30, "long"), *(Turn(t, t + 0.5, "short") for t in range(1, 20))])
    near = turns.near(48_000 * 10, 48_000 * 11)
    assert [(turn.start, turn.speaker) for turn in near] == [(0, "long"), (10, "short"), (11, "short")]


def test_pyannote_embeds_by_its_own_encoder_and_says_where_it_hears_nobody(monkeypatch) -> None:
    from models.engines.pyannote import Pyannote

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(from_numpy=lambda samples: samples))
    engine = object.__new__(Pyannote)
    engine._pipeline = SimpleNamespace(_embedding=lambda sound: np.array([[sound.shape[2], 3.0 * sound.max(), 0.0]]))
    assert np.allclose(engine.embed([np.ones(4, np.float32)]), [[0.8, 0.6, 0.0]])
    engine._pipeline = SimpleNamespace(_embedding=lambda sound: np.full((1, 3), np.nan))
    with pytest.raises(EngineError, match="no voice"):
        engine.embed([np.ones(4, np.float32)])

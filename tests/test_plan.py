"""Which shots are generated, what they hear, and shards read from files."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.recipe import sha256, shot_seed
from models.records import Artifact, EngineRef, FaceTrack, Plan, Shard, Shot, Shots, Source, Speech, SpokenLine
from models.timebase import frame_to_ticks
from tasks.generate import generate_shot, load_shard
from tasks.pack import pack
from tasks.plan import PlanRequest, plan
from tasks.step import Work

FACE = FaceTrack(id=0, boxes=((0, 10, 10, 20, 20),))


def artifact(name: str) -> Artifact:
    return Artifact(sha256=sha256(name.encode()), size=1, media_type="audio/flac")


def spoken(number: int, start: int, length: int, speaker: str = "A", audio: str = "") -> SpokenLine:
    return SpokenLine(id=f"L{number:04d}", speaker=speaker, voice="v", text="t", audio=artifact(audio or f"{number}"),
                      start=start, length=length, slot=(start, start + length), planned=(start, start + length),
                      natural=length, stretch=1.0)


def request_for(lengths: list[int], faces: set[int], lines: list[SpokenLine], rate: str = "25",
                **changes: Any) -> PlanRequest:
    """Shots of the given lengths; those in `faces` (by number, from 0) show one."""
    edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    shots = tuple(Shot(id=f"S{i + 1:04d}", start=edges[i], end=edges[i + 1], faces=(FACE,) if i in faces else ())
                  for i in range(len(lengths)))
    source = Source(video=artifact("video"), original="0" * 64, width=640, height=480, rate=rate, frames=edges[-1],
                    audio=artifact("audio"), channels=2)
    return PlanRequest(**{
        "source": source, "shots": Shots(frames=edges[-1], shots=shots), "profile": "default", "region": "frame",
        "speech": Speech(language="es", lines=tuple(lines)), "generator": EngineRef(name="pulse"), **changes})


def planned(request: PlanRequest) -> Plan:
    return plan.function(None, request)  # type: ignore[arg-type]


def tick(frame: int) -> int:
    return frame_to_ticks(frame, Fraction(25))


def test_a_shot_is_generated_when_a_face_is_seen_and_dubbed_speech_heard() -> None:
    lines = [spoken(1, tick(10), tick(20)), spoken(2, tick(60), tick(10))]
    made = planned(request_for([50, 50, 50], {0, 2}, lines))
    assert [(s.kind, s.reason) for s in made.shots] == [
        ("generate", "a face seen, A heard"), ("passthrough", "no face seen"), ("passthrough", "no dubbed speech")]


def test_the_passthrough_generator_generates_nothing() -> None:
    made = planned(request_for([50], {0}, [spoken(1, 0, tick(50))], generator=EngineRef(name="passthrough")))
    assert [(s.kind, s.reason, s.request) for s in made.shots] == [
        ("passthrough", "the generator is passthrough", None)]


@pytest.mark.parametrize(("overlap", "kind"), [(1, "passthrough"), (2, "generate")])
def test_a_line_is_heard_from_two_frames_on(overlap: int, kind: str) -> None:
    made = planned(request_for([50, 50], {1}, [spoken(1, tick(20), tick(30 + overlap))]))
    assert made.shots[1].kind == kind


def test_a_finished_clip_is_in_the_request_of_its_own_shot_only() -> None:
    lines, weights = [spoken(1, 0, tick(100))], {"w/model.bin": "a" * 64, "shots/S0001": "b" * 64}
    before, after = (planned(request_for([50, 50], {0, 1}, lines, generator=EngineRef(
        name="files", weights=weights | {"shots/S0002": digest * 64}))) for digest in "cd")
    assert before.shots[0] == after.shots[0]
    assert before.shots[1] != after.shots[1]
    assert [shot.request.generator.weights for shot in after.shots if shot.request] == [
        weights, {"w/model.bin": "a" * 64, "shots/S0002": "d" * 64}]


def test_a_request_says_what_is_heard_of_whom_and_from_when() -> None:
    lines = [spoken(3, tick(95), tick(30), "B"), spoken(1, tick(40), tick(20), "A"), spoken(2, tick(70), tick(10), "B")]
    made = planned(request_for([50, 50, 50], {0, 1, 2}, lines))
    heard = made.shots[1].request
    assert heard is not None
    assert [(t.speaker, [(h.audio, h.at) for h in t.lines]) for t in heard.tracks] == [
        ("A", [(artifact("1"), tick(40) - tick(50))]),
        ("B", [(artifact("2"), tick(20)), (artifact("3"), tick(45))])]
    assert (heard.start, heard.end, heard.faces, heard.source) == (50, 100, (FACE,), artifact("video"))


def test_shots_of_another_cut_of_the_film_are_refused(work: Work) -> None:
    request = request_for([50], set(), [])
    other = request.source.model_copy(update={"frames": 51})
    with pytest.raises(InputError, match="the shots cover 50 frames, the source has 51"):
        plan.function(work, request.model_copy(update={"source": other}))


def test_seeds_differ_by_shot_seed_and_take_and_are_the_same_everywhere() -> None:
    assert shot_seed(0, "S0001") == 1246640995
    seeds = {shot_seed(seed, shot, take) for seed in (0, 1) for shot in ("S0001", "S0002") for take in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)


# -- properties -------------------------------------------------------------------------------------------------------

RATES = st.sampled_from(["24000/1001", "24", "25", "30000/1001", "50", "60000/1001"])


@st.composite
def episodes(draw: st.DrawFn) -> PlanRequest:
    rate = draw(RATES)
    lengths = draw(st.lists(st.integers(1, 200), min_size=1, max_size=12))
    length = frame_to_ticks(sum(lengths), Fraction(rate))
    faces = draw(st.sets(st.integers(0, len(lengths) - 1)))
    lines = [spoken(i, draw(st.integers(0, length)), draw(st.integers(1, 300_000)), draw(st.sampled_from("AB")))
             for i in range(draw(st.integers(0, 8)))]
    return request_for(lengths, faces, lines, rate, seed=draw(st.integers(0, 3)))


@given(episodes())
def test_a_plan_covers_every_frame_once_and_generates_only_faces_with_speech(request: PlanRequest) -> None:
    made = planned(request)
    assert [(s.start, s.end) for s in made.shots] == [(s.start, s.end) for s in request.shots.shots]
    assert sum(s.end - s.start for s in made.shots) == request.source.frames
    for shot, seen in zip(made.shots, request.shots.shots, strict=True):
        assert (shot.kind == "generate") == (shot.request is not None)
        assert shot.reason
        if shot.request:
            assert seen.faces
            assert any(track.lines for track in shot.request.tracks)


@given(episodes(), st.data())
def test_an_edited_line_changes_only_the_shots_it_is_heard_in(request: PlanRequest, data: st.DataObject) -> None:
    if not request.speech.lines:
        return
    line = data.draw(st.sampled_from(request.speech.lines))
    start, length = line.start + data.draw(st.integers(0, 20_000)), data.draw(st.integers(1, 300_000))
    edited = line.model_copy(update={"text": "other", "audio": artifact("other"), "start": start, "length": length})
    lines = tuple(edited if x.id == line.id else x for x in request.speech.lines)
    again = request.model_copy(update={"speech": Speech(language="es", lines=lines)})
    rate = request.source.rate
    for before, after in zip(planned(request).shots, planned(again).shots, strict=True):
        shot = frame_to_ticks(before.start, rate), frame_to_ticks(before.end, rate)
        touched = any(x.start < shot[1] and x.start + x.length > shot[0] for x in (line, edited))
        if not touched:
            assert before.request == after.request
        if before.request and after.request:
            mentions = any(h.audio in (line.audio, edited.audio) for r in (before.request, after.request)
                           for t in r.tracks for h in t.lines)
            same = generate_shot.recipe(before.request) == generate_shot.recipe(after.request)
            assert same != mentions


@given(episodes(), st.integers(0, 11))
def test_a_longer_episode_leaves_the_shots_that_were_there_alone(request: PlanRequest, extra: int) -> None:
    lengths = [s.end - s.start for s in request.shots.shots]
    faces = {i for i, s in enumerate(request.shots.shots) if s.faces}
    longer = request_for([*lengths, 10 + extra], faces, list(request.speech.lines), str(request.source.rate),
                         seed=request.seed)
    before, after = planned(request).shots, planned(longer).shots
    assert [s.request for s in before] == [s.request for s in after[:len(before)]]


# -- SHARD.json -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shard() -> Shard:
    made = planned(request_for([50, 50], {0, 1}, [spoken(1, 0, tick(100))], rate="30000/1001"))
    requests = [shot.request for shot in made.shots if shot.request]
    (one,) = pack(requests, [1.0, 1.0], [generate_shot.recipe(shot) for shot in requests], episode="s/e", language="es")
    return one.shard


def test_a_shard_file_is_read_back(tmp_path: Path, shard: Shard) -> None:
    (tmp_path / "SHARD.json").write_text(shard.model_dump_json())
    assert load_shard(tmp_path / "SHARD.json") == shard


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s | {"surprise": 1}, "surprise: Extra inputs"),
    (lambda s: s | {"schema_version": 2}, "schema_version"),
    (lambda s: s | {"id": "../../etc"}, "id: String should match"),
    (lambda s: s | {"episode": "../../etc"}, "episode: String should match"),
    (lambda s: s | {"language": "../es"}, "language: String should match"),
    (lambda s: s | {"requests": []}, "requests: .*at least 1"),
    (lambda s: s | {"requests": [s["requests"][0]] * 2}, "requests: a shot is named twice"),
    (lambda s: s | {"requests": [s["requests"][0] | {"end": 0}]}, "requests.0: .*before it starts"),
    (lambda s: s | {"requests": [s["requests"][0] | {"source": {"sha256": "../x", "size": 1, "media_type": "a/b"}}]},
     "requests.0.source.sha256"),
    (lambda s: s | {"requests": [s["requests"][0] | {"rate": "0/1"}]}, "requests.0.rate"),
    (lambda s: [], "Input should be an object"),
])
def test_a_shard_file_with_a_fault_is_refused_by_field(tmp_path: Path, shard: Shard, change: Any, message: str) -> None:
    (tmp_path / "SHARD.json").write_text(json.dumps(change(json.loads(shard.model_dump_json()))))
    with pytest.raises(InputError, match=f"SHARD.json: {message}"):
        load_shard(tmp_path / "SHARD.json")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_file_that_is_no_shard_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "SHARD.json").write_bytes(data)
    with pytest.raises(InputError, match=r"SHARD\.json"):
        load_shard(tmp_path / "SHARD.json")


def test_a_huge_or_missing_shard_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match=r"huge\.json: is larger than 32 MiB"):
        load_shard(tmp_path / "huge.json")
    with pytest.raises(InputError, match="cannot be read"):
        load_shard(tmp_path / "none.json")

"""Generation of shots: exact, checked, resumed after a kill bit for bit; and shards of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from models import tables as t
from models.errors import EngineError, InfinidubError, InputError, SetupError
from models.ports import Chunk, ShotInput
from models.recipe import shot_seed
from models.records import Artifact, Clip, Clips, FaceTrack, HeardLine, Placement, Shard, ShotRequest, SpeakerTrack
from tasks.checkpoint import Checkpoint
from tasks.generate import GenerateRequest, at_hearing_level, generate, generate_shot, hear, run_shard
from tasks.media import FrameReader, FrameWriter, write_flac
from tasks.step import Work, perform
from tasks.store import FileStore
from tests.conftest import GivenEngines
from tests.pulse import REF, Pulse

WIDTH, HEIGHT, FRAMES = 64, 48, 60


@pytest.fixture
def pulse(work: Work) -> Pulse:
    generator = Pulse()
    work.engines.by_port["generator"] = generator  # type: ignore[attr-defined]
    return generator


@pytest.fixture
def source(work: Work) -> Artifact:
    return filmed(work, Fraction(25))


def filmed(work: Work, rate: Fraction) -> Artifact:
    path = work.scratch / "source.mkv"
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with FrameWriter(path, WIDTH, HEIGHT, rate) as writer:
        for i in range(FRAMES):
            writer.write(np.stack([x * 2 + i, y * 3 + 2 * i, x + y + i], -1).astype(np.uint8))
    return work.store.put_file(path, "video/x-matroska")


def voice(work: Work, seconds: float, level: float = 0.1, hertz: float = 300) -> Artifact:
    path = work.scratch / "voice.flac"
    time = np.arange(round(seconds * 48_000)) / 48_000
    write_flac(path, (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32))
    return work.store.put_file(path, "audio/flac")


@pytest.fixture
def shot(work: Work, source: Artifact) -> ShotRequest:
    """Frames 10 to 45: five chunks of the test generator."""
    line = HeardLine(audio=voice(work, 0.6), at=9_600)
    return ShotRequest(shot="S0001", source=source, start=10, end=45, width=WIDTH, height=HEIGHT, rate="25", seed=3,
                       tracks=(SpeakerTrack(speaker="A", lines=(line,)),), generator=REF,
                       faces=(FaceTrack(id=0, boxes=((10, 20, 12, 16, 16),)),))


def but(request: ShotRequest, **changes: Any) -> ShotRequest:
    return ShotRequest.model_validate({**request.model_dump(), **changes})


def pictures(work: Work, clip: Clip) -> np.ndarray:
    with FrameReader(work.store.path(clip.video)) as reader:
        return np.stack(list(reader.frames(0, clip.frames)))


# -- one shot ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 10, 35])
def test_a_clip_has_exactly_the_shots_frames(work: Work, pulse: Pulse, shot: ShotRequest, frames: int) -> None:
    clip = perform(work, generate_shot, but(shot, end=10 + frames), "S0001")
    assert (clip.frames, clip.chunks, clip.width, clip.height) == (frames, Pulse.geometry.chunks(frames), 32, 24)
    assert len(pictures(work, clip)) == frames
    with FrameReader(work.store.path(clip.video)) as reader:
        assert reader.rate == 25


def test_a_clip_holds_what_the_generator_made(work: Work, pulse: Pulse, shot: ShotRequest) -> None:
    clip = perform(work, generate_shot, shot, "S0001")
    with FrameReader(work.store.path(shot.source)) as reader:
        source = [reader.frame(i) for i in range(FRAMES)]
    seen = ShotInput(shot, lambda i: source[min(10 + i, 44)], hear(work, shot), shot.faces)
    made = np.concatenate([chunk.frames for chunk in Pulse().generate(seen, None, 0)])
    assert np.array_equal(pictures(work, clip), made[:35])


def test_a_source_above_thirty_frames_a_second_is_generated_at_half(work: Work, pulse: Pulse, shot: ShotRequest,
                                                                    ) -> None:
    source = filmed(work, Fraction(60_000, 1001))
    clip = perform(work, generate_shot, but(shot, source=source, rate="60000/1001"), "S0001")
    assert clip.frames == 18
    with FrameReader(work.store.path(clip.video)) as reader:
        assert reader.rate == Fraction(30_000, 1001)


def test_progress_is_told_chunk_by_chunk(work: Work, pulse: Pulse, shot: ShotRequest) -> None:
    told: list[tuple[str, float]] = []
    perform(replace(work, progress=lambda what, part: told.append((what, part))), generate_shot, shot, "S0001")
    assert told[1:] == [(f"generating S0001, {n} of 35 frames", n / 35) for n in (9, 17, 25, 33, 35)]


def test_a_finished_shot_is_not_generated_again(work: Work, pulse: Pulse, shot: ShotRequest) -> None:
    first = generate.function(work, GenerateRequest(requests=(shot,)))
    assert generate.function(work, GenerateRequest(requests=(shot,))) == first
    assert pulse.chunks_made == 5
    assert work.counts["shots_run"] == work.counts["shots_reused"] == 1


# -- killed and resumed -----------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """What a signal does to a run."""


class Dying(Pulse):
    """Dies while it makes chunk `at`."""

    def __init__(self, at: int, error: type[BaseException] = KilledError) -> None:
        super().__init__()
        self.at, self.error = at, error

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        for chunk in super().generate(shot, state, start_chunk):
            if chunk.index == self.at:
                raise self.error("in the middle")
            yield chunk


def killed(work: Work, shot: ShotRequest, at: int) -> Path:
    """Run a shot to its death in chunk `at`; gives the folder of its checkpoint."""
    work.engines.by_port["generator"] = Dying(at)  # type: ignore[attr-defined]
    with pytest.raises(KilledError):
        perform(work, generate_shot, shot, "S0001")
    return work.store.checkpoint(generate_shot.recipe(shot))


def undisturbed(work: Work, tmp_path: Path, shot: ShotRequest) -> Clip:
    """What the shot gives without a kill, from a step that shares nothing with the run under test but the store."""
    work.engines.by_port["generator"] = Pulse()  # type: ignore[attr-defined]

    class Elsewhere(FileStore):
        def checkpoint(self, recipe: str) -> Path:
            return FileStore(tmp_path / "elsewhere").checkpoint(recipe)

    return generate_shot.function(replace(work, store=Elsewhere(tmp_path / "store")), shot)


@pytest.mark.parametrize("at", range(5))
def test_a_killed_shot_goes_on_at_its_next_chunk_and_gives_the_same_bytes(
        work: Work, tmp_path: Path, shot: ShotRequest, at: int) -> None:
    whole = undisturbed(work, tmp_path, shot)
    killed(work, shot, at)
    survivor = Pulse()
    work.engines.by_port["generator"] = survivor  # type: ignore[attr-defined]
    clip = perform(work, generate_shot, shot, "S0001")
    assert survivor.chunks_made == 5 - at
    assert clip == whole


def test_only_the_newest_states_are_kept_and_nothing_once_the_clip_is_recorded(work: Work, shot: ShotRequest) -> None:
    folder = killed(work, shot, 4)
    assert sorted(p.name for p in folder.iterdir()) == [
        "chunk-0000.mkv", "chunk-0001.mkv", "chunk-0002.mkv", "chunk-0003.mkv", "manifest.json", "state-0002.bin",
        "state-0003.bin"]
    work.engines.by_port["generator"] = Pulse()  # type: ignore[attr-defined]
    generate.function(work, GenerateRequest(requests=(shot,)))
    assert not folder.exists()


def test_chunks_outlive_a_failure_to_record_the_clip(work: Work, pulse: Pulse, shot: ShotRequest) -> None:
    """The store took the clip, but the database was away: nothing is generated twice."""
    generate_shot.function(work, shot)
    generate.function(work, GenerateRequest(requests=(shot,)))
    assert pulse.chunks_made == 5


def test_two_that_want_the_same_shot_generate_it_once(work: Work, shot: ShotRequest) -> None:
    met = Event()

    class Second(Pulse):
        def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
            met.set()
            yield from super().generate(shot, state, start_chunk)

    class First(Pulse):
        def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
            for chunk in super().generate(shot, state, start_chunk):
                if chunk.index == 2:
                    answers.append(threads.submit(generate.function, other, GenerateRequest(requests=(shot.request,))))
                    met.wait(0.5)
                yield chunk

    answers: list[Future[Clips]] = []
    work.engines.by_port["generator"] = First()  # type: ignore[attr-defined]
    other = replace(work, engines=GivenEngines(), counts=Counter())
    other.engines.by_port["generator"] = Second()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as threads:
        clips = generate.function(work, GenerateRequest(requests=(shot,)))
    assert answers[0].result() == clips
    assert (other.counts["shots_run"], other.counts["shots_reused"]) == (0, 1)
    assert list((work.store.checkpoint("x").parent).iterdir()) == [work.store.checkpoint("x")]


DAMAGE: dict[str, tuple[Callable[[Path], object], int]] = {
    "newest chunk cut short": (lambda f: (f / "chunk-0003.mkv").write_bytes(b"cut"), 2),
    "newest chunk gone": (lambda f: (f / "chunk-0003.mkv").unlink(), 2),
    "newest state altered": (lambda f: (f / "state-0003.bin").write_bytes(b"0" * 32), 2),
    "both states gone": (lambda f: [p.unlink() for p in f.glob("state-*")], 5),
    "an older chunk altered": (lambda f: (f / "chunk-0001.mkv").write_bytes(b"cut"), 5),
    "manifest cut short": (lambda f: (f / "manifest.json").write_bytes(b'{"chunks": ['), 5),
    "manifest gone": (lambda f: (f / "manifest.json").unlink(), 5),
    "manifest of another kind": (lambda f: (f / "manifest.json").write_text('{"schema_version": 2}'), 5),
    "a partial file left over": (lambda f: (f / ".partial-x.mkv").write_bytes(b"x"), 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_costs_work_but_never_changes_the_picture(
        work: Work, tmp_path: Path, shot: ShotRequest, damage: str) -> None:
    whole = undisturbed(work, tmp_path, shot)
    harm, chunks_to_make = DAMAGE[damage]
    harm(killed(work, shot, 4))
    survivor = Pulse()
    work.engines.by_port["generator"] = survivor  # type: ignore[attr-defined]
    assert perform(work, generate_shot, shot, "S0001") == whole
    assert survivor.chunks_made == chunks_to_make


def test_a_chunk_counts_only_from_the_manifest_on(tmp_path: Path) -> None:
    """A kill between the chunk's file and the manifest leaves the chunk undone."""
    checkpoint = Checkpoint(FileStore(tmp_path), "x", 32, 24, Fraction(25))
    checkpoint.add([np.zeros((24, 32, 3), np.uint8)] * 3, b"one")
    written = (checkpoint.folder / "manifest.json").read_bytes()
    checkpoint.add([np.ones((24, 32, 3), np.uint8)] * 3, b"two")
    (checkpoint.folder / "manifest.json").write_bytes(written)
    again = Checkpoint(FileStore(tmp_path), "x", 32, 24, Fraction(25))
    assert (len(again.chunks), again.frames, again.state) == (1, 3, b"one")


# -- nonsense from a generator, and from a request --------------------------------------------------------------------


class Nonsense(Pulse):
    """Hands back chunks that somebody changed on the way, or another placement."""

    def __init__(self, change: Callable[[Chunk], Chunk | None], place: tuple[int, int, int, int] = (0, 0, 64, 48),
                 ) -> None:
        super().__init__()
        self.change, self.place = change, place

    def placement(self, request: ShotRequest) -> tuple[int, int, Placement]:
        x, y, width, height = self.place
        return 32, 24, Placement(x=x, y=y, width=width, height=height)

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        for chunk in Pulse().generate(shot, state, start_chunk):
            changed = self.change(chunk)
            if changed is None:
                return
            yield changed


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: replace(c, index=c.index + 1), "handed back chunk 1 where 0 was next"),
    (lambda c: replace(c, frames=c.frames / 255), "holds float64 pictures"),
    (lambda c: replace(c, frames=c.frames[:, :-1]), r"of shape \(9, 23, 32, 3\)"),
    (lambda c: replace(c, frames=c.frames[0]), r"of shape \(24, 32, 3\)"),
    (lambda c: replace(c, frames=c.frames[:0]), r"of shape \(0, 24, 32, 3\)"),
    (lambda c: c if c.index < 2 else None, "stopped after 17 of 35 frames"),
])
def test_what_a_generator_hands_back_is_checked(work: Work, shot: ShotRequest, change: Any, message: str) -> None:
    work.engines.by_port["generator"] = Nonsense(change)  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match=f"shot S0001: .*{message}"):
        perform(work, generate_shot, shot, "S0001")


@pytest.mark.parametrize("place", [(1, 0, 64, 48), (0, 40, 64, 9)])
def test_a_placement_outside_the_frame_is_refused(work: Work, shot: ShotRequest, place: Any) -> None:
    work.engines.by_port["generator"] = Nonsense(lambda c: c, place)  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="leaves the 64x48 frame"):
        perform(work, generate_shot, shot, "S0001")


@pytest.mark.parametrize(("changes", "message"), [
    ({"width": 128}, "the source is 64x48, the request says 128x48"),
    ({"rate": "50"}, "the source has 25 frames a second, the request says 50"),
    ({"rate": "1/100000"}, "the source has 25 frames a second, the request says 1/100000"),
    ({"rate": "25025/1000"}, "the source has 25 frames a second, the request says 1001/40"),
    ({"end": FRAMES + 1}, "frame 60 is missing"),
    ({"end": 10**15}, "is missing"),
])
def test_a_request_that_does_not_fit_its_source_is_refused(work: Work, pulse: Pulse, shot: ShotRequest,
                                                           changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        perform(work, generate_shot, but(shot, **changes), "S0001")
    assert pulse.chunks_made == 0


# -- hearing ----------------------------------------------------------------------------------------------------------


def test_each_speaker_is_heard_in_his_own_track_of_exactly_the_shots_length(work: Work, shot: ShotRequest) -> None:
    tone, other = voice(work, 0.5), voice(work, 0.3, hertz=500)
    lines = (HeardLine(audio=tone, at=-12_000), HeardLine(audio=other, at=38_400))
    request = but(shot, tracks=[SpeakerTrack(speaker="A", lines=lines), SpeakerTrack(speaker="B", lines=())])
    tracks = hear(work, request)
    assert {name: (len(t), t.dtype) for name, t in tracks.items()} == {
        "A": (22_400, np.float32), "B": (22_400, np.float32)}
    assert not tracks["B"].any()
    loud = np.abs(tracks["A"]) > 0
    assert loud[:3_990].mean() > 0.9
    assert not loud[4_000:12_790].any()
    assert loud[12_810:17_590].mean() > 0.9
    assert not loud[17_600:].any()


def test_the_length_of_what_is_heard_is_exact_at_odd_rates(work: Work, shot: ShotRequest) -> None:
    tracks = hear(work, but(shot, rate="24000/1001", end=10 + 1000))
    assert len(tracks["A"]) == round(1000 * 1001 / 24000 * 16_000)


def test_a_line_is_levelled_by_itself(work: Work, shot: ShotRequest) -> None:
    quiet, loud = voice(work, 0.6, 0.01), voice(work, 0.6, 0.5)
    one = hear(work, but(shot, tracks=[SpeakerTrack(speaker="A", lines=(HeardLine(audio=quiet, at=0),))]))["A"]
    two = hear(work, but(shot, tracks=[SpeakerTrack(speaker="A", lines=(HeardLine(audio=loud, at=0),))]))["A"]
    assert np.allclose(one, two, atol=1e-3)
    assert np.sqrt(np.mean(np.square(one[2_000:8_000]))) == pytest.approx(10 ** (-22.3 / 20), rel=0.1)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(16_000), np.full(3_000, 0.2), np.full(1, 1.0)])
def test_levelling_survives_silence_and_scraps(samples: np.ndarray) -> None:
    levelled = at_hearing_level(samples.astype(np.float32))
    assert levelled.shape == samples.shape
    assert np.isfinite(levelled).all()
    assert np.abs(levelled).max(initial=0) <= 1


def test_a_click_is_not_raised_above_full_scale() -> None:
    samples = np.zeros(16_000, np.float32)
    samples[100] = 0.5
    assert np.abs(at_hearing_level(samples)).max() <= 1


# -- shards -----------------------------------------------------------------------------------------------------------


class FailingShot(Pulse):
    """Fails on one shot, as often as told."""

    def __init__(self, shot: str, times: int, error: type[InfinidubError]) -> None:
        super().__init__()
        self.shot, self.times, self.error = shot, times, error

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        for chunk in super().generate(shot, state, start_chunk):
            if shot.request.shot == self.shot and self.times and chunk.index == 1:
                self.times -= 1
                raise self.error("the weights hold NaN")
            yield chunk


@pytest.fixture
def shard(shot: ShotRequest) -> Shard:
    requests = [but(shot, shot=f"S000{i}", start=10 * i, end=10 * i + 10) for i in (1, 2, 3)]
    return Shard(id="shard-1", episode="s/e", language="fr", requests=requests)


def test_a_shard_generates_its_shots_and_counts_them(work: Work, pulse: Pulse, shard: Shard) -> None:
    first = run_shard(work, shard)
    assert [clip.shot for clip in first.clips] == ["S0001", "S0002", "S0003"]
    assert (first.shots_run, first.shots_reused, first.chunks_run, first.failed) == (3, 0, 6, {})
    second = run_shard(work, shard)
    assert second.clips == first.clips
    assert (second.shots_run, second.shots_reused, second.chunks_run) == (0, 3, 0)


def test_a_shards_clips_are_those_of_the_step(work: Work, pulse: Pulse, shard: Shard) -> None:
    done = run_shard(work, shard)
    assert generate.function(work, GenerateRequest(requests=shard.requests)).clips == done.clips
    assert pulse.chunks_made == 6


def test_a_failed_shot_is_named_and_the_others_go_on(work: Work, shard: Shard) -> None:
    generator = FailingShot("S0002", 99, EngineError)
    work.engines.by_port["generator"] = generator  # type: ignore[attr-defined]
    done = run_shard(work, shard)
    assert [clip.shot for clip in done.clips] == ["S0001", "S0003"]
    assert {shot: (one.error_class, one.error) for shot, one in done.failed.items()} == {
        "S0002": ("EngineError", "shot S0002: the weights hold NaN")}


def test_a_shot_that_failed_is_made_with_another_seed_once_and_the_row_says_which(work: Work, shard: Shard) -> None:
    wanted = shard.requests[1]
    other = but(wanted, seed=shot_seed(wanted.seed, wanted.shot, 1))
    work.engines.by_port["generator"] = Pulse()  # type: ignore[attr-defined]
    first, second = (perform(work, generate_shot, one, one.shot) for one in (wanted, other))
    assert first.video != second.video
    for one in (wanted, other):
        work.store.drop(generate_shot.recipe(one))
    with work.ledger.session() as session:
        for table in (t.ResultFile, t.Result):
            session.execute(sa.delete(table))
    work.engines.by_port["generator"] = FailingShot("S0002", 1, EngineError)  # type: ignore[attr-defined]
    done = run_shard(work, shard)
    assert (done.shots_run, done.failed) == (3, {})
    assert done.clips[1].video == second.video
    with work.ledger.session() as session:
        rows = session.scalars(sa.select(t.Execution).where(t.Execution.item == "S0002").order_by(t.Execution.id)).all()
    assert (rows[-1].outcome, rows[-1].seed) == ("computed", other.seed)
    assert not list((work.store.checkpoint("x").parent).glob("[0-9a-f]*"))


def test_a_shot_that_fails_with_both_seeds_is_flagged_and_not_tried_by_itself(work: Work, shard: Shard) -> None:
    generator = FailingShot("S0002", 99, EngineError)
    work.engines.by_port["generator"] = generator  # type: ignore[attr-defined]
    failed = run_shard(work, shard).failed["S0002"]
    assert (failed.error_class, failed.flagged, generator.times) == ("EngineError", True, 97)
    with pytest.raises(EngineError) as raised:
        perform(work, generate_shot, shard.requests[1], "S0002")
    assert not raised.value.retryable


def test_what_concerns_the_machine_stops_the_shard(work: Work, shard: Shard) -> None:
    work.engines.by_port["generator"] = FailingShot("S0002", 99, SetupError)  # type: ignore[attr-defined]
    with pytest.raises(SetupError, match="NaN"):
        run_shard(work, shard)


def test_progress_of_a_shard_runs_from_nothing_to_all(work: Work, pulse: Pulse, shard: Shard) -> None:
    told: list[float] = []
    run_shard(replace(work, progress=lambda _what, part: told.append(part)), shard)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)

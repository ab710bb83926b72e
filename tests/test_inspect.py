"""Each check passes on a sound delivery, and fails when its fault is put in."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import InputError
from models.loudness import Anchor, Preset
from models.ports import HeardSegment, HeardWord, Recognition, Samples
from models.records import (
    Artifact,
    Assembled,
    Check,
    Clip,
    Clips,
    ColorTags,
    EngineRef,
    FaceTrack,
    Inspection,
    Leak,
    Loudness,
    Mix,
    Placement,
    Plan,
    PlannedShot,
    Shot,
    Shots,
    Source,
    Speech,
    SpokenLine,
    TranslatedLine,
    Translation,
)
from tasks.checks_text import check_subtitles
from tasks.inspect import InspectRequest, inspect
from tasks.levels import find_voice, speech_onset
from tasks.listening import listen_back
from tasks.media import PictureWriter, loudness, to_yuv, write_flac
from tasks.step import Work
from tasks.subtitles import read_shown
from tests.conftest import GivenEngines

RATE, FPS, FRAMES, CUT, JOIN = 48_000, 25, 125, 60, 93
LENGTH = FRAMES * RATE // FPS
PLACES = (24_000, 120_000, 180_000)
TEXTS = ("El faro está lejos.", "Hay 3 barcos.", "Vamos a casa.")
RECOGNIZER = EngineRef(name="fake")
SRT = """1
00:00:00,480 --> 00:00:02,000
El faro está lejos.

2
00:00:02,480 --> 00:00:03,600
Hay 3 barcos.

3
00:00:03,760 --> 00:00:04,960
Vamos a casa.
"""


@cache
def voice(count: int, seed: int = 0) -> NDArray[np.float32]:
    t = np.arange(count) / RATE
    buzz = sum(np.sin(2 * np.pi * (120 + 15 * seed + 10 * np.sin(3 * t)) * k * t) / k for k in range(1, 12))
    breath = np.random.default_rng(seed).standard_normal(count)
    sound = ((buzz + breath) * (0.6 - 0.4 * np.cos(2 * np.pi * 5 * t)) * 0.1).astype(np.float32)
    sound.setflags(write=False)
    return sound


@pytest.fixture
def work(module_work: Work) -> Work:
    """All deliveries lie in one store; who listens and looks is of the test."""
    module_work.engines = GivenEngines()
    return module_work


measured = cache(loudness)


@pytest.fixture(scope="module", autouse=True)
def measured_once() -> Iterator[None]:
    """A file of the store never changes: it is as loud the next time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.inspect.loudness", measured)
        yield


def put(work: Work, samples: NDArray[np.float32]) -> Artifact:
    path = work.scratch / "put.flac"
    write_flac(path, samples)
    return work.store.put_file(path, "audio/flac")


def spoken(work: Work, number: int, start: int, count: int = 40_000, **changes: Any) -> SpokenLine:
    audio = changes.get("audio") or put(work, voice(count, number))
    given = {"id": f"L{number:04d}", "speaker": "AB"[number % 2], "voice": "v", "text": TEXTS[number % 3],
             "audio": audio, "start": start, "length": count, "slot": (start, start + count),
             "planned": (start, start + count), "natural": count, "stretch": 1.0}
    return SpokenLine(**{**given, **changes})


def stem_of(lines: tuple[SpokenLine, ...], shift: int = 0) -> NDArray[np.float32]:
    stem = np.zeros(LENGTH, np.float32)
    for number, line in enumerate(lines):
        at = line.start + shift
        stem[at:at + line.length] += voice(line.length, number)[:LENGTH - at]
    return stem


@cache
def filmed() -> NDArray[np.uint8]:
    """A landscape that passes by, a cut, and a head that speaks before a wall: (F, 64, 96, 3)."""
    rng, (y, x) = np.random.default_rng(1), np.mgrid[:64, :96]
    frames = []
    for n in range(FRAMES):
        if n < CUT:
            light = 120 + 60 * np.sin((x + 2 * n) / 7) * np.cos(y / 9)
        else:
            light = 90 + 30 * np.sin(x / 5) + 20 * np.cos(y / 6) + 2 * np.sin(n / 3)
            light = np.where(((x - 68) / 12) ** 2 + ((y - 28) / 16) ** 2 < 1, 190 + 10 * np.sin(y / 4 + n / 5), light)
            light[38:38 + 2 + round(2 + 2 * np.sin(n)), 63:73] = 60
        frames.append(np.stack([light, light * 0.9, light * 0.8], -1) + rng.normal(0, 1, (64, 96, 1)))
    return np.clip(frames, 0, 255).astype(np.uint8)


def dubbed() -> NDArray[np.uint8]:
    """The same, with other lips."""
    frames = filmed().copy()
    for n in range(CUT, FRAMES):
        frames[n, 36:46, 63:73] = frames[n, 30, 68]
        frames[n, 38:38 + 2 + round(2 + 2 * np.cos(1.3 * n)), 63:73] = 60
    return frames


@cache
def encoded(pixels: bytes, rate: int) -> bytes:
    """Frames as an MP4 without sound."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.mp4"
        with PictureWriter(path, 96, 64, Fraction(rate), color=ColorTags(), crf=14) as writer:
            for one in np.frombuffer(pixels, np.uint8).reshape(-1, 64, 96, 3):
                writer.write(to_yuv(av.VideoFrame.from_ndarray(one, format="rgb24"), ColorTags()))
        return path.read_bytes()


def movie(work: Work, sound: NDArray[np.float32], frames: NDArray[np.uint8], *, rate: int = FPS,
          delay: float = 0) -> Artifact:
    """An MP4 whose sound is a FLAC, so that nothing but the fault changes it."""
    write_flac(work.scratch / "sound.flac", np.column_stack([sound, sound]))
    path = work.scratch / "movie.mp4"
    with (av.open(io.BytesIO(encoded(frames.tobytes(), rate))) as picture,
          av.open(str(work.scratch / "sound.flac")) as flac,
          av.open(str(path), "w", options={"strict": "experimental"}) as made):
        given = (picture.streams.video[0], flac.streams.audio[0])
        streams = [made.add_stream_from_template(stream) for stream in given]
        late = (0, round(delay / given[1].time_base))
        for container, stream, ahead in zip((picture, flac), streams, late, strict=True):
            for packet in container.demux():
                if packet.size:
                    packet.pts, packet.dts = packet.pts + ahead, packet.dts + ahead
                    packet.stream = stream
                    made.mux(packet)
    return work.store.put_file(path, "video/mp4")


class Ear:
    """Hears a text in every stretch of sound, in order."""

    def __init__(self, *texts: str, knows: str = "es") -> None:
        self.texts, self.knows, self.longest = list(texts), knows, 0.0

    def recognize(self, samples: Samples, language: str | None) -> Recognition:
        if language != self.knows:
            raise InputError("the recognizer does not know the language")
        self.longest = max(self.longest, len(samples) / 16_000)
        loud = np.flatnonzero(np.abs(samples) > 1e-3)
        runs = np.split(loud, np.flatnonzero(np.diff(loud) > 3200) + 1) if len(loud) else []
        segments = []
        for run in runs:
            start, end = run[0] / 16_000, run[-1] / 16_000
            words = self.texts.pop(0).split()
            step = (end - start) / max(1, len(words))
            segments.append(HeardSegment(" ".join(words), start, end, tuple(
                HeardWord(w, start + i * step, start + (i + 1) * step, 1.0) for i, w in enumerate(words))))
        return Recognition("es", 1.0, tuple(segments))


@pytest.fixture(scope="module")
def sound_delivery(module_work: Work) -> InspectRequest:
    work = module_work
    lines = tuple(spoken(work, n, place) for n, place in enumerate(PLACES))
    stem = put(work, stem_of(lines))
    sound = stem_of(lines)
    source = Source(video=movie(work, sound, filmed()), original="0" * 64, width=96, height=64, rate=Fraction(FPS),
                    frames=FRAMES, audio=stem, channels=2)
    mixed = Mix(language="es", mix=stem, dialogue=stem, bed=stem, bed_kind="ducked", gain_db=0,
                loudness=Loudness(integrated_lufs=-23, true_peak_dbtp=-5),
                leak=Leak(db=-45, line="L0001", at=PLACES[1]))
    made = Assembled(language="es", video=movie(work, sound, dubbed()), subtitles={"srt": subtitles(work, SRT)},
                     frames=FRAMES, rate=Fraction(FPS), generated_frames=FRAMES - CUT, video_copied=False)
    face = FaceTrack(id=0, boxes=tuple((n, 56, 12, 24, 32) for n in range(CUT, FRAMES, 10)))
    shots = Shots(frames=FRAMES, shots=(Shot(id="S0001", start=0, end=CUT),
                                        Shot(id="S0002", start=CUT, end=FRAMES, faces=(face,))))
    clip = Clip(shot="S0002", video=stem, frames=FRAMES - CUT, width=32, height=40, chunks=2, joins=(JOIN - CUT,),
                placement=Placement(x=52, y=8, width=32, height=40))
    return InspectRequest(
        source=source, shots=shots, assembled=made, mix=mixed, speech=Speech(language="es", lines=lines), language="es",
        translation=Translation(language="es", lines=tuple(TranslatedLine(id=x.id, text=x.text) for x in lines)),
        plan=Plan(language="es", frames=FRAMES, rate=Fraction(FPS), shots=(
            PlannedShot(shot="S0001", start=0, end=CUT, kind="passthrough", reason="no face seen"),
            PlannedShot(shot="S0002", start=CUT, end=FRAMES, kind="generate", reason="a face seen"))),
        clips=Clips(clips=(clip,)), recognizer=RECOGNIZER, loudness=as_loud_as(-16.1))


@pytest.fixture
def request_(work: Work, sound_delivery: InspectRequest) -> InspectRequest:
    """A delivery with nothing wrong with it."""
    work.engines.by_port["recognizer"] = Ear(*TEXTS)
    return sound_delivery


@pytest.fixture
def heard(request_: InspectRequest) -> InspectRequest:
    """The same where no shot was generated: its picture is the source's own stream, which need not be decoded."""
    plan = request_.plan.model_copy(update={"shots": tuple(
        shot.model_copy(update={"kind": "passthrough"}) for shot in request_.plan.shots)})
    return with_video(request_, request_.source.video).model_copy(update={"plan": plan, "clips": None})


def as_loud_as(lufs: float) -> Preset:
    return Preset(programme=Anchor(lufs=lufs, tolerance_lu=0.5), true_peak_dbtp=-1)


def subtitles(work: Work, text: str) -> Artifact:
    return work.store.put_bytes(text.encode(), "application/x-subrip")


def done(work: Work, request: InspectRequest) -> tuple[Inspection, dict[str, Check]]:
    result = inspect.function(work, request)
    return result, {check.name: check for check in result.checks}


def failed(work: Work, request: InspectRequest) -> set[str]:
    """Checks that did not pass, gates or not."""
    return {check.name for check in inspect.function(work, request).checks if check.state == "failed"}


def with_video(request: InspectRequest, video: Artifact) -> InspectRequest:
    return request.model_copy(update={"assembled": request.assembled.model_copy(update={"video": video})})


def with_stem(work: Work, request: InspectRequest, stem: NDArray[np.float32]) -> InspectRequest:
    mixed = request.mix.model_copy(update={"dialogue": put(work, stem)})
    return request.model_copy(update={"mix": mixed, "recognizer": None})


def with_lines(work: Work, request: InspectRequest, *lines: SpokenLine) -> InspectRequest:
    said = request.model_copy(update={"speech": Speech(language="es", lines=lines)})
    return with_stem(work, said, stem_of(lines))


def with_loudness_as_measured(work: Work, request: InspectRequest) -> InspectRequest:
    found = measured(work.store.path(request.assembled.video))
    return request.model_copy(update={"loudness": as_loud_as(found.integrated_lufs)})


def test_a_sound_delivery_passes(work: Work, request_: InspectRequest) -> None:
    result, checks = done(work, with_loudness_as_measured(work, request_))
    assert result.passed, [c for c in result.checks if c.failed]
    assert {c.name for c in result.checks if c.state != "passed"} == {"dialogue_lufs", "identity", "sync"}
    assert {c.state for c in result.checks if c.value is None} == {"not measured"}
    assert all(c.what and (c.why or c.bar) for c in result.checks)
    assert (result.back_wer, result.onset_within_120ms, result.overflow_lines) == (0, 1, 0)
    assert checks["frames"].value == FRAMES
    assert checks["av_start_ms"].value == pytest.approx(0, abs=1)
    assert {"rate", "duration_s", "audio_length_ms", "loudness_lufs", "true_peak_dbtp", "coverage", "overlaps",
            "stretch", "overflow_lines", "back_wer"} <= set(checks)


def test_wrong_frame_count(work: Work, request_: InspectRequest) -> None:
    video = movie(work, stem_of(request_.speech.lines), np.delete(dubbed(), 30, axis=0))
    assert {"frames", "shot_edges", "passthrough"} <= failed(work, with_video(request_, video))


def test_wrong_rate(work: Work, request_: InspectRequest) -> None:
    assert {"rate", "frames"} <= failed(work, with_video(request_, movie(work, np.zeros(LENGTH, np.float32),
                                                                           dubbed()[:120], rate=24)))


def test_sound_that_is_too_short(work: Work, heard: InspectRequest) -> None:
    video = movie(work, stem_of(heard.speech.lines)[:-4000], filmed())
    assert "audio_length_ms" in failed(work, with_video(heard, video))


def test_sound_that_starts_late(work: Work, heard: InspectRequest) -> None:
    video = movie(work, stem_of(heard.speech.lines), filmed(), delay=0.02)
    assert "av_start_ms" in failed(work, with_video(heard, video))


@pytest.mark.parametrize(("gain", "names"), [(1.3, {"loudness_lufs"}), (10 ** (-3 / 20), {"loudness_lufs"}),
                                             (3, {"loudness_lufs", "true_peak_dbtp"})])
def test_wrong_loudness(work: Work, heard: InspectRequest, gain: float, names: set[str]) -> None:
    right = with_loudness_as_measured(work, heard)
    sound = np.clip(stem_of(heard.speech.lines) * gain, -1, 1)
    assert failed(work, with_video(right, movie(work, sound, filmed()))) == names


def test_silence_passes_only_where_nobody_was_to_speak(work: Work, heard: InspectRequest) -> None:
    silent = with_video(heard, movie(work, np.zeros(LENGTH, np.float32), filmed()))
    assert "loudness_lufs" in failed(work, silent)
    nothing = put(work, np.zeros(LENGTH, np.float32))
    nothing_said = with_lines(work, silent.model_copy(update={
        "source": silent.source.model_copy(update={"audio": nothing}),
        "mix": silent.mix.model_copy(update={"mix": nothing, "bed": nothing})}))
    result, checks = done(work, nothing_said)
    assert result.passed
    assert checks["loudness_lufs"].worst == "silent"
    assert (result.back_wer, result.onset_within_120ms) == (None, 1)


def test_a_shifted_stem(work: Work, heard: InspectRequest) -> None:
    result, checks = done(work, with_stem(work, heard, stem_of(heard.speech.lines, shift=round(0.2 * RATE))))
    assert not checks["onset_within_120ms"].passed
    assert result.onset_within_120ms == 0
    assert "+200 ms" in checks["onset_within_120ms"].worst
    assert checks["coverage"].passed


def test_a_line_that_is_not_in_the_stem(work: Work, heard: InspectRequest) -> None:
    first, second, third = heard.speech.lines
    _, checks = done(work, with_stem(work, heard, stem_of((first, second))))
    assert not checks["coverage"].passed
    assert third.id in checks["coverage"].worst


def test_lines_of_one_speaker_that_overlap(work: Work, heard: InspectRequest) -> None:
    lines = [spoken(work, 0, 24_000, speaker="A"), spoken(work, 1, 50_000, speaker="A"), spoken(work, 2, 140_000)]
    _, checks = done(work, with_lines(work, heard, *lines))
    assert not checks["overlaps"].passed
    assert "L0000 and L0001" in checks["overlaps"].worst
    lines[1] = spoken(work, 1, 50_000, speaker="B")
    _, checks = done(work, with_lines(work, heard, *lines))
    assert checks["overlaps"].passed
    assert checks["onset_within_120ms"].value == 1, "voices are found under each other"


def test_stretch_and_overflow(work: Work, heard: InspectRequest) -> None:
    lines = [spoken(work, 0, 24_000, stretch=1.3), spoken(work, 1, 120_000, stretch=1.2, overflow=4800)]
    result, checks = done(work, with_lines(work, heard, *lines))
    assert not checks["stretch"].passed
    assert checks["stretch"].worst == "L0000 at 00:00:00.500"
    assert (result.stretched_over_1_15, result.overflow_lines) == (1.0, 1)
    assert "L0001 by 0.10 s" in checks["overflow_lines"].worst
    assert {check.name for check in result.checks if check.failed} >= {"stretch"}
    assert not checks["overflow_lines"].failed, "it informs only"


def test_wrong_words(work: Work, heard: InspectRequest) -> None:
    work.engines.by_port["recognizer"] = Ear(TEXTS[0], "Hay cuatro perros.", TEXTS[2])
    result, checks = done(work, heard)
    assert result.back_wer == pytest.approx(2 / 10, abs=1e-4)
    assert not checks["back_wer"].passed
    assert checks["back_wer"].worst == "L0001 heard as 'Hay cuatro perros.' (67 %)"
    assert (checks["back_wer"].at, checks["back_wer_lines"].value) == (PLACES[1], 1)
    assert [line.lines[0] for line in result.heard] == ["L0001", "L0000", "L0002"], "the worst first"


@pytest.mark.parametrize("recognizer", [None, RECOGNIZER])
def test_nobody_knows_the_language(work: Work, heard: InspectRequest, recognizer: EngineRef | None) -> None:
    work.engines.by_port["recognizer"] = Ear(knows="tlh")
    result, checks = done(work, heard.model_copy(update={"recognizer": recognizer}))
    assert result.back_wer is None
    assert checks["back_wer"].state == "not measured"
    assert checks["back_wer"].why
    assert not checks["back_wer"].failed, "what could not be measured is said, and holds nothing up"


def test_long_stems_are_heard_in_pieces(work: Work) -> None:
    count, unread = 30, put(work, voice(40_000))
    lines = tuple(spoken(work, n, n * 60_000 + 30_000, 30_000 + 500 * (n % 7), audio=unread) for n in range(count))
    stem = np.zeros(count * 60_000 + 60_000, np.float32)
    for n, line in enumerate(lines):
        stem[line.start:line.start + line.length] = voice(line.length, n % 3)
    path = work.scratch / "long.flac"
    write_flac(path, stem)
    ear = Ear(*(line.text for line in lines))
    work.engines.by_port["recognizer"] = ear
    back = listen_back(work, path, lines, "es", RECOGNIZER)
    assert back is not None
    assert back.rate == 0
    assert ear.longest <= 28
    assert not ear.texts


# -- faults of the picture --------------------------------------------------------------------------------------------


def black(frames: NDArray[np.uint8]) -> None:
    frames[30:32] = 0


def frozen(frames: NDArray[np.uint8]) -> None:
    frames[20:34] = frames[20]


def late_cut(frames: NDArray[np.uint8]) -> None:
    frames[CUT] = frames[CUT - 1]


def other_landscape(frames: NDArray[np.uint8]) -> None:
    frames[40:50, 20:60, 20:70] = 30


def seam(frames: NDArray[np.uint8]) -> None:
    head = frames[JOIN:, 10:46, 54:82]
    head[:] = head[:, ::-1, ::-1]


def drift(frames: NDArray[np.uint8]) -> None:
    ramp = np.linspace(0, 20, FRAMES - CUT)[:, None, None]
    frames[CUT:, 10:46, 54:82, 0] = np.clip(frames[CUT:, 10:46, 54:82, 0] + ramp, 0, 255)


def other_wall(frames: NDArray[np.uint8]) -> None:
    frames[100:, :, :40] = 255 - frames[100:, :, :40]


@pytest.mark.parametrize(("fault", "names", "frame"), [
    (black, {"black_s", "passthrough"}, 30), (frozen, {"frozen_s", "passthrough"}, 20),
    (late_cut, {"shot_edges", "outside"}, CUT), (other_landscape, {"passthrough"}, 45),
    (seam, {"seam"}, JOIN), (drift, {"colour_drift"}, FRAMES - 1), (other_wall, {"outside"}, 100)])
def test_faults_of_the_picture(work: Work, request_: InspectRequest, fault: Callable[[NDArray[np.uint8]], None],
                               names: set[str], frame: int) -> None:
    frames = dubbed()
    fault(frames)
    given = with_video(request_, movie(work, stem_of(request_.speech.lines), frames))
    result, checks = done(work, with_loudness_as_measured(work, given.model_copy(update={"recognizer": None})))
    assert {check.name for check in result.checks if check.state == "failed"} == names
    at = min(checks[name].at for name in names)
    assert abs(at * FPS / RATE - frame) <= (25 if fault is other_wall else 5)


class Eye:
    """Knows a face by how light it is above the lips."""

    SAME_PERSON = 0.6

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        light = frames[:, 10:25, 15:30].mean((1, 2)) / 50
        return np.where(light.mean(1, keepdims=True) < 1, np.nan, light).astype(np.float32)


@pytest.mark.parametrize(("shade", "distance"), [(1.0, 0), (0.8, 0.7), (0.1, 1)])
def test_another_face(work: Work, request_: InspectRequest, shade: float, distance: float) -> None:
    work.engines.by_port["face-embedder"] = Eye()
    frames = dubbed()
    frames[CUT:, 12:44, 56:80] = (frames[CUT:, 12:44, 56:80] * shade).astype(np.uint8)
    given = with_video(request_, movie(work, stem_of(request_.speech.lines), frames))
    checks = done(work, given.model_copy(update={"recognizer": None, "embedder": EngineRef(name="fake")}))[1]
    assert checks["identity"].failed == (distance > 0)
    assert checks["identity"].value >= distance
    assert "S0002" in checks["identity"].worst


def test_a_picture_that_was_passed_on_is_not_decoded(work: Work, heard: InspectRequest,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.checks_picture.FrameReader", None)
    _, checks = done(work, heard)
    assert {checks[name].value for name in ("black_s", "frozen_s", "passthrough", "shot_edges")} == {0}
    assert "no shot was generated" in checks["seam"].why


def test_of_a_clip_from_elsewhere_what_can_be_measured_is(work: Work, request_: InspectRequest) -> None:
    clip = InspectRequest(source=request_.source, shots=request_.shots, assembled=request_.assembled, language="es",
                          recognizer=None, loudness=with_loudness_as_measured(work, request_).loudness)
    result, checks = done(work, clip)
    assert result.passed
    assert {name for name, check in checks.items() if check.state == "passed"} >= {
        "frames", "av_offset_ms", "black_s", "frozen_s", "silent_s", "outside", "colour_drift", "subtitle_width"}
    assert {checks[name].state for name in ("coverage", "seam", "glossary", "back_wer")} == {"not measured"}


# -- faults of the sound ----------------------------------------------------------------------------------------------


def test_sound_that_lies_elsewhere(work: Work, heard: InspectRequest) -> None:
    late = np.roll(stem_of(heard.speech.lines), round(0.04 * RATE))
    _, checks = done(work, with_video(heard, movie(work, late, filmed())))
    assert checks["av_offset_ms"].failed
    assert checks["av_offset_ms"].value == pytest.approx(40, abs=0.1)
    assert checks["av_start_ms"].passed, "the container is right: only listening tells"


def test_a_second_without_sound(work: Work, heard: InspectRequest) -> None:
    buzz = (np.random.default_rng(0).standard_normal(LENGTH) * 0.01).astype(np.float32)
    sound = stem_of(heard.speech.lines) + buzz
    stem = put(work, sound)
    mixed = heard.mix.model_copy(update={"mix": stem, "bed": put(work, buzz)})
    source = heard.source.model_copy(update={"audio": stem})
    there = heard.model_copy(update={"mix": mixed, "source": source, "recognizer": None})
    assert "silent_s" not in failed(work, with_video(there, movie(work, sound, filmed())))
    sound[96_000:144_000] = 0
    _, checks = done(work, with_video(there, movie(work, sound, filmed())))
    assert checks["silent_s"].failed
    assert checks["silent_s"].value == pytest.approx(1, abs=0.05)
    assert checks["silent_s"].at == pytest.approx(96_000, abs=1000)


def test_silence_of_a_bed_that_was_given_is_its_own(work: Work, heard: InspectRequest) -> None:
    speaking = put(work, voice(LENGTH, 7))
    source = heard.source.model_copy(update={"audio": speaking})
    mixed = heard.mix.model_copy(update={"bed": put(work, np.zeros(LENGTH, np.float32))})
    checks = done(work, heard.model_copy(update={"source": source, "mix": mixed}))[1]
    assert checks["silent_s"].passed, "between lines nothing was to be heard"


def test_a_voice_in_the_bed_is_noted(work: Work, heard: InspectRequest) -> None:
    mixed = heard.mix.model_copy(update={"leak": Leak(db=-12, line="L0001", at=PLACES[1])})
    check = done(work, heard.model_copy(update={"mix": mixed, "recognizer": None}))[1]["leak_db"]
    assert (check.state, check.failed) == ("failed", False), "how much a ducked bed may leak is for a person to say"


def test_dialogue_is_judged_where_the_preset_asks_for_it(work: Work, heard: InspectRequest) -> None:
    heard = heard.model_copy(update={"recognizer": None})
    loud = done(work, heard)[1]["loudness_lufs"].value
    gated = Preset(programme=Anchor(lufs=-60, tolerance_lu=1), dialogue=Anchor(lufs=loud, tolerance_lu=2),
                   true_peak_dbtp=-1)
    _, checks = done(work, heard.model_copy(update={"loudness": gated}))
    assert checks["dialogue_lufs"].state == "passed"
    assert not checks["loudness_lufs"].gate
    much = gated.model_copy(update={"dialogue": Anchor(lufs=loud + 5, tolerance_lu=2)})
    assert done(work, heard.model_copy(update={"loudness": much}))[1]["dialogue_lufs"].failed


# -- faults of the text -----------------------------------------------------------------------------------------------


def test_a_term_that_is_missing(work: Work, heard: InspectRequest) -> None:
    first, *others = heard.translation.lines
    flagged = first.model_copy(update={"flags": ("glossary: lighthouse → faro is missing",)})
    given = heard.model_copy(update={"translation": Translation(language="es", lines=(flagged, *others))})
    check = done(work, given)[1]["glossary"]
    assert check.failed
    assert "L0000" in check.worst


@pytest.mark.parametrize(("old", "new", "name"), [
    ("Hay 3 barcos.", "Hay 3 barcos y otros que nadie ha contado todavía.", "subtitle_width"),
    ("Hay 3 barcos.", "Hay\n3\nbarcos.", "subtitle_rows"), ("03,760", "03,600", "subtitle_gap"),
    ("04,960", "04,200", "subtitle_time"), ("Vamos a casa.", "Vamos a casa, que ya es\nmuy tarde", "subtitle_speed")])
def test_subtitles_that_break_a_rule(old: str, new: str, name: str) -> None:
    shown = read_shown(SRT.replace(old, new).encode(), "srt", "es.srt")
    check = {one.name: one for one in check_subtitles(shown, "es", Fraction(FPS))}[name]
    assert (check.state, check.value) == ("failed", 1)
    assert check.worst


# -- the measures themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [0, 100, 1234, 4800, 30_011])
def test_onset_of_a_known_voice(lead: int) -> None:
    sound = np.concatenate([np.zeros(lead, np.float32), voice(20_000)])
    sound += (np.random.default_rng(3).standard_normal(len(sound)) * 1e-4).astype(np.float32)
    assert speech_onset(sound) == pytest.approx(lead, abs=240)


def test_silence_has_no_onset() -> None:
    assert speech_onset(np.zeros(5000, np.float32)) is None


def test_a_voice_is_found_under_another(tmp_path: Path) -> None:
    mixed = voice(96_000, 1).copy()
    mixed[30_123:60_123] += voice(30_000, 2)
    at, likeness = find_voice(mixed, voice(30_000, 2))
    assert at == 30_123
    assert likeness > 0.5
    assert find_voice(voice(96_000, 1), voice(30_000, 2))[1] < 0.5

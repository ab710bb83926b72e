"""Each check passes on a sound delivery, and fails when its fault is put in."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import InputError
from models.ports import HeardSegment, HeardWord, Recognition, Samples
from models.records import (
    Artifact,
    Assembled,
    Check,
    EngineRef,
    Inspection,
    Loudness,
    Mix,
    Source,
    Speech,
    SpokenLine,
)
from tasks.inspect import InspectRequest, inspect
from tasks.levels import find_voice, speech_onset
from tasks.listening import listen_back
from tasks.media import run_ffmpeg, write_flac
from tasks.step import Work

RATE, FPS, FRAMES = 48_000, 25, 125
LENGTH = FRAMES * RATE // FPS
PLACES = (24_000, 120_000, 180_000)
TEXTS = ("El faro está lejos.", "Hay 3 barcos.", "Vamos a casa.")
RECOGNIZER = EngineRef(name="fake")


def voice(count: int, seed: int = 0, level: float = 0.1) -> NDArray[np.float32]:
    t = np.arange(count) / RATE
    buzz = sum(np.sin(2 * np.pi * (120 + 15 * seed + 10 * np.sin(3 * t)) * k * t) / k for k in range(1, 12))
    breath = np.random.default_rng(seed).standard_normal(count)
    return ((buzz + breath) * (0.6 - 0.4 * np.cos(2 * np.pi * 5 * t)) * level).astype(np.float32)


def put(work: Work, samples: NDArray[np.float32]) -> Artifact:
    path = work.scratch / "put.flac"
    write_flac(path, samples)
    return work.store.put_file(path, "audio/flac")


def spoken(work: Work, number: int, start: int, count: int = 40_000, **changes: Any) -> SpokenLine:
    given = {"id": f"L{number:04d}", "speaker": "AB"[number % 2], "voice": "v", "text": TEXTS[number % 3],
             "audio": put(work, voice(count, number)), "start": start, "length": count, "slot": (start, start + count),
             "planned": (start, start + count), "natural": count, "stretch": 1.0}
    return SpokenLine(**{**given, **changes})


def stem_of(lines: tuple[SpokenLine, ...], shift: int = 0) -> NDArray[np.float32]:
    stem = np.zeros(LENGTH, np.float32)
    for number, line in enumerate(lines):
        at = line.start + shift
        stem[at:at + line.length] += voice(line.length, number)[:LENGTH - at]
    return stem


def movie(work: Work, sound: NDArray[np.float32], *, frames: int = FRAMES, rate: int = FPS,
          delay: float = 0) -> Artifact:
    """An MP4 whose sound is a FLAC, so that nothing but the fault changes it."""
    write_flac(work.scratch / "sound.flac", np.column_stack([sound, sound]))
    path = work.scratch / "movie.mp4"
    picture = ffmpeg.input(f"testsrc=s=64x48:r={rate}:d={frames / rate}", format="lavfi")
    track = ffmpeg.input(str(work.scratch / "sound.flac"), itsoffset=delay)
    run_ffmpeg(ffmpeg.output(picture, track, str(path), vcodec="libx264", acodec="flac", strict="experimental"),
               where="test")
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


@pytest.fixture
def request_(work: Work) -> InspectRequest:
    """A delivery with nothing wrong with it."""
    lines = tuple(spoken(work, n, place) for n, place in enumerate(PLACES))
    stem = put(work, stem_of(lines))
    source = Source(video=stem, original="0" * 64, width=64, height=48, rate=Fraction(FPS), frames=FRAMES, audio=stem,
                    channels=2)
    sound = stem_of(lines)
    mixed = Mix(language="es", mix=stem, dialogue=stem, bed=stem, bed_kind="ducked", gain_db=0,
                loudness=Loudness(integrated_lufs=-23, true_peak_dbtp=-5))
    made = Assembled(language="es", video=movie(work, sound), subtitles={}, frames=FRAMES, rate=Fraction(FPS),
                     generated_frames=0, video_copied=True)
    work.engines.by_port["recognizer"] = Ear(*TEXTS)
    return InspectRequest(source=source, assembled=made, mix=mixed, speech=Speech(language="es", lines=lines),
                          language="es", recognizer=RECOGNIZER, loudness_lufs=-16.1, true_peak_dbtp=-1)


def done(work: Work, request: InspectRequest) -> tuple[Inspection, dict[str, Check]]:
    result = inspect.function(work, request)
    return result, {check.name: check for check in result.checks}


def failed(work: Work, request: InspectRequest) -> set[str]:
    return {check.name for check in inspect.function(work, request).checks if not check.passed}


def with_video(request: InspectRequest, video: Artifact) -> InspectRequest:
    return request.model_copy(update={"assembled": request.assembled.model_copy(update={"video": video})})


def with_stem(work: Work, request: InspectRequest, stem: NDArray[np.float32]) -> InspectRequest:
    mixed = request.mix.model_copy(update={"dialogue": put(work, stem)})
    return request.model_copy(update={"mix": mixed, "recognizer": None})


def with_lines(work: Work, request: InspectRequest, *lines: SpokenLine) -> InspectRequest:
    said = request.model_copy(update={"speech": Speech(language="es", lines=lines)})
    return with_stem(work, said, stem_of(lines))


def with_loudness_as_measured(work: Work, request: InspectRequest) -> InspectRequest:
    measured = inspect.function(work, request.model_copy(update={"recognizer": None})).loudness
    return request.model_copy(update={"loudness_lufs": measured.integrated_lufs})


def test_a_sound_delivery_passes(work: Work, request_: InspectRequest) -> None:
    result, checks = done(work, with_loudness_as_measured(work, request_))
    assert result.passed, [c for c in result.checks if not c.passed]
    assert (result.back_wer, result.onset_within_120ms, result.overflow_lines) == (0, 1, 0)
    assert checks["frames"].value == FRAMES
    assert checks["av_start_ms"].value == pytest.approx(0, abs=1)
    assert {"rate", "duration_s", "audio_length_ms", "loudness_lufs", "true_peak_dbtp", "coverage", "overlaps",
            "stretch", "overflow_lines", "back_wer"} <= set(checks)


def test_wrong_frame_count(work: Work, request_: InspectRequest) -> None:
    video = movie(work, stem_of(request_.speech.lines), frames=FRAMES - 2)
    assert {"frames"} <= failed(work, with_video(request_, video))


def test_wrong_rate(work: Work, request_: InspectRequest) -> None:
    assert {"rate", "frames"} <= failed(work, with_video(request_, movie(work, np.zeros(LENGTH, np.float32), rate=24,
                                                                           frames=120)))


def test_sound_that_is_too_short(work: Work, request_: InspectRequest) -> None:
    video = movie(work, stem_of(request_.speech.lines)[:-4000])
    assert "audio_length_ms" in failed(work, with_video(request_, video))


def test_sound_that_starts_late(work: Work, request_: InspectRequest) -> None:
    video = movie(work, stem_of(request_.speech.lines), delay=0.02)
    assert "av_start_ms" in failed(work, with_video(request_, video))


@pytest.mark.parametrize(("gain", "names"), [(1.3, {"loudness_lufs"}), (0.7, {"loudness_lufs"}),
                                             (3, {"loudness_lufs", "true_peak_dbtp"})])
def test_wrong_loudness(work: Work, request_: InspectRequest, gain: float, names: set[str]) -> None:
    right = with_loudness_as_measured(work, request_)
    sound = np.clip(stem_of(request_.speech.lines) * gain, -1, 1)
    assert failed(work, with_video(right, movie(work, sound))) == names


def test_silence_passes_only_where_nobody_was_to_speak(work: Work, request_: InspectRequest) -> None:
    silent = with_video(request_, movie(work, np.zeros(LENGTH, np.float32)))
    assert "loudness_lufs" in failed(work, silent)
    nothing_said = with_lines(work, silent)
    result, checks = done(work, nothing_said)
    assert result.passed
    assert checks["loudness_lufs"].worst == "silent"
    assert (result.back_wer, result.onset_within_120ms) == (None, 1)


def test_a_shifted_stem(work: Work, request_: InspectRequest) -> None:
    result, checks = done(work, with_stem(work, request_, stem_of(request_.speech.lines, shift=round(0.2 * RATE))))
    assert not checks["onset_within_120ms"].passed
    assert result.onset_within_120ms == 0
    assert "+200 ms" in checks["onset_within_120ms"].worst
    assert checks["coverage"].passed


def test_a_line_that_is_not_in_the_stem(work: Work, request_: InspectRequest) -> None:
    first, second, third = request_.speech.lines
    _, checks = done(work, with_stem(work, request_, stem_of((first, second))))
    assert not checks["coverage"].passed
    assert third.id in checks["coverage"].worst


def test_lines_of_one_speaker_that_overlap(work: Work, request_: InspectRequest) -> None:
    lines = [spoken(work, 0, 24_000, speaker="A"), spoken(work, 1, 50_000, speaker="A"), spoken(work, 2, 140_000)]
    _, checks = done(work, with_lines(work, request_, *lines))
    assert not checks["overlaps"].passed
    assert "L0000 and L0001" in checks["overlaps"].worst
    lines[1] = spoken(work, 1, 50_000, speaker="B")
    _, checks = done(work, with_lines(work, request_, *lines))
    assert checks["overlaps"].passed
    assert checks["onset_within_120ms"].value == 1, "voices are found under each other"


def test_stretch_and_overflow(work: Work, request_: InspectRequest) -> None:
    lines = [spoken(work, 0, 24_000, stretch=1.3), spoken(work, 1, 120_000, stretch=1.2, overflow=4800)]
    result, checks = done(work, with_lines(work, request_, *lines))
    assert not checks["stretch"].passed
    assert checks["stretch"].worst == "L0000"
    assert (result.stretched_over_1_15, result.overflow_lines) == (1.0, 1)
    assert checks["overflow_lines"].passed
    assert "L0001 by 0.10 s" in checks["overflow_lines"].worst


def test_wrong_words(work: Work, request_: InspectRequest) -> None:
    work.engines.by_port["recognizer"] = Ear(TEXTS[0], "Hay cuatro perros.", TEXTS[2])
    result, checks = done(work, request_)
    assert result.back_wer == pytest.approx(2 / 10, abs=1e-4)
    assert not checks["back_wer"].passed
    assert checks["back_wer"].worst == "L0001 heard as 'Hay cuatro perros.' (67 %)"


@pytest.mark.parametrize("recognizer", [None, RECOGNIZER])
def test_nobody_knows_the_language(work: Work, request_: InspectRequest, recognizer: EngineRef | None) -> None:
    work.engines.by_port["recognizer"] = Ear(knows="tlh")
    result, checks = done(work, request_.model_copy(update={"recognizer": recognizer}))
    assert result.back_wer is None
    assert "back_wer" not in checks


def test_long_stems_are_heard_in_pieces(work: Work) -> None:
    count = 40
    lines = tuple(spoken(work, n, n * 60_000 + 30_000, 30_000 + 500 * (n % 7)) for n in range(count))
    stem = np.zeros(count * 60_000 + 60_000, np.float32)
    for n, line in enumerate(lines):
        stem[line.start:line.start + line.length] = voice(line.length, n)
    path = work.scratch / "long.flac"
    write_flac(path, stem)
    ear = Ear(*(line.text for line in lines))
    work.engines.by_port["recognizer"] = ear
    back = listen_back(work, path, lines, "es", RECOGNIZER)
    assert back is not None
    assert back.rate == 0
    assert ear.longest <= 28
    assert not ear.texts


# -- the measures themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [0, 100, 1234, 4800, 30_011])
def test_onset_of_a_known_voice(lead: int) -> None:
    sound = np.concatenate([np.zeros(lead, np.float32), voice(20_000)])
    sound += (np.random.default_rng(3).standard_normal(len(sound)) * 1e-4).astype(np.float32)
    assert speech_onset(sound) == pytest.approx(lead, abs=240)


def test_silence_has_no_onset() -> None:
    assert speech_onset(np.zeros(5000, np.float32)) is None


def test_a_voice_is_found_under_another(tmp_path: Path) -> None:
    mixed = voice(96_000, 1)
    mixed[30_123:60_123] += voice(30_000, 2)
    at, likeness = find_voice(mixed, voice(30_000, 2))
    assert at == 30_123
    assert likeness > 0.5
    assert find_voice(voice(96_000, 1), voice(30_000, 2))[1] < 0.5

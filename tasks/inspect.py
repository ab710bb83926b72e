"""Inspect: the finished files → what was measured on them, each figure against its bar.

Nothing is taken on trust: frames are counted, sound is decoded from the delivered file, every line is looked for in the
dialogue stem, and the stem is transcribed back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from models.errors import MediaError
from models.records import (
    Assembled,
    Check,
    EngineRef,
    Inspection,
    Loudness,
    Mix,
    Request,
    Source,
    Speech,
    SpokenLine,
)
from models.timebase import CLOCK, frame_to_ticks, seconds, timecode
from tasks.levels import find_voice, speech_onset
from tasks.listening import listen_back
from tasks.media import audio_blocks, frame_count, loudness, probe, read_audio
from tasks.step import Work, step
from tasks.video import reading

ONSET_TOLERANCE = round(0.120 * CLOCK)
ONSET_SHARE = 0.98
REACH = CLOCK // 2
"""How far from its place a line is looked for."""
COMPARED = CLOCK
"""How much of a line is compared with the stem."""
LONGEST_READ = 10 * CLOCK
LIKENESS = 0.5
"""Correlation from which a line counts as found, also when another voice is on top of it."""
STRETCH = (0.85, 1.25)
HURRIED = 1.15
BACK_WER = 0.15
START_MS = 1.0
LOUDNESS_LU = 0.5
SILENT_LUFS = -69.0


class InspectRequest(Request):
    """The finished files, and what they were meant to be."""

    source: Source
    assembled: Assembled
    mix: Mix
    speech: Speech
    language: str
    recognizer: EngineRef | None
    """None: the stem is not transcribed back."""
    loudness_lufs: float
    true_peak_dbtp: float


@step("inspect", version=1, result=Inspection)
def inspect(work: Work, request: InspectRequest) -> Inspection:
    """Measure a finished language."""
    video, stem = work.store.path(request.assembled.video), work.store.path(request.mix.dialogue)
    work.progress("inspect: picture and sound", 0.1)
    measured = loudness(video)
    onsets = Onsets(tuple(_onset(work, stem, line) for line in request.speech.lines))
    lines = request.speech.lines
    checks = [*_picture(video, request.source), *_sound(video, request.source),
              *_loudness(measured, request), onsets.check(lines), onsets.coverage(lines), _overlap(lines),
              *_fit(lines)]
    back = listen_back(work, stem, lines, request.language, request.recognizer)
    if back:
        checks.append(_at_most("back_wer", back.rate, BACK_WER, back.worst))
    return Inspection(language=request.language, checks=tuple(checks), loudness=measured,
                      back_wer=round(back.rate, 4) if back else None, onset_within_120ms=onsets.share,
                      stretched_over_1_15=_share([line.stretch > HURRIED for line in lines], empty=0.0),
                      overflow_lines=sum(line.overflow > 0 for line in lines))


def _share(found: Sequence[bool], *, empty: float = 1.0) -> float:
    return round(sum(found) / len(found), 4) if found else empty


def _at_most(name: str, value: float, bar: float, worst: str = "") -> Check:
    return Check(name=name, value=round(value, 4), bar=f"≤ {bar:g}", passed=value <= bar, worst=worst)


# -- the delivered file -----------------------------------------------------------------------------------------------


def _picture(path: Path, source: Source) -> Iterator[Check]:
    found, frames = probe(path), frame_count(path)
    rate = found.video.rate if found.video else Fraction(0)
    wanted, duration = float(source.frames / source.rate), float(found.duration or 0)
    yield Check(name="frames", value=frames, bar=f"= {source.frames}", passed=frames == source.frames)
    yield Check(name="rate", value=float(rate), bar=f"= {source.rate}", passed=rate == source.rate)
    yield Check(name="duration_s", value=round(duration, 4), bar=f"{wanted:.3f} ± 1 frame",
                passed=abs(duration - wanted) <= 1 / source.rate)


def _sound(path: Path, source: Source) -> Iterator[Check]:
    video = probe(path).video
    origin, frame = (video.start if video else Fraction(0)), 1000 / float(source.rate)
    heard = sum(len(block) for block in audio_blocks(path, origin=origin))
    longer = 1000 * seconds(heard - frame_to_ticks(source.frames, source.rate))
    start = 1000 * float(_first_sound(path) - origin)
    yield Check(name="audio_length_ms", value=round(longer, 3), bar=f"± {frame:.1f} (1 frame)",
                passed=abs(longer) <= frame)
    yield Check(name="av_start_ms", value=round(start, 3), bar=f"± {START_MS:g}", passed=abs(start) <= START_MS)


def _first_sound(path: Path) -> Fraction:
    """Time stamp of the first audible sample of the first sound track, edit lists obeyed."""
    with reading(path) as container:
        for frame in container.decode(container.streams.audio[0]):
            return Fraction(frame.pts * frame.time_base)
    raise MediaError("has a sound track without sound", where="the finished file")


def _loudness(measured: Loudness, request: InspectRequest) -> Iterator[Check]:
    """Loudness and peak. Silence under no dialogue at all is as it should be."""
    off = abs(measured.integrated_lufs - request.loudness_lufs)
    silent = not request.speech.lines and measured.integrated_lufs <= SILENT_LUFS
    yield Check(name="loudness_lufs", value=measured.integrated_lufs,
                bar=f"{request.loudness_lufs:g} ± {LOUDNESS_LU:g}", passed=silent or off <= LOUDNESS_LU,
                worst="silent" if silent else "")
    yield _at_most("true_peak_dbtp", measured.true_peak_dbtp, request.true_peak_dbtp)


# -- lines in the stem ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Onsets:
    """How late (ticks) each line's voice begins in the stem; None where it is not found."""

    late: tuple[int | None, ...]

    @property
    def share(self) -> float:
        """Lines that begin in time."""
        return _share([late is not None and abs(late) <= ONSET_TOLERANCE for late in self.late])

    def check(self, lines: Sequence[SpokenLine]) -> Check:
        """Onsets against their bar, with the line that is furthest off."""
        found = [(abs(late), late, line.id) for late, line in zip(self.late, lines, strict=True) if late is not None]
        worst = max(found, default=None)
        return Check(name="onset_within_120ms", value=self.share, bar=f"≥ {ONSET_SHARE}",
                     passed=self.share >= ONSET_SHARE,
                     worst=f"{worst[2]} by {1000 * seconds(worst[1]):+.0f} ms" if worst else "")

    def coverage(self, lines: Sequence[SpokenLine]) -> Check:
        """Whether every line is heard."""
        lost = [line for late, line in zip(self.late, lines, strict=True) if late is None]
        share = _share([late is not None for late in self.late])
        return Check(name="coverage", value=share, bar="= 1", passed=not lost,
                     worst=f"{lost[0].id} at {timecode(lost[0].start)}" if lost else "")


def _onset(work: Work, stem: Path, line: SpokenLine) -> int | None:
    """Ticks between a line's onset in the source and that of its voice in the stem.

    The line's own sound is looked for, because silence before it cannot be relied on: voices may overlap.
    """
    voice = read_audio(work.store.path(line.audio), length=min(line.length, LONGEST_READ))
    begins = speech_onset(voice) if len(voice) else None
    if begins is None:
        return None
    voice = voice[begins:begins + COMPARED]
    first = max(0, line.start + begins - REACH)
    there = read_audio(stem, start=first, length=line.start + begins + REACH + len(voice) - first)
    if len(there) < len(voice):
        there = np.pad(there, (0, len(voice) - len(there)))
    at, likeness = find_voice(there, voice)
    return first + at - line.planned[0] if likeness >= LIKENESS else None


def _overlap(lines: Sequence[SpokenLine]) -> Check:
    """No speaker speaks twice at once."""
    ordered = sorted(lines, key=lambda line: (line.speaker, line.start))
    over = [(a.start + a.length - b.start, f"{a.id} and {b.id}") for a, b in pairwise(ordered)
            if a.speaker == b.speaker and a.start + a.length > b.start]
    by, worst = max(over, default=(0, ""))
    return Check(name="overlaps", value=len(over), bar="= 0", passed=not over,
                 worst=f"{worst} by {seconds(by):.2f} s" if over else "")


def _fit(lines: Sequence[SpokenLine]) -> Iterator[Check]:
    """How far voices were stretched, and how many were too long all the same (for information: a person decides)."""
    low, high = STRETCH
    strained = max(lines, key=lambda line: max(line.stretch, 1 / line.stretch), default=None)
    value = strained.stretch if strained else 1.0
    yield Check(name="stretch", value=round(value, 4), bar=f"{low} to {high}",
                passed=low - 0.005 <= value <= high + 0.005, worst=strained.id if strained else "")
    over = max(lines, key=lambda line: line.overflow, default=None)
    yield Check(name="overflow_lines", value=sum(line.overflow > 0 for line in lines), bar="reported", passed=True,
                worst=f"{over.id} by {seconds(over.overflow):.2f} s" if over and over.overflow else "")

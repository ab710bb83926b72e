"""Checks of sound: the delivered track against the mix it was made of, and every line in the dialogue stem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import MediaError
from models.ports import Samples
from models.records import Check, Mix, Source, SpokenLine
from models.timebase import CLOCK, frame_to_ticks, seconds, timecode
from tasks.checks import at_most, check, not_made
from tasks.levels import find_voice, speech_onset
from tasks.media import audio_blocks, probe, read_audio
from tasks.step import Work
from tasks.video import reading

START_MS = 1.0
OFFSET_MS = 10.0
"""EBU R 37 allows 5 ms early and 15 ms late at each stage of production."""
PLACES, PIECE, REACH = 6, 2 * CLOCK, CLOCK // 2
"""An offset is looked for at so many places, in pieces so long, so far to either side."""
LIKENESS = 0.5
"""Correlation from which a sound counts as found, also when another is on top of it."""
WINDOW = CLOCK // 50
"""Ticks over which a level is taken."""
SILENT_DB, AUDIBLE_DB = -60.0, -50.0
"""Below the one nothing is heard, above the other something is."""
SHORTEST_SILENCE = CLOCK // 2
ONSET_TOLERANCE = round(0.120 * CLOCK)
ONSET_SHARE = 0.99
COMPARED = CLOCK
"""How much of a line is compared with the stem."""
LONGEST_READ = 10 * CLOCK
STRETCH = (0.85, 1.25)
HURRIED, FEW = 1.15, 0.05

Levels = NDArray[np.float64]
"""dBFS of each window."""


# -- the delivered track ----------------------------------------------------------------------------------------------


def check_track(work: Work, path: Path, source: Source, mix: Mix | None, lines: Sequence[SpokenLine]) -> list[Check]:
    """Length, place and holes of a file's default sound track.

    Args:
        work: For stems.
        path: The delivered file.
        source: What it was made of.
        mix: The sound that was to be delivered; None: not known, the source's own sound stands in.
        lines: What is said in it.
    """
    video = probe(path).video
    origin = video.start if video else Fraction(0)
    heard, count = _levels(path, origin)
    frame = 1000 / float(source.rate)
    longer = 1000 * seconds(count - frame_to_ticks(source.frames, source.rate))
    start = 1000 * float(_first_sound(path) - origin)
    original, _ = _levels(work.store.path(source.audio))
    return [check("audio_length_ms", longer, f"± {frame:.1f} (1 frame)", abs(longer) <= frame),
            check("av_start_ms", start, f"± {START_MS:g}", abs(start) <= START_MS),
            _offset(work, path, origin, source, mix, original),
            _holes(heard, _expected(work, original, mix, lines))]


def _first_sound(path: Path) -> Fraction:
    """Time stamp of the first audible sample of the first sound track, edit lists obeyed."""
    with reading(path) as container:
        for frame in container.decode(container.streams.audio[0]):
            return Fraction(frame.pts * frame.time_base)
    raise MediaError("has a sound track without sound", where="the finished file")


def _levels(path: Path, origin: Fraction | None = None) -> tuple[Levels, int]:
    """Level of every window of a sound, all channels together, and how many samples it has."""
    parts, count = [], 0
    for block in audio_blocks(path, origin=origin):
        power = np.square(block, dtype=np.float64).mean(1)
        parts.append(np.add.reduceat(power, np.arange(0, len(power), WINDOW)) / WINDOW)
        count += len(block)
    whole = np.concatenate(parts) if parts else np.zeros(0)
    return 10 * np.log10(np.maximum(whole, 1e-12)), count


def _offset(work: Work, path: Path, origin: Fraction, source: Source, mix: Mix | None, original: Levels) -> Check:
    """How far the track lies from where it should, at the worst of some loud places."""
    known = work.store.path(mix.mix if mix else source.audio)
    levels = _levels(known)[0] if mix else original
    found = []
    for start in _loud_places(levels):
        piece = read_audio(known, start=start, length=PIECE)
        first = max(0, start - REACH)
        blocks = list(audio_blocks(path, channels=1, start=first, length=start + len(piece) + REACH - first,
                                   origin=origin))
        there = np.concatenate([block[:, 0] for block in blocks]) if blocks else np.zeros(0, np.float32)
        if len(there) < len(piece):
            there = np.pad(there, (0, len(piece) - len(there)))
        at, likeness = find_voice(there, piece)
        if likeness >= LIKENESS:
            found.append((first + at - start, start))
    if not found:
        return not_made("av_offset_ms", "nothing is heard" if not _loud_places(levels) else
                        "the sound is not that of the mix" if mix else "nothing of the source's sound is heard in it")
    late, at = max(found, key=lambda one: abs(one[0]))
    off = 1000 * seconds(late)
    return check("av_offset_ms", off, f"± {OFFSET_MS:g}", abs(off) <= OFFSET_MS,
                 f"{timecode(at)}, {'late' if off > 0 else 'early'}" if late else "", at if late else None)


def _loud_places(levels: Levels) -> list[int]:
    """Ticks at which loud pieces begin, spread over the whole."""
    wide = PIECE // WINDOW
    parts = np.array_split(np.arange(len(levels)), PLACES if len(levels) > PLACES * wide else 1)
    places = []
    for part in parts:
        # A piece must vary to be found again: the loudest window, a little after the beginning of the piece.
        loudest = int(part[0] + levels[part].argmax()) if len(part) else 0
        if len(part) and levels[loudest] > AUDIBLE_DB:
            places.append(max(0, min(loudest - wide // 4, len(levels) - wide)) * WINDOW)
    return places


def _expected(work: Work, original: Levels, mix: Mix | None, lines: Sequence[SpokenLine]) -> NDArray[np.bool_]:
    """Windows in which something is to be heard: where the source is, and bed or lines of the dub are, too.

    A bed that was given without voices is rightly silent where somebody spoke before silence in the source.
    """
    audible = original > AUDIBLE_DB
    if mix is None:
        return audible
    bed = _levels(work.store.path(mix.bed))[0]
    sounds = np.zeros(len(audible), bool)
    sounds[:len(bed)] = bed[:len(audible)] > AUDIBLE_DB
    for line in lines:
        sounds[line.start // WINDOW:(line.start + line.length) // WINDOW] = True
    return np.asarray(audible & sounds, np.bool_)


def _holes(heard: Levels, expected: NDArray[np.bool_]) -> Check:
    """The longest silence in which something is to be heard for half a second at least."""
    quiet = np.ones(len(expected), bool)
    quiet[:len(heard)] = heard[:len(expected)] < SILENT_DB
    lost = [(int(expected[start:end].sum()) * WINDOW, start * WINDOW) for start, end in runs(quiet)]
    longest, at = max((one for one in lost if one[0] >= SHORTEST_SILENCE), default=(0, 0))
    return at_most("silent_s", seconds(longest), 0, timecode(at) if longest else "", at if longest else None)


def runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where flags (n,) are set: half-open spans."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


# -- lines in the stem ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Onsets:
    """How late (ticks) each line's voice begins in the stem; None where it is not found."""

    late: tuple[int | None, ...]

    @property
    def share(self) -> float:
        """Lines that begin in time."""
        return share([late is not None and abs(late) <= ONSET_TOLERANCE for late in self.late])

    def check(self, lines: Sequence[SpokenLine]) -> Check:
        """Whether enough lines begin in time, and which is furthest off."""
        found = [(abs(late), late, line) for late, line in zip(self.late, lines, strict=True) if late is not None]
        worst = max(found, default=None, key=lambda one: one[0])
        words = f"{worst[2].id} by {1000 * seconds(worst[1]):+.0f} ms, at {timecode(worst[2].start)}" if worst else ""
        return check("onset_within_120ms", self.share, f"≥ {ONSET_SHARE}", self.share >= ONSET_SHARE, words,
                     worst[2].start if worst else None)

    def coverage(self, lines: Sequence[SpokenLine]) -> Check:
        """Whether every line is heard."""
        lost = [line for late, line in zip(self.late, lines, strict=True) if late is None]
        there = share([late is not None for late in self.late])
        return check("coverage", there, "= 1", not lost, f"{lost[0].id} at {timecode(lost[0].start)}" if lost else "",
                     lost[0].start if lost else None)


def find_onsets(work: Work, stem: Path, lines: Sequence[SpokenLine]) -> Onsets:
    """Look for the onset of every line in a dialogue stem."""
    return Onsets(tuple(_onset(work, stem, line) for line in lines))


def _onset(work: Work, stem: Path, line: SpokenLine) -> int | None:
    """Ticks between a line's onset in the source and that of its voice in the stem.

    The line's own sound is looked for, because silence before it cannot be relied on: voices may overlap.
    """
    voice = read_audio(work.store.path(line.audio), length=min(line.length, LONGEST_READ))
    begins = speech_onset(voice) if len(voice) else None
    if begins is None:
        return None
    voice = voice[begins:begins + COMPARED]
    there, first = _around(stem, line.start + begins, voice)
    at, likeness = find_voice(there, voice)
    return first + at - line.planned[0] if likeness >= LIKENESS else None


def _around(stem: Path, place: int, voice: Samples) -> tuple[Samples, int]:
    """The sound around the place of a voice, at least as long as the voice; and the tick it begins at."""
    first = max(0, place - REACH)
    there = read_audio(stem, start=first, length=place + REACH + len(voice) - first)
    return np.pad(there, (0, max(0, len(voice) - len(there)))), first


def check_lines(lines: Sequence[SpokenLine]) -> Iterator[Check]:
    """No speaker speaks twice at once; how far voices were stretched, and how many were too long all the same."""
    yield _overlap(lines)
    low, high = STRETCH
    strained = max(lines, key=lambda line: max(line.stretch, 1 / line.stretch), default=None)
    value = strained.stretch if strained else 1.0
    yield check("stretch", value, f"{low} to {high}", low - 0.005 <= value <= high + 0.005, _named(strained),
                strained.start if strained else None)
    hurried = share([line.stretch > HURRIED for line in lines], empty=0.0)
    fastest = max((line for line in lines if line.stretch > HURRIED), key=lambda line: line.stretch, default=None)
    yield at_most("stretched_over_1_15", hurried, FEW, _named(fastest), fastest.start if fastest else None)
    over = max((line for line in lines if line.overflow), key=lambda line: line.overflow, default=None)
    yield at_most("overflow_lines", sum(line.overflow > 0 for line in lines), 0,
                  f"{over.id} by {seconds(over.overflow):.2f} s, at {timecode(over.start)}" if over else "",
                  over.start if over else None)


def _named(line: SpokenLine | None) -> str:
    return f"{line.id} at {timecode(line.start)}" if line else ""


def _overlap(lines: Sequence[SpokenLine]) -> Check:
    """No speaker speaks twice at once."""
    ordered = sorted(lines, key=lambda line: (line.speaker, line.start))
    over = [(a.start + a.length - b.start, f"{a.id} and {b.id}", b.start) for a, b in pairwise(ordered)
            if a.speaker == b.speaker and a.start + a.length > b.start]
    by, worst, at = max(over, default=(0, "", 0))
    return check("overlaps", len(over), "= 0", not over,
                 f"{worst} by {seconds(by):.2f} s, at {timecode(at)}" if over else "", at if over else None)


def share(found: Sequence[bool], *, empty: float = 1.0) -> float:
    """How many are true, 0 … 1."""
    return round(sum(found) / len(found), 4) if found else empty

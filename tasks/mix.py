"""Mix: spoken lines + bed → the dubbed sound and its stems, at broadcast loudness.

Each line is laid at its place, as loud as the source is there. Under it lies the music-and-effects stem that was given
or separated, or the source itself, ducked wherever its own voices or the dub are heard, with its ambience in the holes.
Where the source's voice is kept, the source is heard as it is. Nothing is held longer than a block: the programme is
computed afresh for each pass (one that measures, one or a few that stay).
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from models.errors import InputError
from models.loudness import Preset
from models.records import (
    Artifact,
    BedKind,
    EngineRef,
    Leak,
    Loudness,
    Mix,
    Request,
    Speech,
    SpokenLine,
    Tick,
    Transcript,
)
from models.timebase import CLOCK, seconds
from tasks.ambience import Ambience
from tasks.dialogue import dialogue_loudness, speech_frames
from tasks.leak import LEAK_DB, find_leak
from tasks.levels import (
    CONTEXT,
    ROLES,
    Ducking,
    Hold,
    Sound,
    centre,
    layout_of,
    limiter_gain,
    loudness_of,
    regular,
    to_layout,
    windows,
)
from tasks.media import FlacWriter, audio_blocks, loudness
from tasks.separate import SeparateRequest, separate
from tasks.step import Work, perform, step

BLOCK = 1 << 18
"""Samples at once: 5.5 s."""
FADE_IN, FADE_OUT = 96, 240
"""Samples (2 and 5 ms) over which a line's edges are faded, against clicks."""
LONGEST_MEASURED = 60 * CLOCK
"""Of a very long line, this much is measured."""

UNMEASURED_LUFS = -23.0
"""Level of lines where the source has no audible voice to follow."""
DYNAMICS_DB = 6.0
"""How far a line may be louder or softer than the middle line; beyond it the transcript's times are at fault."""
LINE_GAIN_DB = 30.0
"""Limit of the gain on one line, so that a near-silent voice does not become noise."""

SOURCE_VOICE_DB = 40.0
"""Ducking where the source speaks: its voice must not be understood, and the ambience covers what is left of it."""
UNDER_DUB_DB = 10.0
"""Ducking where only the dub speaks: nothing but the bed is there in the source."""
BEFORE, AFTER = round(0.10 * CLOCK), round(0.20 * CLOCK)
"""By how much a source line may be wider than the transcript says."""
CROSS_FADE = round(0.020 * CLOCK)
"""Between the bed and the source, around a line whose voice is kept."""

HEADROOM_DB = 12.0
"""By how much the programme is softer while it is measured, so that no peak is cut off."""
SILENT_LUFS = -69.0
MAX_GAIN_DB = 24.0
"""Limit of the programme's gain: a nearly silent one stays quiet instead of becoming noise."""
LIMITER_MARGIN_DB = 0.5
"""How far below the allowed true peak the limiter stays; a lossy codec adds about as much."""
TOLERANCE_LU = 0.1
"""How near is near enough: ffmpeg measures to a tenth, and the narrowest preset allows two."""
PASSES = 6


class MixRequest(Request):
    """A language's spoken lines and what lies under them."""

    source_audio: Artifact
    channels: int
    speech: Speech
    transcript: Transcript
    bed: Artifact | None
    """Music-and-effects stem, where one is given."""
    separator: EngineRef | None = None
    """What makes one where none is given; None: the source is ducked instead."""
    length: Tick
    loudness: Preset


@dataclass(frozen=True)
class Laid:
    """A line's audio at its place, with its gain."""

    path: Path
    start: int
    length: int
    gain: float

    def samples(self, start: int, count: int) -> NDArray[np.float32]:
        """What is heard of it from tick `max(start, self.start)` on, within [start, start + count) → (≤ count,)."""
        first = max(0, start - self.start)
        last = min(self.length, start + count - self.start)
        with soundfile.SoundFile(self.path) as file:
            file.seek(min(first, len(file)))
            voice: NDArray[np.float32] = file.read(last - first, dtype="float32", always_2d=True)[:, 0]
        at = np.arange(first, first + len(voice))
        edge = np.minimum((at + 1) / FADE_IN, (self.length - at) / FADE_OUT)
        return (voice * np.minimum(1, edge) * self.gain).astype(np.float32)


@dataclass(frozen=True)
class Programme:
    """Everything that is heard: pairs of dialogue (n,) and bed (n, C), `BLOCK` samples each, the last one shorter."""

    lines: tuple[Laid, ...]
    bed: Callable[[], Iterator[Sound]]
    channels: int
    length: int

    def blocks(self) -> Iterator[tuple[NDArray[np.float32], Sound]]:
        """From the beginning."""
        start = 0
        for bed in self.bed():
            yield self._dialogue(start, len(bed)), bed
            start += len(bed)

    def _dialogue(self, start: int, count: int) -> NDArray[np.float32]:
        block = np.zeros(count, np.float32)
        for line in self.lines:
            if line.start < start + count and start < line.start + line.length:
                voice = line.samples(start, count)
                at = max(0, line.start - start)
                block[at:at + len(voice)] += voice
        return block


@step("mix", version=1, result=Mix)
def mix(work: Work, request: MixRequest) -> Mix:
    """Lay the lines over the bed and bring the whole to its loudness.

    Raises:
        InputError: The given bed is not as long as the episode.
    """
    channels = layout_of(request.channels)
    work.progress("mix: levels of the lines", 0.0)
    lines = _lay(work, request, channels)
    kind, bed = _bed(work, request, channels)
    programme = Programme(lines, bed, channels, request.length)
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        files, measured, gain_db = _levelled(work, request, programme, Path(folder))
        if gain_db >= MAX_GAIN_DB or measured.integrated_lufs <= SILENT_LUFS:
            work.progress(f"mix: nearly silent, left at {measured.integrated_lufs:.0f} LUFS", 0.9)
        leak = _leak(work, request, files["bed"], gain_db)
        parts = {name: work.store.put_file(path, "audio/flac") for name, path in files.items()}
    return Mix(language=request.speech.language, bed_kind=kind, loudness=measured, gain_db=round(gain_db, 2), leak=leak,
               **parts)


def _leak(work: Work, request: MixRequest, bed: Path, gain_db: float) -> Leak | None:
    """What of the source's voice is heard in the bed, where it should not be."""
    dubbed = {line.id for line in request.speech.lines}
    lines = {line.id: (line.start, line.end) for line in request.transcript.lines}
    found = find_leak(work.store.path(request.source_audio), bed, gain_db,
                      {name: span for name, span in lines.items() if name in dubbed}, lines.values(), request.length)
    if found and found.db > LEAK_DB:
        work.progress(f"mix: the source's voice is heard in the bed, at {found.db:.0f} dB in {found.line}", 0.95)
    return found


# -- dialogue ---------------------------------------------------------------------------------------------------------


def _lay(work: Work, request: MixRequest, channels: int) -> tuple[Laid, ...]:
    """Every line at its place, as loud as the source where it speaks."""
    source = work.store.path(request.source_audio)
    spans = {line.id: (line.start, line.end) for line in request.transcript.lines}
    heard: dict[str, float] = {}
    for line in request.speech.lines:
        start, end = spans.get(line.id, line.planned)
        heard[line.id] = loudness_of(_excerpt(source, channels, start, min(end, start + LONGEST_MEASURED)))
    audible = [level for level in heard.values() if level > SILENT_LUFS]
    middle = statistics.median(audible) if audible else UNMEASURED_LUFS
    laid = []
    for line in request.speech.lines:
        level = heard[line.id] if heard[line.id] > SILENT_LUFS else middle
        wanted = min(max(level, middle - DYNAMICS_DB), middle + DYNAMICS_DB)
        laid.append(_laid(work, line, wanted, channels))
    return tuple(sorted(laid, key=lambda line: line.start))


def _laid(work: Work, line: SpokenLine, wanted: float, channels: int) -> Laid:
    path = work.store.path(line.audio)
    with soundfile.SoundFile(path) as file:
        voice: NDArray[np.float32] = file.read(min(len(file), LONGEST_MEASURED), dtype="float32", always_2d=True)[:, 0]
    level = loudness_of(centre(voice, channels))
    gain_db = min(max(wanted - level, -LINE_GAIN_DB), LINE_GAIN_DB) if level > SILENT_LUFS else 0.0
    return Laid(path, line.start, line.length, _factor(gain_db))


def _excerpt(path: Path, channels: int, start: int, end: int) -> Sound:
    """Ticks [start, end) of a stored sound in the episode's layout; zeros beyond its end."""
    with soundfile.SoundFile(path) as file:
        file.seek(min(start, len(file)))
        block: Sound = file.read(max(end - start, 0), dtype="float32", always_2d=True, fill_value=0)
    return to_layout(block, channels)


def _factor(db: float) -> float:
    return float(10 ** (db / 20))


# -- bed --------------------------------------------------------------------------------------------------------------


def _bed(work: Work, request: MixRequest, channels: int) -> tuple[BedKind, Callable[[], Iterator[Sound]]]:
    """What lies under the dub, and what kind of a bed that is."""
    kind: BedKind = "given" if request.bed else "separated" if request.separator else "ducked"
    stem = request.bed
    if stem is None and request.separator:
        asked = SeparateRequest(audio=request.source_audio, separator=request.separator)
        stem = perform(work, separate, asked).bed
    if stem is None:
        return kind, _ducked_bed(work, request, channels)
    return kind, _with_kept(work, request, channels, _given_bed(work.store.path(stem), channels, request.length))


def _given_bed(path: Path, channels: int, length: int) -> Callable[[], Iterator[Sound]]:
    """The stem as it is, in the episode's layout and length."""
    found = 0
    for block in audio_blocks(path, block=BLOCK):
        if block.shape[1] not in ROLES:
            raise InputError(f"the music-and-effects stem has {block.shape[1]} channels", hint="Give one with 1 to 8")
        found += len(block)
    if abs(found - length) > CLOCK:
        raise InputError(f"the music-and-effects stem is {seconds(found):.3f} s long, "
                         f"the episode {seconds(length):.3f} s",
                         hint="Give the stem that belongs to this cut of the episode; they may differ by 1 s")
    return lambda: regular((to_layout(b, channels) for b in audio_blocks(path, block=BLOCK)), BLOCK, length)


def _source(work: Work, request: MixRequest, channels: int) -> Iterator[Sound]:
    blocks = soundfile.blocks(work.store.path(request.source_audio), BLOCK, dtype="float32", always_2d=True)
    return regular((to_layout(block, channels) for block in blocks), BLOCK, request.length)


def _kept(request: MixRequest) -> Hold:
    """1 where the source is heard as it is."""
    return Hold(((line.start, line.end) for line in request.speech.kept), CROSS_FADE, CROSS_FADE)


def _with_kept(work: Work, request: MixRequest, channels: int,
               bed: Callable[[], Iterator[Sound]]) -> Callable[[], Iterator[Sound]]:
    """A bed in which the source's own voice is heard where it is kept."""
    if not request.speech.kept:
        return bed
    kept = _kept(request)

    def blocks() -> Iterator[Sound]:
        start = 0
        for block, source in zip(bed(), _source(work, request, channels), strict=True):
            yield block + (source - block) * kept.share(start, len(block)).astype(np.float32)[:, None]
            start += len(block)

    return blocks


def _ducked_bed(work: Work, request: MixRequest, channels: int) -> Callable[[], Iterator[Sound]]:
    """The source, far down where it speaks itself, and down where the dub speaks; its ambience fills what is lost."""
    path, length, kept = work.store.path(request.source_audio), request.length, _kept(request)
    dubbed = {line.id for line in request.speech.lines}
    voiced = {line.id: (max(0, line.start - BEFORE), line.end + AFTER) for line in request.transcript.lines}
    spoken = Ducking((span for name, span in voiced.items() if name in dubbed), SOURCE_VOICE_DB)
    over = Ducking(((line.start, line.start + line.length) for line in request.speech.lines), UNDER_DUB_DB)
    ambience = Ambience(voiced.values(), length, lambda start, end: _excerpt(path, channels, start, end))

    def blocks() -> Iterator[Sound]:
        start = 0
        for block in _source(work, request, channels):
            db = np.minimum(spoken.gain_db(start, len(block)), over.gain_db(start, len(block)))
            db *= 1 - kept.share(start, len(block))
            yield _filled(block, (10 ** (db / 20)).astype(np.float32), ambience, start)
            start += len(block)

    return blocks


def _filled(block: Sound, gain: NDArray[np.float32], ambience: Ambience, start: int) -> Sound:
    """A block of the source with a gain, and ambience of the power that it lost."""
    lost = np.flatnonzero(gain < 1)
    if not len(lost):
        return block
    first, last = int(lost[0]), int(lost[-1]) + 1
    room = ambience.block(start + first, last - first, block.shape[1])
    ducked: Sound = block * gain[:, None]
    ducked[first:last] += room * np.sqrt(1 - gain[first:last, None] ** 2)
    return ducked


# -- loudness ---------------------------------------------------------------------------------------------------------


def _levelled(work: Work, request: MixRequest, programme: Programme,
              folder: Path) -> tuple[dict[str, Path], Loudness, float]:
    """Mix and stems as loud as asked, what they measure, and the gain (dB) that it took."""
    work.progress("mix: measuring", 0.2)
    files = _write(programme, folder, -HEADROOM_DB, math.inf)
    speech = speech_frames(files["dialogue"], [(line.start, line.end) for line in request.speech.kept])
    measured, gain_db, limit = _loudness(files["mix"], speech), -HEADROOM_DB, math.inf
    highest = request.loudness.true_peak_dbtp
    for number in range(PASSES):
        missing = _missing(measured, request.loudness, gain_db)
        if number and abs(missing) <= TOLERANCE_LU and measured.true_peak_dbtp <= highest:
            break
        gain_db += missing
        if measured.true_peak_dbtp + missing > highest - LIMITER_MARGIN_DB:
            limit = min(limit, highest - LIMITER_MARGIN_DB)
        if number:
            limit -= max(0.0, measured.true_peak_dbtp - highest)
        work.progress(f"mix: writing at {gain_db:+.1f} dB", 0.3 + number / 10)
        files = _write(programme, folder, gain_db, limit)
        measured = _loudness(files["mix"], speech)
    return files, measured, gain_db


def _loudness(path: Path, speech: NDArray[np.bool_]) -> Loudness:
    """Of a mix, and of what is heard in it while somebody speaks."""
    dialogue, share = dialogue_loudness(path, speech)
    return loudness(path).model_copy(update={"dialogue_lufs": dialogue, "dialogue_share": share})


def _missing(measured: Loudness, preset: Preset, gain_db: float) -> float:
    """What the programme lacks to its loudness, in LU, as far as more gain is allowed."""
    if measured.integrated_lufs <= SILENT_LUFS:
        return max(0.0, -gain_db)
    _, found, wanted = preset.judge(measured)
    return min(wanted.lufs - found, MAX_GAIN_DB - gain_db)


def _write(programme: Programme, folder: Path, gain_db: float, limit_dbtp: float) -> dict[str, Path]:
    """Write mix and stems with one gain, limiter included: dialogue and bed add up to the mix."""
    files = {name: folder / f"{name}.flac" for name in ("mix", "dialogue", "bed")}
    limit, factor, channels = _factor(limit_dbtp), _factor(gain_db), programme.channels
    scaled = (np.column_stack([bed, dialogue]) * np.float32(factor) for dialogue, bed in programme.blocks())
    with ExitStack() as stack:
        writers = {name: stack.enter_context(FlacWriter(path, 1 if name == "dialogue" else channels))
                   for name, path in files.items()}
        for window in windows(scaled, CONTEXT):
            bed, dialogue = window[:, :channels], window[:, channels]
            whole = centre(dialogue, channels) + bed
            gain = limiter_gain(whole, limit)
            inner = slice(CONTEXT, CONTEXT + len(gain))
            writers["mix"].write(whole[inner] * gain[:, None])
            writers["dialogue"].write(dialogue[inner] * gain)
            writers["bed"].write(bed[inner] * gain[:, None])
    return files

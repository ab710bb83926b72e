"""Speakers: `Transcript` without speakers → `Transcript` whose lines each have one, and what every voice is like.

The diarizer, or a diarization from elsewhere, labels stretches of speech; words take the label they lie under; a line
in which the speaker changes is split there (L0004 → L0004a, L0004b). Speakers that a given transcript names are kept.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.ports import Diarizer, Samples, Turn
from models.records import Artifact, EngineRef, Line, Request, Speaker, Transcript, Word
from models.timebase import CLOCK, seconds
from tasks.diarization import Format, is_name, read_diarization
from tasks.lines import RATE, SENTENCE_END
from tasks.media import audio_blocks
from tasks.step import Work, step

STRETCH_PAUSE = CLOCK // 4
"""Ticks of silence that part two stretches of speech: a speaker seldom changes within one."""
LEAST_CHANGE = CLOCK
"""Ticks that both voices must speak for a change within a stretch to be believed."""
MEASURED = 40 * RATE
"""Samples of each voice that its pitch and its embedding are measured on."""
SHORTEST, LEAST = RATE // 2, RATE * 3 // 2
"""Samples of a stretch that is embedded, and of all of them together: of less, a voice is not known again."""
LOWEST_HZ, HIGHEST_HZ = 60, 400
FRAME, HOP = 1024, 320
"""Samples at 16 kHz: 64 ms, 20 ms."""


class SpeakersRequest(Request):
    """Whose speech to tell apart."""

    audio: Artifact
    transcript: Transcript
    diarizer: EngineRef
    diarization: Artifact | None = None
    """Who speaks when, from elsewhere: the diarizer then only says what each speaker sounds like."""
    diarization_format: Format = "rttm"
    recording: tuple[str, ...] = ()
    """What the episode may be called in that file."""


@step("speakers", version=2, result=Transcript)
def find_speakers(work: Work, request: SpeakersRequest) -> Transcript:
    """Give every line a speaker, and every speaker a pitch and an embedding.

    Raises:
        InputError: The given diarization is none, or of another episode.
    """
    transcript = request.transcript
    if not transcript.lines:
        return transcript
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        samples = _mapped(work.store.path(request.audio), Path(folder) / "audio.f32")
        lines = transcript.lines
        diarizer: Diarizer = work.engines.get("diarizer", request.diarizer)
        if request.diarization or not all(line.speaker for line in lines):
            work.progress("telling voices apart", 0.0)
            turns = _given_turns(work, request, len(samples) / RATE) if request.diarization else diarizer.diarize(
                samples, sorted((seconds(a), seconds(b)) for line in lines for a, b, _ in _stretches(line)))
            names = {turn.speaker for turn in turns if is_name(turn.speaker)} if request.diarization else set()
            lines = _labelled(lines, turns, names)
        given = {name: Speaker(id=name, name=name) for line in lines if is_name(name := line.speaker)} | {
            speaker.id: speaker for speaker in transcript.speakers}
        speakers = tuple(given.get(name, Speaker(id=name)).model_copy(update={
            "pitch_hz": _pitch_of(own, samples), "embedding": _embedding_of(own, samples, diarizer)})
            for name, own in _by_speaker(lines).items())
    return transcript.model_copy(update={"lines": lines, "speakers": speakers})


def _given_turns(work: Work, request: SpeakersRequest, length: float) -> tuple[Turn, ...]:
    assert request.diarization  # noqa: S101
    data = work.store.path(request.diarization).read_bytes()
    return read_diarization(data, request.diarization_format, request.recording, length, "diarization")


def _mapped(path: Path, target: Path) -> Samples:
    """The whole sound at 16 kHz, mono, as a file in memory: only what is looked at takes room."""
    with target.open("wb") as file:
        for block in audio_blocks(path, rate=RATE, channels=1, block=30 * RATE):
            file.write(block.reshape(-1).astype(np.float32).tobytes())
    if not target.stat().st_size:
        return np.zeros(0, np.float32)
    return np.memmap(target, np.float32, mode="c")


def _by_speaker(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Speakers in order of appearance, with their lines."""
    found: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.start):
        found.setdefault(line.speaker, []).append(line)
    return found


# -- who says which word ----------------------------------------------------------------------------------------------


def _stretches(line: Line) -> Iterator[tuple[int, int, tuple[Word, ...]]]:
    """(start, end, words) of what is said in one go: sentences, parted at pauses too."""
    begin = 0
    for i, (word, following) in enumerate(pairwise(line.words), 1):
        if following.start - word.end > STRETCH_PAUSE or SENTENCE_END.search(word.text):
            yield line.words[begin].start, word.end, line.words[begin:i]
            begin = i
    if line.words:
        yield line.words[begin].start, line.words[-1].end, line.words[begin:]
    else:
        yield line.start, line.end, ()


class _Turns:
    """Turns that are looked up by time: of an episode with thousands, a line concerns a few."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.all = sorted(turns, key=lambda turn: turn.start)
        self._starts = [turn.start for turn in self.all]
        self._longest = max((turn.end - turn.start for turn in turns), default=0.0)

    def near(self, start: int, end: int, margin: float = 0.0) -> Sequence[Turn]:
        """Those that touch the ticks [start, end), or lie within `margin` seconds of them."""
        first, last = seconds(start) - margin, seconds(end) + margin
        found = self.all[bisect_left(self._starts, first - self._longest):bisect_right(self._starts, last)]
        return [turn for turn in found if turn.end > first]


def _labelled(lines: Sequence[Line], turns: Sequence[Turn], real: Set[str] = frozenset()) -> tuple[Line, ...]:
    """Lines with speakers; those in which the speaker changes are split. `real` labels are names and stay."""
    names = _names(lines, _Turns(turns), real)
    renamed = _Turns([Turn(turn.start, turn.end, names[turn.speaker]) for turn in turns])
    result: list[Line] = []
    for line in lines:
        result += [line] if line.speaker else _split(line, renamed.near(line.start, line.end, margin=5.0))
    return _filled(result)


def _names(lines: Sequence[Line], turns: _Turns, real: Set[str]) -> dict[str, str]:
    """Labels → the given name that most of the label's speech has; else itself, if it is a name; else A, B …"""
    votes: dict[str, Counter[str]] = {}
    for line in (line for line in lines if line.speaker):
        for label, ticks_ in _overlaps(line.start, line.end, turns.near(line.start, line.end)).items():
            votes.setdefault(label, Counter())[line.speaker] += ticks_
    taken = {line.speaker for line in lines} | real
    free = (name for name in _letters() if name not in taken)
    order = dict.fromkeys(turn.speaker for turn in turns.all)
    return {label: votes[label].most_common(1)[0][0] if label in votes else label if label in real else next(free)
            for label in order}


def _letters() -> Iterator[str]:
    letters = [chr(ord("A") + i) for i in range(26)]
    yield from letters
    yield from (a + b for a in letters for b in letters)


def _overlaps(start: int, end: int, turns: Sequence[Turn]) -> Counter[str]:
    """Speaker → ticks of [start, end) under his turns."""
    shares: Counter[str] = Counter()
    for turn in turns:
        common = min(end, round(turn.end * CLOCK)) - max(start, round(turn.start * CLOCK))
        if common > 0:
            shares[turn.speaker] += common
    return shares


def _loudest(start: int, end: int, turns: Sequence[Turn]) -> str:
    """Who speaks most in [start, end), else whose turn is nearest."""
    shares = _overlaps(start, end, turns)
    if shares:
        return shares.most_common(1)[0][0]
    middle = seconds(start + end) / 2
    return min(turns, key=lambda t: max(t.start - middle, middle - t.end), default=Turn(0, 0, "")).speaker


def _split(line: Line, near: Sequence[Turn]) -> list[Line]:
    """The line, or its parts by speaker with a, b … after its id."""
    labelled = [pair for stretch in _stretches(line) for pair in _word_speakers(*stretch, near)]
    if not labelled:
        return [line.model_copy(update={"speaker": _loudest(line.start, line.end, near)})]
    runs = [(name, [word for _, word in run]) for name, run in groupby(labelled, key=lambda pair: pair[0])]
    if len(runs) == 1:
        return [line.model_copy(update={"speaker": runs[0][0]})]
    space = " " if " " in line.text else ""
    return [line.model_copy(update={"id": f"{line.id}{_suffix(i)}", "start": words[0].start, "end": words[-1].end,
                                    "text": space.join(w.text for w in words), "words": tuple(words), "speaker": name})
            for i, (name, words) in enumerate(runs)]


def _suffix(index: int) -> str:
    """A … z as a, b …; then za, zb …, so that they sort."""
    return "z" * (index // 25) + chr(ord("a") + index % 25)


def _word_speakers(start: int, end: int, words: Sequence[Word], turns: Sequence[Turn]) -> Iterator[tuple[str, Word]]:
    """(speaker, word): one speaker for the stretch, unless two of them speak for long enough."""
    shares = _overlaps(start, end, turns)
    several = sum(share >= LEAST_CHANGE for share in shares.values()) > 1
    whole = _loudest(start, end, turns)
    for word in words:
        yield (_loudest(word.start, word.end, turns) if several else whole), word


def _filled(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Lines near which no voice was found take the speaker of the line before, or A."""
    last, result = next((line.speaker for line in lines if line.speaker), "A"), []
    for line in lines:
        last = line.speaker or last
        result.append(line if line.speaker else line.model_copy(update={"speaker": last}))
    return tuple(result)


# -- what a voice is like ---------------------------------------------------------------------------------------------


def _embedding_of(lines: Sequence[Line], samples: Samples, diarizer: Diarizer) -> tuple[float, ...]:
    """A speaker's voice as a vector of length 1, on what he says at a stretch, the longest first; () of too little."""
    spans = sorted(((a * RATE // CLOCK, b * RATE // CLOCK) for line in lines for a, b, _ in _stretches(line)),
                   key=lambda span: (span[0] - span[1], span))
    parts, used = list[Samples](), 0
    for start, end in spans:
        part = samples[start:end][:MEASURED - used]
        if len(part) >= SHORTEST and np.abs(part).max() > 0:
            parts.append(part)
            used += len(part)
    if used < LEAST:
        return ()
    mean = np.array([len(part) for part in parts], np.float64) @ diarizer.embed(parts)
    unit = mean / max(1e-9, float(np.linalg.norm(mean)))
    return tuple(round(float(x), 4) for x in unit)  # as much as another machine's arithmetic leaves as it is


def _pitch_of(lines: Sequence[Line], samples: Samples) -> float | None:
    """Median pitch of a speaker, on his longest lines."""
    heard: list[NDArray[np.float64]] = []
    used = 0
    for line in sorted(lines, key=lambda line: line.start - line.end):
        part = samples[line.start * RATE // CLOCK:line.end * RATE // CLOCK][:MEASURED - used]
        heard.append(pitches(part))
        used += len(part)
    voiced = np.concatenate(heard)
    return round(float(np.median(voiced)), 1) if len(voiced) >= 10 else None


def pitches(samples: Samples) -> NDArray[np.float64]:
    """Fundamental frequency in Hz of the voiced 64 ms frames of 16 kHz `samples` (N,) → (V,).

    Autocorrelation, divided by that of the window; of peaks nearly as high as the highest, the shortest period wins.
    """
    if len(samples) < FRAME:
        return np.zeros(0)
    window = np.hanning(FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP].astype(np.float64)  # (F, 1024)
    frames = (frames - frames.mean(axis=1, keepdims=True)) * window
    ratio = _autocorrelation(frames) / _autocorrelation(window[None])
    power = (frames**2).mean(axis=1)
    shortest, longest = RATE // HIGHEST_HZ, RATE // LOWEST_HZ
    found = []
    for curve in ratio[power > max(float(power.max()) * 10**-2.5, 1e-8)][:, shortest - 1:longest + 2]:
        inner = curve[1:-1]
        peaks = np.flatnonzero((inner >= curve[:-2]) & (inner > curve[2:]) & (inner > 0.9 * inner.max()))
        if len(peaks) and inner[peaks[0]] > 0.6:
            found.append(RATE / (shortest + float(peaks[0])))
    return np.array(found)


def _autocorrelation(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, 1024) → (F, 1024), 1 at lag 0."""
    spectrum = np.abs(np.fft.rfft(frames, 2 * FRAME, axis=1)) ** 2
    curve = np.fft.irfft(spectrum, axis=1)[:, :FRAME]
    scaled: NDArray[np.float64] = curve / np.maximum(curve[:, :1], 1e-12)
    return scaled

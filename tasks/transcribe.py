"""Transcribe: source audio → `Transcript` (who speaks is found later); or a given transcript file → `Transcript`.

Long episodes are read and recognised in pieces of at most three minutes, cut where it is quietest, so that memory does
not grow with the episode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import langcodes
import numpy as np

from models.errors import InputError
from models.languages import alike
from models.ports import HeardWord, Recognition, Recognizer, Samples
from models.records import Artifact, EngineRef, Line, Request, Tick, Transcript, Word
from models.timebase import ticks
from models.wording import UNSPACED
from tasks import lines as dubbing
from tasks.media import audio_blocks, probe
from tasks.step import Work, step
from tasks.subtitles import MAX_BYTES, read_cues, read_record, to_transcript

PIECE = 180 * dubbing.RATE
"""Samples that are recognised at once."""
SEAM = 60 * dubbing.RATE
"""Within so many samples before a piece's end, it is cut."""
SURE = 0.9
"""Probability from which another language than the one given is an error."""


class TranscribeRequest(Request):
    """What to transcribe."""

    audio: Artifact
    language: str | None = None
    """BCP-47; None: find out."""
    recognizer: EngineRef


class TranscriptFileRequest(Request):
    """A transcript that somebody gives."""

    file: Artifact
    format: Literal["srt", "vtt", "json"]
    language: str
    length: Tick
    """Of the episode."""


@step("transcribe", version=1, result=Transcript)
def transcribe(work: Work, request: TranscribeRequest) -> Transcript:
    """Recognise speech, drop what nobody said, and make dubbing lines of it; no speech gives no lines.

    Raises:
        InputError: The recognizer does not know the language, or hears clearly another one than was given.
    """
    recognizer: Recognizer = work.engines.get("recognizer", request.recognizer)
    language, words, dropped = request.language, list[HeardWord](), list[str]()
    path = work.store.path(request.audio)
    total = float(probe(path).duration or 1)
    for begin, samples in pieces(path):
        work.progress(f"transcribing from {begin // 60:.0f} min {begin % 60:.0f} s", min(1.0, begin / total))
        heard = recognizer.recognize(samples, language)
        if heard.segments:
            language = _agreed(request.language, language, heard)
        curve = dubbing.level(samples)
        spoken, rejected = dubbing.keep_spoken(heard.segments, curve)
        words += [replace(w, start=w.start + begin, end=w.end + begin) for w in dubbing.settle(spoken, curve)]
        dropped += [dubbing.describe_dropped(segment, reason, begin) for segment, reason in rejected]
    space = "" if langcodes.get(language or "und").language in UNSPACED else " "
    found = tuple(_line(number, group, space) for number, group in enumerate(dubbing.group(words), 1))
    return Transcript(language=language or "und", lines=found, dropped=tuple(dropped))


@step("transcript", version=2, result=Transcript)
def read_transcript(work: Work, request: TranscriptFileRequest) -> Transcript:
    """Read a given transcript; `tasks.subtitles` says what of it is mended, and how.

    Raises:
        InputError: It cannot be used; the message names the line of the file.
    """
    where = f"transcript.{request.format}"
    if request.file.size > MAX_BYTES:
        raise InputError(f"has {request.file.size} bytes: no transcript is that long", where=where)
    data = work.store.path(request.file).read_bytes()
    record = read_record(data, request.length, where) if request.format == "json" else None
    if record:
        if not alike(record.language, request.language):
            raise InputError(f"is in {record.language!r}, not in {request.language!r}", where=where)
        return record
    return to_transcript(read_cues(data, request.format, where), request.language, request.length, where)


def pieces(path: Path) -> Iterator[tuple[float, Samples]]:
    """(where it begins in seconds, 16 kHz samples) of an audio file, cut at its quietest places."""
    held: list[Samples] = []
    begin = count = 0
    for block in audio_blocks(path, rate=dubbing.RATE, channels=1, block=SEAM // 2):
        held.append(block.reshape(-1))
        count += len(block)
        if count >= PIECE:
            whole = np.concatenate(held)
            cut = _quietest(whole, PIECE - SEAM, PIECE)
            yield begin / dubbing.RATE, whole[:cut]
            held, begin, count = [whole[cut:].copy()], begin + cut, len(whole) - cut
    if count:
        yield begin / dubbing.RATE, np.concatenate(held)


def _quietest(samples: Samples, start: int, stop: int) -> int:
    """The middle of the quietest 0.4 s of samples [start, stop)."""
    power = np.add.reduceat(samples[start:stop].astype(np.float64) ** 2, np.arange(0, stop - start, dubbing.HOP))
    span = int(0.4 * dubbing.PER_SECOND)
    return start + (int(np.argmin(np.convolve(power, np.ones(span), "valid"))) + span // 2) * dubbing.HOP


def _agreed(given: str | None, known: str | None, heard: Recognition) -> str:
    """The transcript's language: the one given, else the one that was heard first."""
    surely = heard.language_probability >= SURE and sum(len(s.words) for s in heard.segments) >= 5
    if given and surely and not alike(given, heard.language):
        name = langcodes.get(heard.language).display_name()
        raise InputError(f"the language was given as {given!r}, but {name} is spoken "
                         f"(probability {heard.language_probability:.2f})",
                         hint=f"Give {heard.language!r} as the source language, or a transcript")
    return known or heard.language


def _line(number: int, words: list[HeardWord], space: str) -> Line:
    timed = tuple(Word(text=w.text, start=ticks(w.start), end=ticks(w.end), probability=round(w.probability, 3))
                  for w in words)
    return Line(id=f"L{number:04d}", start=timed[0].start, end=timed[-1].end, text=space.join(w.text for w in words),
                words=timed)

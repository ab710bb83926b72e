"""Listening back: a dialogue stem is transcribed, and compared with what was to be said in it.

Lines are packed into pieces as long as a recognizer hears at once: it is not paid for silence, and nothing longer than
a piece is held.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.ports import Recognition, Recognizer, Samples
from models.records import EngineRef, HeardBack, SpokenLine
from models.timebase import CLOCK, seconds
from models.wording import WordErrors, word_errors
from tasks.media import read_audio
from tasks.step import Work

HEARING_RATE = 16_000
PIECE = 28 * CLOCK
"""Speech that a recognizer is given at once: Whisper hears windows of 30 s."""
MARGIN, PAUSE = CLOCK // 10, CLOCK * 2 // 5
"""Ticks kept around a line, and the silence put between lines."""

Together = tuple[SpokenLine, ...]
"""Lines that cannot be heard apart, because they overlap."""


@dataclass(frozen=True)
class Back:
    """What a recognizer made of the stem."""

    rate: float
    """Words that differ, over all words."""
    lines: tuple[HeardBack, ...]
    """The worst first."""


def _together(lines: Sequence[SpokenLine]) -> list[Together]:
    groups: list[Together] = []
    reached = -1
    for line in sorted(lines, key=lambda line: line.start):
        groups = [*groups[:-1], (*groups[-1], line)] if line.start < reached else [*groups, (line,)]
        reached = max(reached, line.start + line.length)
    return groups


def _span(group: Together) -> tuple[int, int]:
    return group[0].start, max(line.start + line.length for line in group)


def _pieces(groups: Sequence[Together]) -> list[list[Together]]:
    """Groups packed into pieces of at most `PIECE`, so that a recognizer is not paid for silence."""
    pieces: list[list[Together]] = []
    filled = 0
    for group in groups:
        start, end = _span(group)
        takes = end - start + 2 * MARGIN + PAUSE
        if pieces and filled + takes <= PIECE:
            pieces[-1].append(group)
            filled += takes
        else:
            pieces.append([group])
            filled = takes
    return pieces


def _packed(stem: Path, piece: Sequence[Together]) -> tuple[Samples, list[float]]:
    """The sound of a piece at 16 kHz, and the second at which each of its groups has ended."""
    parts: list[Samples] = []
    ends: list[float] = []
    spans = [(0, 0), *map(_span, piece), (sys.maxsize, sys.maxsize)]
    for (_, before), (start, end), (after, _) in zip(spans, spans[1:], spans[2:], strict=False):
        first, last = max(before, start - MARGIN), min(after, end + MARGIN)
        parts += [read_audio(stem, rate=HEARING_RATE, start=first, length=last - first),
                  np.zeros(PAUSE * HEARING_RATE // CLOCK, np.float32)]
        ends.append(sum(map(len, parts)) / HEARING_RATE - seconds(PAUSE) / 2)
    return np.concatenate(parts), ends


def _texts(heard: Recognition, ends: Sequence[float]) -> list[str]:
    """The words heard in each group, by their times."""
    words = [word for s in heard.segments for word in (s.words or (s,))]
    places = [min(int(np.searchsorted(ends, (word.start + word.end) / 2)), len(ends) - 1) for word in words]
    return [" ".join(word.text for word, place in zip(words, places, strict=True) if place == number)
            for number in range(len(ends))]


def listen_back(work: Work, stem: Path, lines: Sequence[SpokenLine], language: str,
                recognizer: EngineRef | None) -> Back | None:
    """Transcribe a dialogue stem and compare it with what was to be said.

    Args:
        work: For the engine, and for progress.
        stem: 48 kHz sound in which the lines lie at their places.
        lines: What was to be said.
        language: BCP-47.
        recognizer: Who listens; None: nobody.

    Returns:
        None when there is nothing to hear, or when nobody who listens knows the language.
    """
    if recognizer is None or not lines:
        return None
    engine: Recognizer = work.engines.get("recognizer", recognizer)
    pieces = _pieces(_together(lines))
    total: list[WordErrors] = []
    found: list[HeardBack] = []
    for number, piece in enumerate(pieces):
        work.progress("inspect: listening back", 0.2 + 0.8 * number / len(pieces))
        sound, ends = _packed(stem, piece)
        try:
            texts = _texts(engine.recognize(sound, language), ends)
        except InputError:  # what a recognizer raises for a language that it does not know
            return None
        wanted = [" ".join(line.text for line in group) for group in piece]
        total.append(word_errors(" ".join(wanted), " ".join(texts), language))
        found += [HeardBack(lines=tuple(line.id for line in group), text=want, heard=text, at=group[0].start,
                            wer=round(word_errors(want, text, language).rate, 4))
                  for want, text, group in zip(wanted, texts, piece, strict=True)]
    rate = sum(each.errors for each in total) / max(1, sum(each.words for each in total))
    return Back(rate, tuple(sorted(found, key=lambda line: (-line.wer, line.at))))

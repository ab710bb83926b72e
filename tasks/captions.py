"""Speech → subtitles: cues that a viewer can read in time, as SRT and WebVTT."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.records import SpokenLine
from models.timebase import CLOCK, timecode

WIDTH = 42
"""Characters in a row."""
ROWS = 2
SENTENCE = re.compile(r"(?<=[.!?…])\s+")
SHORTEST = CLOCK * 3 // 10
"""Ticks that a cue stays, even if the next line begins before."""


@dataclass(frozen=True)
class Cue:
    """What is shown from `start` to `end` (ticks): at most `ROWS` rows."""

    start: int
    end: int
    text: str


def cues(lines: Sequence[SpokenLine], length: int) -> tuple[Cue, ...]:
    """Cues for all lines, from the onset of the source line to the end of the voice, none on top of another.

    Args:
        lines: In any order; long ones become several cues, each with its share of the time.
        length: Ticks of the episode; nothing is shown after them.
    """
    waiting = sorted((cue for line in lines for cue in _split(line)), key=lambda cue: cue.start)
    shown: list[Cue] = []
    over = 0
    for number, cue in enumerate(waiting):
        following = waiting[number + 1].start if number + 1 < len(waiting) else length
        start = max(cue.start, over)
        over = min(max(cue.end, start + SHORTEST), max(following, start + SHORTEST), length)
        if over - start >= CLOCK // 100:
            shown.append(Cue(start, over, cue.text))
    return tuple(shown)


def _split(line: SpokenLine) -> Iterator[Cue]:
    # Angle brackets and braces are markup to SRT players.
    text = " ".join(line.text.translate(str.maketrans("<>{}", "‹›()")).split())
    parts = ["\n".join(_rows(part)) for part in _parts(text)]
    start, total = line.planned[0], sum(map(len, parts))
    lasts, said = max(0, line.start + line.length - start), 0
    for part in parts:
        begins, said = start + lasts * said // total, said + len(part)
        yield Cue(begins, start + lasts * said // total, part)


def _parts(text: str) -> list[str]:
    """A text as cues of at most `ROWS` rows: whole sentences where they fit, long sentences in parts of like length."""
    parts: list[str] = []
    for sentence in filter(None, SENTENCE.split(text)):
        if parts and len(_rows(f"{parts[-1]} {sentence}")) <= ROWS:
            parts[-1] += f" {sentence}"
            continue
        count = -(-len(_rows(sentence)) // ROWS)
        while len(pieces := textwrap.wrap(sentence, -(-len(sentence) // count) + count)) > 1 and any(
                len(_rows(piece)) > ROWS for piece in pieces):
            count += 1
        parts += pieces
    return parts


def _rows(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def srt(shown: Sequence[Cue]) -> str:
    """The cues as SubRip."""
    return "\n".join(f"{number}\n{timecode(cue.start, mark=',')} --> {timecode(cue.end, mark=',')}\n{cue.text}\n"
                     for number, cue in enumerate(shown, 1))


def vtt(shown: Sequence[Cue]) -> str:
    """The cues as WebVTT."""
    return "WEBVTT\n\n" + "\n".join(f"{timecode(cue.start)} --> {timecode(cue.end)}\n"
                                    f"{html.escape(cue.text, quote=False)}\n" for cue in shown)

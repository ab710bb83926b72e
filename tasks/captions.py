"""Speech → subtitles: cues that a viewer can read in time, as SubRip, WebVTT and IMSC 1.1.

What the rules ask for and speech leaves no room for is shown as well as can be; `breaches` says where. `tasks.rows` has
the rules of text, this page those of time; both are from the same style guides.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Literal

from models.records import Line, SpokenLine
from models.timebase import CLOCK, frame_to_ticks, ticks_to_frame, timecode
from tasks.rows import ROWS, Rules, measure, parted, plain, right_to_left, rules_for

__all__ = ["CLOSED", "EARLY", "GAP", "LATE", "LONGEST", "ROWS", "SHORTEST", "Breach", "Cue", "Rules", "Said",
           "breaches", "cues", "right_to_left", "rules_for", "said", "srt", "ttml", "vtt"]

SHORTEST, LONGEST = CLOCK * 5 // 6, CLOCK * 7
"""Ticks that a cue stays."""
GAP = 2
"""Frames between two cues, at least."""
CLOSED = CLOCK // 2
"""Ticks: a pause shorter than this is closed to `GAP`, since it would only flicker."""
EARLY, LATE = CLOCK // 4, CLOCK // 2
"""Ticks by which a cue may begin before or after its voice where others need the room."""


@dataclass(frozen=True)
class Cue:
    """What is shown from `start` to `end` (ticks): rows of plain text."""

    start: int
    end: int
    text: str
    late: int = 0
    """Ticks by which it begins after its voice; negative: before."""

    @property
    def rows(self) -> list[str]:
        """The rows, from top to bottom."""
        return self.text.split("\n")


@dataclass(frozen=True)
class Said:
    """What one speaker says from `start` to `end` (ticks)."""

    start: int
    end: int
    text: str
    speaker: str = ""


def said(lines: Sequence[SpokenLine | Line]) -> list[Said]:
    """Lines as a viewer hears them: dubbed ones from the onset in the source to the end of the voice."""
    return [Said(line.planned[0], max(line.planned[0], line.start + line.length), line.text, line.speaker)
            if isinstance(line, SpokenLine) else Said(line.start, line.end, line.text, line.speaker) for line in lines]


Rule = Literal["rows", "width", "speed", "shortest", "longest", "gap", "frames", "sync"]


@dataclass(frozen=True)
class Breach:
    """A rule that a cue does not keep."""

    rule: Rule
    at: int
    """Tick at which the cue begins."""
    value: float
    bar: float
    text: str


def breaches(shown: Sequence[Cue], language: str, rate: Fraction) -> list[Breach]:
    """Every rule that cues do not keep, in their order.

    `rows` and `width` in characters, `speed` in characters per second, `shortest`, `longest` and `sync` in seconds,
    `gap` and `frames` (how far an edge lies from that of a picture) in frames.

    Args:
        shown: Cues in order of time; read from SRT or WebVTT, they lie within half a millisecond of a frame's edge.
        language: BCP-47.
        rate: Frames per second.
    """
    rules, found = rules_for(language), list[Breach]()
    shortest, longest = _least(rate), int(LONGEST * rate / CLOCK)
    edges = [tuple(tick * rate / CLOCK for tick in (cue.start, cue.end)) for cue in shown]
    for number, (cue, (start, end)) in enumerate(zip(shown, edges, strict=True)):
        frames = max(round(end) - round(start), 0)
        seconds, size = float(frames / rate), sum(measure(row, rules) for row in cue.rows)
        wide = max(measure(row, rules) for row in cue.rows)
        off = float(max(abs(edge - round(edge)) for edge in (start, end)))
        gap = round(edges[number + 1][0]) - round(end) if number + 1 < len(shown) else GAP
        speed = size / seconds if seconds else math.inf
        judged: list[tuple[Rule, bool, float, float]] = [
            ("rows", len(cue.rows) > ROWS, len(cue.rows), ROWS), ("width", wide > rules.width, wide, rules.width),
            ("speed", frames < _needed(size, rules, rate), speed, rules.speed),
            ("shortest", frames < shortest, seconds, SHORTEST / CLOCK),
            ("longest", frames > longest, seconds, LONGEST / CLOCK), ("gap", gap < GAP, gap, GAP),
            ("frames", off > rate / 1500, off, 0),
            ("sync", not -EARLY - CLOCK / rate < cue.late < LATE + CLOCK / rate, cue.late / CLOCK, LATE / CLOCK)]
        found += [Breach(rule, cue.start, round(value, 3), bar, cue.text)
                  for rule, broken, value, bar in judged if broken]
    return found


# -- layout -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """What one cue will show, and the frames in which it is said."""

    rows: tuple[str, ...]
    start: int
    end: int
    speaker: str | None
    """None: two of them."""


def cues(spoken: Sequence[Said], length: int, language: str, rate: Fraction) -> tuple[Cue, ...]:
    """Cues for all that is said, none on top of another; no text is left out.

    Args:
        spoken: In any order; what is long becomes several cues, each with its share of the time.
        length: Ticks of the episode; nothing is shown after them.
        language: BCP-47: its script sets the rules.
        rate: Of the picture, in frames per second: cues begin and end with a frame.
    """
    rules, frames = rules_for(language), max(1, ticks_to_frame(length, rate))
    pieces = sorted((piece for one in spoken for piece in _pieces(one, rules, frames, rate)), key=lambda p: p.start)
    pieces = _joined(pieces, rules, rate)
    while len(pieces) * (GAP + 1) > frames and len(pieces) > 1:  # more cues than pictures: rows give way
        one, other = pieces[-2:]
        pieces[-2:] = [Piece((*one.rows, *other.rows), one.start, max(one.end, other.end), None)]
    needs = [_need(piece, rules, rate) for piece in pieces]
    begins, needs = _begins([piece.start for piece in pieces], needs, frames, rate)
    longest, closed = int(LONGEST * rate / CLOCK), int(CLOSED * rate / CLOCK)
    shown = []
    for number, (piece, start, need) in enumerate(zip(pieces, begins, needs, strict=True)):
        free = begins[number + 1] - GAP if number + 1 < len(pieces) else frames
        end = min(max(start + need, min(piece.end, start + longest)), free)
        if number + 1 < len(pieces) and free - end < closed and free - start <= longest:
            end = free
        first, over = frame_to_ticks(start, rate), frame_to_ticks(end, rate)
        shown.append(Cue(first, over, "\n".join(piece.rows), first - frame_to_ticks(piece.start, rate)))
    return tuple(shown)


def _least(rate: Fraction) -> int:
    """Frames of the shortest cue."""
    return math.ceil(SHORTEST * rate / CLOCK)


def _needed(size: float, rules: Rules, rate: Fraction) -> int:
    """Frames in which so many characters can be read."""
    return math.ceil(Fraction(size) / Fraction(rules.speed) * rate)


def _need(piece: Piece, rules: Rules, rate: Fraction) -> int:
    return max(_least(rate), _needed(sum(measure(row, rules) for row in piece.rows), rules, rate))


def _pieces(one: Said, rules: Rules, frames: int, rate: Fraction) -> Iterator[Piece]:
    """What a speaker says as cues of at most `ROWS` rows, each with its share of the time."""
    parts = parted(plain(one.text), rules)
    sizes = [sum(measure(row, rules) for row in rows) for rows in parts]
    start, end = (min(max(0, round(tick * rate / CLOCK)), frames) for tick in (one.start, max(one.start, one.end)))
    start = min(start, frames - 1)
    edges = [start + round((end - start) * before / (sum(sizes) or 1)) for before in accumulate(sizes, initial=0)]
    for rows, (begins, over) in zip(parts, pairwise(edges), strict=True):
        yield Piece(rows, begins, max(begins, over), one.speaker)


def _joined(pieces: Sequence[Piece], rules: Rules, rate: Fraction) -> list[Piece]:
    """Neighbours for which there is no time one after the other share a cue; two speakers, a row each with a dash."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if last and last.start + _need(last, rules, rate) + GAP > piece.start + int(LATE * rate / CLOCK):
            rows = _together(last, piece, rules)
            if rows:
                speaker = last.speaker if last.speaker == piece.speaker else None
                out[-1] = Piece(rows, last.start, max(last.end, piece.end), speaker)
                continue
        out.append(piece)
    return out


def _together(one: Piece, other: Piece, rules: Rules) -> tuple[str, ...] | None:
    """The rows of both in one cue; None where they do not fit."""
    if one.speaker is None or other.speaker is None or len(one.rows) > 1 or len(other.rows) > 1:
        return None
    if one.speaker == other.speaker:
        parts = parted(f"{one.rows[0]} {other.rows[0]}", rules)
        return parts[0] if len(parts) == 1 else None
    rows = tuple(f"- {piece.rows[0]}" for piece in (one, other))
    return rows if all(measure(row, rules) <= rules.width for row in rows) else None


# -- when -------------------------------------------------------------------------------------------------------------


def _begins(wanted: Sequence[int], needs: Sequence[int], frames: int, rate: Fraction) -> tuple[list[int], list[int]]:
    """When cues begin, and for how long each surely stays, in frames.

    Where all can stay as long as they need with no one further from its voice than `EARLY` and `LATE`, they do. Else
    those that stand in each other's way get a fair share of the time there is, down to `SHORTEST`; then they wait.

    Args:
        wanted: When their voices begin, in order.
        needs: Frames that each needs to be read.
        frames: Of the episode.
        rate: Frames per second.
    """
    early, late = (int(ticks * rate / CLOCK) for ticks in (EARLY, LATE))
    needs, count = list(needs), len(needs)
    floor = max(1, min(_least(rate), (frames + GAP) // max(count, 1) - GAP))
    needs = [max(floor, min(need, frames)) for need in needs]
    # After `last[i]`, the cues from i on do not fit before the end, however short.
    last = [frames + GAP - (count - number) * (floor + GAP) for number in range(count + 1)]
    high = [min(at + late, most) for at, most in zip([*wanted, frames + GAP], last, strict=True)]
    low = [max(0, min(at - early, most)) for at, most in zip([*wanted, frames + GAP], high, strict=True)]
    first, number = [0] * (count + 1), 0
    while number <= count:
        before = first[number - 1] + needs[number - 1] + GAP if number else 0
        first[number] = max(low[number] if number < count else 0, before)
        if first[number] <= high[number]:
            number += 1
            continue
        begin = number - 1  # of those that push each other on
        while begin and first[begin] > low[begin]:
            begin -= 1
        over, spare = first[number] - high[number], [need - floor for need in needs[begin:number]]
        if sum(spare) == 0:  # nobody has time to give: this one waits
            high[number], number = first[number], number + 1
            continue
        kept = Fraction(max(0, sum(spare) - over), sum(spare))
        needs[begin:number] = [floor + int(kept * extra) for extra in spare]
        number = begin
    begins, limit = [0] * count, frames + GAP
    latest = [0] * count
    for number in reversed(range(count)):
        limit = latest[number] = min(high[number], limit - GAP - needs[number])
    for number, at in enumerate(wanted):
        before = begins[number - 1] + needs[number - 1] + GAP if number else 0
        begins[number] = min(max(at, before), latest[number])
    return begins, needs


# -- files ------------------------------------------------------------------------------------------------------------

BOTTOM = 'tts:origin="5% 5%" tts:extent="90% 90%" tts:displayAlign="after" tts:textAlign="center"'
STYLE = 'tts:fontFamily="proportionalSansSerif" tts:fontSize="80%" tts:color="white" tts:backgroundColor="#000000c0"'

RLI, LRI, PDI = "\u2067", "\u2066", "\u2069"
"""Begin of an isolate from right to left, and from left to right; its end."""


def srt(shown: Sequence[Cue], language: str = "") -> str:
    """The cues as SubRip.

    It has no escapes: angle brackets and braces, which players take for markup, are replaced by others that look alike.
    """
    return "\n".join(
        f"{number}\n{timecode(cue.start, mark=',')} --> {timecode(cue.end, mark=',')}\n"
        f"{_isolated(cue, language).translate(str.maketrans('<>{}', '‹›()'))}\n" for number, cue in enumerate(shown, 1))


def vtt(shown: Sequence[Cue], language: str = "") -> str:
    """The cues as WebVTT (W3C)."""
    return "WEBVTT\n\n" + "\n".join(f"{timecode(cue.start)} --> {timecode(cue.end)}\n"
                                    f"{html.escape(_isolated(cue, language), quote=False)}\n" for cue in shown)


def ttml(shown: Sequence[Cue], language: str, rate: Fraction, title: str = "") -> str:
    """The cues as a document of the IMSC 1.1 text profile (W3C); times are frame numbers, hence exact."""
    whole = math.ceil(rate)
    part = rate / whole
    direction = ' tts:direction="rtl"' if right_to_left(language) else ""
    shift = f' ttp:frameRateMultiplier="{part.numerator} {part.denominator}"' if part != 1 else ""
    named = f"<metadata><ttm:title>{html.escape(title)}</ttm:title></metadata>\n    " if title else ""
    paragraphs = "".join(
        f'      <p xml:id="cue{number}" begin="{round(cue.start * rate / CLOCK)}f" '
        f'end="{round(cue.end * rate / CLOCK)}f"{direction}>{"<br/>".join(html.escape(row) for row in cue.rows)}</p>\n'
        for number, cue in enumerate(shown, 1))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter"
    xmlns:tts="http://www.w3.org/ns/ttml#styling" xmlns:ttm="http://www.w3.org/ns/ttml#metadata"
    ttp:contentProfiles="http://www.w3.org/ns/ttml/profile/imsc1.1/text" ttp:timeBase="media"
    ttp:frameRate="{whole}"{shift} xml:lang="{html.escape(language)}">
  <head>
    {named}<styling><style xml:id="plain" {STYLE}/></styling>
    <layout><region xml:id="bottom" {BOTTOM}/></layout>
  </head>
  <body style="plain" region="bottom">
    <div>
{paragraphs}    </div>
  </body>
</tt>
"""


def _isolated(cue: Cue, language: str) -> str:
    """Rows whose direction a player would guess wrongly, in an isolate of their language's (Unicode, annex 9)."""
    rtl = right_to_left(language)
    return "\n".join(f"{RLI if rtl else LRI}{row}{PDI}" if rtl or _begins_rtl(row) else row for row in cue.rows)


def _begins_rtl(row: str) -> bool:
    """Whether the first letter of a row is one of a script that runs from right to left."""
    strong = (unicodedata.bidirectional(one) for one in row)
    return next((kind for kind in strong if kind in {"L", "R", "AL"}), "L") != "L"

"""Fitting voices to their slots: what is said, when each line is laid, how much its tempo changes. Pure.

A line keeps the onset of its source line. What is longer than its source is said in other words, if there are any that
fit better; then it borrows the pause that follows; then it is sped up; what still does not fit is reported as overflow.
Lines of one speaker never overlap: the later one may begin up to `MAX_SHIFT` late, and what then still stands in its
way is cut off the earlier one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from fractions import Fraction
from itertools import accumulate
from typing import TypeVar

from models.records import Line, LineId, Tick
from models.timebase import ticks

GAP = ticks(Fraction(12, 100))
"""Silence left before the next line when a pause is borrowed."""
MAX_SHIFT = ticks(Fraction(1, 10))
"""So late a line may begin, or end, after its source: in the stem, where voices are measured to begin up to 10 ms after
the place where they are laid, that is within the 120 ms that a viewer does not notice."""
FASTEST = Fraction(5, 4)
SLOWEST = Fraction(17, 20)
"""Bounds of the tempo: beyond them speech sounds hurried or drawn."""
EASY = Fraction(23, 20)
"""Faster than this is heard: other words are better."""
NEAR = Fraction(23, 25)
"""A voice that fills this much of its source line's time is left at its natural tempo."""


@dataclass(frozen=True)
class PlannedLine:
    """A source line, and the voice that takes its place. All times are ticks."""

    id: LineId
    speaker: str
    start: Tick
    end: Tick
    natural: Tick
    """Length of the voice at its natural tempo."""
    kept: bool = False
    """The source's own voice stays: nothing is laid, and its time belongs to nobody else."""


Timed = TypeVar("Timed", bound=Line | PlannedLine)


@dataclass(frozen=True)
class Fit:
    """Where and how a voice is laid. All times are ticks."""

    id: LineId
    start: Tick
    length: Tick
    """What is heard: `stretched`, less what was cut; 0 when there is no room at all."""
    stretched: Tick
    """Length of the whole voice after its tempo was changed."""
    slot: tuple[Tick, Tick]
    """Onset of the source line, and the latest end that takes nothing from anybody."""
    overflow: Tick
    """By how much `start + stretched` passes the slot's end."""

    @property
    def cut(self) -> Tick:
        """What is lost of the voice's end."""
        return self.stretched - self.length


class Means(IntEnum):
    """What it takes to fit a voice to its slot, gentlest first."""

    NONE = 0
    """It ends with its source line."""
    BORROWED = 1
    STRETCHED = 2
    """Up to `EASY`."""
    HURRIED = 3
    OVERFLOW = 4


def means_for(natural: Tick, line: Line | PlannedLine, slot: tuple[Tick, Tick]) -> Means:
    """What it takes to fit a voice.

    Args:
        natural: Its length.
        line: The source line.
        slot: As `slots` gives it.
    """
    room = slot[1] - slot[0]
    if natural <= room:
        return Means.NONE if natural <= line.end - slot[0] + MAX_SHIFT else Means.BORROWED
    if natural <= EASY * room:
        return Means.STRETCHED
    return Means.HURRIED if natural <= FASTEST * room else Means.OVERFLOW


def choose_words(lengths: Sequence[Tick], line: Line | PlannedLine, slot: tuple[Tick, Tick]) -> int:
    """Index of the wording that needs the gentlest means; of several, the first; where none fits, the shortest.

    Args:
        lengths: Of each wording's voice, best wording first.
        line: The source line.
        slot: As `slots` gives it.
    """
    needed = [means_for(length, line, slot) for length in lengths]
    least = min(needed)
    if least is Means.OVERFLOW:
        return min(range(len(lengths)), key=lengths.__getitem__)
    return needed.index(least)


def slots(lines: Sequence[Line | PlannedLine], end: Tick) -> dict[LineId, tuple[Tick, Tick]]:
    """What each line may take: its own time, and the pause after it up to `GAP` before the next line.

    Where somebody else still speaks when the line ends, there is no pause. What the source overlaps may overlap again,
    unless both lines are the same speaker's.

    Args:
        lines: In any order.
        end: Length of the episode.

    Returns:
        Line id → onset of the source line, and the latest end that takes nothing from anybody. Ordered by onset.
    """
    ordered = _ordered(lines)
    starts = [line.start for line in ordered]
    reached = list(accumulate((line.end for line in ordered), max))
    own = [following.start if following else end for following in _followings(ordered)]
    result = {}
    for number, line in enumerate(ordered):
        after = bisect_left(starts, line.end, lo=number + 1)
        pause = starts[after] - GAP if after < len(starts) else end
        latest = line.end if reached[after - 1] > line.end else max(line.end, pause)
        result[line.id] = (min(line.start, end), max(min(latest, own[number], end), min(line.start, end)))
    return result


def _ordered(lines: Sequence[Timed]) -> list[Timed]:
    return sorted(lines, key=lambda line: (line.start, line.end, line.id))


def _followings(ordered: Sequence[Timed]) -> list[Timed | None]:
    """The next line of the same speaker, for each line."""
    following: dict[str, Timed] = {}
    found: list[Timed | None] = []
    for line in reversed(ordered):
        found.append(following.get(line.speaker))
        following[line.speaker] = line
    return found[::-1]


def fit_lines(lines: Sequence[PlannedLine], end: Tick) -> list[Fit]:
    """Fit each voice to its slot.

    Args:
        lines: In any order.
        end: Length of the episode.

    Returns:
        One fit per line that is not kept, ordered by onset. For all of them: start - source onset is within
        0 … MAX_SHIFT (unless the episode ends before), the tempo natural / stretched is within SLOWEST … FASTEST, and
        [start, start + length) is within the episode and overlaps no other line of the same speaker.
    """
    return list(_fits(_ordered(lines), slots(lines, end), end))


def _fits(ordered: Sequence[PlannedLine], allowed: dict[LineId, tuple[Tick, Tick]], end: Tick) -> Iterator[Fit]:
    free: dict[str, Tick] = {}
    for line, latest in zip(ordered, _latest(ordered, end), strict=True):
        if line.kept:
            free[line.speaker] = max(free.get(line.speaker, 0), min(line.end, latest))
            continue
        start = min(max(line.start, free.get(line.speaker, 0)), end)
        fit = _fit(line, start, allowed[line.id])
        fit = replace(fit, length=max(0, min(fit.length, latest - start)))
        free[line.speaker] = start + fit.length
        yield fit


def _latest(ordered: Sequence[PlannedLine], end: Tick) -> list[Tick]:
    """When each line must have ended, for the sake of the same speaker's lines after it."""
    bounds: dict[str, Tick] = {}
    found: list[Tick] = []
    for line in reversed(ordered):
        bound = bounds.get(line.speaker, end)
        found.append(bound)
        bounds[line.speaker] = min(bound, line.start if line.kept else line.start + MAX_SHIFT)
    return found[::-1]


def _fit(line: PlannedLine, start: Tick, slot: tuple[Tick, Tick]) -> Fit:
    """Choose the tempo of one voice that begins at `start`."""
    planned, room = line.end - start, slot[1] - start
    stretched = line.natural
    if line.natural > room:
        stretched = max(room, -(-line.natural * FASTEST.denominator // FASTEST.numerator))
    elif line.natural < NEAR * planned and line.natural >= SLOWEST * planned:
        stretched = min(planned, room)
    return Fit(line.id, start, stretched, stretched, slot, max(0, start + stretched - slot[1]))

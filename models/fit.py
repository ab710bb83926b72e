"""Fitting voices to their slots: when each line is laid, how much its tempo changes, what does not fit. Pure.

A line keeps the onset of its source line. A voice longer than its source first borrows the pause that follows, then is
sped up; what still does not fit is reported as overflow. Lines of one speaker never overlap: the later one may begin up
to `MAX_SHIFT` late, and what then still stands in its way is cut off the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

from models.records import Line, LineId, Tick
from models.timebase import ticks

GAP = ticks(Fraction(12, 100))
"""Silence left before the next line when a pause is borrowed."""
MAX_SHIFT = ticks(Fraction(12, 100))
"""The latest that a line may begin after its source: what a viewer does not notice."""
FASTEST = Fraction(5, 4)
SLOWEST = Fraction(17, 20)
"""Bounds of the tempo: beyond them speech sounds hurried or drawn."""
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


def slots(lines: Sequence[Line | PlannedLine], end: Tick) -> dict[LineId, tuple[Tick, Tick]]:
    """What each line may take: its own time and the pause after it.

    Args:
        lines: In any order.
        end: Length of the episode.

    Returns:
        Line id → onset of the source line, and the latest end that takes nothing from anybody. Ordered by onset.
    """
    ordered = _ordered(lines)
    return {line.id: _slot(line, ordered[number + 1:], end) for number, line in enumerate(ordered)}


def _ordered(lines: Sequence[Timed]) -> list[Timed]:
    return sorted(lines, key=lambda line: (line.start, line.end, line.id))


def fit_lines(lines: Sequence[PlannedLine], end: Tick) -> list[Fit]:
    """Fit each voice to its slot.

    Args:
        lines: In any order.
        end: Length of the episode.

    Returns:
        One fit per line, ordered by onset. For all of them: start - source onset is within 0 … MAX_SHIFT (unless the
        episode ends before), the tempo natural / stretched is within SLOWEST … FASTEST, and
        [start, start + length) is within the episode and overlaps no other line of the same speaker.
    """
    ordered, allowed = _ordered(lines), slots(lines, end)
    fits: list[Fit] = []
    free: dict[str, Tick] = {}
    for number, line in enumerate(ordered):
        slot = allowed[line.id]
        start = min(max(line.start, free.get(line.speaker, 0)), end)
        fit = _fit(line, start, slot)
        following = (other.start for other in ordered[number + 1:] if other.speaker == line.speaker)
        latest = min(next(following, end) + MAX_SHIFT, end)
        fit = replace(fit, length=max(0, min(fit.length, latest - start)))
        free[line.speaker] = start + fit.length
        fits.append(fit)
    return fits


def _slot(line: Line | PlannedLine, later: Iterable[Line | PlannedLine], end: Tick) -> tuple[Tick, Tick]:
    """A line's own time and the pause after it.

    Lines that begin while it still runs in the source may be overlapped again, unless they are the same speaker's.
    """
    own, borrowed = line.end, end
    for other in later:
        if other.start >= line.end:
            borrowed = min(borrowed, other.start - GAP)
        elif other.speaker == line.speaker:
            own = min(own, other.start)
            borrowed = min(borrowed, own)
    return min(line.start, end), min(max(own, borrowed, line.start), end)


def _fit(line: PlannedLine, start: Tick, slot: tuple[Tick, Tick]) -> Fit:
    """Choose the tempo of one voice that begins at `start`."""
    planned, room = line.end - start, slot[1] - start
    stretched = line.natural
    if line.natural > room:
        stretched = max(room, -(-line.natural * FASTEST.denominator // FASTEST.numerator))
    elif line.natural < NEAR * planned and line.natural >= SLOWEST * planned:
        stretched = min(planned, room)
    return Fit(line.id, start, stretched, stretched, slot, max(0, start + stretched - slot[1]))

"""What a reviewer works on: the lines of an episode in one language, with everything that was said about them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from models.recipe import sha256
from models.records import LineId

State = Literal["open", "awaiting", "approved"]
"""open: nobody asked for a review; awaiting: the language waits for it."""


@dataclass(frozen=True)
class Said:
    """Who, and when."""

    who: str
    at: datetime


@dataclass(frozen=True)
class ReviewLine:
    """One line; times in ticks."""

    id: LineId
    start: int
    end: int
    speaker: str
    source: str
    text: str
    """As the next run says it: what was translated last, or what a person set since."""
    origin: str = "engine"
    """engine, script or edit."""
    flags: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    """Other texts that the translator offered."""
    approved: Said | None = None
    """None also where source or text changed since."""
    locked: Said | None = None
    other_source: bool = False
    """It is locked, and the source said something else when it was."""
    changed: bool = False
    """No run has seen this text yet."""


@dataclass(frozen=True)
class Review:
    """One language of one episode."""

    episode: str
    language: str
    state: State
    lines: tuple[ReviewLine, ...]
    since: datetime | None = None
    """When it was asked for."""
    left_s: float | None = None
    """Seconds until its time is over, never below 0; None: it waits for ever, or for nothing."""
    on_timeout: str = "wait"
    by_id: Mapping[LineId, ReviewLine] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {line.id: line for line in self.lines})

    @property
    def unapproved(self) -> tuple[LineId, ...]:
        """Lines that nobody has approved as they are now; locked ones count as approved."""
        return tuple(line.id for line in self.lines if not (line.approved or line.locked))

    @property
    def held(self) -> tuple[LineId, ...]:
        """Of those, the ones with flags: no time-out approves them, only a person."""
        open_ = set(self.unapproved)
        return tuple(line.id for line in self.lines if line.flags and line.id in open_)


def digest(source: str, text: str) -> str:
    """What an approval is for."""
    return sha256(f"{source}\0{text}".encode())

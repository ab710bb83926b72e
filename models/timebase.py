"""Time as a type: rational frame rates and sample counts on one clock; never a float in a record.

Every position on an episode's time line is an integer count of 1/48,000 s (`CLOCK`); every picture position is a frame
index. Between the two stands a rational rate.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

CLOCK = 48_000
"""Ticks per second of every time in a record; also the sample rate of all dubbed audio."""

MAX_GENERATED_RATE = 30


RATIONAL = re.compile(r"[0-9]{1,10}(/[0-9]{1,10})?")
"""Decimals and exponents are left out: `Fraction("1e999999999")` would never end."""


def _rate(value: object) -> Fraction:
    plain = isinstance(value, int | Fraction) or (isinstance(value, str) and RATIONAL.fullmatch(value) is not None)
    try:
        rate = Fraction(str(value)) if plain else None
    except ZeroDivisionError:
        rate = None
    if rate is None or not 0 < rate <= 1000:
        raise ValueError(f"a frame rate is a positive rational such as '24000/1001', not {value!r}")
    return rate


Rate = Annotated[Fraction, BeforeValidator(_rate), PlainSerializer(str, return_type=str)]
"""Frames per second as an exact rational; '24000/1001' in JSON."""


def ticks(seconds: float | Fraction) -> int:
    """The nearest clock tick to `seconds`."""
    return round(seconds * CLOCK)


def seconds(clock_ticks: int) -> float:
    """Clock ticks as seconds, for people and for engines that speak floats."""
    return clock_ticks / CLOCK


def frame_to_ticks(frame: int, rate: Fraction) -> int:
    """The tick at which `frame` begins (rounded half to even where the rate does not divide the clock)."""
    return round(Fraction(frame * CLOCK) / rate)


def ticks_to_frame(clock_ticks: int, rate: Fraction) -> int:
    """The frame on screen at a tick: the last one that begins at or before it."""
    frame = int(Fraction(clock_ticks, CLOCK) * rate)
    return frame + 1 if frame_to_ticks(frame + 1, rate) <= clock_ticks else frame


def generation_divisor(rate: Fraction) -> int:
    """The smallest integer by which `rate` must be divided to be generated at ≤ 30 frames per second."""
    return -(-rate.numerator // (rate.denominator * MAX_GENERATED_RATE))


def timecode(clock_ticks: int, *, mark: str = ".") -> str:
    """`HH:MM:SS.mmm`, with `mark` before the milliseconds (SRT wants a comma)."""
    ms = round(clock_ticks * 1000 / CLOCK)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{mark}{ms % 1000:03d}"

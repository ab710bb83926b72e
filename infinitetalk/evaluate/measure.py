"""One figure: its value, what it says, by which instrument, and how much of the video it covers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infinitetalk.errors import BadInputError

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Details = dict[str, float]
Row = Callable[[], tuple[float, int, Details]]
"""A value, the frames that it rests on, and details; raises BadInputError where it cannot be taken."""


@dataclass(frozen=True)
class Measure:
    """A figure, or the reason why there is none."""

    name: str
    value: float | None
    """None where it could not be taken."""
    meaning: str
    """How to read it, in a clause."""
    covered: int
    """Frames (or clips) that it rests on …"""
    of: int
    """… of so many."""
    instrument: str = ""
    """What read the pixels or the sound."""
    why: str = ""
    """Why there is no value."""
    details: Details = field(default_factory=dict)


def taken(name: str, meaning: str, of: int, row: Row, instrument: str = "") -> Measure:
    """A figure, or why it could not be taken."""
    try:
        value, covered, details = row()
    except BadInputError as error:
        return Measure(name, None, meaning, 0, of, instrument, error.what)
    return Measure(name, float(value), meaning, covered, of, instrument, details=details)


def check_frames(frames: Pixels, where: str, least: int = 1) -> Pixels:
    """`frames`, if they are at least `least` pictures (F, H, W, 3) uint8.

    Raises:
        BadInputError: They are not.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape[1:]:
        raise BadInputError(f"{frames.dtype} of shape {frames.shape} is no video", where=where,
                            hint="Give uint8 RGB of shape (F, H, W, 3)")
    if len(frames) < least:
        raise BadInputError(f"{len(frames)} frames are too few", where=where, hint=f"Give at least {least}")
    return frames


def same_shape(one: NDArray[np.generic], other: NDArray[np.generic], where: str) -> None:
    """Both must have the same sizes.

    Raises:
        BadInputError: They have not.
    """
    if one.shape != other.shape:
        raise BadInputError(f"shapes {one.shape} and {other.shape} cannot be compared", where=where,
                            hint="Cut both to the same frames and the same size")


def known_rows(rows: NDArray[np.generic]) -> Flags:
    """Which rows (n, D) hold numbers only: (n,)."""
    return np.asarray(np.isfinite(np.asarray(rows, np.float64)).all(axis=1), np.bool_).reshape(len(rows))


def finite(values: NDArray[np.generic], where: str) -> Reals:
    """`values` as float64.

    Raises:
        BadInputError: One is NaN or infinite.
    """
    reals = np.asarray(values, np.float64)
    if not np.isfinite(reals).all():
        raise BadInputError("holds values that are no numbers", where=where, hint="Look at what computed them")
    return reals

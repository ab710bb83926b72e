"""Ambience: the pauses of a source → a noise with their spectrum, to lie where the source had to be turned down.

Where a source is ducked to get rid of its voices, its room goes with them, and comes back at every pause: that is heard
as pumping. What the pauses before and after a line have in common, steady as a room or the sea is, fills the hole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.timebase import CLOCK
from tasks.levels import Sound, Span, blend

WINDOW, HOP = 1024, 512
SHORTEST, LONGEST = CLOCK // 4, 2 * CLOCK
"""Ticks of a pause that are enough to measure, and that are used at either end of it."""
EDGE = CLOCK // 10
"""Ticks at either end of a pause that are not trusted: reverberation, breath, inexact times."""
STEADY = 0.3
"""Share of the frames that are softer than what counts as steady, so that a bark or a word does not count."""
SPREAD = -np.log(1 - STEADY)
"""Of noise with mean power 1, this power is passed by all but the share STEADY of frames."""
CHUNK = 1 << 16
"""Samples of noise made at once; each chunk can be made anew from its number alone."""
TURN = {2: np.array([[1, 1], [1, -1]], np.float32) / np.float32(np.sqrt(2)),
        **{channels: np.eye(channels, dtype=np.float32) for channels in (6, 8)}}
"""Channels → the axes (middle and side for stereo) along which the noise is made, so that it is as wide as the room."""


@dataclass(frozen=True)
class Anchor:
    """What the source sounds like in a pause."""

    at: int
    """Tick in its middle."""
    amplitude: NDArray[np.float32]
    """(WINDOW // 2 + 1, C) for each frequency, along the axes of TURN."""


def pauses(spoken: Iterable[Span], length: int) -> Iterator[Span]:
    """The parts of [0, length) without speech that can be measured; of long ones, both ends."""
    reached = 0
    for start, end in sorted([*spoken, (length, length)]):
        first, last = reached + EDGE, min(start, length) - EDGE
        if last - first > 2 * LONGEST:
            yield first, first + LONGEST
            yield last - LONGEST, last
        elif last - first >= SHORTEST:
            yield first, last
        reached = max(reached, end)


def measure(sound: Sound, at: int) -> Anchor:
    """The steady part of a pause's sound (n, 2 | 6 | 8), n ≥ WINDOW."""
    turned = blend(sound, TURN[sound.shape[1]])
    frames = np.lib.stride_tricks.sliding_window_view(turned, WINDOW, axis=0)[::HOP]  # (F, C, WINDOW)
    shape = np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames * shape, axis=2)) ** 2 / (shape**2).sum()
    steady = np.quantile(power, STEADY, axis=0) / SPREAD
    return Anchor(at, np.sqrt(steady).T.astype(np.float32))


class Ambience:
    """The ambience of a whole source; any part of it can be made at any time, and is always the same."""

    def __init__(self, spoken: Iterable[Span], length: int, read: Callable[[int, int], Sound]) -> None:
        """Listen to the pauses.

        Args:
            spoken: Where somebody speaks.
            length: Of the source, in ticks.
            read: Gives the source's samples [start, end) as (n, 2 | 6 | 8).
        """
        self._anchors = [measure(read(start, end), (start + end) // 2) for start, end in pauses(spoken, length)]
        self._at = [anchor.at for anchor in self._anchors]

    def block(self, start: int, count: int, channels: int) -> Sound:
        """Ambience at [start, start + count) → (count, channels); silence where the source never pauses."""
        block = np.zeros((count, channels), np.float32)
        near = slice(max(0, bisect_right(self._at, start) - 1), bisect_right(self._at, start + count) + 1)
        for number in range(len(self._anchors))[near]:
            weight = np.interp(np.arange(start, start + count), *self._share(number))
            block += np.sqrt(weight, dtype=np.float32, casting="same_kind")[:, None] * self._noise(number, start, count)
        return blend(block, TURN[channels])

    def _share(self, number: int) -> tuple[list[int], list[float]]:
        """An anchor's part in the whole: all at its place, none at its neighbours', all beyond the last ones."""
        edges = [*self._at[max(0, number - 1):number], self._at[number], *self._at[number + 1:number + 2]]
        return edges, [float(edge == self._at[number]) for edge in edges]

    def _noise(self, number: int, start: int, count: int) -> Sound:
        """Noise with an anchor's spectrum at [start, start + count)."""
        from scipy.signal import oaconvolve

        amplitude = self._anchors[number].amplitude
        taps = np.roll(np.fft.irfft(amplitude, axis=0), WINDOW // 2, axis=0) * np.hanning(WINDOW)[:, None]
        white = _white(number, start, count + WINDOW - 1, amplitude.shape[1])
        return np.asarray(oaconvolve(white, taps.astype(np.float32), mode="valid", axes=0), np.float32)


def _white(seed: int, start: int, count: int, channels: int) -> Sound:
    """White noise of power 1 at [start, start + count): the same wherever the blocks begin."""
    first, last = start // CHUNK, (start + count - 1) // CHUNK
    parts = [np.random.default_rng([seed, chunk]).standard_normal((CHUNK, channels), np.float32)
             for chunk in range(first, last + 1)]
    return np.concatenate(parts)[start - first * CHUNK:][:count]

"""Arithmetic on sound: layouts, loudness of a line, ducking, limiting. Pure functions; nothing here opens a file.

Blocks are float32 (n, C) at 48 kHz; spans and positions are ticks, which are samples. Channel orders are FLAC's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.timebase import CLOCK

Sound = NDArray[np.float32]  # (n, C)
Span = tuple[int, int]

ROLES = {1: "M", 2: "LR", 3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRCElr", 7: "LRCEblr", 8: "LRCElrlr"}
"""Channels of a file by their number: front, centre, effects, back or side (lower case)."""
HALF = math.sqrt(0.5)
FOLD: dict[int, dict[str, tuple[float, ...]]] = {
    2: {"M": (1, 1), "L": (1, 0), "R": (0, 1), "C": (HALF, HALF), "E": (0, 0), "l": (HALF, 0), "r": (0, HALF),
        "b": (0.5, 0.5)},
    6: {"M": (1, 1, 0, 0, 0, 0), "L": (1, 0, 0, 0, 0, 0), "R": (0, 1, 0, 0, 0, 0), "C": (0, 0, 1, 0, 0, 0),
        "E": (0, 0, 0, 1, 0, 0), "l": (0, 0, 0, 0, 1, 0), "r": (0, 0, 0, 0, 0, 1), "b": (0, 0, 0, 0, HALF, HALF)},
}
FOLD[8] = {role: (*weights[:4], 0, 0, *weights[4:]) for role, weights in FOLD[6].items()}
"""Output channels → role → weight in each of them (ITU-R BS.775; the effects channel has no place in stereo)."""

SHORTEST_BLOCK = 0.4
"""Seconds that BS.1770 measures at once; shorter sounds are measured in one piece."""
INAUDIBLE = 1e-4
"""Peak (-80 dBFS) below which a sound counts as silence."""

ATTACK, RELEASE = round(0.080 * CLOCK), round(0.250 * CLOCK)
"""Ducking is complete where speech begins, and over this long after its end."""

LOOK = 480
"""Samples (10 ms) over which the limiter closes, and opens again."""
OVERSAMPLING = 4
CONTEXT = 2 * LOOK + 32
"""Samples that the limiter must see on either side of a block."""


def layout_of(channels: int) -> int:
    """Channels of the dubbed sound for a source of so many: 7.1 and 5.1 stay, 6.1 becomes 5.1, all else stereo."""
    return 8 if channels == 8 else 6 if channels >= 6 else 2


def blend(block: Sound, weights: Sound) -> Sound:
    """Channels (n, C) into others (n, D) by weights (C, D); for so few channels far faster than `@`."""
    return np.asarray(np.einsum("nc,cd->nd", block, weights), np.float32)


def to_layout(block: Sound, channels: int) -> Sound:
    """Bring a block (n, 1 … 8) to stereo, 5.1 or 7.1 (n, `channels`)."""
    roles = ROLES[block.shape[1]]
    if len(roles) == channels:
        return block
    return blend(block, np.array([FOLD[channels][role] for role in roles], np.float32))


def centre(dialogue: NDArray[np.float32], channels: int) -> Sound:
    """Put a voice (n,) into the middle: both sides of stereo, the centre speaker of 5.1 and 7.1 → (n, `channels`)."""
    return dialogue[:, None] * np.array(FOLD[channels]["M" if channels == 2 else "C"], np.float32)


def regular(blocks: Iterable[Sound], size: int, length: int) -> Iterator[Sound]:
    """Cut blocks anew into `size` samples each, the last one shorter: `length` in all, zeros where there were fewer."""
    held: list[Sound] = []
    count = done = 0
    channels = 1
    for block in blocks:
        channels = block.shape[1]
        held.append(block)
        count += len(block)
        while count >= size or done + count >= length:
            joined = np.concatenate(held)
            piece = joined[:min(size, length - done)]
            yield piece
            done += len(piece)
            held, count = [joined[len(piece):]], count - len(piece)
            if done >= length:
                return
    rest = np.concatenate([*held, np.zeros((length - done - count, channels), np.float32)])
    yield from (rest[at:at + size] for at in range(0, len(rest), size))


def loudness_of(sound: Sound) -> float:
    """Integrated loudness (LUFS, gated) of a short sound (n, 1 | 2 | 6 | 8); -inf when it is silent."""
    import pyloudnorm

    if len(sound) < CLOCK // 100 or float(np.abs(sound).max()) < INAUDIBLE:
        return -math.inf
    heard = np.delete(to_layout(sound, 6), 3, axis=1) if sound.shape[1] >= 6 else sound  # it knows no 7.1
    seconds = min(SHORTEST_BLOCK, (len(heard) - 1) / CLOCK)
    with np.errstate(all="ignore"):
        measured = float(pyloudnorm.Meter(CLOCK, block_size=seconds).integrated_loudness(heard.astype(np.float64)))
    return measured if math.isfinite(measured) else -math.inf


class Hold:
    """1 throughout some spans, 0 elsewhere, and straight lines between."""

    def __init__(self, spans: Iterable[Span], attack: int, release: int) -> None:
        """Spans nearer to each other than attack and release (samples) together become one, so that nothing pumps."""
        merged: list[list[int]] = []
        for start, end in sorted(spans):
            if merged and start - merged[-1][1] < attack + release:
                merged[-1][1] = max(end, merged[-1][1])
            else:
                merged.append([start, end])
        self._at = [p for start, end in merged for p in (start - attack, start, end, end + release)] or [0]
        self._share = [0.0, 1.0, 1.0, 0.0] * len(merged) or [0.0]

    def share(self, start: int, count: int) -> NDArray[np.float64]:
        """Of samples [start, start + count) → (count,)."""
        return np.interp(np.arange(start, start + count), self._at, self._share)


class Ducking(Hold):
    """A gain that is `depth_db` down throughout some spans and moves there and back in straight lines (in dB)."""

    def __init__(self, spans: Iterable[Span], depth_db: float) -> None:
        super().__init__(spans, ATTACK, RELEASE)
        self._depth_db = depth_db

    def gain_db(self, start: int, count: int) -> NDArray[np.float64]:
        """Gain in dB of samples [start, start + count) → (count,)."""
        return -self._depth_db * self.share(start, count)


def windows(blocks: Iterable[Sound], context: int) -> Iterator[Sound]:
    """Each block (n, C) with its neighbours' `context` samples → (context + n + context, C); zeros outside.

    Only the last block may be shorter than `context`.
    """
    before = held = None
    for block in blocks:
        if held is None or before is None:
            before = np.zeros((context, block.shape[1]), np.float32)
        else:
            yield np.concatenate([before, held, _padded(block[:context], context)])
            before = held[-context:]
        held = block
    if held is not None and before is not None:
        yield np.concatenate([before, held, np.zeros_like(before)])


def _padded(block: Sound, count: int) -> Sound:
    return np.concatenate([block, np.zeros((count - len(block), block.shape[1]), np.float32)])


def limiter_gain(window: Sound, limit: float) -> NDArray[np.float32]:
    """Gain (n,) that keeps the true peak of the middle of a window (CONTEXT + n + CONTEXT, C) below `limit`.

    Peaks are looked for at four times the rate. The gain closes before a peak and opens after it along a Hann curve;
    each of its values is an average of gains that are all low enough for the peak it was closed for.
    """
    from scipy.ndimage import minimum_filter1d
    from scipy.signal import resample_poly

    count = len(window) - 2 * CONTEXT
    if float(np.abs(window).max(initial=0)) < limit / 2:
        return np.ones(count, np.float32)
    fine = np.abs(resample_poly(window, OVERSAMPLING, 1, axis=0)).max(axis=1)
    peaks = fine.reshape(-1, OVERSAMPLING).max(axis=1)
    allowed = np.minimum(1.0, limit / np.maximum(peaks, 1e-9))
    curve = np.hanning(2 * LOOK + 3)[1:-1]
    closed = minimum_filter1d(allowed, 2 * LOOK + 1)
    smooth = np.convolve(closed, curve / curve.sum(), mode="same")[CONTEXT:CONTEXT + count]
    return np.asarray(smooth, np.float32)


ONSET_FRAME, ONSET_HOP = 240, 48
"""Samples (5 and 1 ms) over which, and at which distance, the level is taken to find where a voice begins."""
ONSET_DB = 30.0
"""How far below its loudest frame a voice counts as begun."""


def speech_onset(voice: NDArray[np.float32]) -> int | None:
    """Index of the first audible sample of a voice (n,), to ±3 ms; None when it is silent."""
    total = np.concatenate([[0.0], np.cumsum(voice.astype(np.float64) ** 2)])
    starts = np.arange(0, max(1, len(voice) - ONSET_FRAME), ONSET_HOP)
    power = total[np.minimum(starts + ONSET_FRAME, len(voice))] - total[starts]
    loudest = float(power.max())
    if loudest < ONSET_FRAME * INAUDIBLE**2:
        return None
    first = int(np.argmax(power > loudest * 10 ** (-ONSET_DB / 10)))
    return min(int(starts[first]) + ONSET_FRAME // 2, len(voice) - 1) if first else 0


def find_voice(sound: NDArray[np.float32], voice: NDArray[np.float32]) -> tuple[int, float]:
    """Where in a sound (n,) a voice (m,), m ≤ n, lies: offset, and likeness (1 is the same but for its level)."""
    from scipy.signal import correlate

    whole, wanted = sound.astype(np.float64), voice.astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(whole**2)])
    power = total[len(wanted):] - total[:-len(wanted)]
    scale = np.sqrt(np.maximum(power, power.max() * 1e-4 + 1e-12) * max(float((wanted**2).sum()), 1e-12))
    likeness = correlate(whole, wanted, mode="valid", method="fft") / scale
    at = int(likeness.argmax())
    return at, float(likeness[at])

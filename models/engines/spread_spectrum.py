"""A spread-spectrum watermark of sound: 32 bits, repeated every 2.7 s, in small gains of the short-time spectrum.

After Kirovski and Malvar, "Spread-spectrum watermarking of audio signals", IEEE Transactions on Signal Processing
51(4), 2003: chips of ±δ dB on the log spectrum, found by correlation once the sound's own spectrum is taken away by
local means. Here a chip is a cell of 94 Hz × 85 ms; a word is 32 × 128 cells, dealt out to four symbols of 8 bits; a
symbol is one of 256 Hadamard sequences, so that most of a word may be lost. It needs no sync marks: every place where a
word may begin is tried. The cells are dealt by a fixed key in this file: the mark tells copies apart, and is no proof
against somebody who has the code.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.engines.options import Adapter, read_options
from models.errors import InputError
from models.ports import EngineHome, Mark, Samples
from models.records import EngineRef, Record

Array = NDArray[np.float64]

FRAME, HOP = 2048, 1024
"""Samples (48 kHz) of a transform, and from one to the next: 43 and 21 ms."""
FIRST, BANDS, BINS = 13, 128, 4
"""First bin, bands, and bins of a band: 305 Hz to 12.3 kHz, as much as lossy codecs and cheap devices leave."""
SLOT, SLOTS = 4, 32
"""Frames of a slot, slots of a word."""
SYMBOLS, SEQUENCES = 4, 256
WORD = SLOT * SLOTS
"""Frames, which is also the number of places where a word may begin."""
WINDOW = 11 * WORD
"""Frames looked at together: 30 s."""
TIME, FREQUENCY = 25 * SLOT, 5
"""Frames and bands of the local means that are taken away."""
RANGE_DB, CLIP_DB = 65.0, 8.0
"""What lies deeper below the loudest cell says nothing; nor does one cell say more than this."""
FALSE_ALARM = 1e-6
"""What a mark's `false_alarm` may be at most …"""
CERTAIN = 1e-15
"""… and from where on there is no need to look further."""


class SpreadSpectrumOptions(Record):
    """What may be set."""

    strength_db: float = Field(0.6, ge=0.2, le=2)
    """δ: a cell becomes louder or softer by this much."""


class SpreadSpectrum(Adapter):
    """A `Watermarker` without a model."""

    OPTIONS: ClassVar[type[Record]] = SpreadSpectrumOptions

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self._options = read_options(SpreadSpectrumOptions, ref.name, ref.options)

    def embed(self, blocks: Iterable[Samples], payload: int) -> Iterator[Samples]:
        """Overlap-add of frames with changed gains, the same in all channels."""
        gains, window = self._gains(payload), _window()
        held, tail, number, left = None, None, 0, 0
        for block in blocks:
            left += len(block)
            # the first frame begins a hop before the sound does
            held = np.concatenate([np.zeros((HOP, block.shape[1])) if held is None else held, block])
            made, tail = _overlap_add(_frames(held, window), gains, number, tail)
            held = held[len(made):]
            heard = made[HOP:] if number == 0 else made
            number += len(made) // HOP
            left -= len(heard)
            if len(heard):
                yield heard.astype(np.float32)
        if held is not None:
            held = np.concatenate([held, np.zeros((FRAME, held.shape[1]))])
            made, _ = _overlap_add(_frames(held, window), gains, number, tail)
            yield (made[HOP:] if number == 0 else made)[:left].astype(np.float32)

    def detect(self, blocks: Iterable[Samples]) -> Mark | None:
        """Look into windows of 30 s and into all of them together, until one answers beyond doubt."""
        total, best, tried = np.zeros((SLOT, SLOTS, BANDS)), (0.0, 0), 1
        for samples in _windows(blocks):
            found = _folded(_flat(_cells(samples)))
            total += found
            best = max(best, _read(found))
            tried += 1
            if _false_alarm(best[0], tried) <= CERTAIN:
                break
        score, payload = max(best, _read(total))
        alarm = _false_alarm(score, tried)
        return Mark(payload, alarm) if alarm <= FALSE_ALARM else None

    def _gains(self, payload: int) -> Array:
        """Factors of a word: (SLOTS, FRAME / 2 + 1)."""
        cells, signs = _deal()
        chips = np.zeros(SLOTS * BANDS)
        for symbol, row in enumerate(_symbols(payload)):
            chips[cells[symbol]] = signs[symbol] * _sequences()[row][:, None]
        gains = np.ones((SLOTS, FRAME // 2 + 1))
        gains[:, FIRST:FIRST + BANDS * BINS] = np.repeat(
            10 ** (self._options.strength_db * chips.reshape(SLOTS, BANDS) / 20), BINS, axis=1)
        return gains


# -- the code ---------------------------------------------------------------------------------------------------------


def _symbols(payload: int) -> tuple[int, ...]:
    if not 0 <= payload < 2 ** 32:
        raise InputError(f"a payload has 32 bits, {payload} has not", where="watermark")
    return tuple(payload.to_bytes(SYMBOLS, "big"))


@cache
def _sequences() -> Array:
    """Hadamard's orthogonal sequences of ±1, one a row."""
    rows = np.ones((1, 1))
    while len(rows) < SEQUENCES:
        rows = np.block([[rows, rows], [rows, -rows]])
    return rows


@cache
def _deal() -> tuple[NDArray[np.intp], Array]:
    """Which cells of a word carry a chip, (SYMBOLS, SEQUENCES, 4), and with which sign.

    Drawn by SHAKE-256, which gives the same on every machine and in every version of every library.
    """
    drawn = np.frombuffer(hashlib.shake_256(b"infinidub spread spectrum 1").digest(8 * SLOTS * BANDS), ">u8")
    shape = (SYMBOLS, SEQUENCES, -1)
    return np.argsort(drawn, kind="stable").reshape(shape), np.where(drawn & 1, 1.0, -1.0).reshape(shape)


def _false_alarm(score: float, tried: int) -> float:
    """Bound of the probability that unmarked sound scores as much, in any of `tried` looks.

    Signs are as if drawn, so each correlation is a standard normal, and the sum of the four is one of variance 4; there
    are 256⁴ sums in each of `WORD` places.
    """
    from scipy.special import log_ndtr

    log = 32 * math.log(2) + math.log(WORD * tried) + float(log_ndtr(-score / math.sqrt(SYMBOLS)))
    return math.exp(min(0.0, log))


# -- frames -----------------------------------------------------------------------------------------------------------


@cache
def _window() -> Array:
    """Sine window: used twice at half overlap, it adds up to one."""
    window: Array = np.sin(np.pi * (np.arange(FRAME) + 0.5) / FRAME)
    return window


def _frames(samples: NDArray[Any], window: Array) -> Array:
    """Windowed frames: (n, C) → (F, C, FRAME)."""
    if len(samples) < FRAME:
        return np.zeros((0, samples.shape[1], FRAME))
    return np.lib.stride_tricks.sliding_window_view(samples, FRAME, axis=0)[::HOP] * window


def _overlap_add(frames: Array, gains: Array, number: int, tail: Array | None) -> tuple[Array, Array | None]:
    """Frames `number` … with their gains, added up to (F · HOP, C), and the half that the next frame goes on with."""
    if not len(frames):
        return np.zeros((0, frames.shape[1])), tail
    slots = (number + np.arange(len(frames))) // SLOT % SLOTS
    made = np.fft.irfft(np.fft.rfft(frames, axis=2) * gains[slots][:, None], axis=2) * _window()
    first, second = made[:, :, :HOP], made[:, :, HOP:]
    before = np.concatenate([np.zeros_like(second[:1]) if tail is None else tail[None], second[:-1]])
    return (first + before).transpose(0, 2, 1).reshape(-1, frames.shape[1]), second[-1]


def _windows(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """Mono sound in pieces of `WINDOW` frames that overlap as frames do; a last one that is no word long is left."""
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= (WINDOW - 1) * HOP + FRAME:
            yield held[:(WINDOW - 1) * HOP + FRAME]
            held = held[WINDOW * HOP:]
    if len(held) >= (WORD - 1) * HOP + FRAME:
        yield held


# -- detection --------------------------------------------------------------------------------------------------------


def _cells(samples: Samples) -> Array:
    """Level of each band in each frame, in dB: (F, BANDS)."""
    frames = _frames(samples[:, None], _window())[:, 0]
    spectrum = np.fft.rfft(frames, axis=1)[:, FIRST:FIRST + BANDS * BINS]
    power = (np.abs(spectrum) ** 2).reshape(len(frames), BANDS, BINS).mean(2)
    levels: Array = 10 * np.log10(np.maximum(power, 1e-12))
    return levels


def _flat(levels: Array) -> Array:
    """What is left of levels once the sound's own spectrum is taken away."""
    from scipy.ndimage import uniform_filter1d

    levels = np.maximum(levels, levels.max() - RANGE_DB)
    levels = levels - uniform_filter1d(levels, FREQUENCY, axis=1, mode="nearest")
    flat: Array = levels - uniform_filter1d(levels, TIME, axis=0, mode="nearest")
    clipped: Array = np.clip(flat, -CLIP_DB, CLIP_DB)
    return clipped


def _folded(levels: Array) -> Array:
    """Sums of all words, as if one began at frame 0, 1, 2 or 3: (SLOT, SLOTS, BANDS)."""
    sums = np.cumsum(np.vstack([np.zeros(BANDS), levels]), axis=0)
    slots = sums[SLOT:] - sums[:-SLOT]
    folded = np.zeros((SLOT, SLOTS, BANDS))
    for first in range(SLOT):
        for at in range(first, len(slots), WORD):
            word = slots[at:at + WORD:SLOT]
            folded[first, :len(word)] += word
    return folded


def _read(folded: Array) -> tuple[float, int]:
    """(score, payload) where a word fits best; the score is the sum of four correlations in their own deviations."""
    cells, signs = _deal()
    best = (0.0, 0)
    for first in range(SLOT):
        for slot in range(SLOTS):
            chips = (np.roll(folded[first], -slot, axis=0).ravel()[cells] * signs).sum(2)
            norm = np.sqrt((chips ** 2).sum(1, keepdims=True))
            if not norm.all():
                continue
            found = chips @ _sequences().T / norm
            score = float(found.max(1).sum())
            if score > best[0]:
                best = score, int.from_bytes(found.argmax(1).astype(np.uint8).tobytes(), "big")
    return best

"""Dialogue-gated loudness: how loud everything is while somebody speaks.

ITU-R BS.1770-1 (K-weighted mean power, no level gate) over the time in which there is speech, as Netflix and others ask
for. Their meters guess from the whole mix where that is (Dolby's Dialogue Intelligence); here the dialogue stem says
it, by the rule of ITU-T P.56: speech is what is less than 15.9 dB below its own active level, and 0.2 s after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.timebase import CLOCK
from tasks.levels import ROLES, Sound, Span
from tasks.media import audio_blocks

FRAME = CLOCK // 100
"""Samples (10 ms) in which speech is or is not."""
BLOCK = 512 * FRAME
MARGIN_DB, HANGOVER = 15.9, 20
"""Of P.56; the hangover in frames."""
SILENT = 1e-10
"""Power (-100 dBFS) of what counts as silence."""
SHELF = (1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)
HIGH_PASS = (1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)
"""K-weighting at 48 kHz: numerators and denominators of BS.1770's two filters."""
WEIGHTS = {"E": 0.0, "l": 1.41, "r": 1.41, "b": 1.41}
"""Of channels by their role (see `levels.ROLES`), 1 for all others."""


def speech_frames(stem: Path, kept: Sequence[Span] = ()) -> NDArray[np.bool_]:
    """For each FRAME of a dialogue stem whether there is speech → (⌈length / FRAME⌉,).

    Args:
        stem: The dialogue alone, one channel.
        kept: Where the source's own voice is heard, which is not in the stem.
    """
    power = np.concatenate([np.zeros(0), *(_frames(block[:, :1] ** 2) for block in _blocks(stem))])
    speech = _active(power)
    for start, end in kept:
        speech[start // FRAME:-(-end // FRAME)] = True
    return speech


def _active(power: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The frames that P.56 calls active: its threshold lies MARGIN_DB below the level that it gives."""
    low, high = 10 * np.log10(SILENT), 10 * np.log10(power.max(initial=SILENT))
    active = np.zeros(len(power), bool)
    total = power.sum()
    while high - low > 0.01:
        middle = (low + high) / 2
        active = _held(power > 10 ** (middle / 10))
        if 10 * np.log10(max(total, SILENT) / max(active.sum(), 1)) - middle > MARGIN_DB:
            low = middle
        else:
            high = middle
    return active


def _held(loud: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Each loud frame and the HANGOVER after it."""
    last = np.maximum.accumulate(np.where(loud, np.arange(len(loud)), -HANGOVER - 1))
    return np.asarray(np.arange(len(loud)) - last <= HANGOVER)


def dialogue_loudness(path: Path, speech: NDArray[np.bool_]) -> tuple[float | None, float]:
    """Loudness (LUFS) of a sound while somebody speaks, None where nobody does; and for which part of the time he does.

    Args:
        path: A file with 1 to 8 channels that begins where the stem does.
        speech: As `speech_frames` gives it.
    """
    powers = [_frames(block) for block in _weighted(path)]
    power = np.concatenate([np.zeros(0), *powers])[:len(speech)]
    heard = power[speech[:len(power)]]
    share = round(float(speech.mean()), 4) if len(speech) else 0.0
    if not len(heard) or heard.mean() < SILENT:
        return None, share
    return round(float(10 * np.log10(heard.mean()) - 0.691), 2), share


def _weighted(path: Path) -> Iterator[NDArray[np.float64]]:
    """K-weighted power of all channels together, block by block → (n, 1)."""
    from scipy.signal import sosfilt

    filters, state = np.array([[*SHELF[0], *SHELF[1]], [*HIGH_PASS[0], *HIGH_PASS[1]]]), None
    for block in _blocks(path):
        weights = np.array([WEIGHTS.get(role, 1.0) for role in ROLES[block.shape[1]]])
        state = np.zeros((2, 2, block.shape[1])) if state is None else state
        heard, state = sosfilt(filters, block, axis=0, zi=state)
        yield (heard**2 @ weights)[:, None]


def _blocks(path: Path) -> Iterator[Sound]:
    """A file's sound; its end is filled with zeros up to a whole FRAME."""
    for block in audio_blocks(path, block=BLOCK):
        yield np.pad(block, ((0, -len(block) % FRAME), (0, 0)))


def _frames(power: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean power of each FRAME (n, 1) → (n / FRAME,)."""
    return np.asarray(power.reshape(-1, FRAME).mean(axis=1, dtype=np.float64))

"""Phonemes with times → weights of the mouth's units per frame.

Lips lead the sound by 30 ms and blend over 42 ms (coarticulation), but p, b and m always close them: a closure that
blending would leave half open is what a viewer notices first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from infinitetalk.world.scene import CHANNELS, Floats, Phoneme
from infinitetalk.world.speech import VOWELS

LEAD = 0.030
"""Seconds by which lips are ahead of the sound."""
BLEND = 0.042
"""Seconds; standard deviation of the blending of neighbours."""
CLOSING = 0.022
"""Seconds; how fast lips close and open around p, b and m."""
GRID = 200
"""Steps per second in which mouths are reckoned, whatever the picture's rate."""
STRESSED = 1.2
"""How much wider a stressed vowel is."""
BILABIALS = frozenset("pbm")
OPENING = ("jawOpen", "mouthLowerDown", "mouthUpperUp", "tongueOut", "mouthFunnel")
"""Channels that part the lips."""

_SHAPES: Mapping[str, Mapping[str, float]] = {
    "pbm": {"mouthPress": 0.55, "mouthRollLower": 0.35, "jawOpen": 0.02},
    "fvʋɸβ": {"jawOpen": 0.07, "mouthRollLower": 0.75, "mouthUpperUp": 0.35, "mouthLowerDown": 0.05},
    "θð": {"jawOpen": 0.16, "tongueOut": 0.35, "mouthLowerDown": 0.2, "mouthUpperUp": 0.15},
    "tdnlɾɫ": {"jawOpen": 0.14, "mouthLowerDown": 0.2, "mouthUpperUp": 0.15, "mouthStretch": 0.1, "tongueOut": 0.1},
    "sz": {"jawOpen": 0.06, "mouthStretch": 0.35, "mouthLowerDown": 0.4, "mouthUpperUp": 0.25, "mouthSmile": 0.2},
    "ʃʒɕʑ": {"jawOpen": 0.08, "mouthFunnel": 0.65, "mouthPucker": 0.25, "mouthLowerDown": 0.25, "mouthUpperUp": 0.25},
    "kɡgŋhxɣʔχɦ": {"jawOpen": 0.2, "mouthLowerDown": 0.15},
    "ɹɚɜ": {"jawOpen": 0.15, "mouthFunnel": 0.35, "mouthPucker": 0.35},
    "rʁʀ": {"jawOpen": 0.18, "mouthLowerDown": 0.15, "mouthUpperUp": 0.1},
    "wɥ": {"jawOpen": 0.08, "mouthPucker": 0.9, "mouthFunnel": 0.35},
    "jʎɲçʝ": {"jawOpen": 0.1, "mouthSmile": 0.4, "mouthStretch": 0.25, "mouthLowerDown": 0.1},
    "iɪɨᵻ": {"jawOpen": 0.14, "mouthSmile": 0.5, "mouthStretch": 0.35, "mouthLowerDown": 0.2, "mouthUpperUp": 0.15},
    "yʏ": {"jawOpen": 0.12, "mouthPucker": 0.75, "mouthFunnel": 0.4},
    "eɛ": {"jawOpen": 0.33, "mouthSmile": 0.3, "mouthStretch": 0.25, "mouthLowerDown": 0.25, "mouthUpperUp": 0.2},
    "øœ": {"jawOpen": 0.28, "mouthFunnel": 0.5, "mouthPucker": 0.4},
    "æ": {"jawOpen": 0.5, "mouthStretch": 0.35, "mouthLowerDown": 0.35, "mouthUpperUp": 0.3, "mouthSmile": 0.15},
    "aɑɒʌɐ": {"jawOpen": 0.62, "mouthLowerDown": 0.25, "mouthUpperUp": 0.15},
    "ɔ": {"jawOpen": 0.5, "mouthFunnel": 0.55, "mouthPucker": 0.15},
    "oɤ": {"jawOpen": 0.36, "mouthFunnel": 0.6, "mouthPucker": 0.4},
    "uʊʉɯ": {"jawOpen": 0.14, "mouthPucker": 0.85, "mouthFunnel": 0.4},
    "əᵊ": {"jawOpen": 0.22, "mouthLowerDown": 0.12}}


def _table() -> Mapping[str, Floats]:
    rows = {sound: np.array([shape.get(name, 0.0) for name in CHANNELS], np.float32)
            for sounds, shape in _SHAPES.items() for sound in sounds}
    return MappingProxyType(rows)


SHAPES = _table()
"""Weights of `CHANNELS` by IPA letter, (11,); silence is 0, the mouth at rest."""


def frame_times(frames: int, rate: float) -> NDArray[np.float64]:
    """The moment that each frame shows: the middle of its time on the screen, in seconds (F,)."""
    return np.asarray((np.arange(frames) + 0.5) / rate, np.float64)


def visemes(phonemes: Sequence[Phoneme], stresses: Sequence[float], times: NDArray[np.float64],
            strength: float = 1.0) -> Floats:
    """What the mouth does at the given moments.

    Args:
        phonemes: In order, without overlap.
        stresses: Middles of stressed vowels, in seconds.
        times: Moments in seconds, ascending, (F,).
        strength: How distinctly this person speaks; 1 is common.

    Returns:
        Weights of `CHANNELS`, (F, 11), 0 … 1.
    """
    steps = int(times[-1] * GRID) + 2 if len(times) else 0
    if not steps or not phonemes:
        return np.zeros((len(times), len(CHANNELS)), np.float32)
    targets, closed = _painted(phonemes, stresses, steps)
    mouth = gaussian_filter1d(targets, BLEND * GRID, axis=0, mode="nearest") * strength      # (n, 11)
    mouth = _closed(mouth, closed)
    grid = np.arange(steps) / GRID
    out = np.stack([np.interp(times, grid, channel) for channel in mouth.T], axis=1)
    return np.asarray(np.clip(out, 0, 1), np.float32)


def _painted(phonemes: Sequence[Phoneme], stresses: Sequence[float], steps: int) -> tuple[Floats, NDArray[np.bool_]]:
    """What each step of the grid aims at, (n, 11), and where lips are shut, (n,)."""
    targets = np.zeros((steps, len(CHANNELS)), np.float32)
    closed = np.zeros(steps, np.bool_)
    for sound, start, end in phonemes:
        letters = [letter for letter in sound if letter in SHAPES]
        edges = np.linspace(start - LEAD, end - LEAD, len(letters) + 1)
        for letter, first, last in zip(letters, edges[:-1], edges[1:], strict=True):
            stressed = letter in VOWELS and any(start <= stress < end for stress in stresses)
            span = slice(max(round(first * GRID), 0), max(round(last * GRID), round(first * GRID) + 1, 0))
            targets[span] = SHAPES[letter] * (STRESSED if stressed else 1.0)
            closed[span] = letter in BILABIALS
    return targets, closed


def _closed(mouth: Floats, closed: NDArray[np.bool_]) -> Floats:
    """Shut the lips of (n, 11) wherever they must be, and quickly around it."""
    if not closed.any():
        return mouth
    away = distance_transform_edt(~closed) / GRID                                            # (n,) seconds
    shut = np.exp(-0.5 * (away / CLOSING) ** 2)[:, None]
    lips = SHAPES["m"].copy()
    opening = np.isin(CHANNELS, OPENING)
    lips[opening] = 0.0
    floor = np.where(opening, mouth * (1 - shut), np.maximum(mouth, lips * shut))
    return np.asarray(floor, np.float32)

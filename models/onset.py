"""Where a voice is heard in a recording: the acoustic onset and end on which timing is built. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW = 0.005
"""Seconds over which the level is measured; no onset is missed by more."""
BELOW_LOUDEST_DB = 38.0
"""What is this much quieter than the loudest moment is silence, breath or noise."""
PAUSE = 0.3
"""Seconds of silence that are a pause: what is shorter belongs to fluent speech (stops, breath)."""
INAUDIBLE = 1e-4
"""A recording that never exceeds this (-80 dBFS) holds no voice."""


def loudest(samples: NDArray[np.float32], rate: int) -> float:
    """Level (root mean square) of the loudest moment of (N,) samples; 0 when nothing is heard."""
    level = _levels(samples, rate)
    return float(np.sqrt(level.max())) if len(level) else 0.0


def _levels(samples: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Mean square over `WINDOW` from every sample on → (M,); empty when nothing is heard."""
    window = max(1, min(round(WINDOW * rate), len(samples)))
    if not len(samples) or float(np.abs(samples).max()) < INAUDIBLE:
        return np.zeros(0)
    energy = np.cumsum(np.concatenate([[0.0], np.square(samples, dtype=np.float64)]))
    return np.asarray(np.maximum(energy[window:] - energy[:-window], 0) / window)


def audible_span(samples: NDArray[np.float32], rate: int) -> tuple[int, int]:
    """The span [first, last) of samples in which something is heard.

    Args:
        samples: (N,) mono.
        rate: Samples per second.

    Returns:
        Sample indices, exact to `WINDOW`; (0, 0) when nothing is heard.
    """
    level = _levels(samples, rate)
    if not len(level):
        return 0, 0
    loud = np.flatnonzero(level > level.max() * 10 ** (-BELOW_LOUDEST_DB / 10))
    return int(loud[0]), int(loud[-1]) + len(samples) + 1 - len(level)


def spoken_spans(samples: NDArray[np.float32], rate: int) -> list[tuple[int, int]]:
    """The spans [first, last) of (N,) samples in which something is heard; gaps shorter than `PAUSE` part none."""
    level = _levels(samples, rate)
    if not len(level):
        return []
    window = len(samples) + 1 - len(level)
    loud = np.flatnonzero(level > level.max() * 10 ** (-BELOW_LOUDEST_DB / 10))
    parted = np.flatnonzero(np.diff(loud) > PAUSE * rate)
    return [(int(span[0]), int(span[-1]) + window) for span in np.split(loud, parted + 1)]


def trim(samples: NDArray[np.float32], rate: int, *, fade_in: float = 0.002,
         fade_out: float = 0.01) -> NDArray[np.float32]:
    """Cut the silence off both ends, so that the voice begins at sample 0; (0,) when nothing is heard.

    The ends are faded (seconds) so that no cut clicks.
    """
    first, last = audible_span(samples, rate)
    return fade(samples[first:last], round(fade_in * rate), round(fade_out * rate))


def fade(samples: NDArray[np.float32], into: int, out: int) -> NDArray[np.float32]:
    """Fade the first `into` and the last `out` samples linearly; a copy."""
    faded = samples.astype(np.float32, copy=True)
    into, out = min(into, len(faded)), min(out, len(faded))
    if into:
        faded[:into] *= np.linspace(0, 1, into, endpoint=False, dtype=np.float32)
    if out:
        faded[-out:] *= np.linspace(1, 0, out, dtype=np.float32)
    return faded

"""Intervals by resampling clips: what is said of a mean holds for other clips of the same kind."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.measure import Reals

RESAMPLES = 10_000
BLOCK = 500
"""Resamples drawn at once."""


class Interval(NamedTuple):
    """A mean and the interval around it."""

    mean: float
    low: float
    high: float
    clips: int
    """That it rests on."""
    left_out: int
    """Clips without a value."""

    @property
    def clear(self) -> bool:
        """Whether it lies on one side of 0."""
        return self.low > 0 or self.high < 0


def interval(values: Reals, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """Percentile bootstrap of the mean over clips; NaN is a clip without a value.

    Args:
        values: One a clip, (n,).
        seed: Same seed, same interval.
        level: Share of resamples inside.
        resamples: How many.

    Raises:
        BadInputError: No clip has a value.
    """
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)]
    if values.ndim != 1 or not len(known) or not 0 < level < 1 or resamples < 1:
        raise BadInputError("no clip has a value", where="bootstrap", hint="Give one figure a clip")
    random, means = np.random.default_rng(seed), np.empty(resamples)
    for start in range(0, resamples, BLOCK):
        drawn = random.integers(0, len(known), (min(BLOCK, resamples - start), len(known)))
        means[start:start + BLOCK] = known[drawn].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(known.mean()), float(low), float(high), len(known), len(values) - len(known))


def paired(one: Reals, other: Reals, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """Of one − other, clip by clip: both systems on the same clips, (n,) each.

    Raises:
        BadInputError: Other numbers of clips, or no clip that both have a value for.
    """
    if np.shape(one) != np.shape(other):
        raise BadInputError(f"{np.shape(one)} and {np.shape(other)} figures are no pairs", where="bootstrap",
                            hint="Give both systems' figures on the same clips, in the same order")
    return interval(np.asarray(one, np.float64) - np.asarray(other, np.float64), seed, level, resamples)

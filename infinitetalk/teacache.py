"""TeaCache (arXiv 2411.19108): while the timestep's modulation hardly moves, what the blocks add is used again.

Every role of a step (each `Pass`) counts for itself. The published implementation counts calls modulo three instead,
so that with two passes a step its roles and its restart at a chunk's beginning get out of phase.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from infinitetalk.errors import BadInputError
from infinitetalk.guidance import Pass

POLYNOMIALS: Mapping[str, tuple[float, ...]] = {
    "480": (2.57151496e5, -3.54229917e4, 1.40286849e3, -1.35890334e1, 1.32517977e-1),
    "720": (8.10705460e3, 2.13393892e3, -3.72934672e2, 1.66203073e1, -4.17769401e-2),
}
"""Relative change of the modulation → that of the output, fitted for Wan 2.1 image-to-video; highest degree first."""


class TeaCache:
    """What one chunk remembers. Make a new one for every chunk."""

    def __init__(self, threshold: float, polynomial: Sequence[float], warm_up: int = 5) -> None:
        """Nothing is known yet.

        Args:
            threshold: Estimated relative change of the output, summed over steps, from which on the blocks run again.
            polynomial: Coefficients, highest degree first (see `POLYNOMIALS`).
            warm_up: Steps at the beginning that always run.

        Raises:
            BadInputError: The threshold is no number from 0 up, or `warm_up` is negative.
        """
        check_threshold(threshold)
        if warm_up < 0:
            raise BadInputError(f"{warm_up} steps is no warm-up", where="teacache", hint="Give 0 or more")
        self._threshold, self._polynomial, self._warm_up = threshold, tuple(polynomial), warm_up
        self._roles: dict[Pass, RoleCache] = {}

    def of(self, role: Pass) -> RoleCache:
        """The memory of one role."""
        return self._roles.setdefault(role, RoleCache(self._threshold, self._polynomial, self._warm_up))


class RoleCache:
    """What one role remembers from step to step: a `conditions.StepCache`."""

    def __init__(self, threshold: float, polynomial: Sequence[float], warm_up: int) -> None:
        self._threshold, self._polynomial, self._left = threshold, polynomial, warm_up
        self._changed = 0.0
        self._signal: Tensor | None = None
        self._residual: Tensor | None = None

    def reuse(
        self,
        signal: Tensor,  # (B, 6, D)
    ) -> Tensor | None:
        """What the blocks added last time, (B, N, D), if that will do for this step; None if they must run."""
        before, self._signal = self._signal, signal.detach()
        self._left -= 1
        if self._left >= 0 or before is None or self._residual is None:
            return None
        change = float((signal - before).abs().mean() / before.abs().mean())
        self._changed += polynomial_at(self._polynomial, change)
        if self._changed < self._threshold:
            return self._residual
        self._changed = 0.0
        return None

    def keep(
        self,
        residual: Tensor,  # (B, N, D)
    ) -> None:
        """Remember what the blocks added, for the next steps."""
        self._residual = residual.detach()


def polynomial_at(coefficients: Sequence[float], x: float) -> float:
    """The polynomial's value at x, coefficients from the highest degree down."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


def check_threshold(threshold: float) -> None:
    """Refuse what is no threshold with a BadInputError."""
    if not (math.isfinite(threshold) and threshold >= 0):
        raise BadInputError(f"{threshold} is no threshold", where="teacache", hint="Give 0 or more; usual is 0.2")

"""Guidance by text and by audio, with no pass of the network that the scales do not need.

    c = (text, audio)    d = (no text, audio)    u = (no text, no audio)    a = (text, no audio)

    text ≠ 1, audio ≠ 1    c, d, u    u + text·(c - d) + audio·(d - u)
    text ≠ 1, audio = 1    c, d       d + text·(c - d)
    text = 1, audio ≠ 1    c, a       a + audio·(c - a)
    text = 1, audio = 1    c          c

The second row is the first one at audio = 1. The third is the published implementation's (MeiGen-AI/InfiniteTalk at
0107cd96): it takes the difference that audio makes with the prompt present, where the first row takes it without.
With adaptive projected guidance (APG, arXiv 2410.02416) each row is c + Σ (scale - 1)·P(difference).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from infinitetalk.errors import BadInputError


class Pass(NamedTuple):
    """One run of the network: which conditions it is given. Without text it gets the negative prompt."""

    text: bool
    audio: bool


FULL, TEXTLESS, BARE, SILENT = Pass(True, True), Pass(False, True), Pass(False, False), Pass(True, False)
"""c, d, u and a."""
Mixer = Callable[[Mapping[Pass, Tensor]], Tensor]
"""Velocities (16, T, h, w) of the passes → the one to follow (16, T, h, w). It may remember: one mixer per chunk."""


@dataclass(frozen=True)
class Apg:
    """Adaptive projected guidance: strong guidance without its glaring colours."""

    momentum: float = -0.75
    """Share of the earlier differences; negative pushes away from them."""
    norm_threshold: float = 55.0
    """Longest L2 norm of a difference over the whole latent; 0 lets any pass."""
    eta: float = 0.0
    """Share kept of the part that is parallel to c."""

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        if not all(map(math.isfinite, (self.momentum, self.norm_threshold, self.eta))) or self.norm_threshold < 0:
            raise BadInputError(f"{self} is no guidance", where="apg", hint="Give finite numbers, and a threshold ≥ 0")


@dataclass(frozen=True)
class Guidance:
    """How far to go beyond what the conditions say by themselves."""

    text: float = 5.0
    audio: float = 4.0
    """3 to 5 suit the lips best (the published implementation's advice)."""
    apg: Apg | None = None

    def __post_init__(self) -> None:
        """Refuse scales that are no scales."""
        for name, scale in (("text", self.text), ("audio", self.audio)):
            if not (math.isfinite(scale) and scale >= 0):
                raise BadInputError(f"{scale} is no scale", where=f"guidance by {name}", hint="Give 0 or more; 1: none")

    @property
    def passes(self) -> tuple[Pass, ...]:
        """What one step needs, in the order it runs; each is the one before it with one condition less."""
        text, audio = not math.isclose(self.text, 1), not math.isclose(self.audio, 1)
        if text:
            return (FULL, TEXTLESS, BARE) if audio else (FULL, TEXTLESS)
        return (FULL, SILENT) if audio else (FULL,)

    def start(self) -> Mixer:
        """A mixer for one chunk."""
        return self._plain if self.apg is None else ProjectedMixer(self, self.apg)

    def _plain(self, velocities: Mapping[Pass, Tensor]) -> Tensor:
        added = (scale * difference for scale, difference in self.differences(velocities))
        return sum(added, velocities[self.passes[-1]])  # (16, T, h, w)

    def differences(self, velocities: Mapping[Pass, Tensor]) -> list[tuple[float, Tensor]]:
        """What each condition that is guided by adds, (16, T, h, w), and its scale; text comes first."""
        scales = [scale for scale in (self.text, self.audio) if not math.isclose(scale, 1)]
        pairs = zip(scales, pairwise(self.passes), strict=True)
        return [(scale, velocities[more] - velocities[less]) for scale, (more, less) in pairs]


class ProjectedMixer:
    """Guidance by APG through one chunk, with one momentum per kind of guidance (text, audio)."""

    def __init__(self, guidance: Guidance, apg: Apg) -> None:
        self._guidance = guidance
        self._projections = (Projection(apg), Projection(apg))

    def __call__(self, velocities: Mapping[Pass, Tensor]) -> Tensor:
        """The velocity (16, T, h, w) to follow."""
        full = velocities[FULL]  # (16, T, h, w)
        kinds = zip(self._projections, self._guidance.differences(velocities), strict=False)
        pushes = ((scale - 1) * project(difference, full) for project, (scale, difference) in kinds)
        return sum(pushes, full)  # (16, T, h, w)


class Projection:
    """The part of a difference that APG follows; remembers the earlier ones."""

    def __init__(self, apg: Apg) -> None:
        self._apg = apg
        self._running: Tensor | float = 0.0

    def __call__(
        self,
        difference: Tensor,  # (16, T, h, w)
        along: Tensor,  # (16, T, h, w)
    ) -> Tensor:
        """`difference` with momentum, shortened, and without what is parallel to `along`: (16, T, h, w).

        The projection is in float64: two nearly parallel vectors of a million numbers lose it in float32.
        """
        self._running = pushed = difference + self._apg.momentum * self._running  # (16, T, h, w)
        if self._apg.norm_threshold > 0:
            pushed = pushed * (self._apg.norm_threshold / pushed.norm().clamp_min(1e-30)).clamp_max(1)  # (16, T, h, w)
        exact = pushed.double()  # (16, T, h, w)
        unit = along.double() / along.double().norm().clamp_min(1e-30)  # (16, T, h, w)
        parallel = (exact * unit).sum() * unit  # (16, T, h, w)
        return (exact - parallel + self._apg.eta * parallel).to(difference.dtype)  # (16, T, h, w)

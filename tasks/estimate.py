"""GPU seconds of a shot beforehand: what the engine's model says, bent by what earlier shots really took."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import median
from typing import Literal, cast

from models.engines import adapter
from models.pool import History, Packed
from models.ports import Generator
from models.records import ShotRequest
from tasks.pack import pack

Basis = Literal["measured", "model", "guess"]
GUESS_S = 1.0
"""GPU seconds a frame of an engine that has no model and never ran."""
STARTUP_S = 90.0
"""From the start of a process until an engine of tens of GB is ready, where it never ran: 88 s are published for a
14-billion-parameter model (SoulX-FlashTalk as served by OmniRT)."""


class Estimator:
    """Estimates for shots of one engine."""

    def __init__(self, history: History) -> None:
        """Learn from what was measured.

        Args:
            history: Of the same engine; an empty one where it never ran.
        """
        self._history = history

    def basis(self, request: ShotRequest) -> Basis:
        """What the figure for a shot stands on."""
        if self._history.frames:
            return "measured"
        return "guess" if _modelled(request) is None else "model"

    @property
    def correction(self) -> float:
        """What past runs took of what they were expected to; 1 where there were none."""
        known = self._history
        return known.seconds / known.estimated if known.seconds > 0 and known.estimated > 0 else 1.0

    @property
    def startup_s(self) -> float:
        """Seconds from the start of a process until the engine is ready."""
        return median(self._history.startups) if self._history.startups else STARTUP_S

    def seconds(self, request: ShotRequest) -> float:
        """GPU seconds to generate a shot, start-up not counted."""
        modelled = _modelled(request)
        return (GUESS_S * request.generated_frames if modelled is None else modelled) * self.correction

    def shards(self, missing: Mapping[str, ShotRequest], *, episode: str, language: str,
               whole: bool = False) -> tuple[Packed, ...]:
        """Missing shots (recipe → request, in the episode's order) packed by these estimates; `whole`: into one."""
        return pack(list(missing.values()), [self.seconds(request) for request in missing.values()], list(missing),
                    episode=episode, language=language, startup_s=math.inf if whole else self.startup_s,
                    correction=self.correction)


def _modelled(request: ShotRequest) -> float | None:
    kind = cast("type[Generator]", adapter("generator", request.generator.name))
    return kind.gpu_seconds(request)


class Estimators:
    """An estimator an engine, each made when it is first asked for."""

    def __init__(self, history: Callable[[str], History]) -> None:
        """`history` maps an engine's name to what is known of it."""
        self._history = history
        self._known: dict[str, Estimator] = {}

    def of(self, engine: str) -> Estimator:
        """The engine's."""
        if engine not in self._known:
            self._known[engine] = Estimator(self._history(engine))
        return self._known[engine]

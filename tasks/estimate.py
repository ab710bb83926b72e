"""GPU seconds of a shot beforehand: what the engine's model says, bent by what earlier shots really took."""

from __future__ import annotations

from typing import Literal

from models.pool import History
from models.records import ShotRequest


class Estimator:
    """Estimates for shots of one engine."""

    def __init__(self, history: History) -> None:
        """Learn from what was measured.

        Args:
            history: Of the same engine; an empty one where it never ran.
        """
        raise NotImplementedError

    @property
    def basis(self) -> Literal["measured", "model", "guess"]:
        """What the figures stand on."""
        raise NotImplementedError

    @property
    def startup_s(self) -> float:
        """Seconds from the start of a process until the engine is ready."""
        raise NotImplementedError

    def seconds(self, request: ShotRequest) -> float:
        """GPU seconds to generate a shot, start-up not counted."""
        raise NotImplementedError

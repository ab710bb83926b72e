"""Who is told how a run gets on: the terminal (`flows.show`), the Prefect UI (`flows.artifacts`), or nobody."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Is told how a run gets on."""

    def step(self, episode: str, language: str, step: str, state: str) -> None:
        """A step is 'running', 'done', 'reused' or 'failed'."""
        ...

    def progress(self, episode: str, language: str, text: str, fraction: float) -> None:
        """Inside a step: what is being done, and how much of it (0 … 1)."""
        ...

    def link(self, name: str, url: str) -> None:
        """Where a run is seen in the user interface."""
        ...


class Silence:
    """Nobody listens."""

    def step(self, episode: str, language: str, step: str, state: str) -> None:
        """Ignored."""

    def progress(self, episode: str, language: str, text: str, fraction: float) -> None:
        """Ignored."""

    def link(self, name: str, url: str) -> None:
        """Ignored."""

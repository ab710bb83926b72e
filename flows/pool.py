"""Where missing shots are made: by this process, by flow runs on a GPU work pool, or by an Indexed Job.

The queue is `tasks.shards`; what is here only asks for shards, waits for them, and has processes started.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from models.pool import Waiting
from models.records import Plan, ShotRequest
from tasks.step import Work


class Pool(Protocol):
    """Makes missing shots."""

    def order(self, work: Work, plan: Plan, requests: Sequence[ShotRequest]) -> None:
        """Have those of `requests` made that no result is known of; returns at once."""
        ...

    def ready(self, requests: Sequence[ShotRequest]) -> bool:
        """Whether none of these shots is still being made."""
        ...

    def wait(self, requests: Sequence[ShotRequest]) -> None:
        """Wait until all these shots are made.

        Raises:
            EngineError: Shots failed or were flagged; the message names them, the class of error, and what to do.
            InfrastructureError: The shards' deadline is over, or they were cancelled.
        """
        ...

    def tick(self) -> None:
        """Reap, submit again what was not, dispatch: every few seconds, by whoever is up."""
        ...

    def cancel(self, run_id: str) -> int:
        """Cancel a run's shards and end their processes → how many were live."""
        ...


class Submitter(Protocol):
    """Has processes started that claim shards."""

    def submit(self, waiting: Sequence[Waiting], config: str,
               settings: Mapping[str, Any]) -> dict[tuple[str, int], str]:
        """Start a process for each attempt; asking twice for the same attempt starts one.

        Args:
            waiting: The attempts.
            config: Path of the settings file on the pool, '' for none.
            settings: Dotted name → value over it; never a secret.

        Returns:
            (shard, attempt) → name of the flow run or Job; what could not be started is missing.
        """
        ...

    def cancel(self, names: Collection[str]) -> None:
        """End these flow runs or Jobs; those that have ended are passed over."""
        ...

    def final(self, names: Collection[str]) -> set[str]:
        """Those of `names` that have ended, or are not known any more."""
        ...

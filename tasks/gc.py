"""What nothing needs any more: objects without a row, checkpoints of finished shots, uploads that never ended."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.ledger import Ledger
from tasks.store import Store


@dataclass(frozen=True)
class Removed:
    """How much of one kind was removed, or would be."""

    kind: str
    """In words, as the verb prints it."""
    count: int
    bytes: int


def collect(store: Store, ledger: Ledger, *, delete: bool, unused_days: int | None = None) -> list[Removed]:
    """Find what can go, and remove it.

    Args:
        store: Where it lies.
        ledger: What is still in use.
        delete: False: only say what would go.
        unused_days: Also results that no run touched for so long and that no current delivery was made of; None: keep.

    Raises:
        InfrastructureError: Store or database failed; what was removed before was not needed either.
    """
    raise NotImplementedError

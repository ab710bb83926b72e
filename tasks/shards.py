"""The queue of GPU shards: enqueue, dispatch, claim, heartbeat, finish, give back, reap, cancel.

    (new) ─enqueue→ queued ─dispatch→ dispatched ─claim→ running ─finish→ done | failed
                      ↑                    └── reap ──┬──────┘
                      └── give_back, reap ────────────┘          cancel: from any live state → cancelled

Our tables are the truth, whatever the scheduler that starts the processes believes. Every function is one short
transaction that compares and sets one row, fenced by its `attempt`: who comes late changes nothing and is told so.
All of them raise InfrastructureError where the database fails.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from models.pool import Beat, History, Lease, Packed, ShardLine, ShardState, ShotOutcome, Spent, Waiting
from tasks.ledger import Ledger


def enqueue(ledger: Ledger, packed: Sequence[Packed], *, artifacts: Mapping[str, str], run_id: str, catalog: str,
            priority: int, in_flight: int, deadline_s: float) -> list[str]:
    """Queue shards; those that ended before are opened again.

    A shard with a shot that meanwhile came to be another live shard's, or is flagged, is left out whole: pack the rest
    again.

    Args:
        ledger: The database.
        packed: What to queue.
        artifacts: Shard id → SHA-256 of its SHARD.json in the store.
        run_id: The run that asks for them; cancelling it cancels them.
        catalog: Whose bound they count for.
        priority: The larger is dispatched first.
        in_flight: How many shards of this catalog may be dispatched or running at once.
        deadline_s: After so many seconds they are not tried again.

    Returns:
        Ids of the shards that were queued.
    """
    raise NotImplementedError


def owned(ledger: Ledger, recipes: Collection[str]) -> dict[str, ShotOutcome]:
    """Those of `recipes` that a shard has or had: recipe → what the newest such shard says of it."""
    raise NotImplementedError


def dispatch(ledger: Ledger, *, pool: str, slots: int, patience_s: float) -> list[Waiting]:
    """Take queued shards for starting, urgent and long ones first, within the bounds of their catalogs and the pool.

    Args:
        ledger: The database.
        pool: The work pool they will be started in.
        slots: How many shards may be dispatched or running at once, of all catalogs.
        patience_s: How long a process may take to claim its shard, counted from now.

    Returns:
        The attempts to start; what is not started is found by `unsubmitted`, and in the end by `reap`.
    """
    raise NotImplementedError


def unsubmitted(ledger: Ledger, older_than_s: float) -> list[Waiting]:
    """Attempts that were dispatched longer ago, and of which nobody noted a flow run: to be submitted again."""
    raise NotImplementedError


def submitted(ledger: Ledger, shard: str, attempt: int, flow_run: str) -> None:
    """Note the flow run or Job that was started for an attempt."""
    raise NotImplementedError


def claim(ledger: Ledger, shard: str, attempt: int, *, owner: str, device: str, lease_s: float) -> Lease | None:
    """Take the shard that this process was started for.

    Args:
        ledger: The database.
        shard: Its id.
        attempt: The attempt that was dispatched.
        owner: Host, pod and process id, for people.
        device: Name of the GPU.
        lease_s: How long it is held without a heartbeat.

    Returns:
        The lease; None: another has it, or it is over. Then nothing may be written.
    """
    raise NotImplementedError


def claim_next(ledger: Ledger, *, engine: str, owner: str, device: str, lease_s: float, pool: str) -> Lease | None:
    """Take the next shard of an engine, queued or dispatched to somebody who has not come up yet; None: none waits.

    Args:
        ledger: The database.
        engine: Name of the generator that is loaded.
        owner: As in `claim`.
        device: As in `claim`.
        lease_s: As in `claim`.
        pool: The work pool that this process runs in.
    """
    raise NotImplementedError


def heartbeat(ledger: Ledger, lease: Lease, beat: Beat) -> bool:
    """Hold the shard for another `lease.seconds` and note what was done. False: it is another's, or cancelled."""
    raise NotImplementedError


def finish(ledger: Ledger, lease: Lease, beat: Beat, failed: Mapping[str, tuple[str, str, bool]]) -> bool:
    """Close a shard whose shots were all tried.

    Args:
        ledger: The database.
        lease: As claimed.
        beat: The last one.
        failed: Recipe → error class, error, and whether to flag it, of each shot that failed.

    Returns:
        False: the lease was lost before; nothing was changed.
    """
    raise NotImplementedError


def give_back(ledger: Ledger, lease: Lease, beat: Beat, *, error_class: str, error: str,
              delay_s: float) -> ShardState | None:
    """Hand a shard back that this process cannot finish; an attempt that made no chunk costs one of its tries.

    Args:
        ledger: The database.
        lease: As claimed.
        beat: The last one.
        error_class: Why; `models.pool.EVICTED` costs no try.
        error: The message, without secrets.
        delay_s: It is not dispatched again before.

    Returns:
        Its state now: queued, or failed where tries or time are over; None: the lease was lost before.
    """
    raise NotImplementedError


def reap(ledger: Ledger) -> list[str]:
    """Queue (or fail) all shards whose lease is over → their ids."""
    raise NotImplementedError


def reap_runs(ledger: Ledger) -> list[str]:
    """Close all runs whose lease is over, and what is still marked running in them → their ids."""
    raise NotImplementedError


def cancel(ledger: Ledger, *, run_id: str = "", shards: Collection[str] = ()) -> list[tuple[str, str]]:
    """Cancel the live shards of a run, or those named → (shard, name of its flow run or '') of each that was live."""
    raise NotImplementedError


def unflag(ledger: Ledger, episode: str, language: str) -> int:
    """Let the flagged shots of an episode and language be tried again → how many there were."""
    raise NotImplementedError


def overview(ledger: Ledger, *, catalog: str = "", run_id: str = "") -> list[ShardLine]:
    """All shards of a catalog or run, live ones first."""
    raise NotImplementedError


def history(ledger: Ledger, engine: str, last: int = 200) -> History:
    """What the engine's `last` finished attempts took."""
    raise NotImplementedError


def spent(ledger: Ledger, run_ids: Collection[str] = (), since: datetime | None = None) -> list[Spent]:
    """CPU and GPU seconds by episode, language and pool, of these runs or of all since a time (aware)."""
    raise NotImplementedError

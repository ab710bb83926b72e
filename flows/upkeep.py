"""Prefect flows that keep a pool healthy: `reap` takes back what died, `sweep` frees the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Completed, Crashed

from flows.deployments import flow_run_id
from flows.notify import announce
from flows.options import refuse_secrets
from flows.pool import ENDED_S, FORGOTTEN_S, open_pool
from flows.review import go_on
from flows.settings import load_settings
from flows.wiring import Workspace, open_workspace
from models.pool import LOST
from tasks import review, shards
from tasks.gc import collect

UNENDED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


@flow(name="reap")
def reap(config: str = "", settings: dict[str, Any] | None = None) -> State[Any]:
    """Take back shards and runs whose processes died, and have others started; settle reviews whose time is over.

    Args:
        config: Path of infinidub.toml; '' looks in the working folder.
        settings: Dotted name → value, over the file and the environment.
    """
    space = _space(config, settings)
    died = shards.reap_runs(space.ledger)
    what = "its process died, or could not reach the database"
    failures = [{"run": run, "error": LOST, "message": f"run {run}: {what}"} for run in died]
    unheard = announce(space.settings, "run-lost", failures) if died else ""  # nobody finds them dead once more
    over = settle_reviews(space)
    open_pool(space, config=config, given=settings).tick()
    ended = crash(shards.ended(space.ledger, ENDED_S, FORGOTTEN_S))
    words = [f"{len(died)} runs were dead", unheard, f"{ended} flow runs had ended without Prefect's knowing", *over]
    return Completed(message="; ".join(filter(None, words)))


def settle_reviews(space: Workspace) -> list[str]:
    """Have languages go on whose review took too long, or tell that they still wait. Returns what was done."""
    over = review.time_out(space.ledger)
    waiting = [{"episode": episode, "language": language, "error": "AwaitingReviewError",
                "message": f"{episode}·{language} still awaits its review, and its time is over"}
               for episode, language, then in over if then == "wait"]
    words = [f"{episode}·{language} was not reviewed in time: {go_on(space, episode, language).words}"
             for episode, language, then in over if then == "approve"]
    told = announce(space.settings, "review-overdue", waiting) if waiting else ""
    return [*words, *(str(one["message"]) for one in waiting), *filter(None, [told])]


@flow(name="sweep")
def sweep(dry_run: bool = False, unused_days: int | None = None, config: str = "",
          settings: dict[str, Any] | None = None) -> State[Any]:
    """Remove from the store what nothing needs any more.

    Args:
        dry_run: Only say what would go.
        unused_days: Also results that nothing used for so many days; None keeps them.
        config: Path of infinidub.toml; '' looks in the working folder.
        settings: Dotted name → value, over the file and the environment.
    """
    space = _space(config, settings)
    removed = collect(space.store, space.ledger, delete=not dry_run, unused_days=unused_days)
    would = "would go" if dry_run else "removed"
    return Completed(message="; ".join(f"{one.count} {one.kind} {would}, {one.bytes / 1e6:.1f} MB" for one in removed))


def crash(names: Collection[str]) -> int:
    """Mark flow runs as crashed that Prefect takes for unended, and what ran inside them → how many there were.

    Args:
        names: Of flow runs; those of Jobs, which Prefect does not know, are passed over.
    """
    ids, ended = [identity for name in names if (identity := flow_run_id(name))], 0
    unended = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNENDED))
    with get_client(sync_client=True) as client:
        while ids:
            left = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids), state=unended))
            for run in left:
                client.set_flow_run_state(run.id, Crashed(message="infinidub's tables say that it has ended"),
                                          force=True)
            ended += len(left)
            within = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=ids))
            ids = [run.id for run in client.read_flow_runs(flow_run_filter=within)]
    return ended


def _space(config: str, settings: Mapping[str, Any] | None) -> Workspace:
    refuse_secrets(settings or {})
    return open_workspace(load_settings(Path(config) if config else None, settings))

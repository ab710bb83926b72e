"""What the database remembers of earlier runs: what was delivered, what failed, what is going on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from models import tables as t
from tasks.ledger import Ledger

RECENT_RUNS = 200


@dataclass(frozen=True)
class Event:
    """The latest that is known of a step of one episode and language ('' for what languages share)."""

    outcome: str
    """running, failed or cancelled."""
    step: str
    item: str
    error_class: str
    error: str


def delivered_source(ledger: Ledger, episode: str) -> str | None:
    """Hash of the file an episode was dubbed from, None as long as nothing of it was delivered."""
    with ledger.session() as session:
        row = session.get(t.Episode, episode)
        if row is None:
            return None
        delivered = session.scalar(sa.select(sa.func.count()).select_from(t.Delivery)
                                   .where(t.Delivery.episode == episode))
        return row.source_sha256 if delivered else None


def last_run(ledger: Ledger, *, episode: str = "", catalog: str = "") -> dict[str, Any] | None:
    """Parameters of the newest run that had to do with an episode, or a catalog, or with anything at all."""
    query = sa.select(t.Run).where(t.Run.command.in_(("dub", "run", "redo", "retry", "schedule")))
    with ledger.session() as session:
        for row in session.scalars(query.order_by(t.Run.started.desc()).limit(RECENT_RUNS)):
            known = row.parameters
            if episode in {"", *known.get("episodes", [])} and catalog in {"", known.get("catalog")}:
                return {**known, "id": row.id}
    return None


def live_runs(ledger: Ledger) -> dict[str, str]:
    """Runs that go on, newest first: id → flow run or ''; not those of processes that work off shards."""
    query = sa.select(t.Run.id, t.Run.flow_run).where(t.Run.state == "running", t.Run.command != "shard")
    with ledger.session() as session:
        return {run: flow or "" for run, flow in session.execute(query.order_by(t.Run.started.desc())).tuples()}


def run_state(ledger: Ledger, run_id: str) -> str:
    """running, done, failed or cancelled; '' for a run that is not known."""
    with ledger.session() as session:
        return session.scalar(sa.select(t.Run.state).where(t.Run.id == run_id)) or ""


def note_flow_run(ledger: Ledger, run_id: str, flow_run: str) -> None:
    """Tie a run to the Prefect flow run that it is seen as; the first one told of counts."""
    with ledger.session() as session:
        session.execute(sa.update(t.Run).where(t.Run.id == run_id, t.Run.flow_run.is_(None)).values(flow_run=flow_run))


def note_failures(ledger: Ledger, run_id: str, failures: Sequence[tuple[str, str]]) -> None:
    """Keep what failed in a run as (episode, language), '' for what languages share."""
    with ledger.session() as session:
        session.execute(sa.update(t.Run).where(t.Run.id == run_id).values(failures=[list(one) for one in failures]))


def failed_in(ledger: Ledger, run_id: str) -> set[tuple[str, str]]:
    """(episode, language) of everything that failed in a run, or was cut off with it ('' is what languages share).

    All episodes, when a run did not get as far as any of them.
    """
    query = sa.select(t.Execution.episode, t.Execution.language).where(
        t.Execution.run_id == run_id, t.Execution.outcome.in_(("failed", "cancelled", "running")))
    with ledger.session() as session:
        run = session.get_one(t.Run, run_id)
        failed = {(episode, language) for episode, language in run.failures or ()}
        if run.state in {"running", "cancelled"}:
            failed |= {(row.episode, "" if row.language == "mul" else row.language) for row in session.execute(query)}
        if not failed and run.state != "done":
            failed = {(episode, "") for episode in run.parameters.get("episodes", ())}
        return failed


def events(ledger: Ledger, episode: str) -> dict[tuple[str, str], Event]:
    """(language, step) → how its newest execution stands, where that is not 'done'.

    An execution counts as running only while its run does.
    """
    rows = sa.select(t.Execution).where(t.Execution.episode == episode).order_by(t.Execution.id)
    found: dict[tuple[str, str], Event] = {}
    with ledger.session() as session:
        going_on = set(session.scalars(sa.select(t.Run.id).where(t.Run.state == "running")))
        for row in session.scalars(rows):
            key = (row.language, row.step.partition(".")[0])
            if row.outcome in {"failed", "cancelled"} or (row.outcome == "running" and row.run_id in going_on):
                found[key] = Event(row.outcome, row.step, row.item, row.error_class or "", row.error or "")
            elif "." not in row.step:
                found.pop(key, None)
    return found


def source_lines(ledger: Ledger, episode: str) -> dict[str, str]:
    """Line id → source text of an episode, in order."""
    query = sa.select(t.LineRow).where(t.LineRow.episode == episode, t.LineRow.language == "")
    with ledger.session() as session:
        return {row.line: row.text for row in session.scalars(query.order_by(t.LineRow.start, t.LineRow.line))}


def delivered(ledger: Ledger, episode: str, out: Path) -> dict[str, list[str]]:
    """Language → paths of the files that were delivered into a folder."""
    files: dict[str, list[str]] = {}
    with ledger.session() as session:
        for row in session.scalars(sa.select(t.Delivery).where(t.Delivery.episode == episode)):
            if Path(row.path).is_relative_to(out.resolve()):
                files.setdefault(row.language, []).append(row.path)
    return files

"""The queue of GPU shards: enqueue, dispatch, claim, heartbeat, finish, give back, reap, cancel.

    (new) ─enqueue→ queued ─dispatch→ dispatched ─claim→ running ─finish→ done | failed
                      ↑                    └── reap ──┬──────┘
                      └── give_back, reap ────────────┘          cancel: from any live state → cancelled

Our tables are the truth, whatever the scheduler that starts the processes believes. Every function is one short
transaction that compares and sets one row, fenced by its `attempt`: who comes late changes nothing and is told so.
All of them raise InfrastructureError where the database fails.

Locks are taken in one order, so that nobody waits in a circle: sweeping, DISPATCH, ENQUEUE, shards by id, the rest.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from models.pool import (
    ANY_WAIT,
    CAPACITY,
    FREE,
    LIVE,
    LOST,
    TRIES,
    UNSTARTED,
    WAITS,
    Beat,
    History,
    Lease,
    Packed,
    ShardLine,
    ShardState,
    ShotOutcome,
    Spent,
    Waiting,
)
from models.tables import Execution, Run, ShardAttempt, ShardRow, ShardShot, clock
from tasks.ledger import Ledger, batches

DISPATCH, ENQUEUE = 4812379, 4812380
"""Numbers of PostgreSQL's advisory locks; on SQLite every transaction excludes all others anyway."""
ORDER = (ShardRow.priority.desc(), ShardRow.estimate_s.desc(), ShardRow.id)
"""Who is served first."""
COUNTED = sa.and_(ShardRow.state.in_(("dispatched", "running")), ShardRow.lease_until.is_not(None))
"""What the bounds count: not what a run works off in its own process."""
HERE = "here"
"""Pool of what runs work off in their own process."""


def _lock(session: Session, number: int) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))


def _time(session: Session) -> float:
    """The database's clock, read after all locks that this transaction waited for."""
    return session.execute(sa.select(clock())).scalar_one()


def _insert(session: Session, table: type[ShardRow] | type[ShardShot]) -> postgresql.Insert | sqlite.Insert:
    return (postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert)(table)


def _held(session: Session, shard: str, attempt: int, state: ShardState) -> ShardRow | None:
    """The row, locked until the transaction ends, if it still is this attempt's."""
    return session.scalar(sa.select(ShardRow).where(
        ShardRow.id == shard, ShardRow.attempt == attempt, ShardRow.state == state)
        .with_for_update(key_share=True))


def _note(session: Session, lease: Lease, beat: Beat) -> None:
    """Keep what an attempt cost, even when its lease is lost: no other process has a part in this row's sums."""
    session.execute(sa.update(ShardAttempt).where(
        ShardAttempt.shard == lease.shard, ShardAttempt.attempt == lease.attempt).values(
        beat=clock(), gpu_seconds=beat.gpu_seconds, startup_seconds=beat.startup_seconds, chunks=beat.chunks,
        frames=beat.frames, chunks_done=beat.chunks_done, chunks_total=beat.chunks_total))


def _close(session: Session, row: ShardRow, state: str, error_class: str, error: str) -> None:
    """End the newest attempt of a shard."""
    session.execute(sa.update(ShardAttempt).where(
        ShardAttempt.shard == row.id, ShardAttempt.attempt == row.attempt).values(
        state=state, ended=clock(), error_class=error_class, error=error))


def _put_back(session: Session, row: ShardRow, state: str, *, chunks: int, error_class: str, error: str,
              delay_s: float) -> ShardState:
    """Queue a locked shard once more, or fail it where tries or time are over; its attempt ends as `state`."""
    now = _time(session)
    if not chunks and error_class not in FREE:
        row.tries_left -= 1
    row.state = "failed" if row.tries_left <= 0 or now >= row.deadline else "queued"
    row.not_before, row.lease_until, row.updated = now + delay_s, None, datetime.now(UTC)
    row.error_class, row.error = error_class, (_overdue(error) if now >= row.deadline else error)[:2000]
    _close(session, row, state, error_class, error[:2000])
    return cast(ShardState, row.state)


def _overdue(error: str) -> str:
    return f"its time was over before it was done{f': {error}' if error else ''}"


def delay_s(error_class: str, attempt: int) -> float:
    """Seconds until a shard is dispatched again: of `models.pool.WAITS`, twice as long each time, never two at once."""
    first, most = WAITS.get(error_class, ANY_WAIT)
    waits: float = min(most, first * 2 ** min(attempt - 1, 10))
    return waits * random.uniform(0.75, 1.25)  # noqa: S311 - no secret


def _lease(row: ShardRow, seconds: float) -> Lease:
    return Lease(shard=row.id, attempt=row.attempt, seconds=seconds, artifact=row.artifact, episode=row.episode,
                 language=row.language)


def _waiting(row: ShardRow) -> Waiting:
    return Waiting(shard=row.id, attempt=row.attempt, episode=row.episode, language=row.language,
                   estimate_s=row.estimate_s, priority=row.priority)


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
    with ledger.entering() as session:
        _lock(session, ENQUEUE)
        queued = _free(session, packed)
        now = _time(session)
        shards = [{
            **_told(one, run_id, catalog), "id": one.shard.id, "state": "queued", "artifact": artifacts[one.shard.id],
            "priority": priority, "in_flight": in_flight, "tries_left": TRIES, "not_before": 0.0,
            "deadline": now + deadline_s,
        } for one in queued]
        shots = [{
            "recipe": recipe, "shard": one.shard.id, "shot": request.shot, "flagged": False, "error_class": "",
            "error": "",
        } for one in queued for recipe, request in zip(one.recipes, one.shard.requests, strict=True)]
        _put(session, ShardRow, "id", shards)
        _put(session, ShardShot, "recipe", sorted(shots, key=lambda shot: str(shot["recipe"])))
        return [one.shard.id for one in queued]


def _told(packed: Packed, run_id: str, catalog: str) -> dict[str, Any]:
    """Columns of a shard that begins anew, whoever works it off."""
    shard = packed.shard
    return {"run_id": run_id, "episode": shard.episode, "language": shard.language,
            "shots": [request.shot for request in shard.requests], "updated": datetime.now(UTC), "catalog": catalog,
            "engine": shard.requests[0].generator.name,
            "frames": sum(request.generated_frames for request in shard.requests), "estimate_s": packed.estimate_s,
            "lease_until": None, "error_class": "", "error": ""}


def _free(session: Session, packed: Sequence[Packed]) -> list[Packed]:
    """Those that no live shard has a part of, by id. Who else brings shards to life waits for ENQUEUE."""
    taken: set[str] = set()
    live: set[str] = set()
    for some in batches(recipe for one in packed for recipe in one.recipes):
        taken.update(session.scalars(sa.select(ShardShot.recipe).join(ShardRow, ShardRow.id == ShardShot.shard).where(
            ShardShot.recipe.in_(some), sa.or_(ShardShot.flagged, ShardRow.state.in_(LIVE)))))
    for some in batches(one.shard.id for one in packed):
        live.update(session.scalars(sa.select(ShardRow.id).where(ShardRow.id.in_(some), ShardRow.state.in_(LIVE))))
    free = []
    for one in sorted(packed, key=lambda one: one.shard.id):
        if one.shard.id not in live and taken.isdisjoint(one.recipes):
            free.append(one)
            live.add(one.shard.id)
            taken.update(one.recipes)
    return free


def _put(session: Session, table: type[ShardRow] | type[ShardShot], key: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows, or write over those that are there; columns that are not named keep their value."""
    if rows:
        query = _insert(session, table)
        session.execute(query.on_conflict_do_update(
            index_elements=[key], set_={name: query.excluded[name] for name in rows[0] if name != key}), rows)


def owned(ledger: Ledger, recipes: Collection[str]) -> dict[str, ShotOutcome]:
    """Those of `recipes` that a shard has or had: recipe → what the newest such shard says of it."""
    query = sa.select(ShardShot, ShardRow).join(ShardRow, ShardRow.id == ShardShot.shard)
    found = {}
    with ledger.session() as session:
        for some in batches(recipes):
            for shot, row in session.execute(query.where(ShardShot.recipe.in_(some))):
                told = shot if shot.error_class else row
                found[shot.recipe] = ShotOutcome(
                    recipe=shot.recipe, shard=row.id, state=cast(ShardState, row.state), flagged=shot.flagged,
                    error_class=told.error_class, error=told.error)
    return found


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
    with ledger.session() as session:
        _lock(session, DISPATCH)
        in_flight = Counter(dict(session.execute(sa.select(ShardRow.catalog, sa.func.count()).where(COUNTED)
                                                 .group_by(ShardRow.catalog)).tuples().all()))
        room = slots - in_flight.total()
        waits = sa.and_(ShardRow.state == "queued", ShardRow.not_before <= clock())
        bounds = sa.select(ShardRow.catalog, sa.func.max(ShardRow.in_flight)).where(waits).group_by(ShardRow.catalog)
        candidates: list[ShardRow] = []
        for catalog, bound in session.execute(bounds).tuples().all() if room > 0 else ():
            most = min(room, bound - in_flight[catalog])
            if most > 0:
                candidates += session.scalars(sa.select(ShardRow).where(
                    waits, ShardRow.catalog == catalog, ShardRow.in_flight > in_flight[catalog])
                    .order_by(*ORDER).limit(most).with_for_update(key_share=True, skip_locked=True))
        now = _time(session)
        taken: list[Waiting] = []
        for row in sorted(candidates, key=lambda row: (-row.priority, -row.estimate_s, row.id)):
            if len(taken) < room and in_flight[row.catalog] < row.in_flight:
                in_flight[row.catalog] += 1
                row.state, row.attempt, row.updated = "dispatched", row.attempt + 1, datetime.now(UTC)
                row.lease_until = now + patience_s
                session.add(_attempt(row, pool, now))
                taken.append(_waiting(row))
        return taken


def _attempt(row: ShardRow, pool: str, now: float) -> ShardAttempt:
    return ShardAttempt(shard=row.id, attempt=row.attempt, run_id=row.run_id, pool=pool, state="dispatched",
                        dispatched=now)


def unsubmitted(ledger: Ledger, older_than_s: float) -> list[Waiting]:
    """Attempts that were dispatched longer ago, and of which nobody noted a flow run: to be submitted again."""
    query = sa.select(ShardRow).join(ShardAttempt, sa.and_(
        ShardAttempt.shard == ShardRow.id, ShardAttempt.attempt == ShardRow.attempt)).where(
        ShardRow.state == "dispatched", ShardAttempt.flow_run.is_(None),
        ShardAttempt.dispatched < clock() - older_than_s).order_by(*ORDER)
    with ledger.session() as session:
        return [_waiting(row) for row in session.scalars(query)]


def submitted(ledger: Ledger, shard: str, attempt: int, flow_run: str) -> None:
    """Note the flow run or Job that was started for an attempt."""
    with ledger.session() as session:
        session.execute(sa.update(ShardAttempt).where(ShardAttempt.shard == shard, ShardAttempt.attempt == attempt)
                        .values(flow_run=flow_run))


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
    with ledger.entering() as session:
        row = _held(session, shard, attempt, "dispatched")
        return _take(session, row, owner, device, lease_s) if row else None


def _take(session: Session, row: ShardRow, owner: str, device: str, lease_s: float) -> Lease:
    now = _time(session)
    row.state, row.lease_until, row.updated = "running", now + lease_s, datetime.now(UTC)
    session.flush()
    session.execute(sa.update(ShardAttempt).where(
        ShardAttempt.shard == row.id, ShardAttempt.attempt == row.attempt).values(
        state="running", owner=owner, device=device, started=now, beat=now))
    return _lease(row, lease_s)


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
    counted = (sa.select(ShardRow.catalog, sa.func.count().label("number")).where(COUNTED)
               .group_by(ShardRow.catalog).subquery())
    waits = sa.and_(ShardRow.state == "queued", ShardRow.not_before <= clock(),
                    ShardRow.in_flight > sa.func.coalesce(counted.c.number, 0))
    query = (sa.select(ShardRow).outerjoin(counted, counted.c.catalog == ShardRow.catalog)
             .where(ShardRow.engine == engine, sa.or_(ShardRow.state == "dispatched", waits)).order_by(*ORDER).limit(1)
             .with_for_update(of=ShardRow, key_share=True, skip_locked=True))
    with ledger.entering() as session:
        _lock(session, DISPATCH)  # the bounds hold for those who help themselves, too
        row = session.scalar(query)
        if row is None:
            return None
        if row.state == "queued":
            row.attempt += 1
            session.add(_attempt(row, pool, _time(session)))
            session.flush()
        else:
            session.execute(sa.update(ShardAttempt).where(
                ShardAttempt.shard == row.id, ShardAttempt.attempt == row.attempt).values(pool=pool))
        return _take(session, row, owner, device, lease_s)


def heartbeat(ledger: Ledger, lease: Lease, beat: Beat) -> bool:
    """Hold the shard for another `lease.seconds` and note what was done.

    False: it is another's, or cancelled, or its time is over; a process that hangs on its GPU has a heartbeat, too.
    """
    query = (sa.update(ShardRow).where(ShardRow.id == lease.shard, ShardRow.attempt == lease.attempt,
                                       ShardRow.state == "running", ShardRow.lease_until > clock(),
                                       ShardRow.deadline > clock())
             .values(lease_until=clock() + lease.seconds).returning(ShardRow.id))
    with ledger.session() as session:
        held = session.scalar(query) is not None
        _note(session, lease, beat)
        return held


def finish(ledger: Ledger, lease: Lease, beat: Beat, failed: Mapping[str, tuple[str, str, bool]]) -> bool:
    """Close a shard whose shots were all tried.

    Args:
        ledger: The database.
        lease: As claimed.
        beat: The last one.
        failed: Recipe → error class, error, and whether to flag it, of each shot that failed.

    Returns:
        False: the shard was cancelled, or is another's; nothing was noted but what this attempt cost. A lease that is
        over counts as long as nobody has reaped it: the work is done.
    """
    with ledger.session() as session:
        row = _held(session, lease.shard, lease.attempt, "running")
        _note(session, lease, beat)
        if row is None:
            return False
        error_class, error = next(((kind, text[:2000]) for kind, text, _flag in failed.values()), ("", ""))
        row.state, row.lease_until, row.updated = "failed" if failed else "done", None, datetime.now(UTC)
        row.error_class, row.error = error_class, error
        _close(session, row, row.state, error_class, error)
        for recipe, (kind, text, flag) in sorted(failed.items()):
            session.execute(sa.update(ShardShot).where(ShardShot.recipe == recipe, ShardShot.shard == row.id)
                            .values(error_class=kind, error=text[:2000], flagged=flag))
        return True


def give_back(ledger: Ledger, lease: Lease, beat: Beat, *, error_class: str, error: str,
              delay_s: float) -> ShardState | None:
    """Hand a claimed shard back that this process cannot finish; an attempt without a chunk costs one of its tries.

    Args:
        ledger: The database.
        lease: As claimed.
        beat: The last one.
        error_class: Why; those of `models.pool.FREE` cost no try.
        error: The message, without secrets.
        delay_s: It is not dispatched again before.

    Returns:
        Its state now: queued, or failed where tries or time are over; None: it was cancelled, or is another's.
    """
    with ledger.session() as session:
        row = _held(session, lease.shard, lease.attempt, "running")
        _note(session, lease, beat)
        if row is None:
            return None
        return _put_back(session, row, "returned", chunks=beat.chunks, error_class=error_class, error=error,
                         delay_s=delay_s)


def reap(ledger: Ledger) -> list[str]:
    """Queue (or fail) all shards whose lease is over → their ids."""
    lost = sa.and_(ShardRow.state.in_(("dispatched", "running")), ShardRow.lease_until < clock())
    late = sa.and_(ShardRow.state == "queued", ShardRow.deadline < clock())
    with ledger.session() as session:
        rows = session.scalars(sa.select(ShardRow).where(sa.or_(lost, late)).order_by(ShardRow.id)
                               .with_for_update(key_share=True, skip_locked=True)).all()
        for row in rows:
            if row.state == "queued":
                row.state, row.updated = "failed", datetime.now(UTC)
                row.error, row.error_class = _overdue(row.error)[:2000], row.error_class or LOST
                continue
            chunks, kind, why = 0, CAPACITY, "no machine took it in time"
            if row.state == "running":
                kind, why = LOST, "its process was not heard of any more"
                chunks = session.scalar(sa.select(ShardAttempt.chunks).where(
                    ShardAttempt.shard == row.id, ShardAttempt.attempt == row.attempt)) or 0
            _put_back(session, row, "lost", chunks=chunks, error_class=kind, error=why,
                      delay_s=delay_s(kind, row.attempt))
        return [row.id for row in rows]


def failed(ledger: Ledger, shards: Collection[str]) -> list[ShardLine]:
    """Those of `shards` that have failed for good."""
    with ledger.session() as session:
        return [_line(row, None, 0.0, None) for some in batches(shards) for row in session.scalars(
            sa.select(ShardRow).where(ShardRow.id.in_(some), ShardRow.state == "failed").order_by(ShardRow.id))]


def reap_runs(ledger: Ledger) -> list[str]:
    """Close all runs whose lease is over, and what is still marked running in them → their ids."""
    over = sa.select(Run.id).where(Run.state == "running", Run.lease_until < clock())
    with ledger.session() as session:
        dead = sorted(session.scalars(over.with_for_update(key_share=True, skip_locked=True)))
        if dead:
            ledger.close_runs(session, dead, "failed")
        return dead


def cancel(ledger: Ledger, *, run_id: str = "", shards: Collection[str] = ()) -> list[tuple[str, str]]:
    """Cancel the live shards of a run, or those named → (shard, name of its flow run or '') of each that was live."""
    query = (sa.select(ShardRow).where(ShardRow.state.in_(LIVE)).order_by(ShardRow.id)
             .with_for_update(key_share=True))
    parts = [ShardRow.run_id == run_id] if run_id else [ShardRow.id.in_(some) for some in batches(shards)]
    ended = []
    with ledger.session() as session:
        for part in parts:
            rows = session.scalars(query.where(part)).all()
            for row in rows:
                row.state, row.lease_until, row.updated = "cancelled", None, datetime.now(UTC)
            for some in batches(row.id for row in rows):
                closed = session.execute(sa.update(ShardAttempt).where(
                    ShardAttempt.shard.in_(some), ShardAttempt.ended.is_(None)).values(
                    state="cancelled", ended=clock()).returning(ShardAttempt.shard, ShardAttempt.flow_run))
                runs = dict(closed.tuples().all())
                ended += [(shard, runs.get(shard) or "") for shard in some]
    return ended


def unflag(ledger: Ledger, episode: str, language: str) -> int:
    """Let the flagged shots of an episode and language ('': all) be tried again → how many there were."""
    mine = sa.select(ShardRow.id).where(ShardRow.episode == episode)
    query = (sa.update(ShardShot).where(ShardShot.flagged, ShardShot.shard.in_(
        mine.where(ShardRow.language == language) if language else mine)).values(flagged=False)
        .returning(ShardShot.recipe))
    with ledger.session() as session:
        return len(session.scalars(query).all())


def overview(ledger: Ledger, *, catalog: str = "", run_id: str = "") -> list[ShardLine]:
    """All shards of a catalog or run, live ones first."""
    cost = (sa.select(ShardAttempt.shard, sa.func.sum(ShardAttempt.gpu_seconds).label("seconds"))
            .group_by(ShardAttempt.shard).subquery())
    rank = sa.case({"running": 0, "dispatched": 1, "queued": 2}, value=ShardRow.state, else_=3)
    query = (sa.select(ShardRow, ShardAttempt, cost.c.seconds, (clock() - ShardAttempt.beat).label("age"))
             .outerjoin(ShardAttempt, sa.and_(ShardAttempt.shard == ShardRow.id,
                                              ShardAttempt.attempt == ShardRow.attempt))
             .outerjoin(cost, cost.c.shard == ShardRow.id).order_by(rank, *ORDER))
    if catalog:
        query = query.where(ShardRow.catalog == catalog)
    if run_id:
        query = query.where(ShardRow.run_id == run_id)
    with ledger.session() as session:
        return [_line(row, attempt, seconds or 0.0, age) for row, attempt, seconds, age in session.execute(query)]


def _line(row: ShardRow, attempt: ShardAttempt | None, gpu_seconds: float, age: float | None) -> ShardLine:
    return ShardLine(
        shard=row.id, catalog=row.catalog, episode=row.episode, language=row.language,
        state=cast(ShardState, row.state), attempt=row.attempt, shots=len(row.shots), frames=row.frames,
        frames_made=attempt.frames if attempt else 0, chunks=attempt.chunks if attempt else 0,
        chunks_done=attempt.chunks_done if attempt else 0, chunks_total=attempt.chunks_total if attempt else 0,
        estimate_s=row.estimate_s, gpu_seconds=gpu_seconds, beat_age_s=age, owner=attempt.owner if attempt else "",
        error_class=row.error_class, error=row.error)


def history(ledger: Ledger, engine: str, last: int = 200) -> History:
    """What the engine's `last` finished attempts took."""
    query = (sa.select(ShardAttempt, ShardRow.frames, ShardRow.estimate_s)
             .join(ShardRow, ShardRow.id == ShardAttempt.shard)
             .where(ShardRow.engine == engine, ShardAttempt.state == "done", ShardAttempt.frames > 0)
             .order_by(ShardAttempt.ended.desc()).limit(last))
    with ledger.session() as session:
        rows = session.execute(query).tuples().all()
    return History(
        frames=sum(attempt.frames for attempt, _, _ in rows),
        seconds=sum(attempt.gpu_seconds - attempt.startup_seconds for attempt, _, _ in rows),
        estimated=sum(estimate * min(1.0, attempt.frames / frames) for attempt, frames, estimate in rows if frames),
        startups=tuple(attempt.startup_seconds for attempt, _, _ in rows if attempt.startup_seconds > 0))


def spent(ledger: Ledger, run_ids: Collection[str] = (), since: datetime | None = None) -> list[Spent]:
    """CPU and GPU seconds by episode, language and pool, of these runs or of all since a time (aware)."""
    language = sa.case((Execution.language == "mul", ""), else_=Execution.language)
    cpu = sa.select(Execution.episode, language.label("language"), sa.func.sum(Execution.cpu_seconds)).group_by(
        Execution.episode, language)
    lost = sa.case((ShardAttempt.state.in_(("returned", "lost", "cancelled")), ShardAttempt.gpu_seconds), else_=0.0)
    gpu = sa.select(ShardRow.episode, ShardRow.language, ShardAttempt.pool, sa.func.sum(ShardAttempt.gpu_seconds),
                    sa.func.sum(lost), sa.func.sum(ShardAttempt.startup_seconds)).join(
        ShardRow, ShardRow.id == ShardAttempt.shard).group_by(
        ShardRow.episode, ShardRow.language, ShardAttempt.pool)
    if run_ids:
        cpu, gpu = cpu.where(Execution.run_id.in_(run_ids)), gpu.where(ShardAttempt.run_id.in_(run_ids))
    if since:
        cpu, gpu = cpu.where(Execution.started >= since), gpu.where(ShardAttempt.dispatched >= since.timestamp())
    with ledger.session() as session:
        took = [Spent(episode, language, "", 0.0, 0.0, seconds or 0.0) for episode, language, seconds
                in session.execute(cpu)]
        took += [Spent(episode, language, pool, seconds, lost, 0.0, startup)
                 for episode, language, pool, seconds, lost, startup in session.execute(gpu)]
    return sorted(took, key=lambda one: (one.episode, one.language, one.pool))


def hold(ledger: Ledger, packed: Packed, *, run_id: str, catalog: str, owner: str, device: str) -> Lease | None:
    """Note a shard that a run works off in its own process: it was never queued, needs no heartbeat, ends with its run.

    Args:
        ledger: The database.
        packed: The shard; its shots stay free for others, who get the same results.
        run_id: The run.
        catalog: As in `enqueue`.
        owner: As in `claim`.
        device: As in `claim`.

    Returns:
        What to `finish` it with; None: another process is at this very shard.
    """
    with ledger.entering() as session:
        _lock(session, ENQUEUE)
        row = session.get(ShardRow, packed.shard.id, with_for_update={"key_share": True})
        if row is not None and row.state in LIVE:
            return None
        values = {**_told(packed, run_id, catalog), "state": "running", "artifact": ""}
        if row is None:
            row = ShardRow(id=packed.shard.id, attempt=0)
            session.add(row)
        for name, value in values.items():
            setattr(row, name, value)
        row.attempt += 1
        session.flush()
        now = _time(session)
        session.add(ShardAttempt(shard=row.id, attempt=row.attempt, run_id=run_id, pool=HERE, owner=owner,
                                 device=device, state="running", dispatched=now, started=now, beat=now))
        return _lease(row, 0.0)


def live(ledger: Ledger, shards: Collection[str]) -> set[str]:
    """Those of `shards` that will still be worked on."""
    with ledger.session() as session:
        return {shard for some in batches(shards) for shard in session.scalars(
            sa.select(ShardRow.id).where(ShardRow.id.in_(some), ShardRow.state.in_(LIVE)))}


def unclaimed(ledger: Ledger, older_than_s: float) -> dict[str, list[tuple[str, int]]]:
    """Name of the flow run or Job → attempts it was started for longer ago, and that nobody has claimed yet."""
    query = sa.select(ShardAttempt).join(ShardRow, sa.and_(
        ShardRow.id == ShardAttempt.shard, ShardRow.attempt == ShardAttempt.attempt)).where(
        ShardRow.state == "dispatched", ShardAttempt.flow_run.is_not(None),
        ShardAttempt.dispatched < clock() - older_than_s)
    found: dict[str, list[tuple[str, int]]] = {}
    with ledger.session() as session:
        for row in session.scalars(query):
            found.setdefault(str(row.flow_run), []).append((row.shard, row.attempt))
    return found


def unstarted(ledger: Ledger, attempts: Collection[tuple[str, int]]) -> list[str]:
    """Queue (or fail) the shards of dispatched attempts whose processes ended before they took them → their ids."""
    ended = []
    with ledger.session() as session:
        for shard, attempt in sorted(attempts):
            row = _held(session, shard, attempt, "dispatched")
            if row is not None:
                _put_back(session, row, "lost", chunks=0, error_class=UNSTARTED,
                          error="its process ended before it took the shard", delay_s=delay_s(UNSTARTED, attempt))
                ended.append(shard)
    return ended


def ended(ledger: Ledger, older_than_s: float, newer_than_s: float) -> list[str]:
    """Flow runs of attempts and runs that ended in our tables so long ago, and not longer.

    A process that went on with another shard since is left out.
    """
    attempts = sa.select(ShardAttempt.flow_run).where(
        ShardAttempt.flow_run.is_not(None), ShardAttempt.ended < clock() - older_than_s,
        ShardAttempt.owner.not_in(sa.select(ShardAttempt.owner).where(ShardAttempt.state == "running")),
        ShardAttempt.ended > clock() - newer_than_s)
    now = datetime.now(UTC)  # a run notes its end by its own clock; here only the order of magnitude counts
    runs = sa.select(Run.flow_run).where(
        Run.flow_run.is_not(None), Run.ended < now - timedelta(seconds=older_than_s),
        Run.ended > now - timedelta(seconds=newer_than_s))
    with ledger.session() as session:
        return [str(name) for query in (attempts, runs) for name in session.scalars(query)]

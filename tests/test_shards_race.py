"""Real processes that want the same shards, on a real PostgreSQL that is also killed in the middle."""

from __future__ import annotations

import functools
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from models import tables as t
from models.errors import InfrastructureError
from models.pool import LIVE, LOST, Lease
from tasks import shards
from tasks.ledger import Ledger
from tests.shard_rows import NOTHING, beat, enqueue, packed

PROCESSES = 4


@functools.cache
def opened(url: str) -> Ledger:
    """One connection pool a process and database."""
    return Ledger(url)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2] * PROCESSES))  # all of them are up before the first race
        yield pool


@pytest.fixture
def race(processes: ProcessPoolExecutor, postgresql: str) -> Callable[..., list[Any]]:
    """Call something in all processes at the same moment: with the database's URL, and the number of the process."""
    def run(what: Callable[[str, int, float], Any]) -> list[Any]:
        start = time.monotonic() + 0.5
        running = [processes.submit(what, postgresql, number, start) for number in range(PROCESSES)]
        return [one.result(120) for one in running]
    return run


def ready(url: str, start: float) -> Ledger:
    ledger = opened(url)
    time.sleep(max(0.0, start - time.monotonic()))
    return ledger


def states(ledger: Ledger) -> dict[str, str]:
    return {one.shard: one.state for one in shards.overview(ledger)}


def take_next(url: str, number: int, start: float) -> list[tuple[str, int]]:
    ledger, taken = ready(url, start), []
    while lease := shards.claim_next(ledger, engine="pulse", owner=str(number), device="", lease_s=60, pool="gpu"):
        taken.append((lease.shard, lease.attempt))
        assert shards.finish(ledger, lease, NOTHING, {})
    return taken


def test_every_waiting_shard_is_taken_by_one_process(race, postgresql):
    ledger = opened(postgresql)
    enqueue(ledger, *(packed(f"a{n:02d}") for n in range(60)))
    shards.dispatch(ledger, pool="gpu", slots=20, patience_s=60)
    taken = [one for some in race(take_next) for one in some]
    assert sorted(taken) == [(f"a{n:02d}", 1) for n in range(60)]
    assert set(states(ledger).values()) == {"done"}


def take_all(url: str, number: int, start: float) -> list[str]:
    ledger = ready(url, start)
    leases = (shards.claim(ledger, f"a{n:02d}", 1, owner=str(number), device="", lease_s=60) for n in range(30))
    return [lease.shard for lease in leases if lease]


def test_every_attempt_is_claimed_by_one_process(race, postgresql):
    ledger = opened(postgresql)
    enqueue(ledger, *(packed(f"a{n:02d}") for n in range(30)))
    shards.dispatch(ledger, pool="gpu", slots=60, patience_s=60)
    assert sorted(shard for some in race(take_all) for shard in some) == [f"a{n:02d}" for n in range(30)]


def dispatch_some(url: str, number: int, start: float) -> list[str]:
    ledger = ready(url, start)
    if number == 0:  # who helps himself keeps to the same bounds
        leases = [shards.claim_next(ledger, engine="pulse", owner="", device="", lease_s=60, pool="gpu")
                  for _ in range(3)]
        return [lease.shard for lease in leases if lease]
    return [one.shard for _ in range(5) for one in shards.dispatch(ledger, pool="gpu", slots=10, patience_s=60)]


def test_dispatchers_keep_to_the_bounds_together(race, postgresql):
    ledger = opened(postgresql)
    enqueue(ledger, *(packed(f"a{n:02d}", estimate_s=2) for n in range(30)), catalog="a", in_flight=7)
    enqueue(ledger, *(packed(f"b{n:02d}", estimate_s=1) for n in range(30)), catalog="b", in_flight=5)
    race(dispatch_some)
    live = [shard for shard, state in states(ledger).items() if state in {"dispatched", "running"}]
    assert Counter(shard[0] for shard in live) == {"a": 7, "b": 3}
    with ledger.session() as session:
        assert sorted(session.scalars(sa.select(t.ShardAttempt.shard))) == sorted(live)


def enqueue_some(url: str, number: int, start: float) -> int:
    """Pack the same 30 shots in another way than the other processes; what is refused, each shot alone."""
    ledger = ready(url, start)
    run_id, shots, size = ledger.begin_run("run", {}, {}), [f"S{n:04d}" for n in range(30)], 2 + number
    packs = [shots[at:at + size] for at in range(0, 30, size)]
    random.Random(number).shuffle(packs)
    left: list[str] = []
    for pack in packs:
        if not enqueue(ledger, packed(f"p{number}-{pack[0]}", pack), run_id=run_id):
            left += pack
    return len(enqueue(ledger, *(packed(f"p{number}-alone-{shot}", [shot]) for shot in left), run_id=run_id))


def test_parents_never_have_the_same_shot_made_twice(race, postgresql):
    ledger = opened(postgresql)
    race(enqueue_some)
    with ledger.session() as session:
        rows = session.scalars(sa.select(t.ShardRow)).all()
        owners = dict(session.execute(sa.select(t.ShardShot.shot, t.ShardShot.shard)).tuples().all())
    made = {shot: row.id for row in rows for shot in row.shots}
    assert sum(len(row.shots) for row in rows) == len(made) == 30
    assert owners == made


def hold_one(url: str, told: Any) -> None:
    ledger = Ledger(url)
    lease = shards.claim(ledger, "a", 1, owner="dies", device="", lease_s=1)
    assert lease
    shards.heartbeat(ledger, lease, beat(12.5))
    told.send(lease)
    time.sleep(600)


def reap_often(url: str, _number: int, start: float) -> list[str]:
    ledger, reaped = ready(url, start), []
    for _ in range(40):
        reaped += shards.reap(ledger)
        time.sleep(0.05)
    return reaped


def test_a_killed_process_loses_its_shard_once_and_its_seconds_count(race, postgresql):
    ledger, spawn = opened(postgresql), multiprocessing.get_context("spawn")
    enqueue(ledger, packed("a"))
    shards.dispatch(ledger, pool="gpu", slots=1, patience_s=60)
    heard, told = spawn.Pipe(duplex=False)
    process = spawn.Process(target=hold_one, args=(postgresql, told))
    process.start()
    assert heard.poll(60)
    lease: Lease = heard.recv()
    process.kill()
    process.join(60)
    assert [shard for some in race(reap_often) for shard in some] == ["a"]
    assert not shards.heartbeat(ledger, lease, beat(13))
    shard, = shards.overview(ledger)
    assert (shard.state, shard.error_class, shard.attempt) == ("queued", LOST, 1)
    assert [one.lost_seconds for one in shards.spent(ledger) if one.pool] == [13]


def end_some(url: str, number: int, start: float) -> list[str]:
    ledger, ended = ready(url, start), []
    for n in range(30):
        shard = f"a{n:02d}"
        if number % 2:
            ended += [shard for shard, _ in shards.cancel(ledger, shards=[shard])]
        elif shards.finish(ledger, Lease(shard, 1, 60, "", "", ""), NOTHING, {}):
            ended.append(shard)
    return ended


def test_of_cancel_and_finish_one_wins_and_both_know(race, postgresql):
    ledger = opened(postgresql)
    enqueue(ledger, *(packed(f"a{n:02d}") for n in range(30)))
    shards.dispatch(ledger, pool="gpu", slots=60, patience_s=60)
    take_all(postgresql, 0, 0)
    ended = race(end_some)
    finished, cancelled = ended[0] + ended[2], ended[1] + ended[3]
    assert sorted(finished + cancelled) == [f"a{n:02d}" for n in range(30)]
    assert states(ledger) == {**dict.fromkeys(finished, "done"), **dict.fromkeys(cancelled, "cancelled")}


def do_anything(url: str, number: int, start: float) -> int:
    """All moves, on the same few shards, in an order of this process's own."""
    ledger, chance, done = ready(url, start), random.Random(number), 0
    run_id, leases = ledger.begin_run("run", {}, {}), []
    for _ in range(60):
        move = chance.randrange(8)
        names = chance.sample(range(12), 6)
        if move == 0:
            done += len(enqueue(ledger, *(packed(f"a{n:02d}", [f"S{n:04d}", f"S{n + 12:04d}"]) for n in names),
                                run_id=run_id, in_flight=6))
        elif move == 1:
            shards.dispatch(ledger, pool="gpu", slots=6, patience_s=chance.choice([-1, 60]))
        elif move == 2:
            shards.cancel(ledger, shards=[f"a{n:02d}" for n in names[:2]])
        elif move == 3:
            shards.reap(ledger)
        elif lease := shards.claim_next(ledger, engine="pulse", owner="", device="",
                                        lease_s=chance.choice([-1, 60]), pool="gpu"):
            leases.append(lease)
        if leases:
            lease = chance.choice(leases)
            shards.heartbeat(ledger, lease, beat(1, chunks=1))
            if move == 6:
                shards.finish(ledger, lease, beat(2, chunks=1), {})
            elif move == 7:
                shards.give_back(ledger, lease, beat(2, chunks=1), error_class="EngineError", error="", delay_s=0)
        shards.cancel(ledger, run_id=run_id) if chance.random() < 0.02 else shards.unflag(ledger, "series/e01", "")
    return done


def test_nobody_waits_in_a_circle_and_the_rows_agree_afterwards(race, postgresql):
    assert sum(race(do_anything)) > 0
    ledger = opened(postgresql)
    with ledger.session() as session:
        rows = session.scalars(sa.select(t.ShardRow)).all()
        attempts = session.scalars(sa.select(t.ShardAttempt)).all()
    assert Counter(one.shard for one in attempts) == {row.id: row.attempt for row in rows if row.attempt}
    assert {(one.shard, one.attempt) for one in attempts if one.ended is None} == {
        (row.id, row.attempt) for row in rows if row.state in {"dispatched", "running"}}


def sweep_or_begin(url: str, number: int, start: float) -> list[tuple[float, float]]:
    ledger, spans = ready(url, start), []
    for _ in range(6):
        if number == 0:
            with ledger.sweeping() as quiet:
                before = len(states(ledger))
                time.sleep(0.02)
                assert len(states(ledger)) == before, "a shard came to life meanwhile"
                assert not quiet or not before
        else:
            enqueue(ledger, *(packed(f"a{number}{n:03d}") for n in random.Random(start).sample(range(900), 5)))
            time.sleep(0.01)
    return spans


def test_while_somebody_sweeps_no_shard_comes_to_life(race, postgresql):
    race(sweep_or_begin)
    assert set(states(opened(postgresql)).values()) == {"queued"}


def test_a_database_that_is_killed_and_comes_back_has_lost_nothing(postgresql_server, postgresql):
    ledger = opened(postgresql)
    enqueue(ledger, packed("a"))
    shards.dispatch(ledger, pool="gpu", slots=1, patience_s=60)
    lease = shards.claim(ledger, "a", 1, owner="", device="", lease_s=3600)
    assert shards.heartbeat(ledger, lease, beat(3))
    postgresql_server.kill()
    with pytest.raises(InfrastructureError):
        shards.heartbeat(ledger, lease, beat(4))
    postgresql_server.start()
    assert shards.heartbeat(ledger, lease, beat(5))
    assert [(one.state, one.gpu_seconds) for one in shards.overview(ledger)] == [("running", 5)]
    assert states(ledger).keys() == {"a"}
    assert set(states(ledger).values()) < LIVE

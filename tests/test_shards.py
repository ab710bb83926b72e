"""The queue of shards, move by move, on SQLite and on PostgreSQL; and any order of moves, on SQLite."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from models import tables as t
from models.pool import EVICTED, LIVE, LOST, Beat, Lease, ShardLine, ShardState, Waiting
from tasks import shards
from tasks.ledger import Attempt, Ledger
from tests.shard_rows import NOTHING, beat, enqueue, packed, recipe_of

HELD, OVER = 60.0, -1.0
"""Leases that last, and that are over as soon as they are given."""


def emptied(ledger: Ledger) -> Ledger:
    with ledger.session() as session:
        for table in (t.ShardShot, t.ShardAttempt, t.ShardRow, t.Execution, t.Run):
            session.execute(sa.delete(table))
    return ledger


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def tables(request, tmp_path_factory):
    if request.param == "sqlite":
        return Ledger(f"sqlite:///{tmp_path_factory.mktemp('shards')}/l.db")
    return Ledger(request.getfixturevalue("postgresql_server").create("shards"))


@pytest.fixture
def ledger(tables):
    return emptied(tables)


def dispatch(ledger: Ledger, slots: int = 100, patience_s: float = HELD) -> list[Waiting]:
    return shards.dispatch(ledger, pool="gpu", slots=slots, patience_s=patience_s)


def claim(ledger: Ledger, shard: str, attempt: int = 1, lease_s: float = HELD) -> Lease | None:
    return shards.claim(ledger, shard, attempt, owner="node/pod/1", device="H100", lease_s=lease_s)


def claim_next(ledger: Ledger, engine: str = "pulse", lease_s: float = HELD) -> Lease | None:
    return shards.claim_next(ledger, engine=engine, owner="node/pod/2", device="H100", lease_s=lease_s, pool="job")


def running(ledger: Ledger, name: str = "a", lease_s: float = HELD) -> Lease:
    """A shard that is being worked on."""
    enqueue(ledger, packed(name))
    dispatch(ledger)
    lease = claim(ledger, name, lease_s=lease_s)
    assert lease
    return lease


def line(ledger: Ledger, shard: str = "a") -> ShardLine:
    return next(one for one in shards.overview(ledger) if one.shard == shard)


def give_back(ledger: Ledger, lease: Lease, spent: Beat = NOTHING, why: str = "InfrastructureError",
              delay_s: float = 0.0) -> ShardState | None:
    return shards.give_back(ledger, lease, spent, error_class=why, error="the disk is gone", delay_s=delay_s)


def names(waiting: list[Waiting]) -> list[str]:
    return [one.shard for one in waiting]


def test_a_shard_goes_from_queued_to_done(ledger):
    assert enqueue(ledger, packed("a", ["S0001", "S0002"])) == ["a"]
    assert (line(ledger).state, line(ledger).shots, line(ledger).frames) == ("queued", 2, 50)
    assert dispatch(ledger) == [Waiting("a", 1, "series/e01", "es", 100.0, 0)]
    assert dispatch(ledger) == []
    lease = claim(ledger, "a")
    assert (lease.shard, lease.attempt, lease.episode, lease.language) == ("a", 1, "series/e01", "es")
    assert len(lease.artifact) == 64
    assert shards.heartbeat(ledger, lease, beat(30, chunks=1, frames=20, startup_seconds=9))
    seen = line(ledger)
    assert (seen.state, seen.chunks, seen.frames_made, seen.gpu_seconds, seen.owner) == (
        "running", 1, 20, 30, "node/pod/1")
    assert 0 <= seen.beat_age_s < 600
    assert shards.finish(ledger, lease, beat(70, chunks=3, frames=50, startup_seconds=9), {})
    assert (line(ledger).state, line(ledger).gpu_seconds, line(ledger).error) == ("done", 70, "")
    told = shards.owned(ledger, [recipe_of("S0002"), recipe_of("S0009")])
    assert {recipe: (one.shard, one.state, one.flagged) for recipe, one in told.items()} == {
        recipe_of("S0002"): ("a", "done", False)}


def test_urgent_shards_are_dispatched_first_then_long_ones(ledger):
    enqueue(ledger, packed("short", estimate_s=1), packed("long", estimate_s=900), packed("b-like", estimate_s=5),
            packed("a-like", estimate_s=5))
    enqueue(ledger, packed("urgent", estimate_s=1), catalog="other", priority=1)
    assert names(dispatch(ledger)) == ["urgent", "long", "a-like", "b-like", "short"]


def test_no_more_are_in_flight_than_a_catalog_and_the_pool_allow(ledger):
    enqueue(ledger, *(packed(f"a{n}", estimate_s=9) for n in range(5)), catalog="a", in_flight=2)
    enqueue(ledger, *(packed(f"b{n}", estimate_s=3) for n in range(5)), catalog="b", in_flight=4)
    assert names(dispatch(ledger, slots=5)) == ["a0", "a1", "b0", "b1", "b2"]
    assert dispatch(ledger, slots=5) == []
    shards.finish(ledger, claim(ledger, "a0"), NOTHING, {})
    assert names(dispatch(ledger, slots=5)) == ["a2"]
    assert names(dispatch(ledger, slots=6)) == ["b3"]
    assert dispatch(ledger, slots=60) == []


def test_attempts_of_which_no_flow_run_is_known_are_told_to_be_submitted_again(ledger):
    enqueue(ledger, packed("a"), packed("b"), packed("c"))
    assert names(dispatch(ledger)) == ["a", "b", "c"]
    shards.submitted(ledger, "a", 1, "flow-run-1")
    claim(ledger, "b")
    assert names(shards.unsubmitted(ledger, 3600)) == []
    assert names(shards.unsubmitted(ledger, -1)) == ["c"]


def test_one_process_claims_an_attempt_and_only_the_newest(ledger):
    enqueue(ledger, packed("a"))
    assert claim(ledger, "a", 0) is None, "it was not dispatched"
    dispatch(ledger)
    assert claim(ledger, "a", 2) is None
    assert claim(ledger, "a", 1)
    assert claim(ledger, "a", 1) is None
    assert claim(ledger, "none", 1) is None


def test_a_process_helps_itself_in_the_order_of_dispatch_and_to_its_engine_only(ledger):
    enqueue(ledger, packed("short", estimate_s=1), packed("long", estimate_s=9))
    enqueue(ledger, packed("foreign", estimate_s=99, engine="other"))
    assert [(lease.shard, lease.attempt) for lease in (claim_next(ledger), claim_next(ledger))] == [
        ("long", 1), ("short", 1)]
    assert claim_next(ledger) is None
    assert claim_next(ledger, "other").shard == "foreign"


def test_who_comes_up_for_a_shard_that_another_took_is_superseded(ledger):
    enqueue(ledger, packed("a"))
    dispatch(ledger)
    shards.submitted(ledger, "a", 1, "late-pod")
    lease = claim_next(ledger)
    assert (lease.shard, lease.attempt) == ("a", 1)
    assert claim(ledger, "a", 1) is None
    assert shards.heartbeat(ledger, lease, beat(5))
    assert [one.pool for one in shards.spent(ledger) if one.pool] == ["job"], "it costs where it was made"


def test_who_helps_himself_keeps_to_the_bound_of_a_catalog(ledger):
    enqueue(ledger, packed("a", estimate_s=9), packed("b", estimate_s=8), catalog="full", in_flight=1)
    enqueue(ledger, packed("c", estimate_s=1), catalog="other")
    assert [claim_next(ledger).shard, claim_next(ledger).shard] == ["a", "c"]
    assert claim_next(ledger) is None


def test_a_lease_that_is_over_cannot_be_prolonged_but_finished_work_counts(ledger):
    lease = running(ledger, lease_s=OVER)
    assert not shards.heartbeat(ledger, lease, beat(5))
    assert shards.finish(ledger, lease, beat(6), {})
    assert line(ledger).state == "done"


def test_after_it_is_reaped_a_process_is_told_that_it_lost_and_what_it_cost_is_kept(ledger):
    lease = running(ledger, lease_s=OVER)
    assert shards.reap(ledger) == ["a"]
    assert shards.reap(ledger) == []
    assert not shards.heartbeat(ledger, lease, beat(7))
    assert not shards.finish(ledger, lease, beat(8), {})
    assert give_back(ledger, lease, beat(9)) is None
    assert (line(ledger).state, line(ledger).error_class, line(ledger).gpu_seconds) == ("queued", LOST, 9)


def test_who_lost_a_shard_cannot_end_the_work_of_the_next(ledger):
    lost = running(ledger, lease_s=OVER)
    shards.reap(ledger)
    with ledger.session() as session:
        session.execute(sa.update(t.ShardRow).values(not_before=0))
    dispatch(ledger)
    held = claim(ledger, "a", 2)
    assert not shards.heartbeat(ledger, lost, beat(1))
    assert not shards.finish(ledger, lost, beat(1), {})
    assert give_back(ledger, lost) is None
    assert shards.finish(ledger, held, beat(1), {})


def test_what_failed_with_two_seeds_is_left_alone_until_somebody_asks_for_it(ledger):
    enqueue(ledger, packed("a", ["S0001", "S0002"]))
    dispatch(ledger)
    failed = {recipe_of("S0001"): ("EngineError", "nan in the latents", True)}
    assert shards.finish(ledger, claim(ledger, "a"), beat(9, chunks=4), failed)
    told = shards.owned(ledger, [recipe_of("S0001")])[recipe_of("S0001")]
    assert (told.state, told.flagged, told.error_class, told.error) == ("failed", True, "EngineError",
                                                                        "nan in the latents")
    assert enqueue(ledger, packed("a", ["S0001", "S0002"])) == []
    assert enqueue(ledger, packed("b", ["S0002"])) == ["b"]
    assert shards.unflag(ledger, "series/e01", "fr") == 0
    assert shards.unflag(ledger, "series/e01", "es") == 1
    assert shards.unflag(ledger, "series/e01", "") == 0
    assert enqueue(ledger, packed("c", ["S0001"])) == ["c"]
    assert not shards.owned(ledger, [recipe_of("S0001")])[recipe_of("S0001")].error_class


def test_three_attempts_that_made_nothing_end_a_shard(ledger):
    lease = running(ledger)
    assert give_back(ledger, lease) == "queued"
    for attempt, then in ((2, "queued"), (3, "failed")):
        dispatch(ledger)
        assert give_back(ledger, claim(ledger, "a", attempt)) == then
    assert dispatch(ledger) == []
    assert (line(ledger).error_class, line(ledger).error) == ("InfrastructureError", "the disk is gone")


@pytest.mark.parametrize(("spent", "why"), [(beat(9, chunks=1), "InfrastructureError"), (NOTHING, EVICTED),
                                            (NOTHING, "CapacityError")])
def test_attempts_that_got_on_or_could_not_help_it_cost_no_try(ledger, spent, why):
    enqueue(ledger, packed("a"))
    for attempt in range(1, 7):
        dispatch(ledger)
        assert give_back(ledger, claim(ledger, "a", attempt), spent, why) == "queued"


def test_what_is_given_back_waits_as_long_as_it_was_told(ledger):
    assert give_back(ledger, running(ledger), delay_s=3600) == "queued"
    assert dispatch(ledger) == []
    assert claim_next(ledger) is None


def test_after_its_deadline_a_shard_is_not_tried_again(ledger):
    enqueue(ledger, packed("a"), packed("b"), deadline_s=OVER)
    assert names(dispatch(ledger, slots=1)) == ["a"]
    assert give_back(ledger, claim(ledger, "a"), beat(9, chunks=1), EVICTED) == "failed"
    assert shards.reap(ledger) == ["b"]
    assert (line(ledger, "b").state, line(ledger, "b").error) == ("failed", "its time was over before it was done")


def ready(ledger: Ledger) -> None:
    """Let no shard wait any longer."""
    with ledger.session() as session:
        session.execute(sa.update(t.ShardRow).values(not_before=0))


def test_dispatched_shards_that_no_machine_takes_cost_no_try(ledger):
    enqueue(ledger, packed("a"))
    for attempt in range(1, 6):
        dispatch(ledger, patience_s=OVER)
        assert shards.reap(ledger) == ["a"]
        assert claim(ledger, "a", attempt) is None
        assert (line(ledger).state, line(ledger).error) == ("queued", "no machine took it in time")
        assert dispatch(ledger) == [], "it waits"
        ready(ledger)


def test_processes_that_end_before_they_take_a_shard_cost_a_try_each(ledger):
    enqueue(ledger, packed("a"))
    for attempt, then in ((1, "queued"), (2, "queued"), (3, "failed")):
        dispatch(ledger)
        assert shards.unstarted(ledger, [("a", attempt), ("a", attempt - 1)]) == ["a"]
        assert line(ledger).state == then
        assert dispatch(ledger) == []
        ready(ledger)
    assert [(one.shard, one.error_class) for one in shards.failed(ledger, ["a", "none"])] == [("a", "StartError")]


def test_a_process_that_hangs_is_told_when_its_time_is_over(ledger):
    enqueue(ledger, packed("a"))
    dispatch(ledger)
    lease = claim(ledger, "a")
    with ledger.session() as session:
        session.execute(sa.update(t.ShardRow).values(deadline=t.clock() - 1))
    assert not shards.heartbeat(ledger, lease, beat(9, chunks=1))
    with ledger.session() as session:
        session.execute(sa.update(t.ShardRow).values(lease_until=t.clock() - 1))
    assert shards.reap(ledger) == ["a"]
    assert line(ledger).state == "failed"
    assert line(ledger).error.startswith("its time was over before it was done: its process was not heard of")


def test_dead_processes_that_made_chunks_cost_no_try(ledger):
    enqueue(ledger, packed("a"))
    for _ in range(6):
        lease = _after_loss(ledger)
        shards.heartbeat(ledger, lease, beat(9, chunks=2))
        with ledger.session() as session:
            session.execute(sa.update(t.ShardRow).values(lease_until=t.clock() - 1))
        assert shards.reap(ledger) == ["a"]
        assert line(ledger).state == "queued"


def _after_loss(ledger: Ledger) -> Lease:
    with ledger.session() as session:
        session.execute(sa.update(t.ShardRow).values(not_before=0))
    lease = claim_next(ledger)
    assert lease
    return lease


def test_a_shot_is_never_in_two_live_shards(ledger):
    first = packed("a", ["S0001", "S0002"])
    assert enqueue(ledger, first, packed("b", ["S0002", "S0003"])) == ["a"]
    assert enqueue(ledger, first, packed("c", ["S0002"]), packed("d", ["S0003"])) == ["d"]
    shards.finish(ledger, claim_next(ledger), NOTHING, {})
    shards.finish(ledger, claim_next(ledger), NOTHING, {})
    assert enqueue(ledger, packed("b", ["S0002", "S0003"])) == ["b"]
    assert enqueue(ledger, first) == []


def test_a_shard_that_is_opened_again_has_all_its_tries_and_counts_its_attempts_on(ledger):
    for attempts in ((1, 2, 3), (4, 5, 6)):
        assert enqueue(ledger, packed("a")) == ["a"]
        for attempt in attempts:
            assert line(ledger).state == "queued"
            dispatch(ledger)
            give_back(ledger, claim(ledger, "a", attempt))
        assert line(ledger).state == "failed"


def test_cancelling_a_run_ends_its_live_shards_and_names_their_flow_runs(ledger):
    run, other = ledger.begin_run("run", {}, {}), ledger.begin_run("run", {}, {})
    enqueue(ledger, packed("done", estimate_s=9), packed("runs", estimate_s=8), packed("waits", estimate_s=1),
            run_id=run, in_flight=2)
    enqueue(ledger, packed("others"), run_id=other, catalog="o")
    dispatch(ledger)
    shards.submitted(ledger, "runs", 1, "flow-run-7")
    shards.finish(ledger, claim(ledger, "done"), NOTHING, {})
    lease = claim(ledger, "runs")
    assert shards.cancel(ledger) == []
    assert shards.cancel(ledger, run_id=run) == [("runs", "flow-run-7"), ("waits", "")]
    assert shards.cancel(ledger, run_id=run) == []
    assert not shards.heartbeat(ledger, lease, beat(4))
    assert not shards.finish(ledger, lease, beat(5), {})
    assert give_back(ledger, lease, beat(5)) is None
    assert {one.shard: one.state for one in shards.overview(ledger)} == {
        "done": "done", "runs": "cancelled", "waits": "cancelled", "others": "dispatched"}
    assert shards.cancel(ledger, shards=["others", "done"]) == [("others", "")]


def test_runs_whose_lease_is_over_are_closed_with_what_is_left_in_them(ledger):
    dead = ledger.begin_run("run", {}, {}, lease_s=OVER)
    alive, silent = ledger.begin_run("run", {}, {}, lease_s=HELD), ledger.begin_run("status", {}, {})
    ledger.begin(dead, Attempt(recipe="r" * 64, step="mix"))
    enqueue(ledger, packed("pool"), run_id=dead)
    own = packed("own")
    ledger.save([t.ShardRow(id="own", run_id=dead, episode="e", language="es", shots=[own.shard.requests[0].shot],
                            state="running", updated=datetime.now(UTC))])
    assert shards.reap_runs(ledger) == [dead]
    assert shards.reap_runs(ledger) == []
    assert not ledger.keep_run(dead, HELD)
    assert ledger.keep_run(alive, HELD)
    with ledger.session() as session:
        assert session.scalars(sa.select(t.Execution.outcome)).all() == ["failed"]
        assert session.get_one(t.Run, silent).state == "running"
    assert {one.shard: one.state for one in shards.overview(ledger)} == {"pool": "queued", "own": "failed"}, \
        "others make what was asked of the pool; what the run made itself nobody makes any more"


def test_what_a_run_works_off_itself_takes_no_place_in_the_pool(ledger):
    ledger.save([t.ShardRow(id="own", run_id=ledger.begin_run("run", {}, {}), episode="e", language="es", shots=[],
                            state="running", updated=datetime.now(UTC), catalog="c")])
    enqueue(ledger, packed("a"), in_flight=1)
    assert names(dispatch(ledger, slots=1)) == ["a"]


def test_an_overview_shows_live_shards_first_and_only_those_asked_for(ledger):
    run = ledger.begin_run("run", {}, {})
    enqueue(ledger, packed("a", estimate_s=9), packed("b", estimate_s=8), packed("c", estimate_s=7), run_id=run,
            in_flight=2)
    enqueue(ledger, packed("d"), catalog="other")
    dispatch(ledger)
    claim(ledger, "b")
    shards.finish(ledger, claim(ledger, "a"), NOTHING, {})
    assert [(one.shard, one.state) for one in shards.overview(ledger, run_id=run)] == [
        ("b", "running"), ("c", "queued"), ("a", "done")]
    assert [one.shard for one in shards.overview(ledger, catalog="other")] == ["d"]


def test_what_was_measured_bends_estimates_and_only_whole_attempts_of_the_engine_count(ledger):
    assert shards.history(ledger, "pulse").frames == 0
    shards.finish(ledger, running(ledger, "a"), beat(60, chunks=1, frames=25, startup_seconds=10), {})
    give_back(ledger, running(ledger, "b"), beat(999, chunks=1, frames=5))
    shards.finish(ledger, claim_next(ledger), beat(20, chunks=1, frames=20), {})  # b again, the rest of it
    known = shards.history(ledger, "pulse")
    assert (known.frames, known.seconds, known.startups) == (45, 70, (10,))
    assert known.estimated == pytest.approx(100 + 100 * 20 / 25)
    assert shards.history(ledger, "other").frames == 0
    assert shards.history(ledger, "pulse", last=1).frames == 20


def test_costs_are_told_by_episode_language_and_pool_and_by_the_run_they_were_for(ledger):
    first, second = ledger.begin_run("run", {}, {}), ledger.begin_run("run", {}, {})
    for run, seconds in ((first, 40), (second, 60)):
        enqueue(ledger, packed("a"), run_id=run)
        give_back(ledger, claim_next(ledger), beat(seconds / 4), EVICTED)
        shards.finish(ledger, claim_next(ledger), beat(seconds), {})
    step = ledger.begin(first, Attempt(recipe="r" * 64, step="mix", episode="series/e01", language="mul"))
    ledger.fail(step, ValueError("x"), 2.5)
    told = {(one.language, one.pool): one for one in shards.spent(ledger, [first])}
    assert told.keys() == {("", ""), ("es", "job")}
    assert told["", ""].cpu_seconds == 2.5
    assert (told["es", "job"].gpu_seconds, told["es", "job"].lost_seconds) == (50, 10)
    assert sum(one.gpu_seconds for one in shards.spent(ledger)) == 125
    assert shards.spent(ledger, since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert shards.spent(ledger, since=datetime.now(UTC) - timedelta(hours=1)) == shards.spent(ledger)


SHOTS = tuple(f"S{n:04d}" for n in range(4))
PACKS = {"one": SHOTS[:2], "two": SHOTS[2:], "odd": SHOTS[1::2]}
LEASES, ENDED = some.sampled_from([OVER, HELD, HELD]), ("done", "failed", "cancelled")


class Queue(RuleBasedStateMachine):
    """Any moves in any order."""

    ledger: Ledger

    def __init__(self) -> None:
        super().__init__()
        emptied(self.ledger)
        self.leases: list[Lease] = []
        self.newest: dict[str, int] = {}
        self.attempts: dict[str, int] = {}
        self.cost = 0.0
        self.clock = 0.0

    def _given(self, lease: Lease | None) -> None:
        if lease:
            assert lease.attempt > self.newest.get(lease.shard, 0), "an attempt was given to two"
            self.newest[lease.shard] = lease.attempt
            self.leases.append(lease)

    def _lease(self, which: int) -> Lease | None:
        return self.leases[-1 - which % len(self.leases)] if self.leases else None

    def _beat(self, chunks: int) -> Beat:
        self.clock += 1
        return beat(self.clock, chunks=chunks)

    @rule(names=some.sets(some.sampled_from(sorted(PACKS)), min_size=1), deadline_s=some.sampled_from([OVER, 3600.0]))
    def enqueue(self, names: set[str], deadline_s: float) -> None:
        before = {one.shard for one in shards.overview(self.ledger) if one.state in LIVE}
        queued = enqueue(self.ledger, *(packed(name, PACKS[name]) for name in sorted(names)), in_flight=2,
                         deadline_s=deadline_s)
        assert before.isdisjoint(queued)

    @rule(patience_s=LEASES, slots=some.integers(0, 3))
    def dispatch(self, patience_s: float, slots: int) -> None:
        for one in dispatch(self.ledger, slots, patience_s):
            assert one.attempt > self.newest.get(one.shard, 0)

    @rule(shard=some.sampled_from(sorted(PACKS)), back=some.integers(0, 1), lease_s=LEASES)
    def claim(self, shard: str, back: int, lease_s: float) -> None:
        self._given(claim(self.ledger, shard, self.attempts.get(shard, 0) - back, lease_s))

    @rule(lease_s=LEASES)
    def claim_next(self, lease_s: float) -> None:
        self._given(claim_next(self.ledger, lease_s=lease_s))

    @rule(which=some.integers(0, 3), chunks=some.integers(0, 1))
    def heartbeat(self, which: int, chunks: int) -> None:
        lease = self._lease(which)
        if lease and shards.heartbeat(self.ledger, lease, self._beat(chunks)):
            assert lease.attempt == self.newest[lease.shard]

    @rule(which=some.integers(0, 3), fails=some.booleans())
    def finish(self, which: int, fails: bool) -> None:
        lease = self._lease(which)
        failed = {recipe_of(PACKS[lease.shard][0]): ("EngineError", "no", False)} if lease and fails else {}
        if lease and shards.finish(self.ledger, lease, self._beat(1), failed):
            assert lease.attempt == self.newest[lease.shard]
            assert line(self.ledger, lease.shard).state == ("failed" if fails else "done")

    @rule(which=some.integers(0, 3), why=some.sampled_from([EVICTED, "InfrastructureError"]))
    def give_back(self, which: int, why: str) -> None:
        lease = self._lease(which)
        state = lease and give_back(self.ledger, lease, self._beat(0), why)
        if lease and state:
            assert lease.attempt == self.newest[lease.shard]
            assert line(self.ledger, lease.shard).state == state in {"queued", "failed"}

    @rule()
    def reap(self) -> None:
        before = {one.shard: one.state for one in shards.overview(self.ledger)}
        reaped = shards.reap(self.ledger)
        assert all(before[shard] in LIVE for shard in reaped)
        with self.ledger.session() as session:
            session.execute(sa.update(t.ShardRow).values(not_before=0))

    @rule(shard=some.sampled_from(sorted(PACKS)))
    def cancel(self, shard: str) -> None:
        before = {one.shard: one.state for one in shards.overview(self.ledger)}
        assert bool(shards.cancel(self.ledger, shards=[shard])) == (before.get(shard) in LIVE)

    @invariant()
    def rows_agree(self) -> None:
        with self.ledger.session() as session:
            rows = session.scalars(sa.select(t.ShardRow)).all()
            open_ = set(session.execute(sa.select(t.ShardAttempt.shard, t.ShardAttempt.attempt)
                                        .where(t.ShardAttempt.ended.is_(None))).tuples())
            counted = dict(session.execute(sa.select(t.ShardAttempt.shard, sa.func.count())
                                           .group_by(t.ShardAttempt.shard)).tuples().all())
            cost = session.scalar(sa.select(sa.func.sum(t.ShardAttempt.gpu_seconds))) or 0.0
        held = [row for row in rows if row.state in {"dispatched", "running"}]
        assert {row.id for row in rows if row.lease_until is not None} == {row.id for row in held}
        assert open_ == {(row.id, row.attempt) for row in held}
        assert len(held) <= 2, "the bound of the catalog"
        assert all(counted.get(row.id, 0) == row.attempt >= self.attempts.get(row.id, 0) for row in rows)
        assert all(row.state in {*LIVE, *ENDED} and 0 <= row.tries_left <= 3 for row in rows)
        shots = [shot for row in rows if row.state in LIVE for shot in row.shots]
        assert len(shots) == len(set(shots))
        assert cost >= self.cost
        self.cost, self.attempts = cost, {row.id: row.attempt for row in rows}


def test_no_order_of_moves_breaks_the_queue():
    machine = type("OnSqlite", (Queue,), {"ledger": Ledger("sqlite://")})
    machine.TestCase.settings = settings(max_examples=15, stateful_step_count=40, deadline=None, derandomize=True)
    machine.TestCase("runTest").runTest()

"""A run whose shots are made elsewhere: what it queues, adopts, waits for, and what becomes of it when things fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flows.cli import run_command
from flows.gpu import work_off
from flows.pool import Here, Queue
from flows.runs import session
from flows.settings import Settings, load_settings
from flows.wiring import Workspace, open_workspace
from models import tables as t
from models.errors import EngineError, InfrastructureError
from models.pool import Packed, Waiting
from models.records import ShotRequest
from tasks import shards
from tasks.generate import generate_shot
from tasks.ledger import Ledger
from tasks.step import Work, find
from tests import fakes
from tests.test_shard import Queued, until

ROOT = Path(__file__).parents[1]
FLAGS = {"lease_s": 3.0, "dispatch": "prefect"}
OF_STEPS = {"publish.sheet", "publish.qc"}
"""Named like an item, counted like a step."""

pytestmark = pytest.mark.usefixtures("fake_engines")


class Threads:
    """A GPU pool in this process: what a flow run would do is done in a thread."""

    def __init__(self) -> None:
        self.workers = ThreadPoolExecutor(2)
        self.asked: list[tuple[str, int]] = []
        self.parameters: list[tuple[str, Mapping[str, Any]]] = []
        self.state: Path | None = None
        self.ended: set[str] = set()
        self.cancelled: set[str] = set()
        self.refuses = False

    def submit(self, waiting: Sequence[Waiting], config: str,
               settings: Mapping[str, Any]) -> dict[tuple[str, int], str]:
        if self.refuses:
            raise InfrastructureError("the server is away")
        for one in waiting:
            self.asked.append((one.shard, one.attempt))
            self.parameters.append((config, settings))
            if self.state:
                loaded = load_settings(flags={"state": str(self.state), "lease_s": 3})
                self.workers.submit(work_off, loaded, shard=one.shard, attempt=one.attempt)
        return {(one.shard, one.attempt): f"{one.shard}/{one.attempt}" for one in waiting}

    def cancel(self, names: Collection[str]) -> None:
        self.cancelled |= set(names)

    def final(self, names: Collection[str]) -> set[str]:
        return self.ended & set(names)


@pytest.fixture
def gpus() -> Iterator[Threads]:
    pool = Threads()
    yield pool
    pool.workers.shutdown()


# -- whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(gpus: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a verb with its shots made in threads → exit code and answer."""

    def opened(space: Workspace, **asked: Any) -> Queue | Here:
        return Here(space, asked["catalog"]) if space.settings.dispatch == "here" else Queue(space, gpus, **asked)

    monkeypatch.setattr("flows.runs.open_pool", opened)
    gpus.state = tmp_path / "out" / ".infinidub"

    def verb(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
        code = run_command([*arguments, "--out", str(tmp_path / "out"), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return verb


PLAIN = ("--generator", "pulse", "--set", "prefect=false", "--set", "multi=false", "--set", "check_speech=false",
         "--set", "dispatch=prefect", "--set", "lease_s=3")


def executed(ledger: Ledger, run_id: str | None = None) -> list[tuple[str, str]]:
    """(command of the run, step) of what was computed, in order."""
    query = sa.select(t.Run.command, t.Execution.step).join(t.Run, t.Run.id == t.Execution.run_id).where(
        t.Execution.outcome == "computed").order_by(t.Execution.id)
    with ledger.session() as session:
        return list(session.execute(query.where(t.Run.id == run_id) if run_id else query).tuples())


def test_a_run_plans_all_languages_and_finishes_them_with_shots_made_elsewhere(
        run: Any, gpus: Threads, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = fakes.series(tmp_path / "series")
    code, said = run(capsys, "run", str(catalog), *PLAIN)
    assert (code, len(said["deliverables"]), said["failed"]) == (0, 2, [])
    assert all(one["generated_s"] > 0 for one in said["deliverables"])
    ledger = Ledger(f"sqlite:///{gpus.state}/infinidub.db")
    done = executed(ledger)
    assert {command for command, step in done if step == "generate.shot"} == {"shard"}
    steps = [step for command, step in done if command == "run"]
    assert steps.count("plan") == 2
    assert max(i for i, step in enumerate(steps) if step == "plan") < steps.index("assemble")
    assert said["steps_run"] == len([step for step in steps if "." not in step or step in OF_STEPS])  # none twice
    assert {line.state for line in shards.overview(ledger, catalog=str(catalog))} == {"done"}
    for config, settings in gpus.parameters:
        assert config == ""
        assert settings.items() >= {"dispatch": "prefect", "lease_s": 3}.items()
    before = len(gpus.asked)
    assert run(capsys, "run", str(catalog), *PLAIN)[1]["steps_run"] == 0
    assert len(gpus.asked) == before


def test_a_flagged_shot_fails_its_language_and_waits_for_somebody_to_ask(
        run: Any, gpus: Threads, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = fakes.series(tmp_path / "series", languages=["es"])
    monkeypatch.setenv("PULSE_FAILS", "S0002")
    code, said = run(capsys, "run", str(catalog), *PLAIN)
    assert (code, said["failed"][0]["error"]) == (4, "EngineError")
    message = said["failed"][0]["message"]
    head, _, command = message.partition(". Try again with: ")
    assert head == "fake/e1·es: shot S0002: the weights hold NaN. It failed with two seeds"
    assert " retry --failed " in command
    tried = len(gpus.asked)
    assert run(capsys, "run", str(catalog), *PLAIN)[0] == 4
    assert len(gpus.asked) == tried  # the next night leaves it alone
    monkeypatch.delenv("PULSE_FAILS")
    code, said = run(capsys, "retry", "--failed")
    assert (code, len(said["deliverables"])) == (0, 1)
    assert len(gpus.asked) == tried + 1


# -- the queue from a run's side --------------------------------------------------------------------------------------


@pytest.fixture
def queue(tmp_path: Path) -> Queued:
    settings = load_settings(flags={"state": str(tmp_path), **FLAGS})
    space = open_workspace(settings)
    return Queued(settings, space, space.ledger.begin_run("run", {}, {}))


def parent(queue: Queued, gpus: Threads, settings: Settings | None = None) -> tuple[Work, Queue]:
    """A run of its own."""
    space = queue.space
    if settings:
        space.settings = settings
    run_id = space.ledger.begin_run("run", {}, {})
    return space.work(run_id, episode="s/e", language="es"), Queue(space, gpus, catalog="c")


def requests(packed: Packed) -> tuple[ShotRequest, ...]:
    return packed.shard.requests


@contextmanager
def ticking(pool: Queue) -> Iterator[None]:
    left = threading.Event()

    def keep() -> None:
        while not left.wait(0.1):
            pool.tick()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def test_a_run_adopts_what_a_dead_one_asked_for(queue: Queued, gpus: Threads) -> None:
    shots = requests(queue.put((0, 9), (9, 18)))
    dead, first = parent(queue, gpus)
    first.order(dead, shots, 0)
    first.tick()
    assert len(gpus.asked) == 1  # and nobody comes up for it
    work, second = parent(queue, gpus)
    second.order(work, shots, 0)
    second.tick()
    assert (queue.line.state, queue.line.attempt, len(gpus.asked)) == ("dispatched", 1, 1)
    [shard], [(_, attempt)] = [queue.line.shard], gpus.asked
    work_off(queue.settings, shard=shard, attempt=attempt)
    with second.making(work, shots):
        assert all(find(work, generate_shot, one) for one in shots)


def test_shots_whose_run_was_cancelled_are_made_for_the_one_that_waits(queue: Queued, gpus: Threads) -> None:
    shots = requests(queue.put((0, 9)))
    theirs, first = parent(queue, gpus)
    work, second = parent(queue, gpus)
    first.order(theirs, shots, 0)
    second.order(work, shots, 0)
    first.tick()
    assert first.cancel(theirs.run_id) == 1
    assert gpus.cancelled == {f"{queue.line.shard}/1"}
    gpus.state = queue.settings.state
    with ticking(second), second.making(work, shots):
        assert find(work, generate_shot, shots[0])
    assert second.cancel(work.run_id) == 0


def test_languages_are_due_as_their_shots_are_there(queue: Queued, gpus: Threads) -> None:
    first, second = queue.put((0, 9)), queue.put((9, 18))
    work, pool = parent(queue, gpus)
    pool.order(work, requests(first), 0)
    work.language = "fr"
    pool.order(work, requests(second), 0)
    [long] = [line.shard for line in shards.overview(queue.space.ledger) if line.language == "fr"]
    pool.tick()
    work_off(queue.settings, shard=long, attempt=1)
    with queue.space.ledger.session() as session:  # that process went on with the other one, too: begin it again
        session.execute(sa.update(t.ShardRow).where(t.ShardRow.language == "es").values(state="queued"))
    waiting = {"one": [("s/e", "es")], "both": [("s/e", "es"), ("s/e", "fr")], "other": [("s/e", "fr")]}
    assert pool.first(waiting) == "other"


def test_a_process_that_ended_before_it_took_its_shard_is_replaced(queue: Queued, gpus: Threads,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    work, pool = parent(queue, gpus)
    pool.order(work, requests(queue.put((0, 9))), 0)
    pool.tick()
    gpus.ended = {f"{queue.line.shard}/1"}
    monkeypatch.setattr("flows.pool.shards.unclaimed",
                        lambda ledger, _older, seen=shards.unclaimed: seen(ledger, -1.0))
    pool.tick()
    assert (queue.line.state, queue.line.error_class) == ("queued", "StartError")


def test_what_could_not_be_submitted_is_submitted_again_as_the_same_attempt(
        queue: Queued, gpus: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    work, pool = parent(queue, gpus)
    pool.order(work, requests(queue.put((0, 9))), 0)
    gpus.refuses = True
    with pytest.raises(InfrastructureError):
        pool.tick()
    gpus.refuses = False
    pool.tick()
    assert gpus.asked == []  # the answer may only be late
    monkeypatch.setattr("flows.pool.RESUBMIT_S", -1.0)
    pool.tick()
    assert gpus.asked == [(queue.line.shard, 1)]
    pool.tick()
    assert len(gpus.asked) == 1


def test_a_pool_that_does_not_work_ends_the_wait(queue: Queued, gpus: Threads) -> None:
    work, pool = parent(queue, gpus, queue.settings.model_copy(update={"shard_deadline_s": 0.1}))
    shots = requests(queue.put((0, 9)))
    pool.order(work, shots, 0)
    with pytest.raises(InfrastructureError, match="shards were not made in time: shard-"), pool.making(work, shots):
        pass


def test_a_shard_that_was_lost_too_often_fails_its_language_alone_and_is_told_at_once(
        queue: Queued, gpus: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, str]] = []
    monkeypatch.setattr("flows.pool.announce", lambda _settings, event, failed: told.extend(
        (event, one["episode"], one["error"]) for one in failed))
    shots = requests(queue.put((0, 9)))
    work, pool = parent(queue, gpus)
    pool.order(work, shots, 0)
    for attempt in (1, 2, 3):
        assert shards.claim(queue.space.ledger, queue.line.shard, queue.dispatch(), owner="", device="", lease_s=-1)
        assert (queue.line.attempt, told) == (attempt, [])
        pool.tick()
    assert queue.line.state == "failed"
    pool.tick()
    until(lambda: told)
    assert told == [("shard-failed", "s/e", "LostError")]
    with pytest.raises(EngineError, match="shot S0001: LostError: its process was not heard of any more"), \
            pool.making(work, shots):
        pass


def test_what_this_process_makes_itself_is_noted_with_its_cost(queue: Queued) -> None:
    work = queue.space.work(queue.run_id, episode="s/e", language="es")
    here, shots = Here(queue.space, "c"), requests(queue.put((0, 9)))
    with here.making(work, shots):
        assert queue.line.state == "running"
        work.counts.update({"chunks_run": 1, "frames_run": 9, "chunks_there": 1})
        here.tick()
        assert (queue.line.chunks_done, queue.line.chunks_total) == (1, 1)
    assert (queue.line.state, queue.line.frames_made, queue.line.gpu_seconds > 0) == ("done", 9, True)
    with pytest.raises(EngineError), here.making(work, shots):
        raise EngineError("nonsense")
    assert (queue.line.state, queue.line.attempt, queue.line.error_class) == ("failed", 2, "EngineError")


def test_a_run_is_alive_while_who_starts_shards_does_not_answer(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()

    def tick(_pool: Here) -> None:
        asked.set()
        answered.wait(60)

    def alive_until() -> float:
        with run.space.ledger.session() as reading:
            return float(reading.scalars(sa.select(t.Run.lease_until)).one())

    monkeypatch.setattr(Here, "tick", tick)
    with session(load_settings(flags={"out": str(tmp_path), "lease_s": 1}), "run", {}) as run:
        until(asked.is_set)
        before = alive_until()
        until(lambda: alive_until() > before)
        answered.set()


def test_cancel_stops_a_run_in_another_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog, out = fakes.series(tmp_path / "series", languages=["es"]), tmp_path / "out"
    command = [sys.executable, "-m", "tests.fakes", "run", str(catalog), "--out", str(out), "--generator", "pulse",
               "--set", "prefect=false", "--set", "lease_s=3"]
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PULSE_WAITS_AT": "1"}, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    try:
        until((out / ".infinidub" / "infinidub.db").exists)
        ledger = open_workspace(load_settings(flags={"out": str(out)})).ledger
        until(lambda: any(line.state == "running" for line in shards.overview(ledger)))
        assert run_command(["cancel", "--out", str(out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["shards"] == []  # what a run makes itself ends with it
        assert child.wait(10) == 130
    finally:
        child.kill()
        child.wait()
    [line] = shards.overview(ledger)
    assert line.state == "cancelled"
    with ledger.session() as session:
        assert session.scalars(sa.select(t.Run.state)).all() == ["cancelled"]
        assert "running" not in session.scalars(sa.select(t.Execution.outcome)).all()
    assert run_command(["cancel", "--out", str(out), "--json"]) == 2

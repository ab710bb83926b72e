"""The GPU process: takes a shard, holds it, hands it back when it must stop; and the next one goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from flows.cli import run_command
from flows.gpu import work_off
from flows.settings import Settings, load_settings
from flows.wiring import Workspace, open_workspace
from models import tables as t
from models.errors import CapacityError, InfrastructureError, InputError
from models.pool import Packed
from models.records import Shard, ShotRequest
from tasks import shards
from tasks.generate import generate_shot
from tasks.media import FrameWriter
from tasks.pack import pack
from tasks.store import put_record
from tests import fakes
from tests.pulse import REF

ROOT = Path(__file__).parents[1]
CHUNKS = 6
"""Of the shot of 45 frames."""

pytestmark = pytest.mark.usefixtures("fake_engines")


@dataclass
class Queued:
    """A state folder with a queue, and shards in it."""

    settings: Settings
    space: Workspace
    run_id: str

    def put(self, *spans: tuple[int, int]) -> Packed:
        film = self.settings.state / "film.mkv"
        with FrameWriter(film, 64, 48, Fraction(25)) as writer:
            for i in range(45):
                writer.write(np.full((48, 64, 3), 3 * i, np.uint8))
        source = self.space.store.put_file(film, "video/x-matroska")
        requests = [ShotRequest(shot=f"S{n:04d}", source=source, start=start, end=end, width=64, height=48, rate="25",
                                tracks=(), generator=REF) for n, (start, end) in enumerate(spans, 1)]
        recipes = [generate_shot.recipe(one) for one in requests]
        [packed] = pack(requests, [1.0] * len(requests), recipes, episode="s/e", language="es")
        return packed

    def enqueue(self, packed: Packed, holding: Shard | None = None) -> bool:
        artifact = put_record(self.space.store, holding or packed.shard)
        self.space.ledger.note_artifact(artifact)
        return bool(shards.enqueue(self.space.ledger, [packed], artifacts={packed.shard.id: artifact.sha256},
                                   run_id=self.run_id, catalog="c", priority=0, in_flight=10, deadline_s=3600))

    def dispatch(self) -> int:
        """Of the one shard; gives its attempt."""
        with self.space.ledger.session() as session:
            session.execute(sa.update(t.ShardRow).values(not_before=0))
        [one] = shards.dispatch(self.space.ledger, pool="gpu", slots=10, patience_s=600)
        return one.attempt

    @property
    def line(self) -> Any:
        [line] = shards.overview(self.space.ledger)
        return line

    def clip(self, packed: Packed) -> Any:
        return self.space.ledger.find(packed.recipes[0])

    @contextmanager
    def process(self, packed: Packed, attempt: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """`infinidub shard run --id` in a process of its own."""
        command = [sys.executable, "-m", "tests.fakes", "shard", "run", "--id", packed.shard.id,
                   "--attempt", str(attempt), "--state", str(self.settings.state), "--set", "lease_s=3", "--json"]
        child = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
        try:
            yield child
        finally:
            child.kill()
            child.wait()


@pytest.fixture
def queue(tmp_path: Path) -> Queued:
    settings = load_settings(flags={"state": str(tmp_path), "lease_s": 3})
    space = open_workspace(settings)
    return Queued(settings, space, space.ledger.begin_run("run", {}, {}))


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The clip of a shot that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        fakes.install_while(patch)
        settings = load_settings(flags={"state": str(tmp_path_factory.mktemp("undisturbed"))})
        space = open_workspace(settings)
        queue = Queued(settings, space, space.ledger.begin_run("run", {}, {}))
        packed = queue.put((0, 45))
        queue.enqueue(packed)
        [done] = work_off(settings, shard=packed.shard.id, attempt=queue.dispatch())
        assert (done.chunks_run, queue.line.state, queue.line.frames_made) == (CHUNKS, "done", 45)
        return queue.clip(packed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_shard_goes_on_at_its_next_chunk_in_another_process(queue: Queued, undisturbed: Any,
                                                                      number: signal.Signals) -> None:
    packed = queue.put((0, 45))
    assert queue.enqueue(packed)
    with queue.process(packed, queue.dispatch(), PULSE_WAITS_AT="3") as child:
        until(lambda: queue.line.chunks == 3)
        assert (queue.line.chunks_done, queue.line.chunks_total) == (3, CHUNKS)
        child.send_signal(number)
        assert child.wait(10) == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    if number == signal.SIGTERM:
        assert (queue.line.state, queue.line.error_class) == ("queued", "EvictedError")
    else:
        assert queue.line.state == "running"
        until(lambda: shards.reap(queue.space.ledger))
        assert (queue.line.state, queue.line.error_class) == ("queued", "LostError")
    [done] = work_off(queue.settings, shard=packed.shard.id, attempt=queue.dispatch())
    assert done.chunks_run == CHUNKS - 3
    assert queue.clip(packed) == undisturbed
    assert (queue.line.state, queue.line.attempt) == ("done", 2)
    assert (queue.line.chunks, queue.line.chunks_done, queue.line.chunks_total) == (CHUNKS - 3, CHUNKS, CHUNKS)
    with queue.space.ledger.session() as session:
        assert session.scalar(sa.select(t.ShardRow.tries_left)) == 3  # who got on loses none
        assert all(took > 0 for took in session.scalars(sa.select(t.ShardAttempt.gpu_seconds)))


def test_a_cancelled_shard_frees_its_gpu_at_once(queue: Queued) -> None:
    packed = queue.put((0, 45))
    queue.enqueue(packed)
    with queue.process(packed, queue.dispatch(), PULSE_WAITS_AT="2") as child:
        until(lambda: queue.line.chunks == 2)
        assert shards.cancel(queue.space.ledger, run_id=queue.run_id) == [(packed.shard.id, "")]
        child.wait(10)
    assert queue.line.state == "cancelled"
    assert work_off(queue.settings, shard=packed.shard.id, attempt=1) == []


def test_an_attempt_that_was_overtaken_ends_well_and_writes_nothing(queue: Queued,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    packed = queue.put((0, 9))
    queue.enqueue(packed)
    attempt = queue.dispatch()
    assert shards.unstarted(queue.space.ledger, [(packed.shard.id, attempt)]) == [packed.shard.id]
    assert queue.dispatch() == attempt + 1

    def rows() -> list[Any]:
        with queue.space.ledger.session() as session:
            return [session.execute(sa.select(table)).all() for table in (
                t.Run.__table__, t.ShardRow.__table__, t.ShardAttempt.__table__, t.Execution.__table__)]

    before = rows()
    assert run_command(["shard", "run", "--id", packed.shard.id, "--attempt", str(attempt), "--state",
                        str(queue.settings.state), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shards": []}
    assert rows() == before


def test_a_shot_that_fails_with_both_seeds_is_flagged_and_the_others_are_made(
        queue: Queued, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = queue.put((0, 9), (9, 18), (18, 27))
    queue.enqueue(packed)
    monkeypatch.setenv("PULSE_FAILS", "S0002")
    [done] = work_off(queue.settings, shard=packed.shard.id, attempt=queue.dispatch())
    assert list(done.failed) == ["S0002"]
    outcome = shards.owned(queue.space.ledger, packed.recipes)[packed.recipes[1]]
    assert (outcome.state, outcome.flagged, outcome.error_class) == ("failed", True, "EngineError")
    assert outcome.error == "shot S0002: the weights hold NaN"
    assert not queue.enqueue(packed)
    assert shards.unflag(queue.space.ledger, "s/e", "es") == 1
    assert queue.enqueue(packed)
    monkeypatch.delenv("PULSE_FAILS")
    [again] = work_off(queue.settings, shard=packed.shard.id, attempt=queue.dispatch())
    assert (again.shots_run, again.shots_reused, again.failed) == (1, 2, {})


def test_a_full_gpu_hands_the_shard_back_before_anything_is_loaded(queue: Queued,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    packed = queue.put((0, 9))
    queue.enqueue(packed)
    monkeypatch.setenv("PULSE_FULL", "1")
    monkeypatch.setattr("tests.pulse.Pulse.load", lambda *_: pytest.fail("was loaded"))
    with pytest.raises(CapacityError):
        work_off(queue.settings, shard=packed.shard.id, attempt=queue.dispatch())
    assert (queue.line.state, queue.line.error_class) == ("queued", "CapacityError")
    assert shards.dispatch(queue.space.ledger, pool="gpu", slots=10, patience_s=600) == []  # not at once again


def test_a_process_goes_on_with_what_waits_until_its_start_has_paid(queue: Queued) -> None:
    first, second = queue.put((0, 9)), queue.put((9, 18))
    queue.enqueue(first)
    attempt = queue.dispatch()
    queue.enqueue(second)
    done = work_off(queue.settings, shard=first.shard.id, attempt=attempt)
    assert [one.id for one in done] == [first.shard.id, second.shard.id]
    assert {line.state for line in shards.overview(queue.space.ledger)} == {"done"}
    with queue.space.ledger.session() as session:
        startups = session.scalars(sa.select(t.ShardAttempt.startup_seconds).order_by(t.ShardAttempt.started)).all()
    assert startups[0] > 0
    assert startups[1] == 0


def test_a_shard_of_another_content_is_refused_for_good(queue: Queued) -> None:
    packed, other = queue.put((0, 9)), queue.put((9, 18))
    queue.enqueue(packed, holding=other.shard)
    with pytest.raises(InputError, match="holds another shard"):
        work_off(queue.settings, shard=packed.shard.id, attempt=queue.dispatch())
    assert (queue.line.state, queue.line.error_class) == ("failed", "InputError")


def test_a_damaged_shard_file_is_not_worked_off(queue: Queued) -> None:
    packed = queue.put((0, 9))
    queue.enqueue(packed)
    with queue.space.ledger.session() as session:
        digest = session.scalar(sa.select(t.ShardRow.artifact)) or ""
    path = queue.settings.state / "artifacts" / digest[:2] / digest
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    with pytest.raises(InfrastructureError):
        work_off(queue.settings, shard=packed.shard.id, attempt=queue.dispatch())
    assert queue.clip(packed) is None



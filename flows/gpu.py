"""The process on a GPU: takes a shard from the queue, holds it while it works, hands it back when it must stop.

It needs no handler of its own for SIGTERM: Prefect raises `TerminationSignal`, the command line `KeyboardInterrupt`.
Either ends the chunk in hand; all before it is in the store, and the lease goes back on the way out.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flows.listener import Listener
from flows.pool import owner, tell_failed
from flows.runs import Session, interrupt, session
from flows.settings import Settings
from flows.wiring import open_workspace
from models.errors import EngineError, InfrastructureError, InputError, LostCheckpointError
from models.pool import EVICTED, LOST, Beat, Lease
from models.ports import Generator
from models.records import Shard, ShardResult
from tasks import shards
from tasks.generate import chunks_of, generate_shot, load_shard, run_shard
from tasks.ledger import Ledger

BEATS = 6
"""Heartbeats in the time of a lease."""
PATIENCE_S = 8.0
"""How long a process that must stop may take; longer than any Python code does, shorter than Kubernetes' grace."""
STUCK = 75
"""Exit code (EX_TEMPFAIL) of one that took longer."""
SHARE = 0.05
"""Largest part of a process's time that its start-up may take, as long as there is work for it."""
FINAL = (InputError, EngineError)
"""Errors of a whole shard that another try on another machine does not mend."""


@dataclass
class Held:
    """A lease that is held."""

    lost: bool = False
    """It is another's by now, or nobody's: nothing may be written for it."""


@contextmanager
def holding(ledger: Ledger, lease: Lease, beat: Callable[[], Beat]) -> Iterator[Held]:
    """Keep a lease while the block lasts; where it is lost, interrupt the block, and end the process if that fails.

    Where the database cannot be reached the work goes on until the lease is over by this process's own clock, counted
    from before the last heartbeat that was heard: from then on another may have the shard.
    """
    held, left = Held(), threading.Event()

    def keep() -> None:
        until = time.monotonic() + lease.seconds
        while not left.wait(lease.seconds / BEATS):
            asked = time.monotonic()
            try:
                if not shards.heartbeat(ledger, lease, beat()):
                    break
                until = asked + lease.seconds
            except InfrastructureError:
                if time.monotonic() > until:
                    break
        if not left.is_set():
            held.lost = True
            interrupt()
            if not left.wait(PATIENCE_S):
                os._exit(STUCK)

    thread = threading.Thread(target=keep, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        left.set()


def work_off(settings: Settings, *, shard: str = "", attempt: int = 0, engine: str = "",
             listener: Listener | None = None) -> list[ShardResult]:
    """Take a shard, and go on with others until start-up has paid for itself.

    Args:
        settings: As loaded.
        shard: Id of the one that this process was started for; '' takes whatever waits, until nothing does.
        attempt: The one that was dispatched.
        engine: Without a shard: the generator whose shards are taken.
        listener: Is told how it gets on.

    Returns:
        What was made; nothing, where another process has the shard.

    Raises:
        InfinidubError: What kept it from finishing a shard; the shard has failed, or was handed back.
    """
    space = open_workspace(settings)
    device, lease_s = settings.device, settings.lease_s

    def following() -> Lease | None:
        return shards.claim_next(space.ledger, engine=engine, owner=owner(), device=device, lease_s=lease_s,
                                 pool=settings.gpu_pool)

    lease = shards.claim(space.ledger, shard, attempt, owner=owner(), device=device,
                         lease_s=lease_s) if shard else following()
    if lease is None:
        return []
    done = []
    # What this process writes is a run of its own: its rows end with it, whatever becomes of the run that asked.
    with session(settings.model_copy(update={"dispatch": "here"}), "shard", {"shard": shard, "attempt": attempt},
                 listener=listener, space=space) as run:
        process = _Process(run)
        while lease:
            done.append(process.work(lease))
            engine = process.engine
            lease = following() if not shard or process.worked_s * SHARE < process.startup_s * (1 - SHARE) else None
    return done


@dataclass
class _Process:
    """What this process has taken so far."""

    run: Session
    since: float = field(default_factory=lambda: time.monotonic() - _age_s())
    """Monotonic time from which the shard in hand is counted: start of the process, or end of the shard before."""
    engine: str = ""
    startup_s: float = 0.0
    worked_s: float = 0.0
    _loading: bool = True
    _before: Counter[str] = field(default_factory=Counter)
    _chunks: int = 0

    def beat(self) -> Beat:
        took = time.monotonic() - self.since
        startup = took if self._loading else 0.0 if self.worked_s else self.startup_s
        frames, chunks, there = (self.run.counts[name] - self._before[name]
                                 for name in ("frames_run", "chunks_run", "chunks_there"))
        return Beat(took, startup, chunks, frames, there, self._chunks)

    def work(self, lease: Lease) -> ShardResult:
        ledger = self.run.space.ledger
        self._before, self._chunks = self.run.counts.copy(), 0
        self.run.listener.step(lease.episode, lease.language, lease.shard, "running")
        held = Held()
        try:
            with holding(ledger, lease, self.beat) as held:
                result = self._make(lease)
        except BaseException as error:
            self.run.listener.step(lease.episode, lease.language, lease.shard, "failed")
            if not held.lost:
                with suppress(InfrastructureError):  # then the reaper finds it
                    self._hand_back(lease, error)
            raise
        ended, failures = self.beat(), self._failures(result)
        if shards.finish(ledger, lease, ended, failures) and failures:
            tell_failed(self.run.space, [lease.shard])
        self.worked_s += ended.gpu_seconds - ended.startup_seconds
        self.since += ended.gpu_seconds
        self.run.listener.step(lease.episode, lease.language, lease.shard, "failed" if result.failed else "done")
        return result

    def _make(self, lease: Lease) -> ShardResult:
        space = self.run.space
        self._shard = shard = load_shard(space.store.path(space.ledger.artifact(lease.artifact)))
        if shard.id != lease.shard:
            raise InputError("holds another shard", where=f"SHARD.json of {lease.shard}")
        work = self.run.work(shard.episode, shard.language)
        request = shard.requests[0]
        generator: Generator = work.engines.get("generator", request.generator)
        if self._loading:  # what is loaded already takes the memory that is looked for
            # Handing a shard back takes its lease: the look comes after the claim, and before anything is loaded.
            generator.check_memory()
            generator.load(request)
            self.startup_s = time.monotonic() - self.since
            self._loading, self.engine = False, request.generator.name
        self._chunks = chunks_of(work, shard.requests)
        return run_shard(work, shard)

    def _failures(self, result: ShardResult) -> dict[str, tuple[str, str, bool]]:
        recipes = {request.shot: generate_shot.recipe(request) for request in self._shard.requests}
        return {recipes[shot]: (one.error_class, one.error, one.flagged) for shot, one in result.failed.items()}

    def _hand_back(self, lease: Lease, error: BaseException) -> None:
        ledger, beat, name = self.run.space.ledger, self.beat(), type(error).__name__
        if isinstance(error, FINAL):
            failed = shards.finish(ledger, lease, beat, {"": (name, str(error), False)})
        else:
            kind = LOST if isinstance(error, LostCheckpointError) else \
                name if isinstance(error, Exception) else EVICTED
            failed = shards.give_back(ledger, lease, beat, error_class=kind, error=str(error),
                                      delay_s=shards.delay_s(kind, lease.attempt)) == "failed"
        if failed:
            tell_failed(self.run.space, [lease.shard])

    _shard: Shard = field(init=False)


def _age_s() -> float:
    """Seconds since this process was started; on other systems than Linux, since it asks."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0

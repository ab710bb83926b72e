"""Where missing shots are made: by this process, by flow runs on a GPU work pool, or by an Indexed Job.

The queue is `tasks.shards`; what is here only asks for shards, waits for them, and has processes started.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol, TypeVar

from flows.notify import announce
from flows.wiring import Workspace
from models.errors import EngineError, InfinidubError, InfrastructureError, InputError, SetupError
from models.pool import LIVE, Beat, Packed, ShotOutcome, Waiting
from models.records import ShotRequest
from tasks import shards
from tasks.estimate import Estimators
from tasks.generate import chunks_of, generate_shot, missing_shots
from tasks.step import Work
from tasks.store import put_record

LOG = logging.getLogger("infinidub")
K = TypeVar("K")
Key = tuple[str, str]
"""Episode and language."""
POLL_S = 2.0
RESUBMIT_S = 60.0
"""A dispatched attempt of which no flow run is noted after so long was never submitted, or its answer was lost."""
ENDED_S, FORGOTTEN_S = 120.0, 86_400.0
"""What ended in our tables so long ago has ended, whatever Prefect believes (`flows.upkeep`); after a day nobody asks
any more."""
OPENED_AGAIN = 3
"""How often shots are queued anew within one run whose shard somebody else cancelled, or whose files were lost."""


class Pool(Protocol):
    """Makes missing shots."""

    apart: bool
    """They are made elsewhere meanwhile: a run plans all its languages before it finishes the first."""

    def order(self, work: Work, requests: Sequence[ShotRequest], priority: int) -> None:
        """Have those of `requests` made that no result is known of; returns at once.

        Args:
            work: Names episode and language.
            requests: All shots of that language.
            priority: Of its episode; the larger goes first.
        """
        ...

    def first(self, waiting: Mapping[K, Collection[Key]]) -> K:
        """Wait for one of several whose languages are all through with their shots, whether well or not; its key.

        Raises:
            InfrastructureError: The time for making them is over.
        """
        ...

    def making(self, work: Work, requests: Sequence[ShotRequest]) -> AbstractContextManager[None]:
        """A block in which the step `generate` makes the missing shots itself, or before which it waits for them.

        Raises:
            InputError, SetupError, EngineError: Shots failed or are flagged; the message names them, and what to do.
            InfrastructureError: The time for making them is over.
        """
        ...

    def tick(self) -> None:
        """Take back what is lost, submit again what was not, dispatch: every few seconds, by whoever is up."""
        ...

    def cancel(self, run_id: str) -> int:
        """Cancel a run's shards and end their processes → how many were live."""
        ...


class Submitter(Protocol):
    """Has processes started that claim shards."""

    def submit(self, waiting: Sequence[Waiting], config: str,
               settings: Mapping[str, Any]) -> dict[tuple[str, int], str]:
        """Start a process for each attempt; asking twice for the same attempt starts one.

        Args:
            waiting: The attempts.
            config: Path of the settings file on the pool, '' for none.
            settings: Dotted name → value over it; never a secret.

        Returns:
            (shard, attempt) → name of the flow run or Job; what could not be started is missing.

        Raises:
            InfrastructureError: Who starts them cannot be reached.
        """
        ...

    def cancel(self, names: Collection[str]) -> None:
        """End these flow runs or Jobs; those that have ended are passed over."""
        ...

    def final(self, names: Collection[str]) -> set[str]:
        """Those of `names` that have ended, or are not known any more."""
        ...


def owner() -> str:
    """This process, for people: host (or pod) and process id."""
    return f"{platform.node()}/{os.getpid()}"


def tell_failed(space: Workspace, ids: Collection[str]) -> None:
    """Tell the webhook which of these shards have failed for good; who ended them does so, once and at once.

    In a thread: a webhook that does not answer holds up no heartbeat.
    """
    dead = shards.failed(space.ledger, ids)
    failures = [{"episode": one.episode, "language": one.language, "shard": one.shard, "error": one.error_class,
                 "message": f"{one.episode}·{one.language} {one.shard}: {one.error_class}: {one.error}"}
                for one in dead]

    def tell() -> None:
        unheard = announce(space.settings, "shard-failed", failures)
        if unheard:
            LOG.warning("%s", unheard)

    if failures:
        threading.Thread(target=tell, name="webhook").start()


class Here:
    """This process makes them itself, inside the step; the queue only notes what they took."""

    apart = False

    def __init__(self, space: Workspace, catalog: str) -> None:
        self._space, self._catalog = space, catalog
        self._note: Callable[[], object] = lambda: None

    def order(self, work: Work, requests: Sequence[ShotRequest], priority: int) -> None:
        """Nothing: the step comes next."""

    def first(self, waiting: Mapping[K, Collection[Key]]) -> K:
        """The first."""
        return next(iter(waiting))

    @contextmanager
    def making(self, work: Work, requests: Sequence[ShotRequest]) -> Iterator[None]:
        """Note missing shots as one shard, and how it ended."""
        missing, lease, total = missing_shots(work, requests), None, 0
        if missing:
            [packed] = _packed(work, missing, Estimators(lambda name: shards.history(work.ledger, name)), whole=True)
            lease = shards.hold(work.ledger, packed, run_id=work.run_id, catalog=self._catalog, owner=owner(),
                                device=self._space.settings.device)
        if lease is None:
            yield
            return
        with suppress(InfinidubError):  # what its generator lacks, the step will say
            total = chunks_of(work, requests)
        started, before = time.monotonic(), work.counts.copy()

        def beat() -> Beat:
            frames, chunks, there = (work.counts[name] - before[name]
                                     for name in ("frames_run", "chunks_run", "chunks_there"))
            return Beat(time.monotonic() - started, 0.0, chunks, frames, there, total)

        self._note = lambda: shards.heartbeat(work.ledger, lease, beat())
        try:
            yield
        except Exception as error:
            with suppress(InfrastructureError):  # the first error is the one to tell
                shards.finish(work.ledger, lease, beat(), {"": (type(error).__name__, str(error), False)})
            raise
        except BaseException:
            with suppress(InfrastructureError):
                shards.heartbeat(work.ledger, lease, beat())  # its end comes with the run's
            raise
        finally:
            self._note = lambda: None
        shards.finish(work.ledger, lease, beat(), {})

    def tick(self) -> None:
        """Note how far it is; nobody is started here."""
        self._note()

    def cancel(self, run_id: str) -> int:
        """Nothing: it ends with this process."""
        return 0


class Queue:
    """Processes elsewhere make them; this one fills the queue and keeps it moving."""

    apart = True

    def __init__(self, space: Workspace, submitter: Submitter, *, catalog: str = "", config: str = "",
                 given: Mapping[str, Any] | None = None) -> None:
        """A view of the queue.

        Args:
            space: Settings, store and database.
            submitter: Has processes started.
            catalog: Whose bound on shards in flight holds.
            config: Path of the settings file that the processes read, '' for none.
            given: Dotted name → value over it.
        """
        self._space, self._submitter = space, submitter
        self._catalog, self._config, self._given = catalog, config, dict(given or {})
        self._estimators = Estimators(lambda name: shards.history(space.ledger, name))
        self._shards: dict[Key, set[str]] = {}
        self._priority: dict[Key, int] = {}
        self._poll_s = min(POLL_S, space.settings.lease_s / 6)

    # -- asking -------------------------------------------------------------------------------------------------------

    def order(self, work: Work, requests: Sequence[ShotRequest], priority: int) -> None:
        """Queue what is missing; what another run's shards make already is only waited for."""
        key = (work.episode, work.language)
        self._priority[key] = priority
        self._shards[key] = self._ask(work, missing_shots(work, requests))

    def _ask(self, work: Work, missing: Mapping[str, ShotRequest]) -> set[str]:
        """Queue missing shots (recipe → request) unless they are being made, or flagged → the shards to wait for."""
        settings, ledger = self._space.settings, work.ledger
        waiting: set[str] = set()
        rest = dict(missing)
        while rest:
            known = shards.owned(ledger, rest)
            waiting |= {one.shard for one in known.values() if one.state in LIVE}
            rest = {recipe: request for recipe, request in rest.items()
                    if recipe not in known or not (known[recipe].flagged or known[recipe].state in LIVE)}
            packed = _packed(work, rest, self._estimators)
            artifacts = {}
            for one in packed:
                artifact = put_record(work.store, one.shard)
                ledger.note_artifact(artifact)
                artifacts[one.shard.id] = artifact.sha256
            queued = set(shards.enqueue(
                ledger, packed, artifacts=artifacts, run_id=work.run_id, catalog=self._catalog,
                priority=self._priority.get((work.episode, work.language), 0), in_flight=settings.in_flight,
                deadline_s=settings.shard_deadline_s))
            waiting |= {one.shard.id for one in packed}
            if not queued:  # others have just begun with them, be it in a process of their own
                break
            for one in packed:
                if one.shard.id in queued:
                    for recipe in one.recipes:
                        del rest[recipe]
        return waiting

    # -- waiting ------------------------------------------------------------------------------------------------------

    def first(self, waiting: Mapping[K, Collection[Key]]) -> K:
        """Asks our tables, never Prefect."""
        deadline = time.monotonic() + self._space.settings.shard_deadline_s
        while True:
            mine = {key: {shard for one in keys for shard in self._shards.get(one, ())}
                    for key, keys in waiting.items()}
            live = shards.live(self._space.ledger, set().union(*mine.values()))
            for key, needed in mine.items():
                if not needed & live:
                    return key
            self._pause(deadline, live)

    @contextmanager
    def making(self, work: Work, requests: Sequence[ShotRequest]) -> Iterator[None]:
        """Waits, and leaves nothing to make."""
        key = (work.episode, work.language)
        wanted = {generate_shot.recipe(one): one for one in requests}
        for again in range(OPENED_AGAIN + 1):
            self.first({key: [key]})
            outcomes = shards.owned(work.ledger, wanted)  # before the results: who is through has recorded them
            found = work.ledger.find_many(wanted)
            missing = {recipe: one for recipe, one in wanted.items() if recipe not in found}
            lost = {recipe: one for recipe, one in missing.items() if _lost(outcomes.get(recipe))}
            if not lost or again == OPENED_AGAIN:
                break
            self._shards[key] = self._ask(work, lost)
        if missing:
            raise _failure([(request, outcomes.get(recipe)) for recipe, request in missing.items()])
        yield

    def _pause(self, deadline: float, live: Collection[str]) -> None:
        if time.monotonic() > deadline:
            raise InfrastructureError(f"shards were not made in time: {', '.join(sorted(live)[:5])}", where="GPU pool",
                                      hint="See `infinidub status`; then run the same command again")
        time.sleep(self._poll_s)

    # -- keeping it moving --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One round; several processes may do so at once."""
        settings, ledger = self._space.settings, self._space.ledger
        tell_failed(self._space, shards.reap(ledger))
        started = shards.unclaimed(ledger, settings.lease_s)
        for name in self._submitter.final(list(started)) if started else ():
            tell_failed(self._space, shards.unstarted(ledger, started[name]))
        waiting = shards.unsubmitted(ledger, RESUBMIT_S)
        waiting += shards.dispatch(ledger, pool=settings.gpu_pool, slots=settings.pool_slots,
                                   patience_s=settings.start_patience_s)
        if waiting:
            for (shard, attempt), name in self._submitter.submit(waiting, self._config, self._given).items():
                shards.submitted(ledger, shard, attempt, name)

    def cancel(self, run_id: str) -> int:
        """The queue first: a process that Prefect does not reach learns it from its next heartbeat."""
        stopped = shards.cancel(self._space.ledger, run_id=run_id)
        names = {name for _, name in stopped if name}
        if names:
            self._submitter.cancel(names)
        return len(stopped)


def _lost(outcome: ShotOutcome | None) -> bool:
    """Whether a shot without a result is to be queued anew: another run's shard had it and was cancelled, or has it."""
    return outcome is None or not (outcome.flagged or outcome.state == "failed")


def _packed(work: Work, missing: Mapping[str, ShotRequest], estimators: Estimators, *,
            whole: bool = False) -> tuple[Packed, ...]:
    if not missing:
        return ()
    estimator = estimators.of(next(iter(missing.values())).generator.name)
    return estimator.shards(missing, episode=work.episode, language=work.language, whole=whole)


def _failure(failed: Sequence[tuple[ShotRequest, ShotOutcome | None]]) -> InfinidubError:
    """What became of shots that were not made, as one error of the first one's class."""
    request, outcome = failed[0]
    shots = ", ".join(request.shot for request, _ in failed[:8]) + (" …" if len(failed) > 8 else "")
    kind = {"InputError": InputError, "SetupError": SetupError}.get(outcome.error_class if outcome else "", EngineError)
    if outcome is None or outcome.state in {"done", "cancelled"}:
        why, hint = "its shard was cancelled, or its files were lost", "Run the same command again"
    elif outcome.flagged:
        why, hint = outcome.error, "It failed with two seeds. Try again with: infinidub retry --failed"
    else:
        why, hint = f"{outcome.error_class}: {outcome.error}", "Try again with: infinidub retry --failed"
    mine = f"shot {request.shot}"
    error = kind(why.removeprefix(f"{mine}: "), where=mine if len(failed) == 1 else f"shots {shots}", hint=hint)
    error.retryable = False  # not by the step, which would only look again
    return error


def open_pool(space: Workspace, *, catalog: str = "", config: str = "", given: Mapping[str, Any] | None = None) -> Pool:
    """The pool that the settings name.

    Args:
        space: Settings, store and database.
        catalog: Whose bound on shards in flight holds.
        config: Path of the settings file, '' for none; processes elsewhere read it there.
        given: Dotted name → value over it.

    Raises:
        InputError: Shards are to be dispatched, and no Prefect server or no pool is known.
        InfrastructureError: Prefect's server cannot be reached.
    """
    settings = space.settings
    if settings.dispatch == "here":
        return Here(space, catalog)
    submitter: Submitter
    if settings.dispatch == "prefect":
        from flows.deployments import Deployments  # Prefect is slow to import

        submitter = Deployments()
    else:
        from flows.indexed_job import IndexedJobs

        submitter = IndexedJobs.of_pool(settings.gpu_pool, settings.pool_slots)
    return Queue(space, submitter, catalog=catalog, config=config, given=given)

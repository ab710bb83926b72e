"""Steps: plain functions turned into recorded, reused work; and into Prefect tasks.

A step is declared with `@step("transcribe", version=1)` over `function(work, request) -> result`, both records. Coarse
steps are what Prefect sees; the items inside them (a line, a shot) are declared the same way with another `unit`.
`perform` looks the recipe up, computes only what is missing, stores the result and writes its provenance.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from models import tables as t
from models.errors import EngineError
from models.recipe import artifacts_in, hashes_in, recipe_of
from models.records import Artifact, EngineRef, Record, Request
from tasks.ledger import Attempt, Ledger
from tasks.store import Store, disk_error, get_record, put_record

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Record)
Unit = Literal["step", "text", "line", "fit", "stem", "shot", "track"]
"""What is counted: steps, texts translated, lines voiced, voices fitted, beds separated, shots generated, tracks
encoded."""


BATCH = 40
"""Items computed in one call: what is lost when it fails, against what a call costs."""


class NotDoneError(Exception):
    """Raised by `lookup` where a result is not there yet."""


class Engines(Protocol):
    """Hands out engines, each loaded at most once a process."""

    def get(self, port: str, ref: EngineRef) -> Any:
        """The engine of `port` that `ref` names."""
        ...


@dataclass
class Work:
    """What a step may use besides its request; none of it enters a recipe."""

    store: Store
    ledger: Ledger
    engines: Engines
    scratch: Path
    run_id: str
    episode: str = ""
    language: str = ""
    progress: Callable[[str, float], None] = lambda _what, _done: None
    """Told what is being done and how much of it (0 … 1): for people."""
    counts: Counter[str] = field(default_factory=Counter)
    """steps_run, steps_reused, and the same of each `Unit`; chunks_run and frames_run of generated shots."""
    execution: int | None = None
    """Row of the item that is being computed; None where several are, or none."""
    inner: list[float] = field(default_factory=list)
    """CPU seconds of what was computed inside of it and has rows of its own: they count there, and nowhere twice."""

    def note_seed(self, seed: int) -> None:
        """Say that the item in hand is computed with another seed than its request names."""
        if self.execution is not None:
            self.ledger.note_seed(self.execution, seed)


@dataclass(frozen=True)
class Step(Generic[Q, R]):
    """A function with a name and a version."""

    name: str
    version: int
    unit: Unit
    function: Callable[[Work, Q], R]
    result: type[R]
    batch: Callable[[Work, Sequence[Q]], Sequence[R]] | None = None
    """Computes many items at once, where one call is cheaper than many."""
    lasting: Callable[[R], bool] = lambda _: True
    """Whether a result may be used again; one that may not is used once, and the next time it is computed anew."""

    def recipe(self, request: Q) -> str:
        """The name of this step's result for `request`."""
        return recipe_of(self.name, self.version, request)


def step(name: str, *, version: int, result: type[R], unit: Unit = "step",
         batch: Callable[[Work, Sequence[Q]], Sequence[R]] | None = None,
         lasting: Callable[[R], bool] = lambda _: True) -> Callable[[Callable[[Work, Q], R]], Step[Q, R]]:
    """Declare a step.

    Args:
        name: Its name in recipes, tables and user interfaces.
        version: Raise it whenever the code gives other results for the same request.
        result: The type of the record it returns.
        unit: What it counts as: a whole step, or an item inside one.
        batch: For items: computes several in one call.
        lasting: For items: says of a result whether it may be used again.
    """
    return lambda function: Step(name, version, unit, function, result, batch, lasting)


def _cpu() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _attempt(work: Work, what: Step[Q, R], request: Q, item: str) -> Attempt:
    refs = [v for name in type(request).model_fields if isinstance(v := getattr(request, name), EngineRef)]
    return Attempt(recipe=what.recipe(request), step=what.name, item=item, episode=work.episode,
                   language=work.language, engine=",".join(r.name for r in refs),
                   weights={k: v for r in refs for k, v in r.weights.items()}, seed=getattr(request, "seed", None))


def find(work: Work, what: Step[Q, R], request: Q) -> R | None:
    """The finished result, if it and all files it refers to are there; looking changes nothing."""
    artifact = work.ledger.find(what.recipe(request))
    return None if artifact is None else _whole(work, what, artifact)


def _whole(work: Work, what: Step[Q, R], artifact: Artifact) -> R | None:
    if not work.store.has(artifact):
        return None
    result = get_record(work.store, artifact, what.result)
    return result if all(work.store.has(a) for a in artifacts_in(result)) else None


def _find_or_forget(work: Work, what: Step[Q, R], request: Q) -> R | None:
    """Like `find`; a result with lost files makes room for the one that is about to be computed."""
    recipe = what.recipe(request)
    artifact = work.ledger.find(recipe)
    if artifact is None:
        return None
    result = _whole(work, what, artifact)
    if result is None:
        work.ledger.forget(recipe, artifact)
    return result


def lookup(work: Work, what: Step[Q, R], request: Q) -> R:
    """A runner that computes nothing.

    Raises:
        NotDoneError: The result is not there.
    """
    result = find(work, what, request)
    if result is None:
        raise NotDoneError(what.name)
    return result


def perform(work: Work, what: Step[Q, R], request: Q, item: str = "") -> R:
    """Reuse or compute one result."""
    return perform_many(work, what, {item: request})[item]


def perform_many(work: Work, what: Step[Q, R], requests: Mapping[str, Q]) -> dict[str, R]:
    """Reuse or compute the results of several items, keyed like `requests`.

    Each is recorded as soon as it is made; those that are computed in batches, by at most `BATCH` at a time.
    """
    found = {item: _find_or_forget(work, what, request) for item, request in requests.items()}
    done = {item: result for item, result in found.items() if result is not None}
    if done:
        work.ledger.reused(work.run_id, [_attempt(work, what, requests[item], item) for item in done])
        work.counts[f"{what.unit}s_reused"] += len(done)
    missing = {item: request for item, request in requests.items() if item not in done}
    if what.batch:
        names = list(missing)
        for first in range(0, len(names), BATCH):
            done |= _compute(work, what, {item: missing[item] for item in names[first:first + BATCH]}, what.batch)
    else:
        for number, (item, request) in enumerate(missing.items()):
            if item:
                work.progress(f"{what.name} {item}", number / len(missing))
            done |= _compute(work, what, {item: request}, lambda w, q: [what.function(w, q[0])])
    return {item: done[item] for item in requests}


def _compute(work: Work, what: Step[Q, R], requests: Mapping[str, Q],
             function: Callable[[Work, Sequence[Q]], Sequence[R]]) -> dict[str, R]:
    rows = {item: work.ledger.begin(work.run_id, _attempt(work, what, q, item)) for item, q in requests.items()}
    began, inner = _cpu(), list[float]()

    def share() -> float:
        work.inner.append(took := _cpu() - began)
        return max(0.0, took - sum(inner)) / len(rows)

    try:
        with _disk_errors(work.scratch):
            alone = next(iter(rows.values())) if len(rows) == 1 else None
            results = function(replace(work, execution=alone, inner=inner), list(requests.values()))
        if len(results) != len(requests):
            raise EngineError(f"{what.name} answered {len(results)} items for {len(requests)}")
    except BaseException as error:
        each = share()
        for row in rows.values():
            work.ledger.fail(row, error, each)
        raise
    each = share()
    done = {item: _record(work, what, requests[item], rows[item], result, each)
            for item, result in zip(requests, results, strict=True)}
    work.counts[f"{what.unit}s_run"] += len(done)
    return done


@contextmanager
def _disk_errors(scratch: Path) -> Iterator[None]:
    """A full disk is no fault of the step: whatever it writes by itself lies in `scratch`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, Path(error.filename) if isinstance(error.filename, str) else scratch) from error


def _record(work: Work, what: Step[Q, R], request: Q, row: int, result: R, cpu: float) -> R:
    artifact = put_record(work.store, result)
    result_row = t.Result(recipe=what.recipe(request), step=what.name, version=what.version,
                          request=request.model_dump(mode="json"))
    winner = work.ledger.finish(row, result_row, artifact, hashes_in(request), artifacts_in(result), cpu)
    if not what.lasting(result):
        work.ledger.forget(result_row.recipe, artifact)
    return result if winner == artifact else get_record(work.store, winner, what.result)


class Runner(Protocol):
    """How a pipeline has a step done: plainly, as a Prefect task, or only looked up."""

    def __call__(self, work: Work, what: Step[Q, R], request: Q) -> R:
        """Do the step and return its result."""
        ...


def prefect_runner(work: Work, what: Step[Q, R], request: Q) -> R:
    """Do the step as a Prefect task of the flow that is running; a reused step shows the state 'Reused'.

    Prefect's own caching and result storage are off: the ledger is the one truth (and a second one would disagree).
    """
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.states import Completed

    results: list[R] = []

    @task(name=what.name, task_run_name=f"{what.name} · {work.language or work.episode}", cache_policy=NO_CACHE,
          persist_result=False, retries=1, retry_delay_seconds=1,
          retry_condition_fn=lambda _task, _run, state: _retryable(state))
    def run_step() -> State[None]:
        before = work.counts["steps_reused"]
        started = time.monotonic()
        results.append(perform(work, what, request))
        reused = work.counts["steps_reused"] > before
        return Completed(name="Reused" if reused else "Completed", message=f"{time.monotonic() - started:.1f} s")

    run_step()
    return results[-1]


def _retryable(state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    return bool(getattr(error, "retryable", False))

"""A run: what is left to do of what was asked for, doing it, and what came of it.

Under Prefect the same functions are called from flows (`flows/catalog.py`); plainly they are called from here.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from flows.hints import complete, completed
from flows.jobs import Selected
from flows.listener import Listener, Silence
from flows.notify import announce
from flows.pipeline import EpisodeJob, Localized, Pipeline, Planned, Prepared
from flows.pool import Pool, open_pool
from flows.preflight import choices, preflight
from flows.settings import Settings
from flows.summary import summarize
from flows.wiring import Workspace, environment, open_workspace
from models.errors import (
    AwaitingReviewError,
    GateError,
    InfinidubError,
    InfrastructureError,
    MediaError,
    SourceChangedError,
)
from tasks import shards
from tasks.cast import names_of, series_of
from tasks.history import delivered_source, note_failures, run_state
from tasks.media import probe
from tasks.step import NotDoneError, Q, R, Runner, Step, Work, lookup, perform

Stage = Literal["all", "plan", "finish"]
"""Which part of an episode is done: with shots made elsewhere, all are planned before the first is finished."""
TICK_S = 5.0
"""Between two looks at the queue; runs with a short lease look more often."""
LEAVING_S = 2.0
"""How long a run that ends waits for the look at the queue in hand."""
LOG = logging.getLogger("infinidub")
COUNTS = ("steps_run", "steps_reused", "lines_run", "lines_reused", "shots_run", "shots_reused")


@dataclass(frozen=True)
class Failure:
    """One episode, or one language of it, that failed; the others went on."""

    episode: str
    language: str
    error: str
    message: str
    exit_code: int
    hint: str = ""


@dataclass
class Session:
    """One run, from the first look to the last file."""

    space: Workspace
    run_id: str
    pool: Pool
    listener: Listener = field(default_factory=Silence)
    debug: bool = False
    """Errors are raised instead of noted."""
    counts: Counter[str] = field(default_factory=Counter)
    selected: list[Selected] = field(default_factory=list)
    """What was asked for."""
    todo: list[Selected] | None = None
    """What was found missing; None: nobody has looked yet."""
    jobs: dict[str, EpisodeJob] = field(default_factory=dict)
    prepared: dict[str, Prepared] = field(default_factory=dict)
    planned: dict[tuple[str, str], Planned] = field(default_factory=dict)
    """Languages whose shots are asked for, and that are not finished yet."""
    localized: dict[tuple[str, str], Localized] = field(default_factory=dict)
    multi: dict[str, Path] = field(default_factory=dict)
    awaiting: dict[tuple[str, str], AwaitingReviewError] = field(default_factory=dict)
    """Languages that wait for their review: no failures, but nothing is delivered."""
    failures: list[Failure] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    """Which generators are taken for what is missing, and what must be known of them."""
    broken: InfrastructureError | None = None
    """What ended the run before its time."""
    unheard: str = ""
    """Why nobody could be told of the failures."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """What was given to it, and is part of whatever command mends something."""
    config: str = ""
    started: float = field(default_factory=time.monotonic)

    def work(self, episode: str, language: str = "", counts: Counter[str] | None = None) -> Work:
        """The context for steps of one episode and language."""
        return self.space.work(self.run_id, episode=episode, language=language,
                               counts=self.counts if counts is None else counts,
                               progress=lambda text, done: self.listener.progress(episode, language, text, done))

    def observed(self, runner: Runner) -> Runner:
        """The same runner, with the listener told of every step."""

        def run(work: Work, what: Step[Q, R], request: Q) -> R:
            reused = work.counts["steps_reused"]
            state = "failed"
            self.listener.step(work.episode, work.language, what.name, "running")
            try:
                result = runner(work, what, request)
                state = "reused" if work.counts["steps_reused"] > reused else "done"
            finally:
                self.listener.step(work.episode, work.language, what.name, state)
            return result

        return run

    @contextmanager
    def noting(self, episode: str, language: str = "") -> Iterator[None]:
        """A failure inside becomes a note in `failures`, so that the others go on.

        Where database, store or disk failed, the others would fail as well: that ends the run.
        """
        try:
            yield
        except InfrastructureError as error:
            if self.broken is None:
                self._note(episode, language, error)
            self.broken = error
            raise
        except Exception as error:
            if type(error).__module__.partition(".")[0] in {"httpx", "prefect"}:
                self.broken = InfrastructureError(f"Prefect's server failed: {error}", where=episode,
                                                  hint="Run the same command again: it goes on where it stopped")
                self._note(episode, language, self.broken)
                raise self.broken from error
            self._note(episode, language, error)
            if self.debug:
                raise

    def _note(self, episode: str, language: str, error: Exception) -> None:
        known = error if isinstance(error, InfinidubError) else InfinidubError(
            f"{type(error).__name__}: {error}", hint="Run again with --debug to see where")
        complete(known, self.flags, self.config)
        self.failures.append(Failure(episode, language, type(error).__name__, " ".join(str(known).split()),
                                     known.exit_code, known.hint))

    def _await(self, episode: str, language: str, error: AwaitingReviewError) -> None:
        complete(error, self.flags, self.config)
        self.awaiting[episode, language] = error

    # -- what is there --------------------------------------------------------------------------------------------

    def left_to_do(self, one: Selected) -> Selected | None:
        """Look everything up; what is complete is delivered and noted, what is missing is returned."""
        job, counts = one.job, Counter[str]()
        try:
            prepared = Pipeline(self.space, job, _count_lookup, dry=True).prepare(self.work(job.id, counts=counts))
        except NotDoneError as missing_step:
            if str(missing_step) == "ingest":
                with _naming(job):
                    probe(job.video)  # what is no video is refused before anything starts
            return Selected(job, one.languages)
        self.prepared[job.id] = prepared
        done: dict[str, Localized | None] = {}
        for language in one.languages:
            try:
                done[language] = self._looked_up(job, language, counts)
            except AwaitingReviewError as error:
                self._await(job.id, language, error)
        self.localized |= {(job.id, language): result for language, result in done.items() if result}
        missing = tuple(language for language, result in done.items() if result is None)
        try:
            complete = not missing and self._multi(job, _count_lookup, counts)
        except NotDoneError:
            complete = False
        self.counts += counts
        return None if complete else Selected(job, missing)

    def _looked_up(self, job: EpisodeJob, language: str, counts: Counter[str]) -> Localized | None:
        mine = Counter[str]()
        pipeline = Pipeline(self.space, job, _count_lookup, dry=True)
        try:
            done = pipeline.localize(self.work(job.id, language, mine), self.prepared[job.id], language)
        except NotDoneError:
            return None
        counts += mine
        return done

    def look_again(self) -> None:
        """Forget what was looked up."""
        for found in (self.prepared, self.localized, self.multi, self.counts, self.awaiting):
            found.clear()

    def refuse_changed_source(self, job: EpisodeJob) -> None:
        """Raise `SourceChangedError` when the episode was dubbed from another file."""
        before = delivered_source(self.space.ledger, job.id)
        if before and self.space.import_file(job.video, keep=False).sha256 != before:
            raise SourceChangedError(f"is not the file that {job.id} was dubbed from", where=str(job.video),
                                     hint="Say --accept-new-source to dub it anew, or give it another id")

    # -- doing it ---------------------------------------------------------------------------------------------------

    def prepare(self, job: EpisodeJob, runner: Runner) -> Prepared:
        """What the languages share, once."""
        if job.id not in self.prepared:
            with _naming(job):
                self.prepared[job.id] = Pipeline(self.space, job, self.observed(runner)).prepare(self.work(job.id))
        return self.prepared[job.id]

    def localize(self, job: EpisodeJob, language: str, runner: Runner, stage: Stage = "all") -> Localized | None:
        """One language, or the part of it that `stage` names; None where that is its plan, or it awaits its review."""
        key, prepared, work = (job.id, language), self.prepare(job, runner), self.work(job.id, language)
        pipeline = Pipeline(self.space, job, self.observed(runner), pool=self.pool)
        if key not in self.planned:
            try:
                self.planned[key] = pipeline.plan_language(work, prepared, language)
            except AwaitingReviewError as error:
                self._await(*key, error)
                return None
        if stage == "plan":
            return None
        done = pipeline.finish_language(work, prepared, self.planned.pop(key), language)
        self.localized[key] = done
        return done

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How everything is gone through: once, or first planned and then finished."""
        return ("plan", "finish") if self.pool.apart else ("all",)

    def in_turn(self, todo: Sequence[Selected], stage: Stage) -> Iterator[Selected]:
        """Episodes as they are due in a stage: in order, or as their shots are there."""
        if stage != "finish":
            yield from todo
            return
        due = {one.job.id: one for one in todo if not self._failed(one.job.id)}
        while due:
            with self.noting(""):
                ready = self.pool.first({name: [(name, tag) for tag in one.languages] for name, one in due.items()})
            yield due.pop(ready)

    def episode(self, todo: Selected, runner: Runner, localize: Callable[[str], object], stage: Stage = "all") -> None:
        """One episode: what the languages share, each missing language through `localize`, then the multi product."""
        with self.noting(todo.job.id):
            self.prepare(todo.job, runner)
            for language in todo.languages:
                if stage == "finish" and (self._failed(todo.job.id, language)
                                          or (todo.job.id, language) in self.awaiting):
                    continue
                with self.noting(todo.job.id, language):
                    localize(language)
            if stage != "plan":
                self._multi(todo.job, self.observed(runner), self.counts)

    def _failed(self, episode: str, language: str = "") -> bool:
        return any((failure.episode, failure.language) == (episode, language) for failure in self.failures)

    def _multi(self, job: EpisodeJob, runner: Runner, counts: Counter[str]) -> bool:
        """The original picture with every dub, once all of at least two languages are there."""
        if not self.space.settings.multi or len(job.languages) < 2:
            return True
        done = {}
        for tag in job.languages:
            try:
                result = self.localized.get((job.id, tag)) or self._looked_up(job, tag, Counter())
            except InfinidubError:  # a language that was not asked for: what keeps it from being looked up is its own
                result = None
            if result is None:
                return True
            done[tag] = result
        pipeline = Pipeline(self.space, job, runner, dry=runner is _count_lookup)
        self.multi[job.id] = pipeline.multi(self.work(job.id, "mul", counts), self.prepared[job.id], done)
        return True

    # -- what came of it --------------------------------------------------------------------------------------------

    @property
    def below_bar(self) -> list[str]:
        """What a quality gate failed, in words."""
        return [f"{episode}·{language}: {check.words}"
                for (episode, language), done in sorted(self.localized.items())
                for check in done.inspection.checks if check.failed]

    @property
    def warnings(self) -> list[str]:
        """What was delivered and is perhaps not what was meant."""
        silent = sorted({episode for (episode, _), done in self.localized.items() if not done.speech.lines})
        return [f"{episode}: no speech was found in it, so nothing of it is dubbed" for episode in silent] + [
            words for (episode, language), _ in sorted(self.localized.items())
            for words in self._uncast(episode, language)] + self._unknown_people() + [
            self.unheard] * bool(self.unheard)

    def _uncast(self, episode: str, language: str) -> Iterator[str]:
        """Speakers of the cast whom nobody is."""
        speakers = self.prepared[episode].transcript.speakers if episode in self.prepared else ()
        known = {name for speaker in speakers for name in (speaker.id, speaker.name)}
        known |= names_of(self.space.ledger, series_of(episode))
        for name in self.jobs[episode].cast.get(language, {}) if speakers and episode in self.jobs else ():
            if name not in known:
                yield f"{episode}·{language}: the cast names {name!r}, and no speaker is called so. There are: " \
                      f"{', '.join(speaker.name or speaker.id for speaker in speakers)}"

    def _unknown_people(self) -> list[str]:
        """Names in a catalog's `people` whom nobody is heard as: any picture may be theirs."""
        named = sorted({(series_of(episode), name) for (episode, _) in self.localized if episode in self.jobs
                        for name in self.jobs[episode].people})
        return [f"{series}: the catalog's people name {name!r}, and no speaker is called so: taken for somebody who is"
                " seen and keeps silent"
                for series, name in named if name not in names_of(self.space.ledger, series)]

    @property
    def exit_code(self) -> int:
        """0; the failures' own code when everything failed alike, else 4; GateError's when a bar was missed."""
        codes = {failure.exit_code for failure in self.failures}
        if codes:
            return codes.pop() if len(codes) == 1 and not self.localized else InfinidubError.exit_code
        return GateError.exit_code if self.below_bar else 0

    def summary(self) -> dict[str, Any]:
        """Plain JSON, as `--json` prints it."""
        words = [failure.message for failure in self.failures] or self.below_bar
        kind = self.failures[0].error if self.failures else GateError.__name__
        hint = self.failures[0].hint if self.failures else ""
        error = {"error": {"class": kind, "message": words[0], "hint": hint,
                           "exit_code": self.exit_code}} if words else {}
        return {"run": self.run_id} | {name: self.counts[name] for name in COUNTS} | {
            "seconds": round(time.monotonic() - self.started, 2),
            "deliverables": [done.deliverable.model_dump(mode="json") for _, done in sorted(self.localized.items())],
            "multi": [str(path) for _, path in sorted(self.multi.items())],
            "awaiting": [{"episode": episode, "language": language, "message": error.what, "hint": error.hint}
                         for (episode, language), error in sorted(self.awaiting.items())],
            "failed": [vars(failure) for failure in self.failures], "costs": summarize(self).to_json(),
            "notices": self.notices, "warnings": self.warnings,
        } | error


@contextmanager
def _naming(job: EpisodeJob) -> Iterator[None]:
    """Errors about the medium name the user's file, not its copy in the store."""
    try:
        yield
    except MediaError as error:
        error.where = str(job.video)
        raise


def _count_lookup(work: Work, what: Step[Q, R], request: Q) -> R:
    result = lookup(work, what, request)
    work.counts["steps_reused"] += 1
    return result


@contextmanager
def session(settings: Settings, command: str, parameters: Mapping[str, Any], *, listener: Listener | None = None,
            debug: bool = False, space: Workspace | None = None) -> Iterator[Session]:
    """Open workspace and run row; close the row as done, failed or cancelled.

    While it is open, a thread says that the run is alive and keeps the queue of shards moving. A run that is told to
    stop takes its shards along; one that fails leaves them, for the next to find their shots made.

    Args:
        settings: As loaded.
        command: The verb.
        parameters: Plain JSON, without secrets; `redo` and `retry` read it back.
        listener: Is told how it gets on.
        debug: Errors are raised instead of noted.
        space: Opened with the same store and database already.
    """
    space = space or open_workspace(settings)
    catalog, given = str(parameters.get("catalog") or ""), dict(parameters.get("settings") or {})
    if settings.store:  # what is kept elsewhere is found from any machine; these folders are each machine's own
        given = {name: value for name, value in given.items() if name not in {"out", "state"}}
    pool = open_pool(replace(space, settings=settings), catalog=catalog, config=parameters.get("config") or "",
                     given=given)
    shards.reap_runs(space.ledger)
    run_id = space.ledger.begin_run(command, parameters, environment(), catalog=catalog, lease_s=settings.lease_s)
    state = "cancelled"
    one = Session(space, run_id, pool, listener or Silence(), debug,
                  flags=dict(parameters.get("settings") or {}), config=parameters.get("config") or "")
    try:
        with _alive(one):
            yield one
        state = "failed" if one.failures else "done"
    except Exception:
        state = "failed"
        raise
    finally:
        if state == "cancelled":
            pool.cancel(run_id)
        note_failures(space.ledger, run_id, [(failure.episode, failure.language) for failure in one.failures])
        space.ledger.end_run(run_id, state)
        if one.failures:
            one.unheard = announce(settings, "run-failed", [vars(failure) for failure in one.failures], run=run_id,
                                   command=command, catalog=parameters.get("catalog", ""))


@contextmanager
def _alive(one: Session) -> Iterator[None]:
    """Renew the run's lease and tend the queue while the block lasts; interrupt it where the run was cancelled.

    Each by itself: who starts shards may answer slowly, and the run must not look dead for that.
    """
    left, ledger, lease_s = threading.Event(), one.space.ledger, one.space.settings.lease_s

    def renew() -> None:
        if not ledger.keep_run(one.run_id, lease_s) and run_state(ledger, one.run_id) == "cancelled" \
                and not left.is_set():
            left.set()
            interrupt()

    def repeat(what: str, act: Callable[[], None]) -> None:
        told = ""
        while not left.wait(min(lease_s / 6, TICK_S)):
            try:
                act()
                told = ""
            except Exception as error:  # the run itself will meet what lasts
                if str(error) != told:
                    LOG.warning("%s now: %s", what, error)
                told = str(error)

    threads = [threading.Thread(target=repeat, args=words, name=name, daemon=True) for name, *words in (
        ("alive", "nobody is told that this run is alive", renew),
        ("queue", "the queue of shards is not tended", one.pool.tick))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        left.set()
        for thread in threads:
            thread.join(LEAVING_S)


def interrupt() -> None:
    """Stop the main thread, also out of a blocking call, as if somebody had asked this process to stop."""
    heard = callable(signal.getsignal(signal.SIGTERM))
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM if heard else signal.SIGINT)


def left_to_do(run: Session, selected: Sequence[Selected], *, accept_new_source: bool = False) -> list[Selected]:
    """What is missing of what was asked for; what is complete is delivered.

    An episode that cannot be dubbed (its file is another one, an engine or a voice is not there) is noted as failed
    and left out; the others go on.
    """
    run.selected, run.todo = list(selected), []
    for one in selected:
        run.jobs[one.job.id] = one.job
        with run.noting(one.job.id):
            if not accept_new_source:
                run.refuse_changed_source(one.job)
            missing = run.left_to_do(one)
            if missing:
                preflight(run.space, [missing])
                run.todo.append(missing)
    run.notices = [completed(line, run.flags, run.config) for line in choices(run.space.settings, run.todo)]
    return run.todo


def run_plainly(run: Session, todo: Sequence[Selected]) -> None:
    """Do what is missing, without Prefect."""
    for stage in run.stages:
        for one in run.in_turn(todo, stage):
            run.episode(one, perform, partial(run.localize, one.job, runner=perform, stage=stage), stage)

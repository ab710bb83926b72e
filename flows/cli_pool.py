"""The verbs of the GPU pool: `cancel`, `shard run`, `shard work`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flows.deploy import running_server
from flows.options import Config, Generator, Json, Out, Set, State, answer, flags
from flows.settings import Settings, load_settings, prefect_server, use_prefect_quietly
from flows.show import MARKS, Terminal
from models.errors import InfinidubError, InputError

if TYPE_CHECKING:
    from flows.runs import Session
    from models.records import Shard, ShardResult


def cancel(run: Annotated[str, typer.Argument(help="Id of a run; the one that goes on, unless given.",
                                              show_default=False)] = "",
           out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
           as_json: Json = False) -> int:
    """Stop a run and its shards, wherever they are; what is finished is kept."""
    from flows.wiring import open_workspace
    from tasks.history import live_runs
    from tasks.shards import cancel as cancel_shards

    settings = load_settings(config, flags(out, state, None, assignments))
    ledger = open_workspace(settings, existing=True).ledger
    known = live_runs(ledger)
    if run and run not in known:
        raise InputError("is no run that goes on", where=run, hint=f"There are: {', '.join(known) or 'none'}")
    if not run and len(known) != 1:
        raise InputError("more than one run goes on" if known else "no run goes on", where=str(settings.state),
                         hint=f"Name one of: {', '.join(known)}" if known else "")
    wanted = run or next(iter(known))
    ledger.end_run(wanted, "cancelled")  # its process sees that when it next says that it is alive
    stopped = cancel_shards(ledger, run_id=wanted)
    _tell_prefect(settings, {known[wanted], *(name for _, name in stopped)} - {""})
    answer(as_json, {"run": wanted, "shards": [shard for shard, _ in stopped]},
           f"{MARKS['done']} {wanted} is cancelled, and {len(stopped)} of its shards")
    return 0


def _tell_prefect(settings: Settings, names: set[str]) -> None:
    server = prefect_server() or running_server(settings)
    if names and server:
        use_prefect_quietly(settings, server)
        from flows.deployments import Deployments

        Deployments().cancel(names)


def shard_run(file: Annotated[Path | None, typer.Argument(help="A SHARD.json; or else:", show_default=False)] = None,
              shard: Annotated[str, typer.Option("--id", metavar="ID", show_default=False,
                                                 help="A shard of the queue, as it was dispatched.")] = "",
              attempt: Annotated[int, typer.Option(min=1, help="For which attempt.")] = 1,
              out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
              as_json: Json = False) -> int:
    """Generate the shots of a shard; goes on where a killed run stopped."""
    from flows.gpu import work_off
    from flows.runs import session
    from tasks.generate import load_shard, run_shard

    if (file is None) == (not shard):
        raise InputError("say which shard", hint="Either a SHARD.json, or --id ID with --attempt N")
    settings = load_settings(config, flags(out, state, None, assignments))
    with Terminal() as terminal:
        if file is None:
            return _report(work_off(settings, shard=shard, attempt=attempt, listener=terminal), as_json)
        wanted = load_shard(file)
        with session(settings.model_copy(update={"dispatch": "here"}), "shard", {"shard": wanted.id},
                     listener=terminal) as run:
            _see_to_consents(run, wanted, str(file))
            run.listener.step(wanted.episode, wanted.language, wanted.id, "running")
            result = run_shard(run.work(wanted.episode, wanted.language), wanted)
            run.listener.step(wanted.episode, wanted.language, wanted.id, "failed" if result.failed else "done")
    answer(as_json, result.model_dump(mode="json"), *_lines(result))
    return InfinidubError.exit_code if result.failed else 0


def _see_to_consents(run: Session, shard: Shard, where: str) -> None:
    """In production, a shard from elsewhere says whose pictures it makes, and these people have agreed.

    Those of the queue were looked at when they were planned, and are again before their episode is finished.
    """
    from tasks.consent import likenesses, note_uses, require
    from tasks.generate import generate_shot

    if not run.space.settings.production:
        return
    if shard.people is None:
        raise InputError("does not say whose pictures it makes", where=f"{where}: people",
                         hint='Write "people": ["Jane Doe"], or [] where nobody who is named is seen')
    behind = require(run.space.ledger, likenesses(shard.people), shard.episode, shard.language)
    for request in shard.requests if behind else ():
        note_uses(run.space.ledger, generate_shot.recipe(request), behind, run.run_id)


def shard_work(generator: Generator = None, out: Out = None, state: State = None, config: Config = None,
               assignments: Set = None, as_json: Json = False) -> int:
    """Take shards from the queue until none waits: a process of an Indexed Job."""
    from flows.gpu import work_off

    settings = load_settings(config, flags(out, state, generator, assignments))
    with Terminal() as terminal:
        done = work_off(settings, engine=settings.engine("generator"), listener=terminal)
    return _report(done, as_json)


def _report(done: list[ShardResult], as_json: bool) -> int:
    data: dict[str, Any] = {"shards": [one.model_dump(mode="json") for one in done]}
    answer(as_json, data, *(line for one in done for line in _lines(one)),
           "" if done else "nothing to do: another process has it, or nothing waits")
    return InfinidubError.exit_code if any(one.failed for one in done) else 0


def _lines(done: ShardResult) -> list[str]:
    return [f"{done.shots_run} shots made, {done.shots_reused} there already, {done.seconds:.1f} s",
            *(f"{MARKS['failed']} {shot}  {escape(failure.error)}" for shot, failure in done.failed.items())]

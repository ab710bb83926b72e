"""The verbs that dub: `dub`, `run`, `redo`, `retry`. Look first; start Prefect only for what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flows.deploy import running_server
from flows.options import (
    AcceptSource,
    Config,
    Episodes,
    Generator,
    Json,
    Languages,
    Out,
    Set,
    State,
    answer,
    config_path,
    flags,
)
from flows.redo import Anew
from flows.settings import Settings, load_settings, use_prefect_quietly
from flows.show import Terminal, deliverables_table, error_line, files_list, next_commands, warning_line
from models.errors import InfrastructureError, InputError

if TYPE_CHECKING:  # imported inside the verbs: they pull in database and media libraries
    from flows.jobs import Selected
    from flows.runs import Session


@dataclass(frozen=True)
class Order:
    """What was asked for, in a form that can be noted and asked for again."""

    command: str
    settings: Settings
    selected: Sequence[Selected]
    catalog: str = ""
    config: str = ""
    flags: dict[str, Any] | None = None
    accept_new_source: bool = False

    @property
    def languages(self) -> list[str]:
        """All that are asked for in some episode."""
        return sorted({language for one in self.selected for language in one.languages})

    def noted(self) -> dict[str, Any]:
        """For the runs table."""
        from flows.jobs import job_to_json

        jobs = {} if self.catalog else {one.job.id: job_to_json(one.job) for one in self.selected}
        return {"catalog": self.catalog, "jobs": jobs, "episodes": [one.job.id for one in self.selected],
                "languages": self.languages, "config": self.config, "settings": self.flags or {}}


def dub(ctx: typer.Context,
        video: Annotated[Path, typer.Argument(help="The video to dub.", show_default=False)],
        to: Annotated[str, typer.Option(metavar="TAGS", help="Languages, e.g. es,fr.", show_default=False)],
        source: Annotated[str | None, typer.Option("--from", metavar="TAG", show_default=False,
                                                   help="Language spoken; found out unless given.")] = None,
        excerpt: Annotated[str | None, typer.Option("--range", metavar="A-B", show_default=False,
                                                    help="Only this part, e.g. 10-30 or 00:10-00:30.")] = None,
        generator: Generator = None, out: Out = None, state: State = None, config: Config = None,
        assignments: Set = None, accept_new_source: AcceptSource = False, as_json: Json = False) -> int:
    """Dub one video into one or more languages."""
    from flows.jobs import Selected, video_job

    given = flags(out, state, generator, assignments)
    settings = load_settings(config, given)
    tags = [tag for tag in to.replace(",", " ").split() if tag]
    job = video_job(video, tags, settings.out, source=source, excerpt=excerpt)
    order = Order("dub", settings, [Selected(job, job.languages)], config=config_path(config), flags=given,
                  accept_new_source=accept_new_source)
    return carry_out(order, as_json=as_json, debug=ctx.obj)


def run(ctx: typer.Context,
        catalog: Annotated[Path, typer.Argument(help="The catalog file.", show_default=False)],
        episode: Episodes = None, lang: Languages = None, generator: Generator = None, out: Out = None,
        state: State = None, config: Config = None, assignments: Set = None,
        accept_new_source: AcceptSource = False, as_json: Json = False) -> int:
    """Dub what is missing of a catalog."""
    given = flags(out, state, generator, assignments)
    settings = load_settings(config, given)
    selected = select_from(catalog, settings, episode or [], lang or [])
    order = Order("run", settings, selected, str(catalog.resolve()), config_path(config), given, accept_new_source)
    return carry_out(order, as_json=as_json, debug=ctx.obj)


def redo(ctx: typer.Context,
         episode: Annotated[str, typer.Argument(help="Full id, e.g. harbor-lights/s01e01.", show_default=False)],
         lang: Annotated[str, typer.Option(metavar="TAG", help="Language to do anew.", show_default=False)],
         step: Annotated[str | None, typer.Option("--from", metavar="STEP", show_default=False,
                                                  help="Do this step and all that build on it anew.")] = None,
         line: Annotated[str | None, typer.Option(metavar="ID", help="Line to change, e.g. L0003.",
                                                  show_default=False)] = None,
         text: Annotated[str | None, typer.Option(help="What it says from now on.", show_default=False)] = None,
         undo: Annotated[bool, typer.Option("--undo", help="Take back what --text said of this line.")] = False,
         catalog: Annotated[Path | None, typer.Option(help="Its catalog; the one of the last run unless given.",
                                                      show_default=False)] = None,
         out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
         as_json: Json = False) -> int:
    """Do one language anew: from a step on, or one line."""
    if text is not None and not text.strip():
        raise InputError("must be one line of text, and not empty", where="--text")
    anew = Anew(step or "", line or "", text or "", undo)
    order = again("redo", flags(out, state, None, assignments), config, episode=episode, languages=[lang],
                  catalog=catalog)
    wanted, tag = order.selected[0].job.id, order.selected[0].languages[0]
    return carry_out(order, lambda space: anew.ask(space, wanted, tag), as_json=as_json, debug=ctx.obj)


def retry(ctx: typer.Context,
          failed: Annotated[bool, typer.Option("--failed", help="Only what failed in the last run.")] = False,
          episode: Annotated[str | None, typer.Option(metavar="ID", help="Only this episode, as in its last run.",
                                                      show_default=False)] = None,
          lang: Languages = None, out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
          as_json: Json = False) -> int:
    """Run the last command again; what it finished is kept."""
    from flows.wiring import open_workspace
    from tasks.shards import unflag

    if lang and not episode:
        raise InputError("a language is named, and no episode", where="--lang", hint="Say --episode ID, too")
    order = again("retry", flags(out, state, None, assignments), config, episode=episode or "", languages=lang or [],
                  only_failed=failed)
    ledger = open_workspace(order.settings).ledger
    for one in order.selected if failed else ():
        for language in one.languages:
            unflag(ledger, one.job.id, language)
    return carry_out(order, as_json=as_json, debug=ctx.obj)


def select_from(catalog: Path, settings: Settings, episodes: Sequence[str], languages: Sequence[str],
                ) -> list[Selected]:
    """Episodes and languages of a catalog file."""
    from flows.jobs import catalog_jobs, select
    from models.catalog import load_catalog

    return select(catalog_jobs(load_catalog(catalog), settings.out), episodes, languages)


def again(command: str, given: dict[str, Any], config: Path | None, *, episode: str = "",
          languages: Sequence[str] = (), catalog: Path | None = None, only_failed: bool = False) -> Order:
    """What an earlier run was asked to do, with the settings that it had.

    Raises:
        InputError: No such run is noted in the state folder.
    """
    from flows.jobs import Selected, job_from_json, select
    from flows.wiring import open_workspace
    from tasks.history import failed_in, last_run

    ledger = open_workspace(load_settings(config, given), existing=True).ledger
    known = last_run(ledger, episode=episode, catalog=str(catalog.resolve()) if catalog else "")
    if known is None and catalog is None:
        raise InputError(f"no run of {episode} is noted here" if episode else "no run is noted here",
                         where=str(load_settings(config, given).state),
                         hint="Name the folder with --out or --state, or the catalog with --catalog")
    known = known or {}
    config = config or (Path(known["config"]) if known.get("config") else None)
    given = {**known.get("settings", {}), **given}
    settings = load_settings(config, given)
    path = str(catalog.resolve()) if catalog else known["catalog"]
    wanted, tags = ([episode], languages) if episode else (known["episodes"], known["languages"])
    if path:
        selected = select_from(Path(path), settings, wanted, tags)
    else:
        jobs = [job_from_json(plain, settings.out) for plain in known["jobs"].values()]
        selected = select(jobs, wanted, tags)
    if only_failed:
        failed = failed_in(ledger, known["id"])
        selected = [Selected(one.job, tags) for one in selected
                    if (tags := tuple(tag for tag in one.languages if {(one.job.id, tag), (one.job.id, "")} & failed))]
    return Order(command, settings, selected, path, config_path(config), given)


def carry_out(order: Order, change: Any = None, *, as_json: bool, debug: bool) -> int:
    """Look, do what is missing, and say what came of it."""
    from flows.runs import left_to_do, run_plainly, session

    with Terminal() as terminal, session(order.settings, order.command, order.noted(), listener=terminal,
                                         debug=debug) as run:
        todo = left_to_do(run, order.selected, accept_new_source=order.accept_new_source)
        if change and not run.failures:  # what cannot be dubbed is not changed either
            change(run.space)
            run.look_again()
            todo = left_to_do(run, order.selected, accept_new_source=order.accept_new_source)
        for notice in run.notices:
            terminal.say(f"  {escape(notice)}")
        if todo and order.settings.prefect and not debug:  # Prefect would keep the traceback to itself
            terminal.say("  starting Prefect …")
            _under_prefect(run, order)
        elif todo:
            run_plainly(run, todo)
    _report(run, order, as_json)
    return run.exit_code


def _under_prefect(run: Session, order: Order) -> None:
    use_prefect_quietly(order.settings, running_server(order.settings))
    import httpx

    from flows.catalog import localize_catalog, localize_episode, sharing
    from flows.jobs import job_to_json

    try:
        with sharing(run):
            if order.catalog:
                localize_catalog(order.catalog, [one.job.id for one in order.selected], order.languages,
                                 order.accept_new_source, order.config, order.flags, return_state=True)
            else:
                for one in order.selected:
                    localize_episode(one.job.id, list(one.languages), job=job_to_json(one.job), config=order.config,
                                     settings=order.flags, return_state=True)
    except (RuntimeError, httpx.HTTPError) as error:  # what flows raise is in their states: this is Prefect's
        raise InfrastructureError(f"Prefect's server failed: {error}",
                                  hint="Run the same command again: it goes on where it stopped") from error
    if run.broken:
        raise run.broken


def _report(run: Session, order: Order, as_json: bool) -> None:
    summary = run.summary()
    done = [one.deliverable for _, one in sorted(run.localized.items())]
    for words in [failure.message for failure in run.failures] + run.below_bar:
        error_line(words)
    for error in run.awaiting.values():
        warning_line(str(error))
    for words in run.warnings:
        warning_line(words)
    ran, reused = summary["steps_run"], summary["steps_reused"]
    head = f"{ran} steps run, {reused} reused, {summary['seconds']:.1f} s" if ran or reused else ""
    if not done:
        answer(as_json, summary, head)
        return
    answer(as_json, summary, deliverables_table(done), files_list(done, summary["multi"]), head,
           next_commands(done[0], order.catalog, order.flags or {}, order.config))

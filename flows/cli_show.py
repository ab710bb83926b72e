"""The verbs that look: `plan`, `status`, `trace`. They run nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape

from flows.cli_run import again, select_from
from flows.options import Config, Episodes, Generator, Json, Languages, Out, Set, State, answer, flags
from flows.settings import load_settings
from flows.show import MARKS, forecast_table, shards_table, status_table, stdout, trace_tree
from models.errors import GateError, InputError

if TYPE_CHECKING:
    from flows.jobs import Selected
    from flows.wiring import Workspace

WATCH_S = 2.0
CatalogFile = Annotated[Path, typer.Argument(help="The catalog file.", show_default=False)]


def plan(catalog: CatalogFile, episode: Episodes = None, lang: Languages = None, generator: Generator = None,
         shards: Annotated[Path | None, typer.Option(help="Write a SHARD.json for the missing shots into this folder.",
                                                     show_default=False)] = None,
         out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
         as_json: Json = False) -> int:
    """Show what a run would do, and what it lacks; '?' where only a step will tell."""
    from flows.jobs import Selected
    from flows.preflight import choices, lacking
    from flows.status import forecast, write_shards
    from flows.wiring import open_workspace

    settings = load_settings(config, flags(out, state, generator, assignments))
    selected = select_from(catalog, settings, episode or [], lang or [])
    space = open_workspace(settings)
    plans = forecast(space, selected)
    written = [str(path) for path in write_shards(space, selected, shards)] if shards else []
    undone = {(one["episode"], one["language"]) for one in plans if one["steps_to_run"]}
    todo = [Selected(one.job, tags) for one in selected
            if (tags := tuple(tag for tag in one.languages if (one.job.id, tag) in undone))]
    lack = lacking(space, todo)
    notices = choices(settings, todo)
    answer(as_json, {"episodes": plans, "shards": written, "missing": lack, "notices": notices}, forecast_table(plans),
           escape("\n".join(notices)),
           "\n".join(f"{MARKS['failed']} {escape(what)}" for what in lack), "\n".join(written))
    return 0


def status(catalog: Annotated[Path | None, typer.Argument(help="The catalog file; what was run last unless given.",
                                                          show_default=False)] = None,
           episode: Episodes = None, lang: Languages = None,
           watch: Annotated[bool, typer.Option("--watch", help="Keep looking until all is done, or Ctrl-C.")] = False,
           out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
           as_json: Json = False) -> int:
    """Show how far every episode and language is.

    The settings are those of the last run of it, unless others are given.
    """
    from flows.status import shard_lines, survey

    given = flags(out, state, None, assignments)
    if catalog:
        space, selected = _as_last_run(catalog, config, given, episode or [], lang or [])
    else:
        space, selected, catalog = _last_run(config, given, episode or [], lang or [])
    rows, shards = survey(space, selected), shard_lines(space, catalog) if catalog else []
    if watch and not as_json:
        with Live(Group(status_table(rows), shards_table(shards)), console=stdout, auto_refresh=False) as live:
            while not all(row.done or row.awaiting for row in rows):
                time.sleep(WATCH_S)
                rows, shards = survey(space, selected), shard_lines(space, catalog) if catalog else []
                live.update(Group(status_table(rows), shards_table(shards)), refresh=True)
        return 0
    answer(as_json, {"catalog": str(catalog or ""), "episodes": [row.to_json() for row in rows],
                     "shards": [asdict(shard) for shard in shards]}, status_table(rows), shards_table(shards))
    return 0


def trace(file: Annotated[Path, typer.Argument(help="A delivered file, or a copy of one.", show_default=False)],
          out: Out = None, state: State = None, config: Config = None, as_json: Json = False) -> int:
    """Show everything that is behind a file: its credentials, its watermark, what the database knows.

    Without a database the credentials are verified all the same. The exit code is 3 where the file is not what was
    signed.
    """
    from flows.wiring import open_workspace, watermarkers
    from tasks.trace import trace as follow

    if out is None and state is None:
        state = next((folder / ".infinidub" for folder in file.resolve().parents
                      if (folder / ".infinidub").is_dir()), None)
    settings = load_settings(config, flags(out, state))
    roots, lack = settings.options.get("c2pa", {}).get("trust"), None
    try:
        ledger = open_workspace(settings, existing=True).ledger
    except InputError as error:  # there is no state folder here: what the file itself says is read all the same
        ledger, lack = None, error
    try:
        found = follow(ledger, file, watermarkers(), Path(str(roots)) if roots else None)
    except InputError as error:
        raise (lack if lack and file.is_file() else error) from None
    sources = [source.model_dump(mode="json") for source in found.sources]
    answer(as_json, {**found.model_dump(mode="json"), "sources": sources, "tampered": found.tampered},
           trace_tree(found))
    return GateError.exit_code if found.tampered else 0


def _last_run(config: Path | None, given: dict[str, Any], episodes: Sequence[str], languages: Sequence[str],
              ) -> tuple[Workspace, list[Selected], Path | None]:
    """Workspace and selection of what was run last, and its catalog if it had one."""
    from flows.jobs import select
    from flows.wiring import open_workspace

    order = again("status", given, config)
    selected = select([one.job for one in order.selected], episodes, languages)
    return open_workspace(order.settings), selected, Path(order.catalog) if order.catalog else None


def _as_last_run(catalog: Path, config: Path | None, given: dict[str, Any], episodes: Sequence[str],
                 languages: Sequence[str]) -> tuple[Workspace, list[Selected]]:
    """Workspace and selection under the settings that the catalog was last run with, given flags over them."""
    from flows.wiring import open_workspace
    from tasks.history import last_run

    space = open_workspace(load_settings(config, given))
    known = last_run(space.ledger, catalog=str(catalog.resolve())) or {}
    config = config or (Path(known["config"]) if known.get("config") else None)
    settings = load_settings(config, {**known.get("settings", {}), **given})
    if settings != space.settings:
        space = open_workspace(settings)
    return space, select_from(catalog, settings, episodes, languages)

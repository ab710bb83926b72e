"""Having a language go on once its review is done: on Prefect where it has the deployment, else by a command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.deploy import running_server
from flows.hints import completed
from flows.settings import Settings, load_settings, prefect_server, use_prefect_quietly
from models.errors import InfrastructureError, InputError

if TYPE_CHECKING:  # the command line reads this before it knows whether it needs a database
    from flows.wiring import Workspace
    from models.review import Review

DEPLOYMENT = "localize-episode/episode"
"""Dubs what is missing of an episode: after a review, what builds on the texts that it changed."""


@dataclass(frozen=True)
class Rerun:
    """How a language goes on."""

    command: tuple[str, ...]
    """Arguments of `infinidub` that do it here."""
    flow_run: str = ""
    """Id of the flow run that does it; '': nobody does yet."""
    why: str = ""
    """Why Prefect does not, where it might have."""

    @property
    def words(self) -> str:
        """For people."""
        if self.flow_run:
            return f"flow run {self.flow_run} goes on with it"
        why = f"({self.why}) " if self.why else ""
        return completed(f"{why}go on with: infinidub {shlex.join(self.command)}", {})


def reviewed(given: Mapping[str, Any], config: Path | None, episode: str = "", catalog: Path | None = None,
             ) -> tuple[Workspace, dict[str, Any]]:
    """Workspace under the settings that an episode or catalog was last run with, given ones over them; and that run.

    Raises:
        InputError: Nothing was dubbed here.
    """
    from flows.wiring import open_workspace
    from tasks.history import last_run

    space = open_workspace(load_settings(config, given), existing=True)
    known = last_run(space.ledger, episode=episode, catalog=str(catalog.resolve()) if catalog else "")
    if known is None:
        raise InputError(f"no run of {episode or catalog or 'anything'} is noted here", where=str(space.settings.state),
                         hint="Name the folder with --out or --state")
    noted = config or (Path(known["config"]) if known.get("config") else None)
    settings = load_settings(noted, {**known.get("settings", {}), **given})
    return (space if settings == space.settings else open_workspace(settings)), known


def spoken_language(space: Workspace, known: Mapping[str, Any], review: Review) -> str:
    """BCP-47 of the source, as its catalog or command line said; 'und' where it was only heard."""
    from flows.jobs import job_from_json
    from models.catalog import load_catalog

    job = known.get("jobs", {}).get(review.episode)
    if job:
        return job_from_json(job, space.settings.out).source_language or "und"
    return load_catalog(Path(known["catalog"])).source_language if known.get("catalog") else "und"


def go_on(space: Workspace, episode: str, language: str) -> Rerun:
    """Have the rest of a language made, with all that is there reused.

    A flow run of `localize-episode/episode` does it where a Prefect server is known and has that deployment; what it
    needs to know is what the last run of the episode noted. Otherwise somebody has to give the command.

    Args:
        space: Whose store and database it is.
        episode: Full id.
        language: BCP-47 tag.
    """
    from tasks.history import last_run

    settings, known = space.settings, last_run(space.ledger, episode=episode) or {}
    config = ("--config", known["config"]) if known.get("config") else ()
    command = ("retry", "--episode", episode, "--lang", language, "--state", str(settings.state), *config)
    server = prefect_server() or running_server(settings)
    if not server or not known:
        return Rerun(command)
    given = dict(known.get("settings", {}))
    if settings.store:  # each machine's own
        given = {name: value for name, value in given.items() if name not in {"out", "state"}}
    parameters = {"episode": episode, "languages": [language], "catalog": known.get("catalog", ""),
                  "job": known.get("jobs", {}).get(episode), "config": known.get("config", ""), "settings": given}
    return _submit(settings, server, parameters, Rerun(command))


def _submit(settings: Settings, server: str, parameters: dict[str, Any], otherwise: Rerun) -> Rerun:
    use_prefect_quietly(settings, server)
    from flows.deployments import start

    try:
        run = start(DEPLOYMENT, f"{parameters['episode']}·{parameters['languages'][0]} reviewed", parameters)
    except (InputError, InfrastructureError) as error:
        return Rerun(otherwise.command, why=error.what)
    return Rerun(otherwise.command, flow_run=run)


def infinidub(arguments: tuple[str, ...]) -> list[str]:
    """A command line of this program, for a process of its own."""
    return [sys.executable, "-m", "flows.cli", *arguments]

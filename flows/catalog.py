"""The Prefect flows: a catalog, an episode, a language of an episode. What Prefect shows; the ledger knows the truth.

Parameters are plain JSON (names and paths, never secrets), so that each flow can also be started by hand or by a
deployment. Inside one process they share one `Session`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Completed, Failed

from flows.artifacts import ProgressBar, report_catalog, report_language
from flows.jobs import Selected, catalog_jobs, job_from_json, select
from flows.options import refuse_secrets
from flows.pipeline import EpisodeJob
from flows.runs import Session, left_to_do, session
from flows.settings import Settings, load_settings
from flows.steps import later_steps
from models.catalog import load_catalog
from models.errors import InputError
from tasks.history import note_flow_run
from tasks.step import prefect_runner

_SESSION: ContextVar[Session | None] = ContextVar("session", default=None)


@contextmanager
def sharing(run: Session) -> Iterator[Session]:
    """Flows called inside the block work in this session.

    A server that lives only as long as this process needs no heartbeats, and each flow would wait a second for them.
    """
    token = _SESSION.set(run)
    quiet = {} if PREFECT_API_URL.value() else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    try:
        with temporary_settings(quiet):
            yield run
    finally:
        _SESSION.reset(token)


@contextmanager
def _joined(config: str, settings: Mapping[str, Any] | None, parameters: Mapping[str, Any]) -> Iterator[Session]:
    """The session of the caller; a flow that was started by a deployment opens its own."""
    run = _SESSION.get()
    if run is not None:
        yield run
        return
    refuse_secrets(settings or {})
    loaded = load_settings(Path(config) if config else None, settings)
    noted = {**parameters, "config": config, "settings": dict(settings or {})}
    with session(loaded, "schedule", noted) as run, sharing(run):
        yield run


def _noted(catalog: str, episode: str, languages: Sequence[str],
           job: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `redo` and `retry` need to know of a run of one episode."""
    return {"catalog": str(Path(catalog).resolve()) if catalog else "", "episodes": [episode],
            "languages": list(languages), "jobs": {episode: dict(job)} if job else {}}


def _job(run: Session, episode: str, catalog: str, job: Mapping[str, Any]) -> EpisodeJob:
    """The episode's job: known already, written out, or read from the catalog."""
    if episode not in run.jobs:
        settings = run.space.settings
        if job:
            run.jobs[episode] = job_from_json(dict(job), settings.out)
        else:
            run.jobs[episode] = select(_read(catalog, settings), [episode])[0].job
    return run.jobs[episode]


def _read(catalog: str, settings: Settings) -> list[EpisodeJob]:
    if not catalog:
        raise InputError("neither a catalog nor a job is given", where="catalog")
    return catalog_jobs(load_catalog(Path(catalog)), settings.out)


def _catalog_name() -> str:
    """`harbor-lights/catalog.yaml`: folder and file, without the way to them."""
    return "/".join(Path(flow_run.parameters["catalog"]).parts[-2:])


@flow(name="localize-catalog", flow_run_name=_catalog_name)
def localize_catalog(catalog: str, episodes: list[str] | None = None, languages: list[str] | None = None,
                     accept_new_source: bool = False, config: str = "",
                     settings: dict[str, Any] | None = None) -> State[Any]:
    """Dub what is missing of a catalog.

    Args:
        catalog: Path of the catalog file.
        episodes: Ids of the only episodes to look at; all when empty.
        languages: The only languages to look at; all when empty.
        accept_new_source: Dub an episode anew whose file changed since it was delivered.
        config: Path of infinidub.toml; '' looks in the working folder.
        settings: Dotted name → value, over the file and the environment, e.g. {"out": "/srv/dubbed"}.
    """
    loaded = load_settings(Path(config) if config else None, settings)
    selected = select(_read(catalog, loaded), episodes or [], languages or [])
    noted = {"catalog": str(Path(catalog).resolve()), "episodes": [one.job.id for one in selected],
             "languages": sorted({language for one in selected for language in one.languages})}
    with _joined(config, settings, noted) as run:
        _announce(run)
        if run.todo is None:
            left_to_do(run, selected, accept_new_source=accept_new_source)
        for one in run.todo or ():
            with run.noting(one.job.id):
                localize_episode(one.job.id, list(one.languages), catalog=catalog, config=config, settings=settings,
                                 return_state=True)  # its failures are noted already
            if run.broken:
                raise run.broken
        report_catalog(run, selected)
        return _verdict(run)


@flow(name="localize-episode", flow_run_name="{episode}")
def localize_episode(episode: str, languages: list[str] | None = None, catalog: str = "",
                     job: dict[str, Any] | None = None, accept_new_source: bool = False, config: str = "",
                     settings: dict[str, Any] | None = None) -> State[Any]:
    """Dub one episode: what its languages share, then each language.

    Args:
        episode: Full id, `series/id`.
        languages: BCP-47 tags; all of the episode unless given.
        catalog: Path of the catalog that describes it; or else
        job: its description (as `infinidub dub` makes it).
        accept_new_source: Dub it anew if its file changed since it was delivered.
        config: Path of infinidub.toml.
        settings: Dotted name → value, over the file and the environment.
    """
    noted = _noted(catalog, episode, languages or [], job)
    with _joined(config, settings, noted) as run:
        _announce(run)
        description = _job(run, episode, catalog, job or {})
        todo = [Selected(description, tuple(languages) if languages is not None else description.languages)]
        before = len(run.failures)
        if run.todo is None:
            todo = left_to_do(run, todo, accept_new_source=accept_new_source)
        rest: dict[str, Any] = {"catalog": catalog, "job": job, "config": config, "settings": settings}
        for one in todo:
            run.episode(one, prefect_runner, lambda language: localize_language(episode, language, **rest))
        return _verdict(run, before)


@flow(name="localize-language", flow_run_name="{episode}·{language}")
def localize_language(episode: str, language: str, catalog: str = "", job: dict[str, Any] | None = None,
                      config: str = "", settings: dict[str, Any] | None = None) -> State[Any]:
    """Dub one episode into one language.

    Args:
        episode: Full id, `series/id`.
        language: BCP-47 tag.
        catalog: Path of the catalog that describes the episode; or else
        job: its description.
        config: Path of infinidub.toml.
        settings: Dotted name → value, over the file and the environment.
    """
    with _joined(config, settings, _noted(catalog, episode, [language])) as run:
        _announce(run)
        with ProgressBar.on(run, f"{episode} {language}"):
            done = run.localize(_job(run, episode, catalog, job or {}), language, prefect_runner)
        report_language(done)
        return Completed(message=f"{done.deliverable.duration_s:.0f} s of {language} in {done.deliverable.video}")


@flow(name="rerun-language", flow_run_name="{episode}·{language} from {from_step}")
def rerun_language(catalog: str, episode: str, language: str, from_step: str = "translate", config: str = "",
                   settings: dict[str, Any] | None = None) -> State[Any]:
    """Dub one language of an episode once more, from a step on.

    Args:
        catalog: Path of the catalog file.
        episode: Full id, `series/id`.
        language: BCP-47 tag.
        from_step: This step and those that build on it are done anew.
        config: Path of infinidub.toml.
        settings: Dotted name → value, over the file and the environment.
    """
    with _joined(config, settings, _noted(catalog, episode, [language])) as run:
        full_id = _job(run, episode, catalog, {}).id
        for tag, steps in later_steps(from_step, language).items():
            run.space.ledger.raise_takes(full_id, tag, steps)
        return localize_episode(full_id, [language], catalog=catalog, config=config, settings=settings,
                                return_state=True)


def _verdict(run: Session, since: int = 0) -> State[Any]:
    failures = run.failures[since:]
    if failures:
        return Failed(message="; ".join(failure.message for failure in failures))
    return Completed(message="; ".join([f"{len(run.localized)} delivered", *run.below_bar]))


def _announce(run: Session) -> None:
    """Note the running flow, and say where it is seen, if there is a server that stays."""
    note_flow_run(run.space.ledger, run.run_id, str(flow_run.id))
    if PREFECT_API_URL.value() and flow_run.ui_url:
        run.listener.link(str(flow_run.name), flow_run.ui_url)

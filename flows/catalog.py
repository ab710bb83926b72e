"""The Prefect flows: a catalog, an episode, a language of an episode. What Prefect shows; the ledger knows the truth.

Parameters are plain JSON (names and paths, never secrets), so that each flow can also be started by hand or by a
deployment. Prefect checks them by their types before a flow begins: names and tags become folders. Inside one process
they share one `Session`.
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

from flows.artifacts import ProgressBar, report_awaiting, report_catalog, report_language
from flows.jobs import Selected, catalog_jobs, job_from_json, select
from flows.options import refuse_secrets
from flows.pipeline import EpisodeJob
from flows.redo import Anew
from flows.runs import Session, Stage, left_to_do, session
from flows.settings import Settings, load_settings
from flows.steps import BEFORE_PICTURE
from models.catalog import Tag, load_catalog
from models.errors import InputError
from models.records import EpisodeId
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


def _staged_name() -> str:
    """`series/id·es`, and what is done of it where it is not all."""
    given = flow_run.parameters
    stage = given.get("stage", "all")
    name = "·".join(filter(None, (given["episode"], given.get("language", ""))))
    return name if stage == "all" else f"{name} {stage}"


@flow(name="localize-catalog", flow_run_name=_catalog_name)
def localize_catalog(catalog: str, episodes: list[EpisodeId] | None = None, languages: list[Tag] | None = None,
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
        for stage in run.stages:
            for one in run.in_turn(run.todo or (), stage):
                with run.noting(one.job.id):
                    localize_episode(one.job.id, list(one.languages), catalog=catalog, config=config,
                                     settings=settings, stage=stage, return_state=True)  # its failures are noted
                if run.broken:
                    raise run.broken
        report_catalog(run, selected)
        return _verdict(run)


@flow(name="localize-episode", flow_run_name=_staged_name)
def localize_episode(episode: EpisodeId, languages: list[Tag] | None = None, catalog: str = "",
                     job: dict[str, Any] | None = None, accept_new_source: bool = False, config: str = "",
                     settings: dict[str, Any] | None = None, stage: Stage = "all") -> State[Any]:
    """Dub one episode: what its languages share, then each language.

    Args:
        episode: Full id, `series/id`.
        languages: BCP-47 tags of the episode's; all unless given.
        catalog: Path of the catalog that describes it; or else
        job: its description (as `infinidub dub` makes it).
        accept_new_source: Dub it anew if its file changed since it was delivered.
        config: Path of infinidub.toml.
        settings: Dotted name → value, over the file and the environment.
        stage: Within a run of a catalog, which part is due: 'plan' asks for its shots, 'finish' makes the rest of them.
    """
    noted = _noted(catalog, episode, languages or [], job)
    with _joined(config, settings, noted) as run:
        _announce(run)
        description = _job(run, episode, catalog, job or {})
        for tag in languages or ():
            if tag not in description.languages:
                raise InputError(f"is not dubbed into {tag}", where=episode,
                                 hint=f"There are: {', '.join(description.languages)}")
        all_of_them = not languages and run.todo is None  # within a run, none are: only what joins them is missing
        todo = [Selected(description, description.languages if all_of_them else tuple(languages or ()))]
        before = len(run.failures)
        if run.todo is None:
            todo = left_to_do(run, todo, accept_new_source=accept_new_source)
        rest: dict[str, Any] = {"catalog": catalog, "job": job, "config": config, "settings": settings}
        for due in run.stages if stage == "all" else (stage,):
            rest["stage"] = due
            for one in todo:
                run.episode(one, prefect_runner, lambda language: passed_on(
                    localize_language(episode, language, **rest, return_state=True)), due)
        return _verdict(run, before)


@flow(name="localize-language", flow_run_name=_staged_name)
def localize_language(episode: EpisodeId, language: Tag, catalog: str = "", job: dict[str, Any] | None = None,
                      config: str = "", settings: dict[str, Any] | None = None, stage: Stage = "all") -> State[Any]:
    """Dub one episode into one language.

    Args:
        episode: Full id, `series/id`.
        language: BCP-47 tag.
        catalog: Path of the catalog that describes the episode; or else
        job: its description.
        config: Path of infinidub.toml.
        settings: Dotted name → value, over the file and the environment.
        stage: As of `localize_episode`.
    """
    with _joined(config, settings, _noted(catalog, episode, [language], job)) as run:
        _announce(run)
        with ProgressBar.on(run, f"{episode} {language}", BEFORE_PICTURE if stage == "finish" else 0):
            done = run.localize(_job(run, episode, catalog, job or {}), language, prefect_runner, stage)
        if (episode, language) in run.awaiting:
            report_awaiting(episode, language, run.awaiting[episode, language])
            return Completed(name="AwaitingReview", message=run.awaiting[episode, language].what)
        if done is None:
            return Completed(name="Planned", message="its shots are asked for")
        report_language(done)
        return Completed(message=f"{done.deliverable.duration_s:.0f} s of {language} in {done.deliverable.video}")


def _wish_name() -> str:
    given = flow_run.parameters
    what = f"line {given['line']}" if given.get("line") else f"from {given.get('from_step') or 'translate'}"
    return f"{given['episode']}·{given['language']} {what}"


@flow(name="rerun-language", flow_run_name=_wish_name)
def rerun_language(catalog: str, episode: EpisodeId, language: Tag, from_step: str = "", line: str = "", text: str = "",
                   config: str = "", settings: dict[str, Any] | None = None) -> State[Any]:
    """Dub one language of an episode once more: from a step on, or with one line changed. As `infinidub redo` does.

    Args:
        catalog: Path of the catalog file.
        episode: Full id, `series/id`.
        language: BCP-47 tag.
        from_step: This step and those that build on it are done anew; `translate`, where no line is named.
        line: Or else: id of a line to change.
        text: What it says from now on.
        config: Path of infinidub.toml.
        settings: Dotted name → value, over the file and the environment.
    """
    with _joined(config, settings, _noted(catalog, episode, [language])) as run:
        full_id = _job(run, episode, catalog, {}).id
        Anew(from_step or ("" if line else "translate"), line, text).ask(run.space, full_id, language)
        return localize_episode(full_id, [language], catalog=catalog, config=config, settings=settings,
                                return_state=True)


def _verdict(run: Session, since: int = 0) -> State[Any]:
    failures = run.failures[since:]
    if failures:
        return Failed(message="; ".join(failure.message for failure in failures))
    waiting = [f"{len(run.awaiting)} awaiting review"] if run.awaiting else []
    return Completed(message="; ".join([f"{len(run.localized)} delivered", *waiting, *run.below_bar]))


def passed_on(state: State[Any]) -> None:
    """Raise what a flow raised.

    Its result is not asked for where it completed: a state has none that came back from a server asked twice, as
    clients do where it is slow to answer.
    """
    if not state.is_completed():
        state.result()


def _announce(run: Session) -> None:
    """Note the running flow, and say where it is seen, if there is a server that stays."""
    note_flow_run(run.space.ledger, run.run_id, str(flow_run.id))
    if PREFECT_API_URL.value() and flow_run.ui_url:
        run.listener.link(str(flow_run.name), flow_run.ui_url)

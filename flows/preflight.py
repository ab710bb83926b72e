"""Before anything runs: is every engine that will be needed there, and does it speak the languages asked for?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import langcodes

from flows.choice import Choice, choose
from flows.jobs import Selected
from flows.pipeline import EpisodeJob
from flows.settings import Settings
from flows.wiring import Workspace
from models.engines import adapter, missing
from models.errors import InputError, SetupError

JUDGES = ("face-embedder", "lip-scorer")
"""Who looks at the pictures at last, where somebody is chosen."""


def preflight(space: Workspace, todo: Sequence[Selected]) -> None:
    """Check what can be checked without running a model.

    Raises:
        SetupError: A program, library or weight is missing; the message says how to get it.
        InputError: An engine does not do a language, or a voice of the cast or a certificate is not there.
    """
    for one in todo:
        for port, name in _engines(space, one.job, one.languages):
            check_engine(space, port, name)
        for language in one.languages:
            _check_language(space, one.job, language)
    if todo:
        for port in JUDGES:
            if port in space.settings.engines:
                _engine(space, port)  # their files are the user's own: what is wrong with them is said by reading them
        signer: Any = space.engines.get("signer", space.signer(make=True))
        signer.check()


def lacking(space: Workspace, todo: Sequence[Selected]) -> list[str]:
    """What `preflight` would stop at for want of a program, a library or weights, as far as a look at files tells."""
    found: dict[str, None] = {}
    for one in todo:
        for port, name in _engines(space, one.job, one.languages):
            try:
                check_engine(space, port, name, hashed=False)
            except SetupError as error:
                found[str(error)] = None
    return list(found)


def choice(settings: Settings, job: EpisodeJob) -> Choice:
    """The generator of an episode."""
    return choose(settings, job.generator, job.picture_s)


def choices(settings: Settings, todo: Sequence[Selected]) -> list[str]:
    """Which generators are taken and why, a line each."""
    return list(dict.fromkeys(choice(settings, one.job).line for one in todo))


def check_engine(space: Workspace, port: str, name: str, *, hashed: bool = True) -> None:
    """Whether an engine can run here: programs, libraries, weights; unless `hashed` is off, whole ones."""
    options = space.settings.options.get(name, {})
    lack = missing(port, name, options)
    if lack:
        raise SetupError(lack, where=f"{port} {name}")
    try:
        space.weights.need(adapter(port, name).required_weights(options), hashed=hashed)
    except SetupError as error:
        raise error.at(f"{port} {name}") from error.__cause__


def _engines(space: Workspace, job: EpisodeJob, languages: Sequence[str]) -> list[tuple[str, str]]:
    ports = ["shot-detector", "face-detector", "diarizer", "language-identifier"]
    heard = any(language in job.dialogue and language not in job.script for language in languages)
    if job.transcript is None or space.settings.check_speech or heard:
        ports.append("recognizer")
    if any(language not in job.script and language not in job.dialogue for language in languages):
        ports.append("translator")
    if any(language not in job.dialogue for language in languages):
        ports.append("synthesizer")
    if job.me is None and "separator" in space.settings.engines:
        ports.append("separator")
    if "face-embedder" in space.settings.engines:
        ports.append("face-embedder")
    here, generator = [(port, space.settings.engine(port)) for port in ports], choice(space.settings, job).name
    if scorer := space.lip_scorer(generator):
        here.append(("lip-scorer", scorer.name))
    if space.settings.dispatch != "here":  # the generator's own machines look before they take a shard
        return here
    return [*here, ("generator", generator)]


def _check_language(space: Workspace, job: EpisodeJob, language: str) -> None:
    if language not in job.script and language not in job.dialogue and job.source_language:
        pairs = _engine(space, "translator").pairs()
        pair = langcodes.Language.get(job.source_language).language, langcodes.Language.get(language).language
        if pairs is not None and pair not in pairs:
            raise InputError(f"{space.settings.engine('translator')} does not translate {pair[0]} to {pair[1]}",
                             where=f"{job.id}·{language}",
                             hint="Give a script in the catalog, or choose another with --set engines.translator=NAME")
    if language in job.dialogue:
        return
    synthesizer = _engine(space, "synthesizer")
    if not synthesizer.voices(language):
        raise InputError(f"{space.settings.engine('synthesizer')} has no voice for {language}",
                         where=f"{job.id}·{language}", hint="Give finished dialogue in the catalog, or choose another"
                         " with --set engines.synthesizer=NAME")
    for speaker, voice in job.cast.get(language, {}).items():
        try:
            synthesizer.check_voice(voice, language)
        except InputError as error:
            raise error.at(f"{job.id}·{language}: cast of {speaker}") from error.__cause__


def _engine(space: Workspace, port: str) -> Any:
    return space.engines.get(port, space.engine(port))

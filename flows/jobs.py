"""Catalogs and command lines → episode jobs, and back from what an earlier run noted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from flows.choice import SMALL
from flows.pipeline import EpisodeJob
from models.catalog import Catalog, language_tag
from models.errors import InputError
from models.records import EpisodeId
from models.timebase import ticks

_JOB, _ID = TypeAdapter(EpisodeJob), TypeAdapter(EpisodeId)
_TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Selected:
    """An episode, and which of its languages are asked for."""

    job: EpisodeJob
    languages: tuple[str, ...]


def catalog_jobs(catalog: Catalog, out: Path) -> list[EpisodeJob]:
    """Every episode of a catalog with its defaults filled in, the most urgent first.

    Args:
        catalog: As loaded.
        out: Where deliverables go.
    """
    picture_s = _picture_s(catalog)
    jobs = [EpisodeJob(
        id=catalog.full_id(episode), title=catalog.titles_of(episode)[0], titles=catalog.titles_of(episode)[1],
        video=episode.video, out=out,
        languages=catalog.languages_of(episode), source_language=catalog.source_language, me=episode.me,
        transcript=episode.transcript, diarization=episode.diarization, script=episode.script,
        dialogue=episode.dialogue, glossary=catalog.glossary, cast=catalog.cast, people=catalog.people,
        generator=catalog.generator_of(episode), picture_s=picture_s, profile=catalog.profile, foreign=catalog.foreign,
        review=catalog.review,
        priority=episode.priority) for episode in catalog.episodes]
    return sorted(jobs, key=lambda job: -job.priority)


def _picture_s(catalog: Catalog) -> float:
    """Seconds of picture of all that `small` is to make; looked at only where a catalog names it."""
    from tasks.media import probe

    total = 0.0
    for episode in catalog.episodes:
        if catalog.generator_of(episode) == SMALL:
            with suppress(InputError):  # what is no video is refused when its turn comes
                total += float(probe(episode.video).duration or 0) * len(catalog.languages_of(episode))
    return total


def select(jobs: Sequence[EpisodeJob], episodes: Sequence[str] = (), languages: Sequence[str] = ()) -> list[Selected]:
    """The episodes and languages that were asked for; all, where none are named.

    Args:
        jobs: All there are.
        episodes: Ids, with or without the series.
        languages: BCP-47 tags.

    Raises:
        InputError: A name that is not there; the message lists those that are.
    """
    tags = [parse_tag(tag, "--lang") for tag in languages]
    for name in episodes:
        if not any(_named(job, name) for job in jobs):
            raise InputError(f"no episode is called {name!r}", where="--episode",
                             hint=f"There are: {_listed([job.id for job in jobs])}")
    chosen = [job for job in jobs if not episodes or any(_named(job, name) for name in episodes)]
    offered = sorted({tag for job in chosen for tag in job.languages})
    for tag in tags:
        if tag not in offered:
            raise InputError(f"no chosen episode is dubbed into {tag}", where="--lang",
                             hint=f"There are: {_listed(offered)}")
    selected = [Selected(job, tuple(tag for tag in job.languages if not tags or tag in tags)) for job in chosen]
    return [one for one in selected if one.languages]


def video_job(video: Path, to: Sequence[str], out: Path, *, source: str | None = None,
              excerpt: str | None = None) -> EpisodeJob:
    """The job of `infinidub dub`.

    Args:
        video: The file; its stem names the episode.
        to: BCP-47 tags.
        out: Where deliverables go.
        source: BCP-47 of what is spoken; found out when None.
        excerpt: 'A-B', seconds or timecodes.

    Raises:
        InputError: A bad tag or range, or no such file.
    """
    if not video.is_file():
        raise InputError("no such file", where=str(video), hint="Give the path of a video")
    languages = tuple(dict.fromkeys(parse_tag(tag, "--to") for tag in to))
    spoken = parse_tag(source, "--from") if source else None
    if not languages:
        raise InputError("no language is given", where="--to", hint="Write for example --to es,fr")
    if spoken in languages:
        raise InputError(f"{spoken} is the language of the source", where="--to")
    # An excerpt is an episode of its own: its files must not take the place of the whole one's.
    name, part = (re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:64].strip("-._") for text in (video.stem, excerpt or ""))
    return EpisodeJob(id=".".join(filter(None, (name or "video", part))), title=video.stem, video=video.resolve(),
                      out=out, languages=languages, source_language=spoken,
                      range=parse_range(excerpt) if excerpt else None)


def parse_tag(tag: str, where: str) -> str:
    """A BCP-47 tag from the command line."""
    try:
        return language_tag(tag)
    except ValueError as error:
        raise InputError(str(error), where=where) from None


def parse_range(text: str) -> tuple[int, int]:
    """'10-30', '00:10-00:30' or '1:02:03.5-1:02:10' in clock ticks."""
    ends = [_TIME.fullmatch(part.strip()) for part in text.split("-")]
    if len(ends) != 2 or not all(ends):
        raise InputError(f"{text!r} is no range", where="--range", hint="Write for example 10-30 or 00:10-00:30")
    start, end = (ticks(sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)))
                  for match in ends if match)
    if end <= start:
        raise InputError(f"{text!r} ends before it begins", where="--range")
    return start, end


def job_to_json(job: EpisodeJob) -> dict[str, Any]:
    """A job as plain JSON, for the runs table and for Prefect's parameters."""
    plain: dict[str, Any] = _JOB.dump_python(job, mode="json")
    return plain


def job_from_json(plain: dict[str, Any], out: Path) -> EpisodeJob:
    """The job that `job_to_json` wrote, delivered to `out`.

    Raises:
        InputError: It did not: what comes with a flow's parameters may be anybody's.
    """
    try:
        job: EpisodeJob = _JOB.validate_python(plain | {"out": out})
        _ID.validate_python(job.id)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InputError(f"{'.'.join(map(str, first['loc'])) or 'id'}: {first['msg']}", where="job") from None
    return replace(job, languages=tuple(parse_tag(tag, "job") for tag in job.languages))


def _named(job: EpisodeJob, name: str) -> bool:
    return name in {job.id, job.id.rpartition("/")[2]}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (" …" if len(names) > 20 else "")

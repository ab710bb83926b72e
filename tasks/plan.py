"""PlanRequest → Plan: which shots are generated, and what each of them hears and sees.

Pure: records in, records out. A shot's request holds nothing but what is heard and seen in that shot, so that a changed
line changes the requests of the shots it is heard in, and no other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from operator import attrgetter
from typing import Literal

from models.errors import InputError
from models.recipe import shot_seed
from models.records import (
    EngineRef,
    HeardLine,
    Plan,
    PlannedShot,
    Request,
    Shot,
    ShotRequest,
    Shots,
    Source,
    SpeakerTrack,
    Speech,
    SpokenLine,
)
from models.timebase import CLOCK, frame_to_ticks
from tasks.step import Work, step

HEARD_FRAMES = 2
"""A line counts as heard in a shot that it overlaps by this many frames; less moves no lips."""
_START = attrgetter("start")


class PlanRequest(Request):
    """What is known of one episode in one language before its picture is made."""

    source: Source
    shots: Shots
    speech: Speech
    generator: EngineRef
    profile: str
    region: Literal["frame", "person"]
    prompt: str = ""
    seed: int = 0


def heard(lines: Sequence[SpokenLine], longest: int, shot: Shot, rate: Fraction) -> tuple[SpokenLine, ...]:
    """The lines heard in a shot, in the order in which they begin.

    Args:
        lines: All lines of the episode, in that order.
        longest: Ticks of the longest of them: what begins so long before the shot is over.
        shot: Which shot.
        rate: Frames per second.
    """
    start, end = frame_to_ticks(shot.start, rate), frame_to_ticks(shot.end, rate)
    # A frame may begin half a tick off its exact time, hence the tick that is let pass.
    least = ceil(HEARD_FRAMES * CLOCK / rate - 1)
    near = lines[bisect_left(lines, start - longest, key=_START):bisect_left(lines, end, key=_START)]
    return tuple(x for x in near if min(end, x.start + x.length) - max(start, x.start) >= least)


def _tracks(lines: Sequence[SpokenLine], start: int) -> tuple[SpeakerTrack, ...]:
    """One track a speaker, in the order in which they are first heard; `start` is the shot's first tick."""
    speakers = dict.fromkeys(line.speaker for line in lines)
    return tuple(
        SpeakerTrack(speaker=speaker, lines=tuple(HeardLine(audio=line.audio, at=line.start - start)
                                                  for line in lines if line.speaker == speaker))
        for speaker in speakers)


def _for_shot(generator: EngineRef, shot: str) -> EngineRef:
    """The generator without finished clips ('shots/SHOT' among its weights) of other shots."""
    weights = {name: digest for name, digest in generator.weights.items()
               if not name.startswith("shots/") or name == f"shots/{shot}"}
    return generator.model_copy(update={"weights": weights})


def _shot_request(request: PlanRequest, shot: Shot, lines: Sequence[SpokenLine]) -> ShotRequest:
    source = request.source
    return ShotRequest(
        shot=shot.id, source=source.video, start=shot.start, end=shot.end, width=source.width, height=source.height,
        rate=source.rate, tracks=_tracks(lines, frame_to_ticks(shot.start, source.rate)), faces=shot.faces,
        prompt=request.prompt, region=request.region, seed=shot_seed(request.seed, shot.id, request.take),
        profile=request.profile, generator=_for_shot(request.generator, shot.id), take=request.take)


def _planned(request: PlanRequest, shot: Shot, lines: Sequence[SpokenLine]) -> PlannedShot:
    reason = ("the generator is passthrough" if request.generator.name == "passthrough"
              else "no face seen" if not shot.faces else "no dubbed speech" if not lines else "")
    if reason:
        return PlannedShot(shot=shot.id, start=shot.start, end=shot.end, kind="passthrough", reason=reason)
    faces = "a face" if len(shot.faces) == 1 else f"{len(shot.faces)} faces"
    speakers = ", ".join(dict.fromkeys(line.speaker or "somebody" for line in lines))
    return PlannedShot(shot=shot.id, start=shot.start, end=shot.end, kind="generate",
                       reason=f"{faces} seen, {speakers} heard", request=_shot_request(request, shot, lines))


@step("plan", version=1, result=Plan)
def plan(work: Work, request: PlanRequest) -> Plan:
    """Decide for every shot whether it is generated, and say why not where it is not.

    Raises:
        InputError: The shots are not those of this source.
    """
    source = request.source
    if request.shots.frames != source.frames:
        raise InputError(f"the shots cover {request.shots.frames} frames, the source has {source.frames}",
                         hint=f"Find its shots anew: infinidub redo {work.episode} --lang {work.language} --from shots")
    lines = sorted(request.speech.lines, key=lambda line: (line.start, line.id))
    longest = max((line.length for line in lines), default=0)
    return Plan(language=request.speech.language, frames=source.frames, rate=source.rate,
                shots=tuple(_planned(request, shot, heard(lines, longest, shot, source.rate))
                            for shot in request.shots.shots))

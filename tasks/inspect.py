"""Inspect: the finished files → what was measured on them, each figure against its bar.

Nothing is taken on trust: frames are counted, sound and picture are decoded from the delivered file and laid beside the
source, every line is looked for in the dialogue stem, the stem is transcribed back, subtitles are read from their file.
A check that cannot be made is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.loudness import Preset
from models.records import (
    Assembled,
    Check,
    Clips,
    EngineRef,
    Inspection,
    Loudness,
    Mix,
    Plan,
    Request,
    Shots,
    Source,
    Speech,
    Translation,
)
from models.timebase import generation_divisor, timecode
from tasks.checks import KINDS, at_most, check, not_made
from tasks.checks_face import check_identity, check_sync
from tasks.checks_picture import Made, check_file, check_picture
from tasks.checks_sound import HURRIED, check_lines, check_track, find_onsets, share
from tasks.checks_text import check_heard, check_subtitles, check_terms
from tasks.dialogue import dialogue_loudness, speech_frames
from tasks.leak import LEAK_DB
from tasks.listening import Back, listen_back
from tasks.media import loudness
from tasks.step import Work, step
from tasks.subtitles import Cue, read_shown

SILENT_LUFS = -69.0
ROUNDING_LU = 0.05
"""ffmpeg's meter says tenths."""


class InspectRequest(Request):
    """The finished files, and what they were meant to be; of a clip from elsewhere less is known."""

    source: Source
    shots: Shots
    assembled: Assembled
    language: str
    loudness: Preset
    mix: Mix | None = None
    """None: sound is compared with the source's."""
    speech: Speech | None = None
    translation: Translation | None = None
    plan: Plan | None = None
    """Which shots were generated; None: each of them may have been."""
    clips: Clips | None = None
    recognizer: EngineRef | None
    """None: nobody listens to what is said."""
    embedder: EngineRef | None = None
    """None: nobody looks whether faces are still the same."""
    scorer: EngineRef | None = None
    """None: nobody looks whether lips follow the voice."""


@step("inspect", version=4, result=Inspection)
def inspect(work: Work, request: InspectRequest) -> Inspection:
    """Measure a finished language."""
    video = work.store.path(request.assembled.video)
    lines = request.speech.lines if request.speech else ()
    measured = _measured(work, video, request)
    made, stem = _made(request), work.store.path(request.mix.dialogue) if request.mix else None
    spoken = [(line.start, line.start + line.length) for line in lines] if request.speech else None
    checks = [*check_file(video, request.source),
              *check_picture(work, video, request.source, request.shots.shots, made, spoken),
              check_identity(work, video, request.source, made, request.embedder),
              check_sync(work, video, request.source, made, stem, lines, request.scorer)]
    work.progress("inspect: sound", 0.5)
    checks += [*check_track(work, video, request.source, request.mix, lines), *_loudness(measured, request),
               _leak(request.mix)]
    onset, why = 1.0, "there is no dialogue stem"
    back: Back | None = None
    if stem and request.speech:
        onsets = find_onsets(work, stem, lines)
        onset = onsets.share
        checks += [onsets.check(lines), onsets.coverage(lines), *check_lines(lines)]
        back, why = listen_back(work, stem, lines, request.language, request.recognizer), _unheard(request)
    checks += [*check_heard(back, why),
               check_terms(request.translation.lines if request.translation else None, lines),
               *check_subtitles(_shown(work, request), request.language, request.source.rate)]
    return Inspection(language=request.language, checks=tuple(_all(checks)), loudness=measured,
                      back_wer=round(back.rate, 4) if back else None, onset_within_120ms=onset,
                      stretched_over_1_15=share([line.stretch > HURRIED for line in lines], empty=0.0),
                      overflow_lines=sum(line.overflow > 0 for line in lines), heard=back.lines if back else ())


def _all(checks: list[Check]) -> Iterator[Check]:
    """The checks in the order of reports, with those that nothing was known for."""
    made = {check.name: check for check in checks}
    for name in KINDS:
        yield made.get(name) or not_made(name, "nothing is known of lines that were dubbed")


def _made(request: InspectRequest) -> list[Made]:
    """Shots that were generated, or may have been."""
    plan, shots = request.plan, request.shots.shots
    if plan is None:
        return [Made(shot) for shot in shots]
    clips = {clip.shot: clip for clip in (request.clips.clips if request.clips else ())}
    generated = {shot.shot: shot.request for shot in plan.shots if shot.kind == "generate"}
    divisor = generation_divisor(request.source.rate)
    found = []
    for shot in shots:
        if shot.id in generated:
            clip = clips.get(shot.id)
            joins = None if clip is None or clip.joins is None else tuple(
                shot.start + divisor * join for join in clip.joins)
            whole = clip is not None and (clip.placement.width, clip.placement.height) == (
                request.source.width, request.source.height)
            found.append(Made(shot, clip, joins, whole, generated[shot.id]))
    return found


def _loudness(measured: Loudness, request: InspectRequest) -> Iterator[Check]:
    """Loudness and peak. Silence under no dialogue at all is as it should be."""
    preset = request.loudness
    kind, found, wanted = preset.judge(measured)
    silent = request.speech is not None and not request.speech.lines and found <= SILENT_LUFS
    off = abs(found - wanted.lufs)
    judged = check("loudness_lufs" if kind == "programme" else "dialogue_lufs", found,
                   f"{wanted.lufs:g} ± {wanted.tolerance_lu:g}", silent or off <= wanted.tolerance_lu + ROUNDING_LU,
                   "silent" if silent else "")
    yield judged
    if kind == "programme":
        yield not_made("dialogue_lufs", "the preset asks for that of the programme" if preset.dialogue is None else
                       "there is no dialogue stem" if measured.dialogue_share is None else
                       f"there is dialogue in {measured.dialogue_share:.0%} of the time only")
    else:
        yield check("loudness_lufs", measured.integrated_lufs, "reported", passed=True).model_copy(
            update={"gate": False})
    yield at_most("true_peak_dbtp", measured.true_peak_dbtp, preset.true_peak_dbtp)


def _measured(work: Work, video: Path, request: InspectRequest) -> Loudness:
    """Of the delivered track; of the dialogue in it where the stem says when somebody speaks."""
    measured = loudness(video)
    if request.mix is None or request.speech is None or request.loudness.dialogue is None:
        return measured
    kept = [(line.start, line.end) for line in request.speech.kept]
    dialogue, part = dialogue_loudness(video, speech_frames(work.store.path(request.mix.dialogue), kept))
    return measured.model_copy(update={"dialogue_lufs": dialogue, "dialogue_share": part})


def _leak(mix: Mix | None) -> Check:
    """What of the source's voice is left in the bed, as the mix found it."""
    if mix is None or mix.leak is None:
        return not_made("leak_db", "the bed is not known" if mix is None else "the source is silent in dubbed lines")
    leak = mix.leak
    return at_most("leak_db", leak.db, LEAK_DB, f"{leak.line} at {timecode(leak.at)}", leak.at)


def _unheard(request: InspectRequest) -> str:
    """Why nobody listened back."""
    if request.speech and not request.speech.lines:
        return "nothing is said"
    return f"no recognizer here knows {request.language}" if request.recognizer else \
        "nobody was asked to listen: set check_speech = true"


def _shown(work: Work, request: InspectRequest) -> list[Cue] | None:
    """Subtitles as they were delivered."""
    for kind in ("srt", "vtt"):
        file = request.assembled.subtitles.get(kind)
        if file:
            return read_shown(work.store.path(file).read_bytes(), "srt" if kind == "srt" else "vtt", f".{kind}")
    return None

"""Synthesize: Transcript + Translation → Speech: every line voiced, trimmed and fitted to its slot.

Two items a line. Its voice depends on its text, voice and engine alone; its fit on that voice's sound and the length
it gets. So a line whose neighbour changed is neither voiced again nor, where its slot is the same, other bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from models.errors import EngineError, InfinidubError, InputError
from models.fit import Fit, PlannedLine, fit_lines
from models.onset import BELOW_LOUDEST_DB, audible_span, fade, loudest, trim
from models.ports import Samples, Synthesizer
from models.records import (
    Artifact,
    EngineRef,
    Line,
    LineId,
    Record,
    Request,
    Speech,
    SpokenLine,
    Tick,
    Transcript,
    TranslatedLine,
    Translation,
)
from models.timebase import CLOCK, ticks
from tasks.casting import cast_voices, other_engines
from tasks.media import audio_blocks, read_audio, stretch, write_flac
from tasks.step import Work, perform, perform_many, step

FADE_CUT = ticks(0.03)
"""Fade of a voice that had to be cut."""
SEARCH = ticks(0.3)
"""A finished track is cut at its quietest instant this near to where a line begins."""
SILENT = 10 ** (-45 / 20)
"""A line this far below the loudest moment of a finished track is not spoken in it."""
TAIL = ticks(0.05)
"""Kept of a finished track after the last that is loud, fading."""


class SynthesizeRequest(Request):
    """What is to be said, by whom, and when."""

    transcript: Transcript
    translation: Translation
    synthesizer: EngineRef
    cast: dict[str, str] = Field(default={})
    """Speaker (id or name) → voice id; speakers that are not named get a voice by their pitch."""
    length: Tick
    """Of the episode."""


class VoiceRequest(Request):
    """One line for the engine."""

    text: str
    voice: str
    language: str
    synthesizer: EngineRef
    id: LineId = Field(exclude=True)
    """Names the line in errors; enters no recipe."""


class FitRequest(Request):
    """A voice, and the time it gets."""

    voice: Artifact
    stretched: Tick
    """Length that its tempo is changed to."""
    length: Tick
    """What is kept of that."""


class Sound(Record):
    """A 48 kHz mono FLAC that begins with speech."""

    audio: Artifact
    length: Tick = Field(gt=0)


class DialogueRequest(Request):
    """A finished dialogue track in the target language, and the lines it holds."""

    dialogue: Artifact
    transcript: Transcript
    translation: Translation
    length: Tick


# -- items ------------------------------------------------------------------------------------------------------------


@step("synthesize.line", version=1, result=Sound, unit="line")
def voice_line(work: Work, request: VoiceRequest) -> Sound:
    """Voice one line at its natural tempo."""
    from scipy.signal import resample_poly

    try:
        engine: Synthesizer = work.engines.get("synthesizer", request.synthesizer)
        samples = engine.speak(request.text, request.voice, request.language)
        at_clock = np.asarray(resample_poly(samples, CLOCK, engine.sample_rate), np.float32)
        voice = trim(np.clip(at_clock, -1, 1), CLOCK)
        if not len(voice):
            raise EngineError(f"nothing audible came out for {request.text[:60]!r}",
                              hint="Change the line's text (infinidub redo --line), or its voice in the cast")
    except InfinidubError as error:
        raise error.at(request.id) from error.__cause__
    return _store(work, voice)


@step("synthesize.fit", version=1, result=Sound, unit="fit")
def fit_voice(work: Work, request: FitRequest) -> Sound:
    """Bring a voice to the length it gets."""
    voice = read_audio(work.store.path(request.voice))
    if request.stretched != len(voice):
        voice = stretch(voice, CLOCK, len(voice) / request.stretched)
        voice = voice[audible_span(voice, CLOCK)[0]:]
        voice = np.pad(voice[:request.stretched], (0, max(0, request.stretched - len(voice))))
    if request.length < request.stretched:
        voice = fade(voice[:request.length], 0, FADE_CUT)
    return _store(work, voice)


def _store(work: Work, voice: Samples) -> Sound:
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        path = Path(folder) / "line.flac"
        write_flac(path, voice, CLOCK)
        return Sound(audio=work.store.put_file(path, "audio/flac"), length=len(voice))


# -- a synthetic voice ------------------------------------------------------------------------------------------------


@step("synthesize", version=1, result=Speech)
def synthesize(work: Work, request: SynthesizeRequest) -> Speech:
    """Voice and fit all lines that say something.

    Raises:
        InputError: The engine does not speak the language, or has no such voice.
        EngineError: Nothing came out for a line.
    """
    language, lines = request.translation.language, _spoken_lines(request.transcript, request.translation)
    engine: Synthesizer = work.engines.get("synthesizer", request.synthesizer)
    voices = engine.voices(language)
    if not voices:
        raise InputError(f"{request.synthesizer.name} does not speak {language}",
                         hint=f"These do: {other_engines(language, request.synthesizer.name)}")
    casting = cast_voices([line.speaker for line, _ in lines], request.transcript.speakers, voices, request.cast)
    voiced = perform_many(work, voice_line, {
        line.id: VoiceRequest(id=line.id, text=target.text, voice=casting[line.speaker], language=language,
                              synthesizer=_for_voice(request.synthesizer, engine, casting[line.speaker]),
                              take=request.take)
        for line, target in lines})
    fits = fit_lines([PlannedLine(line.id, line.speaker, line.start, line.end, voiced[line.id].length)
                      for line, _ in lines], request.length)
    by_id = {line.id: (line, target) for line, target in lines}
    flags = _flags(fits, {line.id: list(target.flags) for line, target in lines})
    return Speech(language=language, lines=tuple(
        _spoken(work, fit, *by_id[fit.id], casting[by_id[fit.id][0].speaker], voiced[fit.id], flags[fit.id])
        for fit in fits if fit.length))


def _for_voice(ref: EngineRef, engine: Synthesizer, voice: str) -> EngineRef:
    """The engine with the weights that one voice depends on: another voice that is added changes no line."""
    own = engine.weights_of(voice)
    return ref.model_copy(update={"weights": {name: ref.weights[name] for name in sorted(own & ref.weights.keys())}})


def _spoken_lines(transcript: Transcript, translation: Translation) -> list[tuple[Line, TranslatedLine]]:
    """Lines with something to say, with their translation.

    Raises:
        InputError: The two are of different episodes.
    """
    targets = {line.id: line for line in translation.lines}
    missing = [line.id for line in transcript.lines if line.id not in targets]
    if missing:
        raise InputError(f"the translation lacks {', '.join(missing[:10])}")
    return [(line, targets[line.id]) for line in transcript.lines if any(map(str.isalnum, targets[line.id].text))]


def _spoken(work: Work, fit: Fit, line: Line, target: TranslatedLine, voice: str, natural: Sound,
            flags: Sequence[str]) -> SpokenLine:
    as_it_is = fit.length == fit.stretched == natural.length
    fitted = natural if as_it_is else perform(work, fit_voice, FitRequest(
        voice=natural.audio, stretched=fit.stretched, length=fit.length), line.id)
    return SpokenLine(id=line.id, speaker=line.speaker, voice=voice, text=target.text, audio=fitted.audio,
                      start=fit.start, length=fitted.length, slot=fit.slot, planned=(line.start, line.end),
                      natural=natural.length, stretch=round(natural.length / fit.stretched, 4), overflow=fit.overflow,
                      flags=tuple(flags))


def _flags(fits: Sequence[Fit], flags: Mapping[LineId, list[str]]) -> Mapping[LineId, list[str]]:
    """Warnings of the translation and of the fit; that of a line without room goes to the line after or before."""
    for number, fit in enumerate(fits):
        own = flags[fit.id]
        if fit.overflow:
            own.append(f"overflow: {fit.overflow / CLOCK:.2f} s longer than its slot")
        if fit.cut and fit.length:
            own.append(f"cut: {fit.cut / CLOCK:.2f} s of its end have no room")
        if not fit.length:
            near = next((f for f in [*fits[number + 1:], *reversed(fits[:number])] if f.length), fit)
            flags[near.id].append(f"left out: there is no room for {fit.id}")
    return flags


# -- a finished track -------------------------------------------------------------------------------------------------


@step("dialogue", version=1, result=Speech)
def read_dialogue(work: Work, request: DialogueRequest) -> Speech:
    """Cut a finished dialogue track into its lines; nothing that is heard in it is lost.

    Raises:
        InputError: The track is silent.
        MediaError: It cannot be read.
    """
    path = work.store.path(request.dialogue)
    lines = sorted(_spoken_lines(request.transcript, request.translation), key=lambda pair: pair[0].start)
    peak = max((loudest(block[:, 0], CLOCK) for block in audio_blocks(path, channels=1)), default=0.0)
    if lines and not peak:
        raise InputError("nothing is heard in the given dialogue", where="dialogue",
                         hint="Give the dialogue stem of this language, beginning with the first frame")
    cuts = [0, *(_quietest(path, line.start) for line, _ in lines[1:]), request.length]
    spoken, silent = list[SpokenLine](), list[str]()
    for number, (line, target) in enumerate(lines):
        work.progress(f"cutting {line.id}", number / len(lines))
        slot = cuts[number], max(cuts[number], cuts[number + 1])
        piece = _voice_in(path, slot, peak)
        if piece is None:
            silent.append(f"dialogue: {line.id} is silent in the given track")
            continue
        start, sound = piece[0], _store(work, piece[1])
        spoken.append(SpokenLine(
            id=line.id, speaker=line.speaker, voice="given", text=target.text, audio=sound.audio, start=start,
            length=sound.length, slot=slot, planned=(line.start, line.end), natural=sound.length, stretch=1.0,
            flags=(*target.flags, *silent)))
        silent = []
    if silent and spoken:
        spoken[-1] = spoken[-1].model_copy(update={"flags": (*spoken[-1].flags, *silent)})
    return Speech(language=request.translation.language, lines=tuple(spoken))


def _voice_in(path: Path, slot: tuple[Tick, Tick], peak: float) -> tuple[Tick, Samples] | None:
    """What is heard of a track within a slot: where it begins, and its sound; None for silence."""
    start, end = _near_voice(path, slot)
    samples = read_audio(path, start=start, length=end - start)
    if loudest(samples, CLOCK) < peak * SILENT:
        return None
    first, last = audible_span(samples, CLOCK)
    return start + first, fade(samples[first:last + TAIL], ticks(0.002), TAIL)


def _near_voice(path: Path, slot: tuple[Tick, Tick]) -> tuple[Tick, Tick]:
    """The seconds of a slot around all that is heard in it: a pause of minutes is looked through piece by piece.

    A moment that two seconds share may be twice as loud as in either: so the threshold is halved (-3 dB), and a second
    added at both ends.
    """
    levels = np.array([loudest(block[:, 0], CLOCK) for block in audio_blocks(
        path, channels=1, block=CLOCK, start=slot[0], length=slot[1] - slot[0])])
    top = levels[:-1].max(initial=0) or levels.max(initial=0)  # the last piece may be too short to be measured alike
    heard = np.flatnonzero(levels > top * 10 ** (-(BELOW_LOUDEST_DB + 3.1) / 20))
    if not len(heard):
        return slot[0], slot[0]
    return (max(slot[0], slot[0] + (int(heard[0]) - 1) * CLOCK),
            min(slot[1], slot[0] + (int(heard[-1]) + 2) * CLOCK))


def _quietest(path: Path, at: Tick) -> Tick:
    """The quietest instant of a track near a line's beginning, the nearest one of several."""
    first = max(0, at - SEARCH)
    near = read_audio(path, start=first, length=at + SEARCH - first)
    window = min(ticks(0.02), len(near))
    energy = np.cumsum(np.concatenate([[0.0], np.square(near, dtype=np.float64)]))
    level = np.sqrt(np.maximum(energy[window:] - energy[:len(energy) - window], 0) / max(window, 1))
    centres = first + window // 2 + np.arange(len(level))
    quiet = centres[level <= level.min() + 1e-4]
    return int(quiet[np.abs(quiet - at).argmin()])

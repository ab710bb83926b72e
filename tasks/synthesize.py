"""Translation → Speech: every line voiced, fitted to its slot, laid at its onset; or a finished dialogue track, cut.

A line is voiced once per text, voice and engine, at its natural tempo; its fit (tempo, cut) is a second small item, so
that a neighbour's change re-voices nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.errors import EngineError, InputError
from models.fit import Fit, PlannedLine, fit_lines
from models.onset import audible_span, fade, trim
from models.ports import Samples, Synthesizer, Voice
from models.records import (
    Artifact,
    EngineRef,
    Line,
    Record,
    Request,
    Speech,
    SpokenLine,
    Tick,
    Transcript,
    TranslatedLine,
    Translation,
)
from models.timebase import CLOCK
from tasks.media import read_audio, stretch, write_flac
from tasks.step import Work, perform, step

HIGH_VOICE_HZ = 165.0
"""Median pitch above which a voice is taken for a woman's."""
CUT_FADE = CLOCK // 20
"""Ticks over which a line is faded where its end had to be cut."""


class SynthesizeRequest(Request):
    """What is said by whom, and the slots it has."""

    transcript: Transcript
    translation: Translation
    synthesizer: EngineRef
    cast: dict[str, str] = {}
    """Speaker → voice id; speakers that are not named get a voice by their pitch."""
    length: Tick


class DialogueRequest(Request):
    """A finished dialogue track in the target language, and the lines it holds."""

    dialogue: Artifact
    transcript: Transcript
    translation: Translation
    length: Tick


class VoiceRequest(Request):
    """One line for one voice."""

    text: str
    voice: str
    language: str
    synthesizer: EngineRef


class FitRequest(Request):
    """A voiced line and the time it gets."""

    audio: Artifact
    natural: Tick
    stretched: Tick
    length: Tick


class VoicedLine(Record):
    """A line's voice, its silence trimmed."""

    audio: Artifact
    length: Tick


@step("synthesize", version=1, result=Speech)
def synthesize(work: Work, request: SynthesizeRequest) -> Speech:
    """Voice and fit all lines.

    Raises:
        InputError: The synthesizer does not speak the language, or the cast names a voice or speaker that is not there.
        EngineError: A line came out inaudible.
    """
    lines = [(line, text) for line, text in _paired(request.transcript, request.translation) if text.text.strip()]
    voices = cast_voices(work, request) if lines else {}
    voiced: dict[str, VoicedLine] = {}
    for number, (line, text) in enumerate(lines):
        work.progress(f"voicing {line.id}", number / len(lines))
        voiced[line.id] = perform(work, voice_line, VoiceRequest(
            text=text.text, voice=voices[line.speaker], language=request.translation.language,
            synthesizer=request.synthesizer, take=request.take), line.id)
    fits = {fit.id: fit for fit in fit_lines([
        PlannedLine(line.id, line.speaker, line.start, line.end, voiced[line.id].length) for line, _ in lines],
        request.length)}
    return Speech(language=request.translation.language, lines=tuple(
        _spoken(work, line, text, voices[line.speaker], voiced[line.id], fits[line.id]) for line, text in lines
        if fits[line.id].length))


def _paired(transcript: Transcript, translation: Translation) -> list[tuple[Line, TranslatedLine]]:
    texts = {text.id: text for text in translation.lines}
    return [(line, texts[line.id]) for line in transcript.lines if line.id in texts]


@step("synthesize.line", version=1, result=VoicedLine, unit="line")
def voice_line(work: Work, request: VoiceRequest) -> VoicedLine:
    """Voice one line at its natural tempo: 48 kHz, beginning with its first sound."""
    engine: Synthesizer = work.engines.get("synthesizer", request.synthesizer)
    samples = engine.speak(request.text, request.voice, request.language)
    sound = trim(_at_clock(samples, engine.sample_rate), CLOCK)
    if not len(sound):
        raise EngineError(f"nothing audible came out for {request.text!r}", where=request.voice,
                          hint="Change the text of the line (infinidub redo --line), or its voice in the cast")
    return VoicedLine(audio=_store(work, sound), length=len(sound))


@step("synthesize.fit", version=1, result=VoicedLine, unit="part")
def fit_line(work: Work, request: FitRequest) -> VoicedLine:
    """Change the tempo of a voiced line, and cut off what has no room, faded."""
    sound = read_audio(work.store.path(request.audio))
    if request.stretched != request.natural:
        sound = stretch(sound, CLOCK, request.natural / request.stretched)
        sound = sound[audible_span(sound, CLOCK)[0]:]
    if len(sound) > request.length:
        sound = fade(sound[:request.length], 0, CUT_FADE if request.length < request.stretched else CUT_FADE // 10)
    return VoicedLine(audio=_store(work, sound), length=len(sound))


def _spoken(work: Work, line: Line, text: TranslatedLine, voice: str, voiced: VoicedLine, fit: Fit) -> SpokenLine:
    fitted = voiced
    if fit.length != voiced.length:
        fitted = perform(work, fit_line, FitRequest(audio=voiced.audio, natural=voiced.length,
                                                    stretched=fit.stretched, length=fit.length), line.id)
    flags = [*text.flags]
    if fit.overflow:
        flags.append(f"overflow: {fit.overflow / CLOCK:.2f} s longer than its slot")
    if fit.cut:
        flags.append(f"cut: {fit.cut / CLOCK:.2f} s of its end have no room before the speaker's next line")
    return SpokenLine(id=line.id, speaker=line.speaker, voice=voice, text=text.text, audio=fitted.audio,
                      start=fit.start, length=fitted.length, slot=fit.slot, planned=(line.start, line.end),
                      natural=voiced.length, stretch=round(voiced.length / fit.stretched, 4), overflow=fit.overflow,
                      flags=tuple(flags))


def _at_clock(samples: Samples, rate: int) -> Samples:
    """Resample to 48 kHz."""
    if rate == CLOCK:
        return samples
    from math import gcd

    from scipy.signal import resample_poly

    common = gcd(CLOCK, rate)
    resampled: Samples = resample_poly(samples, CLOCK // common, rate // common).astype(np.float32)
    return resampled


def _store(work: Work, sound: Samples) -> Artifact:
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        file = Path(folder) / "line.flac"
        write_flac(file, sound)
        return work.store.put_file(file, "audio/flac")


# -- casting ----------------------------------------------------------------------------------------------------------


def cast_voices(work: Work, request: SynthesizeRequest) -> dict[str, str]:
    """Speaker → voice id: the cast's choice, else by pitch, each speaker another voice while there are enough.

    Raises:
        InputError: The language is not spoken, or the cast names a voice that is not there.
    """
    engine: Synthesizer = work.engines.get("synthesizer", request.synthesizer)
    language = request.translation.language
    voices = engine.voices(language)
    if not voices:
        raise InputError(f"{request.synthesizer.name} does not speak {language}",
                         hint="Choose another synthesizer: --set engines.synthesizer=espeak speaks over 100 languages")
    speakers = {s.id: s.pitch_hz for s in request.transcript.speakers}
    speakers |= {line.speaker: None for line in request.transcript.lines if line.speaker not in speakers}
    known = {voice.id for voice in voices}
    # A cast may name any voice of the engine, also a blend; the engine itself refuses what it does not know.
    chosen = {speaker: voice for speaker, voice in request.cast.items() if speaker in speakers}
    for speaker, voice in chosen.items():
        if voice not in known:
            engine.speak("a", voice, language)
    return chosen | _by_pitch({s: p for s, p in speakers.items() if s not in chosen}, voices, set(chosen.values()))


def _by_pitch(speakers: Mapping[str, float | None], voices: Sequence[Voice], taken: set[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for speaker, pitch in speakers.items():
        gender = "" if pitch is None else "female" if pitch >= HIGH_VOICE_HZ else "male"
        fitting = [v.id for v in voices if v.gender == gender or not gender] or [v.id for v in voices]
        free = [voice for voice in fitting if voice not in taken] or fitting
        chosen[speaker] = free[0]
        taken = taken | {free[0]}
    return chosen


# -- finished dialogue ------------------------------------------------------------------------------------------------


@step("dialogue", version=1, result=Speech)
def read_dialogue(work: Work, request: DialogueRequest) -> Speech:
    """Cut a finished dialogue track at the lines: each line is what is heard from its onset to the next line's.

    Raises:
        InputError: Nothing is heard in the track where the transcript has lines.
    """
    path = work.store.path(request.dialogue)
    lines = _paired(request.transcript, request.translation)
    spoken = []
    for number, (line, text) in enumerate(lines):
        work.progress(f"cutting {line.id}", number / max(1, len(lines)))
        later = [other.start for other, _ in lines if other.start > line.start]
        end = min([*later, request.length])
        sound = read_audio(path, start=line.start, length=end - line.start)
        first, last = audible_span(sound, CLOCK)
        if last > first:
            start, heard = line.start + first, fade(sound[first:last], 96, 240)
            spoken.append(SpokenLine(id=line.id, speaker=line.speaker, voice="given", text=text.text,
                                     audio=_store(work, heard), start=start, length=len(heard),
                                     slot=(line.start, end), planned=(line.start, line.end), natural=len(heard),
                                     stretch=1.0, flags=text.flags))
    if lines and not spoken:
        raise InputError("nothing is heard in the given dialogue where the transcript has lines", where="dialogue",
                         hint="Is it the track of this episode, beginning with its first frame?")
    return Speech(language=request.translation.language, lines=tuple(spoken))

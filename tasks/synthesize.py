"""Synthesize: Transcript + Translation → Speech: every line voiced, trimmed and fitted to its slot.

Two items a line. Its voice depends on its text, voice and engine alone; its fit on that voice's sound and the length
it gets. So a line whose neighbour changed is neither voiced again nor, where its slot is the same, other bytes.

Of a line with candidates, that one is voiced which fits best by estimate; where the voice turns out not to fit,
another one, `WORDINGS` at most. Candidates that nobody needs cost nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field

from models.errors import EngineError, InfinidubError, InputError
from models.fit import Fit, PlannedLine, choose_words, fit_lines, slots
from models.onset import BELOW_LOUDEST_DB, audible_span, fade, loudest, spoken_spans, trim
from models.ports import Samples, Synthesizer
from models.rates import spoken_seconds
from models.records import (
    Artifact,
    EngineRef,
    KeptLine,
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
from models.timebase import CLOCK, seconds, ticks
from tasks.casting import cast_voices, other_engines
from tasks.media import audio_blocks, read_audio, stretch, write_flac
from tasks.step import Work, perform, perform_many, step

WORDINGS = 3
"""Wordings of a line that are voiced at most."""
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
                              hint="Change its voice in the cast, or its text: infinidub redo "
                                   f'{work.episode} --lang {request.language} --line {request.id} --text "…"')
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


@step("synthesize", version=5, result=Speech)
def synthesize(work: Work, request: SynthesizeRequest) -> Speech:
    """Voice and fit all lines that say something; those that are kept stay as they are in the source.

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
    dubbed = [(line, target) for line, target in lines if not target.kept]
    kept = [line for line, target in lines if target.kept]
    casting = cast_voices([line.speaker for line, _ in dubbed], request.transcript.speakers, voices, request.cast)
    allowed = slots([line for line, _ in lines], request.length)
    wordings = {line.id: Wordings(line, target, allowed[line.id], casting[line.speaker], language)
                for line, target in dubbed}
    for _ in range(WORDINGS):
        best = {name: each.best for name, each in wordings.items() if each.best not in each.voiced}
        voiced = perform_many(work, voice_line, {
            name: VoiceRequest(id=name, text=wordings[name].texts[number], voice=wordings[name].voice,
                               language=language, take=request.take,
                               synthesizer=_for_voice(request.synthesizer, engine, wordings[name].voice))
            for name, number in best.items()})
        for name, sound in voiced.items():
            wordings[name].voiced[best[name]] = sound
    fits = fit_lines([
        *(PlannedLine(line.id, line.speaker, line.start, line.end, wordings[line.id].sound.length)
          for line, _ in dubbed),
        *(PlannedLine(line.id, line.speaker, line.start, line.end, line.end - line.start, kept=True)
          for line in kept)], request.length)
    flags = _flags(fits, {name: list(each.flags) for name, each in wordings.items()})
    return Speech(language=language, kept=tuple(KeptLine(id=line.id, start=line.start, end=line.end) for line in kept),
                  lines=tuple(_spoken(work, fit, wordings[fit.id], flags[fit.id]) for fit in fits if fit.length))


@dataclass
class Wordings:
    """The ways to say one line, and those that were voiced."""

    line: Line
    target: TranslatedLine
    slot: tuple[Tick, Tick]
    voice: str
    language: str
    voiced: dict[int, Sound] = field(default_factory=dict)
    """By index of the text."""

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The translation's choice first, then its other candidates by score."""
        others = sorted(self.target.candidates, key=lambda each: -each.score)
        return tuple(dict.fromkeys([self.target.text, *(each.text for each in others if _says(each.text))]))

    @cached_property
    def _estimates(self) -> list[float]:
        return [spoken_seconds(text, self.language, self.voice) for text in self.texts]

    @property
    def best(self) -> int:
        """Index of the text to say, by what is known of lengths: a voiced one tells how far estimates are off.

        Once there are `WORDINGS` of them, only those that were voiced count.
        """
        known = {number: sound.length for number, sound in self.voiced.items()}
        numbers = sorted(known) if len(known) == WORDINGS else range(len(self.texts))
        off = sum(known.values()) / sum(ticks(self._estimates[number]) for number in known) if known else 1.0
        lengths = [known.get(number, ticks(off * self._estimates[number])) for number in numbers]
        return numbers[choose_words(lengths, self.line, self.slot)]

    @property
    def sound(self) -> Sound:
        """The voice of what is said."""
        return self.voiced[self.best]

    @property
    def flags(self) -> Iterator[str]:
        """The translation's warnings, and what was not said because it takes too long."""
        yield from self.target.flags
        if self.best:
            takes = seconds(self.voiced[0].length) if 0 in self.voiced else self._estimates[0]
            yield f"rewritten: {self.target.text!r} takes {takes:.2f} s"


def _says(text: str) -> bool:
    return any(map(str.isalnum, text))


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
    return [(line, targets[line.id]) for line in transcript.lines
            if targets[line.id].kept or _says(targets[line.id].text)]


def _spoken(work: Work, fit: Fit, wordings: Wordings, flags: Sequence[str]) -> SpokenLine:
    line, natural = wordings.line, wordings.sound
    as_it_is = fit.length == fit.stretched == natural.length
    fitted = natural if as_it_is else perform(work, fit_voice, FitRequest(
        voice=natural.audio, stretched=fit.stretched, length=fit.length), line.id)
    return SpokenLine(id=line.id, speaker=line.speaker, voice=wordings.voice, text=wordings.texts[wordings.best],
                      audio=fitted.audio, start=fit.start, length=fitted.length, slot=fit.slot,
                      planned=(line.start, line.end), natural=natural.length,
                      stretch=round(natural.length / fit.stretched, 4), overflow=fit.overflow,
                      coverage=_coverage(line, fit.start, read_audio(work.store.path(fitted.audio))),
                      flags=tuple(flags))


def _coverage(line: Line, start: Tick, voice: Samples) -> float:
    """Share of a source line's time in which its voice, laid at `start`, speaks; 1 for a line of no length."""
    heard = [(start + first, start + last) for first, last in spoken_spans(voice, CLOCK)]
    common = sum(max(0, min(line.end, last) - max(line.start, first)) for first, last in heard)
    return round(common / (line.end - line.start), 3) if line.end > line.start else 1.0


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


@step("dialogue", version=2, result=Speech)
def read_dialogue(work: Work, request: DialogueRequest) -> Speech:
    """Cut a finished dialogue track into its lines; nothing that is heard in it is lost.

    Lines that are to be kept, and are silent in it, stay as they are in the source.

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
    spoken, kept, silent = list[SpokenLine](), list[KeptLine](), list[str]()
    for number, (line, target) in enumerate(lines):
        work.progress(f"cutting {line.id}", number / len(lines))
        slot = cuts[number], max(cuts[number], cuts[number + 1])
        piece = _voice_in(path, slot, peak)
        if piece is None and target.kept:
            kept.append(KeptLine(id=line.id, start=line.start, end=line.end))
            continue
        if piece is None:
            silent.append(f"dialogue: {line.id} is silent in the given track")
            continue
        start, sound = piece[0], _store(work, piece[1])
        spoken.append(SpokenLine(
            id=line.id, speaker=line.speaker, voice="given", text=target.text, audio=sound.audio, start=start,
            length=sound.length, slot=slot, planned=(line.start, line.end), natural=sound.length, stretch=1.0,
            coverage=_coverage(line, start, piece[1]), flags=(*target.flags, *silent)))
        silent = []
    if silent and spoken:
        spoken[-1] = spoken[-1].model_copy(update={"flags": (*spoken[-1].flags, *silent)})
    return Speech(language=request.translation.language, lines=tuple(spoken), kept=tuple(kept))


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
